package serve

import (
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
)

// measured is a server with one model, for what surrounds its runs.
func measured(b *testing.B, tracer trace.TracerProvider) (*Server, *version) {
	b.Helper()
	m := classifier()
	m.info.Recipe, m.info.Promise = nil, &Promise{P50: 1, Low: 1, High: 1, Batch: 1}
	s, err := New(Options{HTTP: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler), Tracer: tracer}, m)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	return s, (*s.catalog.Load())["c"].slots["1"].live.Load()
}

// BenchmarkAccounting is all that counting costs one inference: every metric, statistic and window that it touches.
func BenchmarkAccounting(b *testing.B) {
	s, v := measured(b, nil)
	account := func() {
		s.met.inFlight.Inc()
		if err := v.gate.admit(); err != nil {
			b.Error(err)
		}
		if _, err := v.gate.enter(b.Context()); err != nil {
			b.Error(err)
		}
		began := time.Now()
		v.met.compute.Observe(0.004)
		v.gate.pace.add(4 * time.Millisecond)
		v.stats.execution(1, began, 0, 4*time.Millisecond)
		v.met.inferences.Add(1)
		v.gate.exit()
		v.gate.leave()
		v.stats.request(&spans{start: began, end: began.Add(5 * time.Millisecond), infer: 4 * time.Millisecond, items: 1}, nil)
		s.met.of(v).count("infer", "200", 5*time.Millisecond)
		s.met.inFlight.Dec()
	}
	b.Run("one", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			account()
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.RunParallel(func(p *testing.PB) {
			for p.Next() {
				account()
			}
		})
	})
}

// TestAccountingIsCheap bounds what counting allocates, which is what makes it slow under load.
func TestAccountingIsCheap(t *testing.T) {
	m, err := newMetrics(nil)
	if err != nil {
		t.Fatal(err)
	}
	mm, st := m.model("m", "1"), &stats{}
	sp := &spans{start: time.Now(), end: time.Now(), items: 1}
	once := func() {
		mm.count("infer", "200", time.Millisecond)
		mm.queue.Observe(0.001)
		st.execution(1, sp.start, 0, time.Millisecond)
		st.request(sp, nil)
	}
	once()
	if n := testing.AllocsPerRun(100, once); n > 1 { // the batch's size as a key
		t.Errorf("%v allocations a request", n)
	}
}

// BenchmarkTracing is a request without a network, with tracing off and on.
func BenchmarkTracing(b *testing.B) {
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0"
	body := `{"inputs":[{"name":"input","shape":[1,3,4,4],"datatype":"FP32","data":[` + strings.Repeat("0,", 47) + `0]}]}`
	on := func() trace.TracerProvider {
		return sdk.NewTracerProvider(sdk.WithBatcher(tracetest.NewNoopExporter()))
	}
	for name, bm := range map[string]struct {
		tracer trace.TracerProvider
		parent string
	}{
		"off":             {},
		"off, with trace": {parent: parent + "1"},
		"not sampled":     {on(), parent + "0"},
		"sampled":         {on(), parent + "1"},
	} {
		b.Run(name, func(b *testing.B) {
			s, _ := measured(b, bm.tracer)
			b.ReportAllocs()
			for b.Loop() {
				r := httptest.NewRequest("POST", "http://127.0.0.1/v2/models/c/infer", strings.NewReader(body))
				if bm.parent != "" {
					r.Header.Set("traceparent", bm.parent)
				}
				w := httptest.NewRecorder()
				s.ServeHTTP(w, r)
				if w.Code != 200 {
					b.Fatal(w.Code, w.Body)
				}
			}
		})
	}
}
