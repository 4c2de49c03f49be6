package serve_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"spos/serve"
)

// slow is an echo that takes its time.
func slow(name string, takes time.Duration) *fake {
	m := echoModel(name, fp32x3)
	m.run = func(ctx context.Context, in, out []serve.Tensor) error {
		time.Sleep(takes)
		return echo(ctx, in, out)
	}
	return m
}

func promise() *serve.Promise {
	return &serve.Promise{
		P50: 4, Low: 3.9, High: 4.2, Limit: 5, Batch: 1, Fingerprint: "f00",
		Conditions: map[string]string{"cpu": "A", "cores": "2", "threads": "1"},
	}
}

func conditions(cpu string) func(int) map[string]string {
	return func(threads int) map[string]string {
		// The promise was written before "build" was told.
		return map[string]string{"cpu": cpu, "cores": "2", "build": "x", "threads": string(rune('0' + threads))}
	}
}

// properties reads a model's metadata.
func (b *bubble) properties(model string) map[string]string {
	b.t.Helper()
	resp, err := b.client.Get("http://s/v2/models/" + model)
	if err != nil {
		b.t.Fatal(err)
	}
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	var m struct{ Properties map[string]string }
	if err := json.Unmarshal(text, &m); err != nil {
		b.t.Fatal(err)
	}
	return m.Properties
}

// TestServedBesidePromised: both latencies are told, and that the served one is above what was promised; a minute
// later nothing is left of it.
func TestServedBesidePromised(t *testing.T) {
	for name, tt := range map[string]struct {
		takes         time.Duration
		cpu           string
		slower, moved float64
	}{
		"kept":                {4 * time.Millisecond, "A", 0, 0},
		"kept elsewhere":      {4 * time.Millisecond, "B", 0, 1},
		"slower":              {5 * time.Millisecond, "A", 1, 0},
		"slower, other cores": {5 * time.Millisecond, "B", 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				registry := prometheus.NewRegistry()
				m := slow("m", tt.takes)
				m.info.Promise = promise()
				b := newBubble(t, serve.Options{Registry: registry, Conditions: conditions(tt.cpu)}, m, echoModel("free", fp32x3))
				for range 19 {
					<-b.infer(t.Context(), "")
				}
				if got := value(t, registry, "spos_serve_latency_above_promise", "m"); got != 0 {
					t.Error("a verdict after 19 runs")
				}
				<-b.infer(t.Context(), "")
				for metric, want := range map[string]float64{
					"spos_serve_latency_above_promise":        tt.slower,
					"spos_serve_latency_fingerprint_mismatch": tt.moved,
					"spos_serve_promised_latency_seconds":     0.004 + 0.0039 + 0.0042 + 0.005,
				} {
					if got := value(t, registry, metric, "m"); !near(got, want, 1e-9) {
						t.Errorf("%s is %v, want %v", metric, got, want)
					}
					if value(t, registry, metric, "free") != 0 {
						t.Errorf("%s of a model without a promise", metric)
					}
				}
				ms := tt.takes.Seconds() * 1e3
				l := b.server.Latencies()[1]
				if l.Name != "m" || l.Run.Count != 20 || !near(l.Run.P50, ms, 0.02*ms) || !near(l.Run.P95, ms, 0.02*ms) ||
					!near(l.Request.P50, ms, 0.02*ms) || l.Slower != (tt.slower == 1) || len(l.Differs) != int(tt.moved) {
					t.Errorf("latency %+v", l)
				}
				p := b.properties("m")
				if p["latency.promised_p50_ms"] != "4" || p["latency.promised_high_ms"] != "4.2" || p["latency.promised_limit_ms"] != "5" ||
					p["latency.fingerprint"] != "f00" || p["latency.run_p50_ms"] == "" || p["latency.request_p95_ms"] == "" ||
					(p["latency.differs"] == "cpu") != (tt.moved == 1) {
					t.Errorf("properties %v", p)
				}
				time.Sleep(70 * time.Second)
				if l := b.server.Latencies()[1]; l.Run.Count != 0 || l.Slower {
					t.Errorf("a minute later %+v", l)
				}
				if got := value(t, registry, "spos_serve_recent_run_seconds", "m"); got != 0 {
					t.Errorf("a minute later the metric is %v", got)
				}
				b.finish()
			})
		})
	}
}

func near(a, b, by float64) bool { return a-b <= by && b-a <= by }

// TestOtherBatchesAreNotHeldAgainstIt: a promise for one item says nothing of a batch.
func TestOtherBatchesAreNotHeldAgainstIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := slow("m", time.Second)
		m.info.Promise = promise()
		b := newBubble(t, serve.Options{}, m)
		for range 25 {
			resp, err := b.client.Post("http://s/v2/models/m/infer", "", strings.NewReader(jsonBody("[2,3]", "[1,2,3,4,5,6]")))
			if err != nil || resp.StatusCode != 200 {
				t.Fatal(resp, err)
			}
			if err := resp.Body.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if l := b.server.Latencies()[0]; l.Run.Count != 0 || l.Request.Count == 0 || l.Slower {
			t.Errorf("latency %+v", l)
		}
		b.finish()
	})
}

// TestMismatchIsLoggedOnce, with what differs.
func TestMismatchIsLoggedOnce(t *testing.T) {
	var log bytes.Buffer
	m := echoModel("m", fp32x3)
	m.info.Promise = promise()
	m.info.Promise.Conditions["turbo"] = "on\x1b[2J"
	s, err := serve.New(serve.Options{HTTP: "127.0.0.1:0", Logger: slog.New(slog.NewTextHandler(&log, nil)), Conditions: conditions("B")}, m)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	text := log.String()
	if n := strings.Count(text, "measured under other conditions"); n != 1 {
		t.Errorf("%d lines, want 1:\n%s", n, text)
	}
	for _, part := range []string{"level=WARN", "model=m", "cpu: A there, B here", "turbo: on", "none here"} {
		if !strings.Contains(text, part) {
			t.Errorf("no %q in %s", part, text)
		}
	}
	if strings.Contains(text, "cores") || strings.Contains(text, "\x1b") {
		t.Errorf("log %q", text)
	}
}
