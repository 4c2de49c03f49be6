package serve

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// collector is a [prometheus.Collector] of what is known of each loaded version anyway, made when it is asked for:
// requests pay nothing for it, and what is unloaded is not in it.
type collector struct {
	all     []*prometheus.Desc
	collect func(v *version, send func(d *prometheus.Desc, t prometheus.ValueType, x float64, labels ...string))
	s       *Server
}

// Describe implements [prometheus.Collector].
func (c *collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range c.all {
		to <- d
	}
}

// Collect implements [prometheus.Collector].
func (c *collector) Collect(to chan<- prometheus.Metric) {
	for _, e := range *c.s.catalog.Load() {
		for _, sl := range e.slots {
			v := sl.live.Load()
			if v == nil {
				continue
			}
			c.collect(v, func(d *prometheus.Desc, t prometheus.ValueType, x float64, labels ...string) {
				to <- prometheus.MustNewConstMetric(d, t, x, append([]string{sl.name, sl.version}, labels...)...)
			})
		}
	}
}

// add makes a metric that carries model, version and more labels.
func (c *collector) add(name, help string, labels ...string) *prometheus.Desc {
	d := prometheus.NewDesc(name, help, append([]string{"model", "version"}, labels...), nil)
	c.all = append(c.all, d)
	return d
}

// newLatencyCollector tells the latencies of [Server.Latencies]. The statistic is a label of its own name: quantile is
// for summaries, which do not aggregate and cost every request.
func newLatencyCollector(s *Server) prometheus.Collector {
	const prefix = "spos_serve_"
	c := &collector{s: s}
	promised := c.add(prefix+"promised_latency_seconds", "Latency of one run that the model's file promises: p50, the low and high end of its 95 % interval, and the limit that it was to stay below.", "stat")
	ran := c.add(prefix+"recent_run_seconds", "Latency of one run in the last minute, at the batch of the promise or 1.", "stat")
	answered := c.add(prefix+"recent_request_seconds", "Time from a request's last byte to its answer in the last minute.", "stat")
	mismatch := c.add(prefix+"latency_fingerprint_mismatch", "1 where the promise was measured on another machine or under other settings.")
	slower := c.add(prefix+"latency_above_promise", "1 where the median run of the last minute is above the promise's upper end.")
	c.collect = func(v *version, send func(*prometheus.Desc, prometheus.ValueType, float64, ...string)) {
		l := v.latency(time.Now())
		gauge := func(d *prometheus.Desc, x float64, labels ...string) { send(d, prometheus.GaugeValue, x, labels...) }
		for d, w := range map[*prometheus.Desc]Served{ran: l.Run, answered: l.Request} {
			if w.Count > 0 {
				gauge(d, w.P50/1e3, "p50")
				gauge(d, w.P95/1e3, "p95")
			}
		}
		p := l.Promise
		if p == nil {
			return
		}
		for stat, ms := range map[string]float64{"p50": p.P50, "low": p.Low, "high": p.High, "limit": p.Limit} {
			if ms > 0 {
				gauge(promised, ms/1e3, stat)
			}
		}
		gauge(slower, flag(l.Slower))
		if c.s.opt.Conditions != nil {
			gauge(mismatch, flag(len(l.Differs) > 0))
		}
	}
	return c
}

// newTritonCollector tells statistics under Triton's names. They break Prometheus's own rules for names, which is why
// they have to be asked for.
func newTritonCollector(s *Server) prometheus.Collector {
	c := &collector{s: s}
	type counter struct {
		desc *prometheus.Desc
		read func(*ModelStats) uint64
	}
	us := func(s Spent) uint64 { return s.NS / 1000 }
	counters := []counter{
		{c.add("nv_inference_request_success", "Number of successful inference requests."), func(m *ModelStats) uint64 { return m.Requests.Success.Count }},
		{c.add("nv_inference_count", "Number of inferences: a batch counts each of its items."), func(m *ModelStats) uint64 { return m.Inferences }},
		{c.add("nv_inference_exec_count", "Number of runs of the model."), func(m *ModelStats) uint64 { return m.Executions }},
		{c.add("nv_inference_request_duration_us", "Time of successful requests in microseconds."), func(m *ModelStats) uint64 { return us(m.Requests.Success) }},
		{c.add("nv_inference_queue_duration_us", "Time that successful requests waited in microseconds."), func(m *ModelStats) uint64 { return us(m.Requests.Queue) }},
		{c.add("nv_inference_compute_input_duration_us", "Time of making the model's inputs in microseconds."), func(m *ModelStats) uint64 { return us(m.Requests.Input) }},
		{c.add("nv_inference_compute_infer_duration_us", "Time of running the model in microseconds."), func(m *ModelStats) uint64 { return us(m.Requests.Infer) }},
		{c.add("nv_inference_compute_output_duration_us", "Time of making answers in microseconds."), func(m *ModelStats) uint64 { return us(m.Requests.Output) }},
	}
	failed := c.add("nv_inference_request_failure", "Number of failed inference requests, by reason.", "reason")
	pending := c.add("nv_inference_pending_request_count", "Number of requests that wait to be run.")
	reasons := [numFailures]string{failRejected: "REJECTED", failCanceled: "CANCELED", failBackend: "BACKEND", failOther: "OTHER"}
	c.collect = func(v *version, send func(*prometheus.Desc, prometheus.ValueType, float64, ...string)) {
		m := v.stats.read()
		for _, k := range counters {
			send(k.desc, prometheus.CounterValue, float64(k.read(&m)))
		}
		for f, reason := range reasons {
			send(failed, prometheus.CounterValue, float64(v.stats.failures[f].Load()), reason)
		}
		var waiting dto.Metric
		if v.met.queued.Write(&waiting) == nil {
			send(pending, prometheus.GaugeValue, waiting.GetGauge().GetValue())
		}
	}
	return c
}

func flag(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
