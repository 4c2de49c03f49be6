package serve

import (
	"maps"
	"strconv"
	"strings"
	"time"
)

// VersionLatency is how long one version takes: as its file promises, and as it was served in the last minute.
type VersionLatency struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	// Run is of the model alone, at the batch of the promise, or 1; Request from a request's last byte to its answer,
	// the wait for cores and the decoding of pictures included.
	Run     Served `json:"run"`
	Request Served `json:"request"`
	// Promise is nil where the file makes none.
	Promise *Promise `json:"promise,omitempty"`
	// Differs names the conditions of the promise that are others here; see [Options].Conditions.
	Differs []string `json:"differs,omitempty"`
	// Slower says that the median run is above the promise's upper end.
	Slower bool `json:"slower"`
}

// Served are quantiles of the last minute in milliseconds; zeros where nothing was served.
type Served struct {
	Count uint64  `json:"count"`
	P50   float64 `json:"p50_ms"`
	P95   float64 `json:"p95_ms"`
}

// enoughRuns is how many runs a median is of before it is held against a promise.
const enoughRuns = 20

// Latencies are those of all versions that are loaded, in the order of their names.
func (s *Server) Latencies() []VersionLatency {
	all := []VersionLatency{}
	c := *s.catalog.Load()
	for _, name := range c.sorted() {
		for _, sl := range c[name].sorted() {
			if v := sl.live.Load(); v != nil {
				all = append(all, v.latency(time.Now()))
			}
		}
	}
	return all
}

func (v *version) latency(now time.Time) VersionLatency {
	l := VersionLatency{
		Name: v.info.Name, Version: v.info.Version, Promise: v.info.Promise, Differs: v.differs,
		Run: served(&v.stats.runs, now), Request: served(&v.stats.requests, now),
	}
	l.Slower = l.Promise != nil && l.Run.Count >= enoughRuns && l.Run.P50 > l.Promise.High
	return l
}

func served(w *window, now time.Time) Served {
	n, q := w.read(now, 0.5, 0.95)
	return Served{n, q[0].Seconds() * 1e3, q[1].Seconds() * 1e3}
}

// properties are what a version's metadata shows: where it came from, and its latency.
func (v *version) properties() map[string]string {
	all := maps.Clone(v.info.Properties)
	if all == nil {
		all = map[string]string{}
	}
	set := func(name string, ms float64) {
		if ms > 0 {
			all["latency."+name+"_ms"] = strconv.FormatFloat(ms, 'g', 4, 64)
		}
	}
	l := v.latency(time.Now())
	if p := l.Promise; p != nil {
		set("promised_p50", p.P50)
		set("promised_low", p.Low)
		set("promised_high", p.High)
		set("promised_limit", p.Limit)
		all["latency.fingerprint"] = p.Fingerprint
		all["latency.differs"] = strings.Join(l.Differs, ", ")
	}
	set("run_p50", l.Run.P50)
	set("run_p95", l.Run.P95)
	set("request_p50", l.Request.P50)
	set("request_p95", l.Request.P95)
	return all
}
