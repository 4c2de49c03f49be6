package serve_test

import (
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/net/http2"

	"spos/serve"
	"spos/serve/keys/keystest"
)

// closedPipe is a log whose reader is gone.
type closedPipe struct{ lines atomic.Int64 }

func (c *closedPipe) Write([]byte) (int, error) {
	c.lines.Add(1)
	return 0, syscall.EPIPE
}

func testClosedLog(t *testing.T) {
	var pipe closedPipe
	url := start(t, serve.Options{Logger: slog.New(slog.NewTextHandler(&pipe, nil))}, echoModel("m", fp32x3))
	for _, body := range []string{jsonBody("[1,3]", "[1,2,3]"), "{"} {
		if r := send(t, "POST", url+"/v2/models/m/infer", nil, []byte(body)); r.code != 200 && r.code != 400 {
			t.Errorf("%d %s", r.code, r.body)
		}
	}
	if pipe.lines.Load() == 0 {
		t.Error("nothing was logged")
	}
}

// exhausted is a listener of a process that has no descriptor left for the first connections.
type exhausted struct {
	net.Listener
	failures atomic.Int32
}

func (e *exhausted) Accept() (net.Conn, error) {
	if e.failures.Add(1) <= 3 {
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: syscall.EMFILE}
	}
	return e.Listener.Accept()
}

func testNoDescriptors(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := &exhausted{Listener: ln}
	url := start(t, serve.Options{Listener: e, MaxConns: 2}, echoModel("m", fp32x3)) // a place that is lost is missed
	for range 3 {
		if r := send(t, "POST", url+"/v2/models/m/infer", nil, []byte(jsonBody("[1,3]", "[1,2,3]"))); r.code != 200 {
			t.Errorf("%d %s", r.code, r.body)
		}
	}
	if n := e.failures.Load(); n <= 3 {
		t.Errorf("accepted %d times", n)
	}
}

// testContinuationFlood sends a header that never ends; the server must hang up, not gather it.
func testContinuationFlood(t *testing.T) {
	ca := keystest.NewAuthority(t, "ca")
	files := secrets(t, ca)
	files.ClientCA = ""
	url := startTLS(t, serve.Options{TLS: files}, echoModel("m", fp32x3))
	conn, err := tls.Dial("tcp", strings.TrimPrefix(url, "https://"), &tls.Config{RootCAs: ca.Pool(), NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	var read sync.WaitGroup
	read.Go(func() { _, _ = io.Copy(io.Discard, conn) })
	_, err = io.WriteString(conn, http2.ClientPreface)
	framer := http2.NewFramer(conn, conn)
	err = errors.Join(err, framer.WriteSettings(), framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x82}}))
	// A literal field without indexing, of a name and value of 4 KiB.
	field := append([]byte{0x00, 0x01, 'x', 0x7f, 0x81, 0x1f}, []byte(strings.Repeat("v", 4<<10))...)
	sent := 0
	for ; err == nil && sent < 1<<16; sent++ {
		err = framer.WriteContinuation(1, false, field)
	}
	if err == nil {
		t.Errorf("the server read %d frames of one header", sent)
	}
	_ = conn.Close() // the server has closed it
	read.Wait()
	if r, _, err := post(t.Context(), secure(t, ca, "HTTP/2.0"), url+"/v2/models/m/infer", []byte(jsonBody("[1,3]", "[1,2,3]"))); err != nil || r.StatusCode != 200 {
		t.Errorf("another client: %v %v", r, err)
	}
}
