package serve_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"

	"spos/serve"
)

// rack is a Source of gated models, each of one version "1".
type rack struct {
	mu     sync.Mutex
	names  []string
	models map[string]*gated // the last one made
}

func (r *rack) Scan(context.Context) (map[string]serve.Listing, error) {
	all := map[string]serve.Listing{}
	for _, name := range r.names {
		all[name] = serve.Listing{Versions: map[string]string{"1": "r"}}
	}
	return all, nil
}

func (r *rack) Load(_ context.Context, name, version string) (serve.Model, error) {
	m := newGated()
	m.info.Name, m.info.Version = name, version
	r.mu.Lock()
	defer r.mu.Unlock()
	r.models[name] = m
	return m, nil
}

// seriesOf counts the series that carry the name of a model.
func seriesOf(t *testing.T, r *prometheus.Registry, model string) int {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "model" && strings.HasPrefix(l.GetValue(), model) {
					n++
				}
			}
		}
	}
	return n
}

func (b *bubble) post(path string) {
	b.t.Helper()
	resp, err := b.client.Post("http://s"+path, "", nil)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil || resp.StatusCode != 200 {
		b.t.Fatalf("POST %s: %d, %v", path, resp.StatusCode, err)
	}
}

// TestSeriesEndWithTheModel: a model that is unloaded takes its series along, once its last request is counted, and
// comes back with new ones.
func TestSeriesEndWithTheModel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := prometheus.NewRegistry()
		src := &rack{names: []string{"m"}, models: map[string]*gated{}}
		b := newBubble(t, serve.Options{Registry: registry, Source: src, ModelControl: true})
		for range 2 {
			b.post("/v2/repository/models/m/load")
			first := src.models["m"]
			answer := b.infer(t.Context(), "")
			synctest.Wait()
			b.post("/v2/repository/models/m/unload")
			synctest.Wait()
			if n := seriesOf(t, registry, "m"); n == 0 {
				t.Error("the series of a running request are gone")
			}
			close(first.gate)
			if o := <-answer; o.code != 200 || o.err != nil {
				t.Errorf("answer %+v", o)
			}
			synctest.Wait()
			if n := seriesOf(t, registry, "m"); n != 0 {
				t.Errorf("%d series of a model that was unloaded", n)
			}
		}
		for i := range 20 {
			src.names = append(src.names, fmt.Sprintf("m%d", i))
			b.post(fmt.Sprintf("/v2/repository/models/m%d/load", i))
			b.post(fmt.Sprintf("/v2/repository/models/m%d/unload", i))
		}
		synctest.Wait()
		if n := seriesOf(t, registry, "m"); n != 0 {
			t.Errorf("%d series of models that were unloaded", n)
		}
		b.finish()
	})
}

// TestSeriesOutliveASwap: a version that is replaced by its next revision goes on counting where it was.
func TestSeriesOutliveASwap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := prometheus.NewRegistry()
		src := newRevisions()
		b := newBubble(t, serve.Options{Registry: registry, Source: src, ModelControl: true})
		for range 3 {
			b.post("/v2/repository/models/m/load")
			if o := <-b.infer(t.Context(), ""); o.code != 200 {
				t.Fatalf("answer %+v", o)
			}
			synctest.Wait()
		}
		if got := value(t, registry, "spos_serve_inferences_total", "m"); got != 3 {
			t.Errorf("%v inferences counted over two swaps, want 3", got)
		}
		b.finish()
	})
}

// revisions is a Source whose one model is of another revision each time.
type revisions struct{ n int }

func newRevisions() *revisions { return &revisions{} }

func (r *revisions) Scan(context.Context) (map[string]serve.Listing, error) {
	r.n++
	return map[string]serve.Listing{"m": {Versions: map[string]string{"1": fmt.Sprint(r.n)}}}, nil
}

func (r *revisions) Load(_ context.Context, name, version string) (serve.Model, error) {
	m := echoModel(name, fp32x3)
	m.info.Revision = fmt.Sprint(r.n)
	return m, nil
}

// value is the sum of the counters and gauges of one name that carry a model's name.
func value(t *testing.T, r *prometheus.Registry, name, model string) float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "model" && l.GetValue() == model {
					sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
				}
			}
		}
	}
	return sum
}
