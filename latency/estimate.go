package latency

import (
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// DefaultSpread is the relative standard deviation between the medians of two
// sessions of one model that [Estimate] assumes before it has seen several:
// see docs/lab.md for where it was measured.
const DefaultSpread = 0.015

// Estimate is a latency with its uncertainty.
//
// The interval is a prediction: in 95 of 100 cases, the P50 of a repeat of
// this measurement, in another process at another time, lies within it. That
// is wider than an interval of the true median, by √2 and by what times
// differ, and it is what one can check, and what a limit is held to later.
//
// P50 is what half the runs take of the quiet quarter of a measurement: within
// each session the lower quartile of the medians of stretches of five runs, and
// the lower quartile of the sessions. What disturbs a run only ever slows it,
// for some runs or some sessions on end, and with a neighbour there for half
// the time a median over all hangs on how many met it. Repeats differ by less
// than half as much for it (docs/lab.md).
//
// The interval is a bootstrap of both measurements: sessions are drawn with
// replacement. Sessions are few, and a plain bootstrap of few is far
// too narrow: of one it has no width at all. So the variance between sessions
// is taken as that of the sessions seen together with an assumed one, which
// counts for four more (the conjugate update of a scaled inverse chi-square),
// and never below what the runs within a session leave open, by a
// bootstrap of blocks of them (neighbours are correlated); noise is added to
// the drawn sessions to reach it; and each replicate's deviations are
// stretched by √(ν/χ²ν), which gives Student's tails for a variance known from
// ν samples. All on a logarithmic scale, as disturbances are relative. The
// draw is seeded: the same runs give the same interval.
//
// The assumed variance is [Protocol.Spread]'s, taught by the other models of
// the same [MeasureAll]; both it and the difference between times grow with
// the work that was seen on the other processors ([Disturbance.Contention]),
// the latter also with how far the level of all these models moved meanwhile.
// Sessions are first set to the memory's usual speed where that was looked at
// ([Memory]).
// A machine that is in another mode at the other time (another clock, a
// neighbour that has come) is beyond any interval: a [Sentinel] sees that.
type Estimate struct {
	P50      time.Duration // what half the runs take when nothing disturbs them
	P90      time.Duration // of all runs
	Min      time.Duration // of all runs: what the code takes when nothing disturbs
	Low      time.Duration // 95 % interval of a repeat's P50
	High     time.Duration
	Runs     int
	Sessions int
}

const (
	replicates  = 1000
	resamples   = 200 // of the runs of one session
	confidence  = 0.95
	maxGroups   = 256 // runs of one session that are resampled one by one
	bootSeed    = 1
	priorWeight = 4 // how many sessions the assumed spread counts for
)

// all puts in what is of all runs.
func (e *Estimate) all(samples []Sample) {
	var runs []time.Duration
	for _, s := range samples {
		runs = append(runs, s.Runs...)
	}
	slices.Sort(runs)
	e.Runs, e.Sessions = len(runs), len(samples)
	e.Min = runs[0]
	e.P90 = runs[quantileIndex(len(runs), 0.9)]
}

// estimate is P50 and its interval. It needs at least one session and a run in
// each; spread is the assumed deviation between sessions, drift that between
// times.
func estimate(sessions [][]time.Duration, spread, drift float64) Estimate {
	var e Estimate
	n := 0
	logs := make([][]float64, len(sessions)) // runs
	each := make([]float64, len(sessions))   // steady
	for i, runs := range sessions {
		n += len(runs)
		logs[i] = logGroups(runs)
		each[i] = math.Log(steady(runs))
	}
	e.P50 = fromLog(quartile(slices.Clone(each)))

	rng := rand.New(rand.NewPCG(bootSeed, uint64(n)))
	within := 0.0
	for _, x := range logs {
		within += sumSquares(blockSteady(rng, x)) / resamples / float64(len(logs))
	}
	b := newBootstrap(quartile, each, spread, within)
	draws := make([]float64, replicates)
	for r := range draws {
		stretch := b.stretch(rng)
		draws[r] = b.center + b.deviation(rng, stretch) - b.deviation(rng, stretch) + drift*rng.NormFloat64()
	}
	slices.Sort(draws)
	tail := (1 - confidence) / 2
	e.Low = min(e.P50, fromLog(draws[quantileIndex(replicates, tail)]))
	e.High = max(e.P50, fromLog(draws[quantileIndex(replicates, 1-tail)]))
	return e
}

// bootstrap draws what the middle of a few values could have been: see
// [Estimate].
type bootstrap struct {
	middle func([]float64) float64 // may sort its argument
	values []float64
	picked []float64
	center float64
	noise  float64 // what drawing the values does not bring
	nu     float64 // samples that the variance is known from
}

// newBootstrap assumes a standard deviation between the values, and a variance
// that theirs is not below.
func newBootstrap(middle func([]float64) float64, values []float64, spread, least float64) *bootstrap {
	n := float64(len(values))
	sum := sumSquares(values)
	nu := priorWeight + n - 1
	variance := (priorWeight*spread*spread + sum) / nu
	return &bootstrap{
		middle: middle, values: values, picked: make([]float64, len(values)), center: middle(slices.Clone(values)), nu: nu,
		noise: math.Sqrt(max(variance, least) - min(sum/n, variance)),
	}
}

// stretch is one draw of how wrong the variance is.
func (b *bootstrap) stretch(rng *rand.Rand) float64 { return math.Sqrt(b.nu / chiSquare(rng, b.nu)) }

// deviation is one draw of the middle's.
func (b *bootstrap) deviation(rng *rand.Rand, stretch float64) float64 {
	for i := range b.picked {
		b.picked[i] = stretch * (b.values[rng.IntN(len(b.values))] - b.center + b.noise*rng.NormFloat64())
	}
	return b.middle(b.picked)
}

// spreads are the deviations between sessions to assume for each of several
// models that were measured together: what is assumed of any, and what the
// others have shown. Their deviation is the median one, scaled to a normal
// distribution's: sessions that stray widely move no median either. A model's
// own sessions count in [estimate].
func spreads(models [][][]time.Duration, assumed []float64) []float64 {
	const normal = 1.4826 // standard deviations over median absolute ones
	off := make([][]float64, len(models))
	for i, sessions := range models {
		if len(sessions) < 2 {
			continue // tells nothing of differences
		}
		each := make([]float64, len(sessions))
		for j, runs := range sessions {
			each[j] = math.Log(max(1, steady(runs)))
		}
		center, n := median(slices.Clone(each)), float64(len(each))
		for _, x := range each {
			off[i] = append(off[i], math.Abs(x-center)*math.Sqrt(n/(n-1)))
		}
	}
	found := make([]float64, len(models))
	for i := range found {
		found[i] = assumed[i]
		if others := slices.Concat(slices.Concat(off[:i]...), slices.Concat(off[i+1:]...)); len(others) > 0 {
			seen, n := normal*median(others), float64(len(others))
			found[i] = math.Sqrt((priorWeight*assumed[i]*assumed[i] + n*seen*seen) / (priorWeight + n))
		}
	}
	return found
}

// fromLog is e to the x, as far as a duration reaches.
func fromLog(x float64) time.Duration { return time.Duration(math.Round(math.Exp(min(x, 43)))) }

// logGroups is the runs' logarithms; of more than maxGroups runs, the
// logarithms of the medians of as many groups of neighbours, since then what
// is left to chance within a session is small beside what sessions differ.
func logGroups(runs []time.Duration) []float64 {
	size := (len(runs) + maxGroups - 1) / maxGroups
	var g []float64
	for c := range slices.Chunk(runs, size) {
		g = append(g, math.Log(max(1, median(slices.Clone(c)))))
	}
	return g
}

// blockSteady is [steady] of resamples of x in circular blocks of about the cube
// root of its length.
func blockSteady(rng *rand.Rand, x []float64) []float64 {
	block := int(math.Ceil(math.Cbrt(float64(len(x)))))
	found := make([]float64, resamples)
	y := make([]float64, 0, len(x))
	for m := range found {
		y = y[:0]
		for len(y) < len(x) {
			start := rng.IntN(len(x))
			for i := 0; i < block && len(y) < len(x); i++ {
				y = append(y, x[(start+i)%len(x)])
			}
		}
		found[m] = steady(y)
	}
	return found
}

// chiSquare draws from the distribution with nu degrees of freedom, a whole
// number.
func chiSquare(rng *rand.Rand, nu float64) float64 {
	sum := 0.0
	for range int(nu) {
		z := rng.NormFloat64()
		sum += z * z
	}
	return sum
}

// sumSquares is of the deviations from the mean.
func sumSquares(x []float64) float64 {
	mean := 0.0
	for _, v := range x {
		mean += v / float64(len(x))
	}
	sum := 0.0
	for _, v := range x {
		sum += (v - mean) * (v - mean)
	}
	return sum
}

// median sorts x in place; the mean of the middle two where there are two.
func median[T time.Duration | float64](x []T) float64 {
	slices.Sort(x)
	n := len(x)
	return (float64(x[(n-1)/2]) + float64(x[n/2])) / 2
}

// stretch is how many runs in a row are taken for one time.
const stretch = 5

// steady is what a session's runs take when nothing disturbs them: the lower
// quartile, over stretches of its runs, of their medians. It leaves x as it is.
func steady[T time.Duration | float64](x []T) float64 {
	n := max(1, len(x)/stretch)
	var y [stretch * 2]T
	meds := make([]float64, n)
	for i := range meds {
		meds[i] = median(append(y[:0], x[i*len(x)/n:(i+1)*len(x)/n]...))
	}
	return quartile(meds)
}

// quartile sorts x in place; the lower one, between two values where it falls
// there.
func quartile(x []float64) float64 {
	slices.Sort(x)
	at := float64(len(x)-1) / 4
	i := int(at)
	return x[i] + (at-float64(i))*(x[min(i+1, len(x)-1)]-x[i])
}

// quantileIndex is the place of the q-quantile among n sorted values: the
// least value that at least the fraction q does not exceed.
func quantileIndex(n int, q float64) int {
	return min(n-1, max(0, int(math.Ceil(q*float64(n)))-1))
}
