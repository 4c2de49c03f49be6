package serve_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

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
	var ctx context.Context
	ctx, b.stop = context.WithCancel(t.Context())
	go func() { b.done <- s.Run(ctx) }()
	b.client = &http.Client{Transport: &http.Transport{DialContext: b.pipes.dial}}
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
}

type outcome struct {
	code  int
	retry string
	body  string
	err   error
}

// infer sends a request whose data is one number and returns where its outcome will be.
func (b *bubble) infer(ctx context.Context, params string) <-chan outcome {
	c := make(chan outcome, 1)
	go func() {
		body := `{"parameters":{` + params + `},` + jsonBody("[1,3]", "[1,2,3]")[1:]
		r, err := http.NewRequestWithContext(ctx, "POST", "http://s/v2/models/m/infer", strings.NewReader(body))
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
	defer resp.Body.Close()
	return resp.StatusCode
}

// gated is an echo that waits at a gate, obeys its context, and knows when it was closed.
type gated struct {
	fake
	gate    chan struct{}
	running atomic.Int32
	most    atomic.Int32
	runs    atomic.Int32
	closed  atomic.Bool
	late    atomic.Bool // a Run saw the model closed
}

func newGated() *gated {
	g := &gated{gate: make(chan struct{})}
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

func TestFullQueueRefusesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newGated()
		b := newBubble(t, serve.Options{Cores: 2, Queue: 3}, m)
		defer b.finish()
		var accepted []<-chan outcome
		for range 5 {
			accepted = append(accepted, b.infer(t.Context(), ""))
		}
		synctest.Wait()
		before := time.Now()
		for range 10 {
			if o := <-b.infer(t.Context(), ""); o.code != 503 || o.retry == "" || !strings.Contains(o.body, "queue is full") {
				t.Errorf("a full queue answered %+v", o)
			}
		}
		if waited := time.Since(before); waited != 0 {
			t.Errorf("refusals took %v", waited)
		}
		close(m.gate)
		for _, c := range accepted {
			if o := <-c; o.code != 200 || o.err != nil {
				t.Errorf("an accepted request got %+v", o)
			}
		}
		if most := m.most.Load(); most != 2 {
			t.Errorf("%d ran at once on 2 cores", most)
		}
		if o := <-b.infer(t.Context(), ""); o.code != 200 {
			t.Errorf("afterwards: %+v", o)
		}
	})
}

func TestThreadsTakeCores(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newGated()
		m.info.Threads = 2
		b := newBubble(t, serve.Options{Cores: 4}, m)
		defer b.finish()
		var all []<-chan outcome
		for range 6 {
			all = append(all, b.infer(t.Context(), ""))
		}
		synctest.Wait()
		close(m.gate)
		for _, c := range all {
			<-c
		}
		if most := m.most.Load(); most != 2 {
			t.Errorf("%d runs of 2 threads at once on 4 cores", most)
		}
	})
}

func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newGated()
		b := newBubble(t, serve.Options{Cores: 1, Timeout: time.Minute}, m)
		defer b.finish()
		before := time.Now()
		running := b.infer(t.Context(), "")
		synctest.Wait()
		impatient := b.infer(t.Context(), `"timeout":2000000`)
		if o := <-impatient; o.code != 503 || !strings.Contains(o.body, "queue") || time.Since(before) != 2*time.Second {
			t.Errorf("in the queue: %+v after %v", o, time.Since(before))
		}
		if o := <-running; o.code != 504 || time.Since(before) != time.Minute {
			t.Errorf("at work: %+v after %v", o, time.Since(before))
		}
		before = time.Now()
		if o := <-b.infer(t.Context(), `"timeout":9223372036854775808`); o.code != 504 || time.Since(before) != time.Minute {
			t.Errorf("with an endless timeout: %+v after %v", o, time.Since(before))
		}
		close(m.gate)
		if o := <-b.infer(t.Context(), ""); o.code != 200 {
			t.Errorf("afterwards: %+v", o)
		}
	})
}

func TestClientThatLeavesFreesItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newGated()
		b := newBubble(t, serve.Options{Cores: 1, Queue: 1}, m)
		defer b.finish()
		first, leaveFirst := context.WithCancel(t.Context())
		second, leaveSecond := context.WithCancel(t.Context())
		running := b.infer(first, "")
		synctest.Wait()
		queued := b.infer(second, "")
		synctest.Wait()
		leaveSecond()
		if o := <-queued; !errors.Is(o.err, context.Canceled) {
			t.Errorf("the queued one: %+v", o)
		}
		synctest.Wait()
		leaveFirst()
		if o := <-running; !errors.Is(o.err, context.Canceled) {
			t.Errorf("the running one: %+v", o)
		}
		synctest.Wait()
		if n := m.running.Load(); n != 0 {
			t.Errorf("%d still run", n)
		}
		close(m.gate)
		if o := <-b.infer(t.Context(), ""); o.code != 200 || m.runs.Load() != 2 {
			t.Errorf("afterwards: %+v and %d runs", o, m.runs.Load())
		}
	})
}

func TestStopLosesNoAcceptedRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newGated()
		b := newBubble(t, serve.Options{Cores: 2, DrainDelay: 5 * time.Second}, m)
		var accepted []<-chan outcome
		for range 20 {
			accepted = append(accepted, b.infer(t.Context(), ""))
		}
		synctest.Wait()
		b.stop()
		synctest.Wait()
		if code := b.get("/v2/health/ready"); code != 503 {
			t.Errorf("ready says %d while stopping", code)
		}
		if code := b.get("/v2/health/live"); code != 200 {
			t.Errorf("live says %d while stopping", code)
		}
		time.Sleep(6 * time.Second) // the bubble's clock: past the delay
		if o := <-b.infer(t.Context(), ""); o.err == nil {
			t.Errorf("a late request got %+v", o)
		}
		if m.closed.Load() {
			t.Error("the model was closed under its requests")
		}
		close(m.gate)
		for _, c := range accepted {
			if o := <-c; o.code != 200 || o.err != nil {
				t.Errorf("an accepted request got %+v", o)
			}
		}
		b.finish()
		if !m.closed.Load() || m.late.Load() {
			t.Errorf("closed %v, run after close %v", m.closed.Load(), m.late.Load())
		}
	})
}

func TestStopCutsWhatDoesNotEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newGated()
		b := newBubble(t, serve.Options{Cores: 1, Timeout: time.Hour, DrainTimeout: 10 * time.Second}, m)
		running, queued := b.infer(t.Context(), ""), b.infer(t.Context(), "")
		synctest.Wait()
		b.stop()
		for _, c := range []<-chan outcome{running, queued} {
			if o := <-c; o.code != 503 || !strings.Contains(o.body, "stopped") {
				t.Errorf("a cut request got %+v", o)
			}
		}
		b.client.CloseIdleConnections()
		if err := <-b.done; err == nil || !strings.Contains(err.Error(), "10s") {
			t.Errorf("Run: %v", err)
		}
	})
}

// TestSlowClients writes as slowly as hostile clients do; the server must let go at its deadlines.
func TestSlowClients(t *testing.T) {
	head := "POST /v2/models/m/infer HTTP/1.1\r\nHost: s\r\nContent-Length: 1000\r\n\r\n"
	for name, tt := range map[string]struct {
		send  string
		drip  string // every 5 seconds
		limit time.Duration
		want  string
	}{
		"no header":       {"", "", 10 * time.Second, ""},
		"half a header":   {"POST /v2 HTTP/1.1\r\nHo", "x", 10 * time.Second, ""},
		"no body":         {head, "", 10 * time.Second, "408"},
		"half a body":     {head + "{", "", 10 * time.Second, "408"},
		"a dripping body": {head, " ", 60 * time.Second, "408"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBubble(t, serve.Options{BodyTimeout: time.Minute}, echoModel("m", fp32x3))
				defer b.finish()
				conn, err := b.pipes.dial(t.Context(), "", "")
				if err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				var writer sync.WaitGroup
				writer.Go(func() {
					_, err := io.WriteString(conn, tt.send)
					for err == nil && tt.drip != "" {
						time.Sleep(5 * time.Second)
						_, err = io.WriteString(conn, tt.drip)
					}
				})
				answer, err := io.ReadAll(conn)
				if err != nil {
					t.Error(err)
				}
				if took := time.Since(start); took > tt.limit+time.Second || took < tt.limit {
					t.Errorf("let go after %v, the limit is %v", took, tt.limit)
				}
				if !bytes.Contains(answer, []byte(tt.want)) {
					t.Errorf("answered %q", answer)
				}
				if err := conn.Close(); err != nil {
					t.Error(err)
				}
				writer.Wait()
			})
		})
	}
}

