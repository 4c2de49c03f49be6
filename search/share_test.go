package search_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"spos/search"
)

// Wilson's interval of 8 in 10 is .4902–.9433 (his formula by hand); of none
// in 10 its upper end is z²/(n+z²).
func TestShare(t *testing.T) {
	z2 := 1.959964 * 1.959964
	for name, c := range map[string]struct {
		yes, unknown, total int
		want                search.Share
	}{
		"sure":    {8, 0, 10, search.Share{P: .8, Low: .490162, High: .943318}},
		"none":    {0, 0, 10, search.Share{P: 0, Low: 0, High: z2 / (10 + z2)}},
		"all":     {10, 0, 10, search.Share{P: 1, Low: 10 / (10 + z2), High: 1}},
		"unknown": {0, 8, 10, search.Share{P: 0, Low: 0, High: .943318}},
		"nothing": {0, 0, 0, search.Share{High: 1}},
	} {
		got := search.NewShare(c.yes, c.unknown, c.total)
		for i, d := range []float64{got.P - c.want.P, got.Low - c.want.Low, got.High - c.want.High} {
			if math.Abs(d) > 1e-5 {
				t.Errorf("%s: %+v, want %+v (%d)", name, got, c.want, i)
			}
		}
	}
}

// The interval of a quantile holds the true one at least 95 times in 100, and
// not always: of a hundred uniform draws the tenth part.
func TestQuantileIntervalCovers(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	const repeats, q = 2000, 0.1
	covered := 0
	for range repeats {
		x := make([]float64, 100)
		for i := range x {
			x[i] = r.Float64()
		}
		i := search.QuantileInterval(q, x)
		if i.Low <= q && q <= i.High {
			covered++
		}
	}
	if share := float64(covered) / repeats; share < 0.94 || share > 0.985 {
		t.Errorf("%.3f of the intervals hold the quantile, want .95 to .98", share)
	}
	few := search.QuantileInterval(0.01, []float64{3, 1, 2})
	if !math.IsNaN(few.Low) || few.High != 2 && few.High != 1 {
		t.Errorf("a hundredth of three values: %v, want no lower end", few)
	}
	if i := search.QuantileInterval(0.5, nil); !math.IsNaN(i.P50) {
		t.Errorf("of nothing: %v", i)
	}
}

func TestTau(t *testing.T) {
	for name, c := range map[string]struct {
		x, y []float64
		want float64
	}{
		"alike":    {[]float64{1, 2, 3}, []float64{5, 6, 9}, 1},
		"reversed": {[]float64{1, 2, 3}, []float64{9, 6, 5}, -1},
		"one swap": {[]float64{1, 2, 3}, []float64{2, 1, 3}, 1. / 3},
		"tie":      {[]float64{1, 1, 2}, []float64{1, 2, 3}, 2 / math.Sqrt(6)},
		"constant": {[]float64{1, 1}, []float64{1, 2}, math.NaN()},
	} {
		if got := search.Tau(c.x, c.y); math.Abs(got-c.want) > 1e-12 || math.IsNaN(got) != math.IsNaN(c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
