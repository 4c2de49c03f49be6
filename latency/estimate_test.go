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
	e := estimate([][]time.Duration{
		{100 * us, 110 * us, 500 * us},
		{120 * us, 130 * us, 140 * us},
		{100 * us, 90 * us, 100 * us},
	}, 0.02)
	// Medians 110, 130, 100; of the nine runs the ninth in order is the 0.9 quantile.
	want := Estimate{P50: 110 * us, P90: 500 * us, Min: 90 * us, Low: e.Low, High: e.High, Runs: 9, Sessions: 3}
	if e != want {
		t.Errorf("got %+v, want %+v", e, want)
	}
	if e.Low >= e.P50 || e.High <= e.P50 {
		t.Errorf("interval %v to %v does not surround %v", e.Low, e.High, e.P50)
	}
}

func TestEstimateIsDeterministic(t *testing.T) {
	runs := simulate(rand.New(rand.NewPCG(1, 1)), 3, 20, 0.02, 0.03, 0)
	if a, b := estimate(runs, 0.02), estimate(runs, 0.02); a != b {
		t.Errorf("the same runs give %+v and %+v", a, b)
	}
}

// TestOneSession: without noise within the session, the interval of a single
// one is Student's with the prior's four degrees of freedom, in closed form.
func TestOneSession(t *testing.T) {
	const spread, quantile = 0.03, 2.776 // t at 0.975, ν = 4
	runs := slices.Repeat([]time.Duration{time.Millisecond}, 20)
	e := estimate([][]time.Duration{runs}, spread)
	for name, got := range map[string]float64{
		"low":  -math.Log(float64(e.Low) / 1e6),
		"high": math.Log(float64(e.High) / 1e6),
	} {
		// A tail quantile of 1000 replicates is good to about 10 %.
		if want := spread * quantile; math.Abs(got-want) > 0.15*want {
			t.Errorf("%s end: %.4f of the logarithm, want %.4f ± 15 %%", name, got, want)
		}
	}
	if e := estimate([][]time.Duration{runs}, 0); e.Low != e.High {
		t.Errorf("no noise and no spread: interval %v to %v, want a point", e.Low, e.High)
	}
}

// TestManySessions: with many sessions the interval approaches that of the
// median of a normal sample, ± 1.96·√(π/2)·σ/√n.
func TestManySessions(t *testing.T) {
	const sigma, n = 0.05, 200
	rng := rand.New(rand.NewPCG(2, 1))
	want := 1.96 * math.Sqrt(math.Pi/2) * sigma / math.Sqrt(n)
	sum, trials := 0.0, 20
	for range trials {
		e := estimate(simulate(rng, n, 1, sigma, 0, 0), 0.02)
		sum += math.Log(float64(e.High)/float64(e.Low)) / 2
	}
	if got := sum / float64(trials); math.Abs(got-want) > 0.15*want {
		t.Errorf("half width %.4f, want %.4f ± 15 %%", got, want)
	}
}

// TestCoverage simulates sessions of a model whose true median is 1 ms and
// counts how often the interval holds it. Runs are correlated (AR 0.5) and, in
// one case, a tenth of the sessions is disturbed by a fifth.
func TestCoverage(t *testing.T) {
	for name, c := range map[string]struct {
		sessions, runs         int
		between, within, heavy float64
		spread                 float64
		low, high              float64 // bounds of the coverage
	}{
		// Two standard errors of 400 trials at 95 % are 2.2 points, of 150 3.6.
		"screening, spread right":          {1, 20, 0.02, 0.02, 0, 0.02, 0.93, 1},
		"screening, spread half the truth": {1, 20, 0.04, 0.02, 0, 0.02, 0.78, 0.95},
		"screening, spread zero":           {1, 20, 0.02, 0.02, 0, 0, 0.2, 0.8}, // the fantasy this avoids
		"two sessions":                     {2, 20, 0.02, 0.02, 0, 0.02, 0.93, 1},
		"confirmation":                     {6, 40, 0.02, 0.02, 0, 0.02, 0.92, 1},
		"confirmation, spread wrong":       {6, 40, 0.06, 0.02, 0, 0.02, 0.88, 0.99},
		"confirmation, disturbed":          {6, 40, 0.02, 0.02, 0.1, 0.02, 0.92, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(3, 1))
			covered, trials := 0, 1200/(c.sessions+2)
			for range trials {
				e := estimate(simulate(rng, c.sessions, c.runs, c.between, c.within, c.heavy), c.spread)
				if e.Low <= time.Millisecond && time.Millisecond <= e.High {
					covered++
				}
			}
			if got := float64(covered) / float64(trials); got < c.low || got > c.high {
				t.Errorf("covers %.3f of the time, want %.2f to %.2f", got, c.low, c.high)
			} else {
				t.Logf("covers %.3f", got)
			}
		})
	}
}

// simulate draws sessions around 1 ms with relative deviations between and
// within them; heavy is the probability that a session is a fifth slower.
func simulate(rng *rand.Rand, sessions, runs int, between, within, heavy float64) [][]time.Duration {
	const ar = 0.5
	s := make([][]time.Duration, sessions)
	for i := range s {
		level := between * rng.NormFloat64()
		if rng.Float64() < heavy {
			level += 0.2
		}
		s[i] = make([]time.Duration, runs)
		x := within * rng.NormFloat64()
		for j := range s[i] {
			s[i][j] = time.Duration(1e6 * math.Exp(level+x))
			x = ar*x + math.Sqrt(1-ar*ar)*within*rng.NormFloat64()
		}
	}
	return s
}

func BenchmarkEstimate(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 1))
	for name, c := range map[string][2]int{"screening": {1, 20}, "confirmation": {6, 40}, "fast": {6, 3000}} {
		runs := simulate(rng, c[0], c[1], 0.02, 0.02, 0)
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				estimate(runs, 0.02)
			}
		})
	}
}
