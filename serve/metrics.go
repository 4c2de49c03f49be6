package serve

import (
	"maps"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// latencyBuckets reach from half a millisecond, a small model on a fast core, to the longest that a client waits.
var latencyBuckets = []float64{.0005, .001, .002, .003, .005, .0075, .01, .015, .02, .03, .05, .075, .1, .2, .5, 1, 2, 5, 10}

// metrics are the server's own. The labels model and version only ever hold names of models that are served, so that
// requests cannot make up new series.
type metrics struct {
	scrape     http.Handler
	scrapers   chan struct{} // a place for each that may read at a time
	requests   *prometheus.CounterVec
	seconds    *prometheus.HistogramVec
	rejects    *prometheus.CounterVec
	queue      *prometheus.HistogramVec
	compute    *prometheus.HistogramVec
	decode     *prometheus.HistogramVec
	running    *prometheus.GaugeVec
	queued     *prometheus.GaugeVec
	inferences *prometheus.CounterVec
	inFlight   prometheus.Gauge
	panics     prometheus.Counter
	refused    *prometheus.CounterVec
	tokens     *prometheus.CounterVec

	none   requestMetrics // of requests that led to no model
	mu     sync.Mutex
	models map[[2]string]*modelMetrics // by name and version
}

// modelMetrics are the series of one version of a model, each looked up once.
type modelMetrics struct {
	requestMetrics
	queue, compute, decode prometheus.Observer
	running, queued        prometheus.Gauge
	inferences             prometheus.Counter
	rejects                *prometheus.CounterVec

	users int // versions that are loaded or drain; metrics.mu guards it
}

// requestMetrics are the series of requests that led to one version of a model, or to none.
type requestMetrics struct {
	all           *metrics
	name, version string
	series        atomic.Pointer[map[outcomeKey]outcomeSeries] // never changed, only replaced
}

// outcomeKey is what series of requests differ in. Both are of small sets: routes of the server, and codes of HTTP and
// gRPC.
type outcomeKey struct{ route, code string }

type outcomeSeries struct {
	requests prometheus.Counter
	seconds  prometheus.Observer
}

// of is where requests that led to v are counted; nil is to none.
func (m *metrics) of(v *version) *requestMetrics {
	if v == nil {
		return &m.none
	}
	return &v.met.requestMetrics
}

// count is for a request that is over, of any protocol.
func (m *requestMetrics) count(route, code string, took time.Duration) {
	key := outcomeKey{route, code}
	s, ok := (*m.series.Load())[key]
	if !ok {
		s = m.lookup(key)
	}
	s.requests.Inc()
	s.seconds.Observe(took.Seconds())
}

func (m *requestMetrics) lookup(key outcomeKey) outcomeSeries {
	m.all.mu.Lock()
	defer m.all.mu.Unlock()
	s := outcomeSeries{
		m.all.requests.WithLabelValues(key.route, key.code, m.name, m.version),
		m.all.seconds.WithLabelValues(key.route, m.name, m.version),
	}
	next := maps.Clone(*m.series.Load())
	next[key] = s
	m.series.Store(&next)
	return s
}

// newMetrics registers the server's metrics and more collectors.
func newMetrics(r *prometheus.Registry, more ...prometheus.Collector) (*metrics, error) {
	all := []prometheus.Collector{}
	if r == nil {
		r = prometheus.NewRegistry()
		all = append(all, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	}
	opts := func(name, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: "spos", Subsystem: "serve", Name: name, Help: help}
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts(opts(name, help)), labels)
		all = append(all, c)
		return c
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		g := prometheus.NewGaugeVec(prometheus.GaugeOpts(opts(name, help)), labels)
		all = append(all, g)
		return g
	}
	histogram := func(name, help string, labels ...string) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "spos", Subsystem: "serve", Name: name, Help: help, Buckets: latencyBuckets,
			// For a Prometheus that asks for them, also native ones, exact to a tenth.
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100, NativeHistogramMinResetDuration: time.Hour,
		}, labels)
		all = append(all, h)
		return h
	}
	m := &metrics{
		scrape:     promhttp.HandlerFor(r, promhttp.HandlerOpts{}),
		scrapers:   make(chan struct{}, 4),
		requests:   counter("requests_total", "Requests by route and status; 499 is a client that went away.", "route", "code", "model", "version"),
		seconds:    histogram("request_seconds", "Time from a request's header to the end of its answer.", "route", "model", "version"),
		rejects:    counter("rejected_total", "Requests that were not computed to the end, by reason; of no model where it was not known yet.", "model", "version", "reason"),
		queue:      histogram("queue_seconds", "Time that requests waited for cores.", "model", "version"),
		compute:    histogram("compute_seconds", "Time of one run of the model.", "model", "version"),
		decode:     histogram("decode_seconds", "Time from a picture's bytes to the model's input.", "model", "version"),
		running:    gauge("running", "Requests at work in the model.", "model", "version"),
		queued:     gauge("queued", "Requests that wait for cores.", "model", "version"),
		inferences: counter("inferences_total", "Items inferred: a batch counts each of its own.", "model", "version"),
		inFlight:   prometheus.NewGauge(prometheus.GaugeOpts(opts("in_flight", "Requests between header and answer."))),
		refused:    counter("refused_total", "Requests that may not be made, by reason: no_token, unknown_token, scope, host or origin.", "reason"),
		tokens:     counter("token_requests_total", "Requests by the name of their token.", "token"),
		panics:     prometheus.NewCounter(prometheus.CounterOpts(opts("panics_total", "Requests that met a bug in the server."))),
	}
	m.models = map[[2]string]*modelMetrics{}
	m.none.init(m, "", "")
	for _, c := range append(append(all, m.inFlight, m.panics), more...) {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// model is the series of a version, until as many calls of release.
func (m *metrics) model(name, version string) *modelMetrics {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := [2]string{name, version}
	mm := m.models[key]
	if mm == nil {
		l := prometheus.Labels{"model": name, "version": version}
		mm = &modelMetrics{
			queue: m.queue.With(l), compute: m.compute.With(l), decode: m.decode.With(l),
			running: m.running.With(l), queued: m.queued.With(l), inferences: m.inferences.With(l),
			rejects: m.rejects.MustCurryWith(l),
		}
		mm.init(m, name, version)
		m.models[key] = mm
	}
	mm.users++
	return mm
}

func (m *requestMetrics) init(all *metrics, name, version string) {
	m.all, m.name, m.version = all, name, version
	m.series.Store(&map[outcomeKey]outcomeSeries{})
}

// release drops the series of a version when nothing of it is loaded any more.
func (m *metrics) release(mm *modelMetrics) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if mm.users--; mm.users > 0 {
		return
	}
	delete(m.models, [2]string{mm.name, mm.version})
	l := prometheus.Labels{"model": mm.name, "version": mm.version}
	for _, c := range []interface {
		DeletePartialMatch(prometheus.Labels) int
	}{m.requests, m.seconds, m.rejects, m.queue, m.compute, m.decode, m.running, m.queued, m.inferences} {
		c.DeletePartialMatch(l)
	}
}

// rejected counts one of a handful of reasons.
func (m *modelMetrics) rejected(reason string) { m.rejects.WithLabelValues(reason).Inc() }
