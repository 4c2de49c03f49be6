package serve_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"runtime"
	"sync"
	"testing"
	"unsafe"

	"spos/serve"
)

// span is a piece of memory.
type span struct{ from, to uintptr }

func spanOf(b []byte) span {
	at := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	return span{at, at + uintptr(len(b))}
}

// spying notes where the bytes of its connections are read to.
type spying struct {
	net.Listener
	mu    sync.Mutex
	reads []span
}

type spyingConn struct {
	net.Conn
	w *spying
}

func (w *spying) Accept() (net.Conn, error) {
	c, err := w.Listener.Accept()
	return &spyingConn{c, w}, err
}

func (c *spyingConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	c.w.reads = append(c.w.reads, spanOf(b[:n]))
	return n, err
}

// within is how many bytes of s were read into place.
func (w *spying) within(s span) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, r := range w.reads {
		if from, to := max(r.from, s.from), min(r.to, s.to); from < to {
			n += int(to - from)
		}
	}
	w.reads = nil
	return n
}

// TestRawIsReadIntoPlace: the bytes of a raw request go from the socket to where the model reads them, but for those that
// net/http took with the header, and no request's body becomes garbage.
func TestRawIsReadIntoPlace(t *testing.T) {
	const size, buffer = 4 * 3 * 224 * 224, 4 << 10
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &spying{Listener: ln}
	m := echoModel("m", serve.TensorInfo{Name: "x", Type: serve.FP32, Shape: []int64{-1, 3, 224, 224}})
	m.info.Outputs = []serve.TensorInfo{{Name: "y", Type: serve.FP32, Shape: []int64{-1, 4}}}
	inPlace := 0
	m.run = func(_ context.Context, in, out []serve.Tensor) error {
		if s := spanOf(in[0].Data); s.from%64 == 0 {
			inPlace = w.within(s)
		}
		out[0].Shape, out[0].Data = []int64{1, 4}, out[0].Data[:16]
		return nil
	}
	start(t, serve.Options{Listener: w}, m)
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	request := []byte(httpRequest("/v2/models/m/infer", lengthHeader+": 0\r\n", make([]byte, size), false))
	answers := bufio.NewReader(conn)
	ask := func() {
		if _, err := conn.Write(request); err != nil {
			t.Fatal(err)
		}
		r, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, r.Body); err != nil || r.StatusCode != http.StatusOK {
			t.Fatal(r.Status, err)
		}
		if inPlace < size-buffer {
			t.Fatalf("%d bytes of %d were read into place", inPlace, size)
		}
	}
	ask()
	const n = 50
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range n {
		ask()
	}
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / n; each > size/2 { // the race detector has the pool lose some
		t.Errorf("%d bytes became garbage with a request of %d", each, size)
	}
}
