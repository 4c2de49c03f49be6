package search_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"spos/search"
)

func cloud(n int) []search.Trial {
	r := rand.New(rand.NewPCG(1, 1))
	ts := make([]search.Trial, n)
	for i := range ts {
		// A coarse grid, so that ties of either kind occur.
		cost := 1 + r.IntN(20)
		ts[i] = search.Trial{ID: i, Feasible: i%5 != 0, Accuracy: float64(r.IntN(cost)) / 20, Latency: search.Interval{P50: float64(cost)}}
	}
	return ts
}

func TestFrontAgreesWithItsDefinition(t *testing.T) {
	ts := cloud(200)
	front := search.Front(ts, search.ByLatency)
	on := map[int]bool{}
	for i, f := range front {
		on[f.ID] = true
		if i > 0 && (f.Latency.P50 <= front[i-1].Latency.P50 || f.Accuracy <= front[i-1].Accuracy) {
			t.Errorf("front does not rise at %d", i)
		}
	}
	for _, a := range ts {
		dominated, twin := !a.Feasible, false
		for _, b := range ts {
			if !b.Feasible || b.ID == a.ID {
				continue
			}
			if b.Accuracy == a.Accuracy && b.Latency.P50 == a.Latency.P50 {
				twin = twin || b.ID < a.ID
			} else if b.Accuracy >= a.Accuracy && b.Latency.P50 <= a.Latency.P50 {
				dominated = true
			}
		}
		if want := !dominated && !twin; on[a.ID] != want {
			t.Errorf("trial %d (%.2f at %v) on the front: %v, want %v", a.ID, a.Accuracy, a.Latency.P50, on[a.ID], want)
		}
	}
	if len(front) < 3 {
		t.Fatalf("a front of %d points tests nothing", len(front))
	}
}

// The grid makes the dominated area countable cell by cell.
func TestHypervolumeAgreesWithCounting(t *testing.T) {
	ts := cloud(60)
	const accuracy, cost = 0.25, 15.0
	cells := 0
	for x := range 15 { // the cell from x to x+1
		for y := 5; y < 20; y++ { // the cell from y/20 to (y+1)/20
			for _, a := range ts {
				if a.Feasible && a.Latency.P50 <= float64(x) && a.Accuracy >= float64(y+1)/20-1e-9 {
					cells++
					break
				}
			}
		}
	}
	got := search.Hypervolume(ts, search.ByLatency, accuracy, cost)
	if want := float64(cells) / 20; math.Abs(got-want) > 1e-9 {
		t.Errorf("hypervolume %v, counted %v", got, want)
	}
	if got := search.Hypervolume(nil, search.ByMACs, 0, 1); got != 0 {
		t.Errorf("hypervolume of nothing is %v", got)
	}
}
