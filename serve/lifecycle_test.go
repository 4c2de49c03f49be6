package serve_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"spos/serve"
)

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
		before = time.Now()
		if o := <-b.infer(t.Context(), `"timeout":1`); o.code != 504 || time.Since(before) != time.Microsecond {
			t.Errorf("with a microsecond: %+v after %v", o, time.Since(before))
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

// TestClientThatDoesNotRead never takes its answer; the server must get rid of it, or it could not stop.
func TestClientThatDoesNotRead(t *testing.T) {
	for name, request := range map[string]string{
		"an answer": "GET /v2 HTTP/1.1\r\nHost: s\r\n\r\n",
		"metrics":   "GET /metrics HTTP/1.1\r\nHost: s\r\n\r\n",
		"methods":   "OPTIONS /v2 HTTP/1.1\r\nHost: s\r\n\r\n",
		"leave":     "POST /v2/models/m/infer HTTP/1.1\r\nHost: s\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBubble(t, serve.Options{WriteIdleTimeout: 20 * time.Second, DrainTimeout: time.Minute}, echoModel("m", fp32x3))
				conn := b.mute(request)
				start := time.Now()
				b.finish()
				if took := time.Since(start); took < 20*time.Second || took > 25*time.Second {
					t.Errorf("it took %v to stop", took)
				}
				if err := conn.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// mute sends a request over a connection that nobody reads, and returns when the server writes.
func (b *bubble) mute(request string) net.Conn {
	b.t.Helper()
	conn, err := b.pipes.dial(b.t.Context(), "", "")
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := io.WriteString(conn, request); err != nil {
		b.t.Fatal(err)
	}
	synctest.Wait()
	return conn
}

// TestMuteScrapers: who reads no metrics keeps others from them for a while, not for good.
func TestMuteScrapers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, serve.Options{WriteIdleTimeout: 20 * time.Second}, echoModel("m", fp32x3))
		defer b.finish()
		for range 4 {
			defer b.mute("GET /metrics HTTP/1.1\r\nHost: s\r\n\r\n").Close()
		}
		if code := b.get("/metrics"); code != 503 {
			t.Errorf("beside those that do not read: %d", code)
		}
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if code := b.get("/metrics"); code != 200 {
			t.Errorf("after their time: %d", code)
		}
	})
}

func TestConnectionsAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, serve.Options{MaxConns: 1, IdleTimeout: time.Minute}, echoModel("m", fp32x3))
		defer b.finish()
		if code := b.get("/v2"); code != 200 { // its connection stays open
			t.Fatal(code)
		}
		start := time.Now()
		second, err := b.pipes.dial(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(start); waited != time.Minute {
			t.Errorf("a second connection was accepted after %v", waited)
		}
		if err := second.Close(); err != nil {
			t.Error(err)
		}
	})
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