func TestPortInUse(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	m := newGated()
	_, err = serve.New(serve.Options{HTTP: ln.Addr().String(), Logger: quiet()}, m)
	if err == nil || !strings.Contains(err.Error(), ln.Addr().String()) || !strings.Contains(err.Error(), "choose another") {
		t.Errorf("New: %v", err)
	}
	if !m.closed.Load() {
		t.Error("the model was not closed")
	}
}

func TestVersionsLoadWhenAsked(t *testing.T) {
	m := echoModel("m", fp32x3)
	m.info.Version, m.info.Versions = "3", []string{"1", "2", "3"}
	var loads atomic.Int32
	url := start(t, serve.Options{Load: func(_ context.Context, name, version string) (serve.Model, error) {
		loads.Add(1)
		if version == "2" {
			return nil, fmt.Errorf("no such file %s", name)
		}
		old := echoModel(name, fp32x3)
		old.info.Version, old.info.Versions = version, m.info.Versions
		return old, nil
	}}, m)
	body := []byte(jsonBody("[1,3]", "[1,2,3]"))
	for range 3 {
		for version, code := range map[string]int{"": 200, "/versions/3": 200, "/versions/1": 200, "/versions/2": 503, "/versions/4": 404} {
			r := send(t, "POST", url+"/v2/models/m"+version+"/infer", nil, body)
			if r.code != code {
				t.Errorf("%q: %d %s", version, r.code, r.body)
			}
			if version == "/versions/1" && !strings.Contains(string(r.body), `"model_version":"1"`) {
				t.Errorf("answered %s", r.body)
			}
		}
	}
	if n := loads.Load(); n != 2 {
		t.Errorf("%d loads of two versions, one of them broken", n)
	}
}

func TestMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	url := start(t, serve.Options{Registry: registry}, echoModel("m", fp32x3), serve.Classifier())
	send(t, "POST", url+"/v2/models/m/infer", nil, []byte(jsonBody("[2,3]", "[1,2,3,4,5,6]")))
	send(t, "POST", url+"/v2/models/c/classify", nil, serve.SeedImages(t)["image/png"])
	send(t, "POST", url+"/v2/models/m/infer", nil, nil)
	for i := range 50 {
		send(t, "POST", fmt.Sprintf("%s/v2/models/made-up-%d/infer", url, i), nil, nil)
		send(t, "GET", fmt.Sprintf("%s/made/up/%d", url, i), nil, nil)
	}
	text := string(send(t, "GET", url+"/metrics", nil, nil).body)
	for _, want := range []string{
		`spos_serve_requests_total{code="200",model="m",route="infer",version="1"} 1`,
		`spos_serve_requests_total{code="400",model="m",route="infer",version="1"} 1`,
		`spos_serve_requests_total{code="404",model="",route="infer",version=""} 50`,
		`spos_serve_requests_total{code="404",model="",route="unknown",version=""} 50`,
		`spos_serve_inferences_total{model="m",version="1"} 2`,
		`spos_serve_inferences_total{model="c",version="1"} 1`,
		`spos_serve_decode_seconds_count{model="c",version="1"} 1`,
		`spos_serve_queue_seconds_bucket{model="m",version="1",le="0.0005"}`,
		`spos_serve_compute_seconds_count{model="m",version="1"} 1`,
		`spos_serve_running{model="m",version="1"} 0`,
		`spos_serve_queued{model="m",version="1"} 0`,
		`spos_serve_in_flight 1`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s", want)
		}
	}
	if strings.Contains(text, "made") {
		t.Error("a request's own name became a label")
	}
}
