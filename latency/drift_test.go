package latency

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// TestMoved: the level of 40 models, of 6 sessions each in turns, moves by steps
// of a given deviation while sessions deviate by 1 % for themselves.
func TestMoved(t *testing.T) {
	const models, sessions, trials = 40, 6, 100
	for _, sd := range []float64{0, 0.005, 0.02} {
		rng := rand.New(rand.NewPCG(1, 2))
		var squares float64
		for range trials {
			all := make([][]Sample, models)
			level := 0.0
			for n := range models * sessions {
				if n%(models*sessions/8) == 0 {
					level = sd * rng.NormFloat64()
				}
				i := n % models
				run := fromLog(math.Log(1e6*float64(i+1)) + level + 0.01*rng.NormFloat64())
				all[i] = append(all[i], Sample{Started: time.Unix(1e9+int64(n), 0), Runs: slices.Repeat([]time.Duration{run}, 9)})
			}
			m := float64(moved(all))
			squares += m * m
		}
		if got := math.Sqrt(squares / trials); got < 0.85*sd || got > 1.15*sd+0.002 {
			t.Errorf("moved by %.4f, want %.4f", got, sd)
		}
	}
}

func TestMovedUnknown(t *testing.T) {
	one := Sample{Started: time.Unix(1e9, 0), Runs: []time.Duration{5}}
	for name, models := range map[string][][]Sample{
		"nothing":            nil,
		"one session each":   slices.Repeat([][]Sample{{one}}, 100),
		"one model":          {slices.Repeat([]Sample{one}, 40)},
		"of several devices": slices.Repeat([][]Sample{slices.Repeat([]Sample{{Runs: one.Runs}}, 6)}, 40),
	} {
		if got := moved(models); got != 0 {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestDrift(t *testing.T) {
	feels := []Sample{{Memory: Memory{Before: 1, After: 1}}, {}}
	for name, c := range map[string]struct {
		samples      []Sample
		busy, unsure float64
		seen         movement
		want         float64
	}{
		"at rest":                 {[]Sample{{}}, 0, 0, 0, driftAtRest},
		"beside work":             {[]Sample{{}}, 1, 0, 0, math.Hypot(driftAtRest, driftBusy)},
		"feels the memory":        {feels, 0.1, 0, 0, math.Hypot(driftAtRest, driftMemory)},
		"was seen to move":        {[]Sample{{}}, 0, 0, 0.012, 0.013},
		"memory far from usual":   {[]Sample{{}}, 0, 0.012, 0, 0.013},
		"the machine has changed": {[]Sample{{Reference: Reference{Quiet: 100, Before: 120, After: 120}}}, 0, 0, 0, math.Hypot(driftAtRest, math.Log(1.2))},
	} {
		if got := drift(c.samples, c.busy, c.unsure, c.seen); math.Abs(got-c.want) > 1e-12 {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
