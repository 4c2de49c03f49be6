package latency

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		in   []time.Duration
		want float64
	}{
		{[]time.Duration{5}, 5},
		{[]time.Duration{9, 1}, 5},
		{[]time.Duration{9, 1, 2}, 2},
		{[]time.Duration{9, 1, 2, 4}, 3},
	} {
		if got := median(slices.Clone(c.in)); got != c.want {
			t.Errorf("median(%v) = %v, want %v", c.in, got, c.want)
		}
	}
}

func TestQuartile(t *testing.T) {
	for _, c := range []struct {
		in   []float64
		want float64
	}{{[]float64{7}, 7}, {[]float64{9, 5}, 6}, {[]float64{3, 1, 2}, 1.5}, {[]float64{5, 1, 4, 2, 3}, 2}, {[]float64{6, 5, 4, 3, 2, 1}, 2.25}} {
		if got := quartile(slices.Clone(c.in)); got != c.want {
			t.Errorf("quartile(%v) = %v, want %v", c.in, got, c.want)
		}
	}
}

func TestQuantileIndex(t *testing.T) {
	for _, c := range []struct {
		n    int
		q    float64
		want int
	}{{1, 0.9, 0}, {10, 0.9, 8}, {20, 0.9, 17}, {11, 0.9, 9}, {10, 0, 0}, {10, 1, 9}} {
		if got := quantileIndex(c.n, c.q); got != c.want {
			t.Errorf("quantileIndex(%d, %v) = %d, want %d", c.n, c.q, got, c.want)
		}
	}
}

func TestEstimatePoints(t *testing.T) {
	const us = time.Microsecond
	sessions := [][]time.Duration{
		{100 * us, 110 * us, 500 * us},
		{120 * us, 130 * us, 140 * us},
		{100 * us, 90 * us, 100 * us},
	}
	e := estimate(sessions, 0.02, 0)
	var samples []Sample
	for _, runs := range sessions {
		samples = append(samples, Sample{Runs: runs})
	}
	e.all(samples)
	// Medians 110, 130, 100, whose logarithms' quartile is half way between the
	// lower two; of the nine runs the ninth in order is the 0.9 quantile.
	want := Estimate{P50: 104881 * time.Nanosecond, P90: 500 * us, Min: 90 * us, Low: e.Low, High: e.High, Runs: 9, Sessions: 3}
	if e != want {
		t.Errorf("got %+v, want %+v", e, want)
	}
	if e.Low >= e.P50 || e.High <= e.P50 {
		t.Errorf("interval %v to %v does not surround %v", e.Low, e.High, e.P50)
	}
}

func TestEstimateIsDeterministic(t *testing.T) {
	runs := simulate(rand.New(rand.NewPCG(1, 1)), 3, 20, 0.02, 0.03, 0)
	if a, b := estimate(runs, 0.02, 0.01), estimate(runs, 0.02, 0.01); a != b {
		t.Errorf("the same runs give %+v and %+v", a, b)
	}
}

// TestOneSession: without noise within the session, the interval of a single
// one is Student's with the prior's four degrees of freedom, of two
// measurements, in closed form.
func TestOneSession(t *testing.T) {
	const spread, quantile = 0.03, 2.776 // t at 0.975, ν = 4
	runs := slices.Repeat([]time.Duration{time.Millisecond}, 20)
	e := estimate([][]time.Duration{runs}, spread, 0)
	for name, got := range map[string]float64{
		"low":  -math.Log(float64(e.Low) / 1e6),
		"high": math.Log(float64(e.High) / 1e6),
	} {
		// A tail quantile of 1000 replicates is good to about 10 %.
		if want := math.Sqrt2 * spread * quantile; math.Abs(got-want) > 0.15*want {
			t.Errorf("%s end: %.4f of the logarithm, want %.4f ± 15 %%", name, got, want)
		}
	}
	if e := estimate([][]time.Duration{runs}, 0, 0); e.Low != e.High {
		t.Errorf("no noise and no spread: interval %v to %v, want a point", e.Low, e.High)
	}
}

// TestManySessions: with many sessions the interval approaches that of the
// difference of two lower quartiles of normal samples, whose variance is
// p(1−p)/φ² = 1.857 of σ²/n each.
func TestManySessions(t *testing.T) {
	const sigma, n = 0.05, 200
	rng := rand.New(rand.NewPCG(2, 1))
	want := 1.96 * math.Sqrt(2*1.857) * sigma / math.Sqrt(n)
	sum, trials := 0.0, 20
	for range trials {
		e := estimate(simulate(rng, n, 1, sigma, 0, 0), 0.02, 0)
		sum += math.Log(float64(e.High)/float64(e.Low)) / 2
	}
	if got := sum / float64(trials); math.Abs(got-want) > 0.15*want {
		t.Errorf("half width %.4f, want %.4f ± 15 %%", got, want)
	}
}

