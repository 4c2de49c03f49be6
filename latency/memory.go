package latency

import (
	"math"
	"slices"
	"time"
)

// Memory is how fast the machine's memory was around a session: the time of a
// pass over more of it than the caches hold. What other guests of a machine
// read and write slows a model whose weights do not stay in its core's own
// cache by several percent for minutes on end, while the clock and a
// convolution that fits are as ever. Zero where it was not looked.
type Memory struct {
	Before time.Duration `json:"before_ns,omitempty"` // before the warm-up
	After  time.Duration `json:"after_ns,omitempty"`  // after the last run
	Usual  time.Duration `json:"usual_ns,omitempty"`  // what it has been on the average, as far as known then
}

const (
	heavy      = 4 << 20 // bytes of a model: lighter ones stay in the core's own cache
	passes     = 3
	cacheLine  = 64 // bytes
	leastSweep = 8 << 20
	mostSweep  = 64 << 20
	lately     = 1000 // looks that the average is over
)

// sweep is memory to pass over.
type sweep []uint64

// newSweep is for a last cache of some bytes, 0 where that is unknown.
func newSweep(cache int) sweep {
	s := make(sweep, min(max(cache+cache/2, leastSweep), mostSweep)/8)
	for i := range s {
		s[i] = uint64(i) // or all of it is one page
	}
	return s
}

// look is the time of a pass, the median of several.
func (s sweep) look() time.Duration {
	times := make([]time.Duration, passes)
	for i := range times {
		start := time.Now()
		sum := uint64(0)
		for j := 0; j < len(s); j += cacheLine / 8 {
			sum += s[j]
		}
		times[i] = time.Since(start)
		if sum == 0 { // keeps the sum: it is never 0
			times[i] = 0
		}
	}
	return time.Duration(median(times))
}

// average takes another look into an average of logarithms over n looks.
func average(usual, now time.Duration, n int) time.Duration {
	if usual <= 0 || n == 0 {
		return now
	}
	log := math.Log(float64(usual))
	return fromLog(log + (math.Log(float64(now))-log)/float64(n+1))
}

// slowness is the logarithm of how much slower than usual the memory was, not
// further from 0 than what is believed; ok is false where it was not looked.
func (m Memory) slowness(usual time.Duration) (x float64, ok bool) {
	const believed = 0.4
	if m.Before <= 0 || m.After <= 0 || usual <= 0 {
		return 0, false
	}
	x = (math.Log(float64(m.Before))+math.Log(float64(m.After)))/2 - math.Log(float64(usual))
	return min(max(x, -believed), believed), true
}

// eased are the samples with what the memory's speed did to them taken out: as
// they would have been had it been as usual. How much of it a model feels is
// the slope of sessions' times over it, on logarithmic scales, within models,
// and one for all that were measured together. It is assumed to be 0 to within
// .1 before they have told, which leaves little of the slope of a few sessions
// and nearly all of that of fifty; slow memory makes nothing faster.
func eased(models [][]Sample) [][]Sample {
	const assumed, spread = 0.1, DefaultSpread
	usual := lastUsual(models)
	var xx, xy float64
	for _, samples := range models {
		var x, y []float64
		for _, s := range alone(samples) {
			if slow, ok := s.Memory.slowness(usual); ok {
				x, y = append(x, slow), append(y, math.Log(steady(s.Runs)))
			}
		}
		a, b := mean(x), mean(y)
		for i := range x {
			xx += (x[i] - a) * (x[i] - a)
			xy += (x[i] - a) * (y[i] - b)
		}
	}
	slope := max(0, xy/(xx+spread*spread/(assumed*assumed)))
	if slope == 0 {
		return models
	}
	out := make([][]Sample, len(models))
	for i, samples := range models {
		out[i] = slices.Clone(samples)
		for k, s := range samples {
			if slow, ok := s.Memory.slowness(usual); ok {
				out[i][k].Runs = scaled(s.Runs, math.Exp(-slope*slow))
			}
		}
	}
	return out
}

// felt is how far the memory may move the samples' model between times.
func felt(samples []Sample) float64 {
	if slices.ContainsFunc(samples, func(s Sample) bool { return s.Memory != (Memory{}) }) {
		return driftMemory
	}
	return 0
}

// lastUsual is what the last of the samples knew.
func lastUsual(models [][]Sample) time.Duration {
	var last time.Time
	var usual time.Duration
	for _, samples := range models {
		for _, s := range samples {
			if s.Memory.Usual > 0 && !s.Started.Before(last) {
				last, usual = s.Started, s.Memory.Usual
			}
		}
	}
	return usual
}

func scaled(runs []time.Duration, by float64) []time.Duration {
	out := make([]time.Duration, len(runs))
	for i, d := range runs {
		out[i] = time.Duration(math.Round(float64(d) * by))
	}
	return out
}

func mean(x []float64) float64 {
	sum := 0.0
	for _, v := range x {
		sum += v / float64(len(x))
	}
	return sum
}
