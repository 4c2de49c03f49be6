package serve_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"

	"spos/serve"
)

// pipes is a network inside a synctest bubble: no kernel, and deadlines on the bubble's clock.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
}

func newPipes() *pipes { return &pipes{make(chan net.Conn), make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	select {
	case <-p.done:
	default:
		close(p.done)
	}
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes", Net: "unix"} }

func (p *pipes) dial(context.Context, string, string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case p.conns <- theirs:
		return ours, nil
	case <-p.done:
		return nil, errors.Join(ours.Close(), errors.New("refused"))
	}
}

// bubble is a server on pipes and a client of it. The bubble's end proves that no goroutine is left.
type bubble struct {
	t      *testing.T
	server *serve.Server
	pipes  *pipes
	client *http.Client
	stop   context.CancelFunc
	done   chan error
}

func newBubble(t *testing.T, o serve.Options, models ...serve.Model) *bubble {
	t.Helper()
	b := &bubble{t: t, pipes: newPipes(), done: make(chan error, 1)}
	o.Listener, o.Logger = b.pipes, quiet()
	if o.Registry == nil {
		o.Registry = prometheus.NewRegistry()
	}
	s, err := serve.New(o, models...)
	if err != nil {
		t.Fatal(err)
	}
	b.server = s
	var ctx context.Context
	ctx, b.stop = context.WithCancel(t.Context())
	go func() { b.done <- s.Run(ctx) }()
	b.client = &http.Client{Transport: &contract{next: &http.Transport{DialContext: b.pipes.dial}}}
	synctest.Wait()
	return b
}

func (b *bubble) finish() {
	b.t.Helper()
	b.client.CloseIdleConnections()
	b.stop()
	if err := <-b.done; err != nil {
		b.t.Errorf("Run: %v", err)
	}
	if held := serve.Held(b.server); held != 0 {
		b.t.Errorf("%d bytes of requests are held after all of them", held)
	}
}

type outcome struct {
	code  int
	retry string
	body  string
	err   error
}

// infer sends a request whose data is one number and returns where its outcome will be.
func (b *bubble) infer(ctx context.Context, params string) <-chan outcome {
	return b.do(ctx, "POST", "/v2/models/m/infer", `{"parameters":{`+params+`},`+jsonBody("[1,3]", "[1,2,3]")[1:])
}

// do sends a request and returns where its outcome will be.
func (b *bubble) do(ctx context.Context, method, path, body string) <-chan outcome {
	c := make(chan outcome, 1)
	go func() {
		r, err := http.NewRequestWithContext(ctx, method, "http://s"+path, strings.NewReader(body))
		if err != nil {
			c <- outcome{err: err}
			return
		}
		resp, err := b.client.Do(r)
		if err != nil {
			c <- outcome{err: err}
			return
		}
		text, err := io.ReadAll(resp.Body)
		c <- outcome{resp.StatusCode, resp.Header.Get("Retry-After"), string(text), errors.Join(err, resp.Body.Close())}
	}()
	return c
}

func (b *bubble) get(path string) int {
	b.t.Helper()
	resp, err := b.client.Get("http://s" + path)
	if err != nil {
		b.t.Fatal(err)
	}
	// A body that was read to its end leaves the connection open for the next request.
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		b.t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil {
		b.t.Fatal(err)
	}
	return resp.StatusCode
}

// gated is an echo that waits at a gate, obeys its context, and knows when it was closed.
type gated struct {
	fake
	gate    chan struct{}
	running *atomic.Int32
	most    atomic.Int32
	runs    *atomic.Int32
	closed  atomic.Bool
	late    atomic.Bool // a Run saw the model closed
}

func newGated() *gated {
	g := &gated{gate: make(chan struct{}), running: new(atomic.Int32), runs: new(atomic.Int32)}
	g.info = echoModel("m", fp32x3).info
	g.run = func(ctx context.Context, in, out []serve.Tensor) error {
		g.runs.Add(1)
		n := g.running.Add(1)
		defer g.running.Add(-1)
		for m := g.most.Load(); n > m && !g.most.CompareAndSwap(m, n); m = g.most.Load() {
		}
		select {
		case <-g.gate:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if g.closed.Load() {
			g.late.Store(true)
		}
		return echo(ctx, in, out)
	}
	return g
}

func (g *gated) Close() error {
	g.closed.Store(true)
	return nil
}