// TestCoverage simulates ten nets at a time that are measured twice, as one measures them,
// and counts how often the interval of the first holds the p50 of the second.
// The machine is never as the interval assumes: what the bounds say is how far
// it may be trusted, and where it may not.
func TestCoverage(t *testing.T) {
	normal := func(sd float64) func(*rand.Rand) float64 {
		return func(rng *rand.Rand) float64 { return sd * rng.NormFloat64() }
	}
	for name, c := range map[string]struct {
		sessions  int
		nets      int                      // that are measured together
		between   func(*rand.Rand) float64 // of a session
		drift     float64                  // standard deviation of all nets of a time together
		spread    float64
		low, high float64 // bounds of the coverage
	}{
		"as assumed":           {6, 10, normal(0.015), driftAtRest, 0.015, 0.93, 0.98},
		"quieter than assumed": {6, 10, normal(0.005), driftAtRest, 0.015, 0.92, 0.99},
		"louder than assumed":  {6, 10, normal(0.06), driftAtRest, 0.015, 0.93, 0.98},
		"one net":              {6, 1, normal(0.015), driftAtRest, 0.015, 0.93, 0.99},
		"one net, quieter":     {6, 1, normal(0.005), driftAtRest, 0.015, 0.98, 1}, // nothing has told it yet
		"screened":             {1, 10, normal(0.015), driftAtRest, 0.015, 0.95, 1},
		"screened, louder":     {1, 10, normal(0.04), driftAtRest, 0.015, 0.65, 0.85}, // one session cannot know
		"heavy tails": {6, 10, func(rng *rand.Rand) float64 { // Student's t, ν = 3
			return 0.01 * rng.NormFloat64() / math.Sqrt(chiSquare(rng, 3)/3)
		}, driftAtRest, 0.015, 0.94, 1},
		// A third of the sessions is slower by 30 %: the lower quartile of six
		// is hardly ever one of them.
		"two modes": {6, 10, func(rng *rand.Rand) float64 {
			x := 0.005 * rng.NormFloat64()
			if rng.Float64() < 1.0/3 {
				x += math.Log(1.3)
			}
			return x
		}, driftAtRest, 0.015, 0.93, 0.98},
		// All nets move by 2 %: no measurement can know, and the lot is
		// mostly in or out.
		"drift": {6, 10, normal(0.005), 0.02, 0.015, 0.35, 0.75},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(3, 1))
			covered, n := 0, 0
			for n < 2400/(c.sessions+2) {
				first, second := make([][][]time.Duration, c.nets), make([]float64, c.nets)
				draw := func(shift float64) [][]time.Duration {
					s := make([][]time.Duration, c.sessions)
					for i := range s {
						s[i] = session(rng, shift+c.between(rng), 20, 0.01)
					}
					return s
				}
				shift := c.drift / math.Sqrt2 * rng.NormFloat64()
				for i := range first {
					first[i] = draw(shift)
				}
				shift = c.drift / math.Sqrt2 * rng.NormFloat64()
				for i := range second {
					meds := make([]float64, c.sessions)
					for j, runs := range draw(shift) {
						meds[j] = steady(runs)
					}
					second[i] = quartile(meds)
				}
				spread := spreads(first, slices.Repeat([]float64{c.spread}, len(first)))
				for i := range first {
					e := estimate(first[i], spread[i], driftAtRest)
					if float64(e.Low) <= second[i] && second[i] <= float64(e.High) {
						covered++
					}
				}
				n += c.nets
			}
			if got := float64(covered) / float64(n); got < c.low || got > c.high {
				t.Errorf("covers %.3f of %d, want %.2f to %.2f", got, n, c.low, c.high)
			} else {
				t.Logf("covers %.3f of %d", got, n)
			}
		})
	}
}

// simulate draws sessions around 1 ms with relative deviations between and
// within them; heavy is the probability that a session is a fifth slower.
func simulate(rng *rand.Rand, sessions, runs int, between, within, heavy float64) [][]time.Duration {
	s := make([][]time.Duration, sessions)
	for i := range s {
		level := between * rng.NormFloat64()
		if rng.Float64() < heavy {
			level += 0.2
		}
		s[i] = session(rng, level, runs, within)
	}
	return s
}

// session draws correlated runs (AR 0.5) around 1 ms·exp(level).
func session(rng *rand.Rand, level float64, runs int, within float64) []time.Duration {
	const ar = 0.5
	s := make([]time.Duration, runs)
	x := within * rng.NormFloat64()
	for j := range s {
		s[j] = time.Duration(1e6 * math.Exp(level+x))
		x = ar*x + math.Sqrt(1-ar*ar)*within*rng.NormFloat64()
	}
	return s
}

func BenchmarkEstimate(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 1))
	for name, c := range map[string][2]int{"screening": {1, 20}, "confirmation": {6, 40}, "fast": {6, 3000}} {
		runs := simulate(rng, c[0], c[1], 0.02, 0.02, 0)
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				estimate(runs, 0.02, 0.005)
			}
		})
	}
}
