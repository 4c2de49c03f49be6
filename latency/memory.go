package latency

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// Memory is how fast the machine's memory was around a session: the time of a
// pass over more of it than the caches hold. What other guests of a machine
// read and write slows a model that is more than its share of the last cache by
// several percent for minutes on end, while the clock and a convolution that
// fits are as ever. Zero where it was not looked.
type Memory struct {
	Before time.Duration `json:"before_ns,omitempty"` // before the warm-up
	After  time.Duration `json:"after_ns,omitempty"`  // after the last run
	Usual  time.Duration `json:"usual_ns,omitempty"`  // what it is on the average while nothing else works here, as far as known then
}

const (
	passes     = 3
	cacheLine  = 64 // bytes
	leastSweep = 8 << 20
	mostSweep  = 64 << 20
	lately     = 10_000 // looks that the average is over
)

// heavy says whether a model of so many bytes feels the memory: one that is
// lighter than a quarter of the last cache stays in it, whatever others put
// there (docs/lab.md). cache is 0 where it is unknown.
func heavy(bytes, cache int) bool { return bytes >= cmp.Or(cache, leastSweep)/4 }

// sweep is memory to pass over.
type sweep []uint64

// newSweep is for a last cache of some bytes, 0 where that is unknown. It lives
// as long as the program.
func newSweep(cache int) sweep {
	s := sweep(smallPages(min(max(cache+cache/2, leastSweep), mostSweep)))
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

// looked says whether there was a look before and after.
func (m Memory) looked() bool { return m.Before > 0 && m.After > 0 }

// besideWork says whether another processor worked for most of the sample. That
// slows a pass by a tenth and more, and models less.
func (s Sample) besideWork() bool { return s.Disturbance.Contention() > 0.5 }

// look is the logarithm of a look's time, and when it was.
type look struct{ at, log float64 } // at in seconds

// looksOf are those around the samples, in order; none of samples that do not
// say when they began.
func looksOf(models [][]Sample) []look {
	var all []look
	for _, samples := range models {
		for _, s := range samples {
			if s.Memory.looked() && !s.Started.IsZero() {
				begin, end := s.span()
				all = append(all, look{begin, math.Log(float64(s.Memory.Before))}, look{end, math.Log(float64(s.Memory.After))})
			}
		}
	}
	slices.SortFunc(all, func(a, b look) int { return cmp.Compare(a.at, b.at) })
	return all
}

// span is when the sample was taken, in seconds.
func (s Sample) span() (begin, end float64) {
	begin = float64(s.Started.UnixNano()) / 1e9
	took := s.Create
	for _, d := range slices.Concat(s.Warmup, s.Runs) {
		took += d
	}
	return begin, begin + took.Seconds()
}

// around is the mean of the looks around a session, weighted by how far they are
// from its middle. One deviates from the next as much as the memory's speed
// changes, which takes seconds.
func around(looks []look, begin, end float64) float64 {
	at, width := (begin+end)/2, max(1, (end-begin)/2) // seconds; a standard deviation
	first, _ := slices.BinarySearchFunc(looks, at-3*width, func(l look, at float64) int { return cmp.Compare(l.at, at) })
	sum, weights := 0.0, 0.0
	for _, l := range looks[first:] {
		if l.at > at+3*width {
			break
		}
		d := (l.at - at) / width
		w := math.Exp(-d * d / 2)
		sum += w * l.log
		weights += w
	}
	return sum / weights
}

// slownesses are the logarithms of how much slower than usual the memory was
// around each sample, not further from 0 than what is believed; NaN where it was
// not looked, or nothing is known of what is usual.
func slownesses(models [][]Sample) [][]float64 {
	const believed = 0.4
	looks, usual := looksOf(models), lastUsual(models)
	slow := make([][]float64, len(models))
	for i, samples := range models {
		slow[i] = make([]float64, len(samples))
		for k, s := range samples {
			if !s.Memory.looked() || usual <= 0 {
				slow[i][k] = math.NaN()
				continue
			}
			x := (math.Log(float64(s.Memory.Before)) + math.Log(float64(s.Memory.After))) / 2
			if !s.Started.IsZero() {
				begin, end := s.span()
				x = around(looks, begin, end)
			}
			slow[i][k] = min(max(x-math.Log(float64(usual)), -believed), believed)
		}
	}
	return slow
}

// What [heavy] models feel of the memory's speed before they have told: slopes
// on logarithmic scales, and how far these lie apart (docs/lab.md has where it
// was measured).
const (
	feltAssumed = 0.2
	feltApart   = 0.05
)

// felt is the slope of sessions' times over the memory's, on logarithmic scales,
// within models and one for all that were measured together, and its standard
// deviation: least squares together with what is assumed, for of a few sessions
// there is little to learn. Slow memory makes nothing faster.
func felt(models [][]Sample, slow [][]float64) (slope, deviation float64) {
	const ridge = DefaultSpread * DefaultSpread / (feltApart * feltApart)
	xx, xy := ridge, ridge*feltAssumed
	for i, samples := range models {
		quiet := quietest(samples)
		var x, y []float64
		for k, s := range samples {
			if !math.IsNaN(slow[i][k]) && s.Reference.slowdown(quiet) <= loud {
				x, y = append(x, slow[i][k]), append(y, math.Log(steady(s.Runs)))
			}
		}
		center(x)
		center(y)
		xx, xy = xx+dot(x, x), xy+dot(x, y)
	}
	return max(0, xy/xx), DefaultSpread / math.Sqrt(xx)
}

// eased are the samples with what the memory's speed did to them taken out: as
// they would have been had it been as usual. unsure is how far that may be
// wrong for each model, relative: what the slope leaves open, times how far the
// memory was from usual.
func eased(models [][]Sample) (like [][]Sample, unsure []float64) {
	slow := slownesses(models)
	slope, deviation := felt(models, slow)
	like, unsure = make([][]Sample, len(models)), make([]float64, len(models))
	for i, samples := range models {
		like[i] = slices.Clone(samples)
		far, n := 0.0, 0.0
		for k, x := range slow[i] {
			if !math.IsNaN(x) {
				like[i][k].Runs = scaled(samples[k].Runs, math.Exp(-slope*x))
				far, n = far+x, n+1
			}
		}
		if n > 0 {
			unsure[i] = deviation * math.Abs(far) / n
		}
	}
	return like, unsure
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

// center takes the mean off.
func center(x []float64) {
	m := mean(x)
	for i := range x {
		x[i] -= m
	}
}

func mean(x []float64) float64 {
	sum := 0.0
	for _, v := range x {
		sum += v / float64(len(x))
	}
	return sum
}
