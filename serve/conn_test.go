package serve_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"

	"spos/serve"
)

// wireEvents notes writes to connections and to the log, in their order.
type wireEvents struct {
	net.Listener
	mu     sync.Mutex
	events []string
}

func (w *wireEvents) add(e string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, e)
}

func (w *wireEvents) Accept() (net.Conn, error) {
	c, err := w.Listener.Accept()
	return &eventConn{c, w}, err
}

func (w *wireEvents) Write(p []byte) (int, error) { // of the log
	if bytes.Contains(p, []byte("msg=request")) {
		w.add("line")
	}
	return len(p), nil
}

type eventConn struct {
	net.Conn
	w *wireEvents
}

func (c *eventConn) Write(p []byte) (int, error) {
	c.w.add("answer")
	return c.Conn.Write(p)
}

// TestAnswerGoesOutAtOnce holds short answers to one write, the last thing before they are accounted for.
func TestAnswerGoesOutAtOnce(t *testing.T) {
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wireEvents{Listener: ln}
	in := serve.TensorInfo{Name: "x", Type: serve.FP32, Shape: []int64{1000}}
	url := start(t, serve.Options{Listener: w, Logger: slog.New(slog.NewTextHandler(w, nil))}, echoModel("m", in))
	for range 3 {
		body := bytes.Repeat([]byte{1, 2, 3, 0}, 1000) // with a header, more than net/http sends at a time
		r := send(t, "POST", url+"/v2/models/m/infer", map[string]string{"Inference-Header-Content-Length": "0"}, body)
		if r.code != http.StatusOK || !bytes.HasSuffix(r.body, body) {
			t.Fatalf("%d, %d bytes", r.code, len(r.body))
		}
	}
	send(t, "POST", url+"/v2/models/m/infer", nil, []byte("{"))
	w.mu.Lock()
	defer w.mu.Unlock()
	// The line of the last may be yet to come.
	if got := fmt.Sprint(w.events[:7]); got != "[answer line answer line answer line answer]" {
		t.Errorf("%s", got)
	}
}

// TestWasteEndsWithTheBody sends bodies that are refused unread, each with the next request right behind it: of that no
// byte may be lost.
func TestWasteEndsWithTheBody(t *testing.T) {
	url := start(t, serve.Options{}, echoModel("m", serve.TensorInfo{Name: "x", Type: serve.FP32, Shape: []int64{2}}))
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", url[len("http://"):])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	answers := bufio.NewReader(conn)
	post := func(w io.Writer, model string, body []byte) {
		fmt.Fprintf(w, "POST /v2/models/%s/infer HTTP/1.1\r\nHost: localhost\r\nInference-Header-Content-Length: 0\r\nContent-Length: %d\r\n\r\n", model, len(body))
		_, _ = w.Write(body) // to memory
	}
	for _, size := range []int{1, 4 << 10, 8<<10 - 150, 8 << 10, 8<<10 + 1, 100_000, 600_000, 1 << 20} {
		var b bytes.Buffer
		post(&b, "none", bytes.Repeat([]byte("POST /"), size/6+1)[:size])
		post(&b, "m", floats(1, float32(size)))
		sent := make(chan error, 1)
		go func() {
			_, err := conn.Write(b.Bytes())
			sent <- err
		}()
		for _, want := range []int{http.StatusNotFound, http.StatusOK} {
			r, err := http.ReadResponse(answers, nil)
			if err != nil {
				t.Fatalf("%d bytes: %v", size, err)
			}
			body, err := io.ReadAll(r.Body)
			if err != nil || r.StatusCode != want || want == http.StatusOK && !bytes.HasSuffix(body, floats(1, float32(size))) {
				t.Fatalf("%d bytes: %s, %v: %.300q", size, r.Status, err, body)
			}
		}
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
	}
}
