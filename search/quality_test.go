package search_test

import (
	"cmp"
	"math"
	"os"
	"path/filepath"
	"testing"

	"spos/internal/arch"
	"spos/search"
	"spos/search/searchtest"
)

// regret runs one search a seed and averages the gap to best, in points, after
// each number of evaluations.
func regret(t *testing.T, s *arch.Space, build searchtest.Build, l searchtest.Landscape, limits search.Limits, best float64, seeds int, at ...int) []float64 {
	t.Helper()
	mean := make([]float64, len(at))
	for seed := range seeds {
		ts, err := searchtest.Collect(search.Run(t.Context(), s, build(s, limits, searchtest.Rand(uint64(seed))), search.Options{
			Objective: l.Objective, Budget: at[len(at)-1], Batch: 50,
		}))
		if err != nil {
			t.Fatal(err)
		}
		for i, n := range at {
			w, _ := search.Winner(ts[:n])
			mean[i] += 100 * (best - w.Accuracy) / float64(seeds)
		}
	}
	t.Logf("regret in points after %v evaluations: %.4f", at, mean)
	return mean
}

func TestRandomMeetsItsClosedForm(t *testing.T) {
	l := searchtest.Synthetic(searchtest.Macro())
	checkRandom(t, l, 30, 20, 100, 200)
}

func checkRandom(t *testing.T, l searchtest.Landscape, seeds int, at ...int) {
	t.Helper()
	got := regret(t, searchtest.Codes(), random, l, search.Limits{}, l.Best(nil), seeds, at...)
	for i, n := range at {
		want := 100 * l.RandomRegret(n)
		// One search's regret deviates by at most about its mean.
		if tol := 3 * want / math.Sqrt(float64(seeds)); math.Abs(got[i]-want) > tol {
			t.Errorf("random search after %d evaluations: regret %.3f, closed form %.3f ± %.3f", n, got[i], want, tol)
		}
	}
}

// The closed form against brute force: every pair out of four.
func TestRandomRegretIsExact(t *testing.T) {
	l := searchtest.Landscape{"0": 0.1, "1": 0.5, "2": 0.7, "3": 0.8}
	want := 0.8 - (3*0.8+2*0.7+1*0.5)/6
	if got := l.RandomRegret(2); math.Abs(got-want) > 1e-12 {
		t.Errorf("RandomRegret(2) = %v, want %v", got, want)
	}
	if got := l.RandomRegret(4); math.Abs(got) > 1e-12 {
		t.Errorf("RandomRegret of all = %v, want 0", got)
	}
}

func TestEvolutionBeatsRandom(t *testing.T) {
	s := searchtest.Macro()
	l := searchtest.Synthetic(s)
	for name, limits := range map[string]search.Limits{"free": {}, "within 40M": {FLOPs: search.Bound{Max: 40e6}}} {
		t.Run(name, func(t *testing.T) {
			best := l.Best(func(a arch.Arch) bool {
				n, err := s.Net(a)
				return err == nil && limits.Allow(n.Cost())
			})
			ev := regret(t, s, evolution(search.EvolutionOptions{}), l, limits, best, 8, 50, 200, 300)
			rd := regret(t, s, random, l, limits, best, 8, 50, 200, 300)
			if ev[1] > 0.5*rd[1] || ev[2] > 0.02 {
				t.Errorf("evolution's regret %v is not far below random search's %v", ev, rd)
			}
		})
	}
}

// TestMacroBench holds the searches against NAS-Bench-Macro's measured
// accuracies (xiusu/NAS-Bench-Macro, data/nas-bench-macro_cifar10.json), where
// somebody has put the file beside the project's other data.
func TestMacroBench(t *testing.T) {
	dir := cmp.Or(os.Getenv("SPOS_DATA"), "../../shared/data")
	file := filepath.Join(dir, "nas-bench-macro_cifar10.json")
	if _, err := os.Stat(file); err != nil {
		t.Skipf("no NAS-Bench-Macro: %v", err)
	}
	l, err := searchtest.ReadMacro(file)
	if err != nil {
		t.Fatal(err)
	}
	seeds := 100
	if testing.Short() {
		seeds = 10
	}
	best := l.Best(nil)
	ev := regret(t, searchtest.Macro(), evolution(search.EvolutionOptions{}), l, search.Limits{}, best, seeds, 50, 100, 200, 500)
	if ev[2] > 0.02 || ev[3] > 0.001 {
		t.Errorf("evolution's regret %v: more than 0.02 at 200 or 0.001 at 500", ev)
	}
	for i, n := range []int{50, 100, 200, 500, 1000} {
		want := []float64{0.353, 0.260, 0.184, 0.104, 0.058}[i]
		if got := 100 * l.RandomRegret(n); math.Abs(got-want) > 0.001 {
			t.Errorf("closed form at %d is %.4f, published %.3f", n, got, want)
		}
	}
	checkRandom(t, l, seeds, 50, 100, 200, 500)
}
