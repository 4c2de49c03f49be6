package serve_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

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

// value is the sum of the counters and gauges of one name that carry all of some values of labels.
func value(t *testing.T, r *prometheus.Registry, name string, labels ...string) float64 {
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
			has := map[string]bool{}
			for _, l := range m.GetLabel() {
				has[l.GetValue()] = true
			}
			if !slices.ContainsFunc(labels, func(l string) bool { return !has[l] }) {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// TestHistogramsAggregate: buckets from half a millisecond to ten seconds, the same for every model; and native ones.
func TestHistogramsAggregate(t *testing.T) {
	registry := prometheus.NewRegistry()
	url := start(t, serve.Options{Registry: registry}, echoModel("m", fp32x3))
	send(t, "POST", url+"/v2/models/m/infer", nil, []byte(jsonBody("[1,3]", "[1,2,3]")))
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, f := range families {
		for _, m := range f.GetMetric() {
			h := m.GetHistogram()
			if h == nil || h.GetSampleCount() == 0 {
				continue
			}
			seen++
			b := h.GetBucket()
			if first, last := b[0].GetUpperBound(), b[len(b)-1].GetUpperBound(); first != 0.0005 || last != 10 {
				t.Errorf("%s: buckets from %g to %g", f.GetName(), first, last)
			}
			if h.GetSchema() < 2 {
				t.Errorf("%s: native buckets of schema %d", f.GetName(), h.GetSchema())
			}
		}
	}
	if seen < 3 {
		t.Errorf("%d histograms of a request", seen)
	}
}

// TestTritonMetrics: dashboards made for Triton find its names, with what they mean.
func TestTritonMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := prometheus.NewRegistry()
		m := slow("m", 3*time.Millisecond)
		fail := errors.New("broken")
		run := m.run
		m.run = func(ctx context.Context, in, out []serve.Tensor) error {
			if in[0].Data[0] == 1 {
				return fail
			}
			return run(ctx, in, out)
		}
		b := newBubble(t, serve.Options{Registry: registry, TritonMetrics: true, Cores: 1, Queue: 1}, m)
		send := func(params, data string) <-chan outcome {
			c := make(chan outcome, 1)
			go func() {
				resp, err := b.client.Post("http://s/v2/models/m/infer", "", strings.NewReader(`{`+params+`"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":`+data+`}]}`))
				if err == nil {
					err = resp.Body.Close()
				}
				c <- outcome{err: err}
			}()
			return c
		}
		<-send("", "[1,2,3]")
		<-send("", "[1,2,3]")
		<-send("", "[1,2]")          // OTHER
		<-send("", "[1.4e-45,2,3]")  // its first byte is 1: BACKEND
		first := send("", "[1,2,3]") // runs
		synctest.Wait()
		second := send("", "[1,2,3]") // waits
		synctest.Wait()
		if got := value(t, registry, "nv_inference_pending_request_count", "m"); got != 1 {
			t.Errorf("%v requests wait, want 1", got)
		}
		<-send("", "[1,2,3]") // REJECTED: the queue is full
		<-first
		<-second
		late := send("", "[1,2,3]")
		synctest.Wait()
		<-send(`"parameters":{"timeout":1000},`, "[1,2,3]") // REJECTED: its time ran out in the queue
		<-late
		synctest.Wait()
		for name, want := range map[string]float64{
			"nv_inference_request_success":            5,
			"nv_inference_count":                      5,
			"nv_inference_exec_count":                 5,
			"nv_inference_request_failure":            4,
			"nv_inference_request_duration_us":        18_000, // five runs, and one wait for one
			"nv_inference_queue_duration_us":          3_000,
			"nv_inference_compute_infer_duration_us":  15_000,
			"nv_inference_compute_input_duration_us":  0,
			"nv_inference_compute_output_duration_us": 0,
			"nv_inference_pending_request_count":      0,
		} {
			if got := value(t, registry, name, "m"); got != want {
				t.Errorf("%s is %v, want %v", name, got, want)
			}
		}
		for reason, want := range map[string]float64{"REJECTED": 2, "CANCELED": 0, "BACKEND": 1, "OTHER": 1} {
			if got := value(t, registry, "nv_inference_request_failure", "m", reason); got != want {
				t.Errorf("%v failures %s, want %v", got, reason, want)
			}
		}
		b.finish()
	})
}

// exposition is what a scrape of a server that has seen all kinds of requests gets.
func exposition(t *testing.T) []byte {
	t.Helper()
	m := echoModel("m", fp32x3)
	m.info.Promise = promise()
	url := start(t, serve.Options{Conditions: conditions("B")}, m, serve.Classifier())
	send(t, "POST", url+"/v2/models/m/infer", nil, []byte(jsonBody("[1,3]", "[1,2,3]")))
	send(t, "POST", url+"/v2/models/c/classify", nil, serve.SeedImages(t)["image/png"])
	send(t, "POST", url+"/v2/models/c/classify", nil, []byte("no picture"))
	send(t, "GET", url+"/nowhere", nil, nil)
	return send(t, "GET", url+"/metrics", nil, nil).body
}

// TestMetricNames holds names, units and help to Prometheus's rules, with the rules of promtool.
func TestMetricNames(t *testing.T) {
	problems, err := promlint.New(bytes.NewReader(exposition(t))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// TestPromtool does the same with promtool itself.
func TestPromtool(t *testing.T) {
	tool := cmp.Or(os.Getenv("SPOS_PROMTOOL"), "promtool")
	if _, err := exec.LookPath(tool); err != nil {
		t.Skip("no promtool: `make promtool` builds and uses it")
	}
	check := exec.CommandContext(t.Context(), tool, "check", "metrics")
	check.Stdin = bytes.NewReader(exposition(t))
	if out, err := check.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}
