package latency

import (
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// besideMemory are sessions of models of 4 to 8 ms on a machine whose memory
// is up to a quarter slower or faster than its usual 2 ms a pass, and whose
// models feel slope of that; nothing else differs but noise.
func besideMemory(rng *rand.Rand, models, sessions int, slope, noise float64) (all [][]Sample, truth []float64) {
	const usual = 2e6
	at := time.Unix(1e9, 0)
	all, truth = make([][]Sample, models), make([]float64, models)
	for i := range all {
		truth[i] = math.Log(4e6 + 4e6*rng.Float64())
		for range sessions {
			at = at.Add(time.Second)
			x := 0.5*rng.Float64() - 0.25
			pass := time.Duration(usual * math.Exp(x))
			run := time.Duration(math.Exp(truth[i] + slope*x + noise*rng.NormFloat64()))
			all[i] = append(all[i], Sample{Started: at, Runs: slices.Repeat([]time.Duration{run}, 9), Memory: Memory{pass, pass, usual}})
		}
	}
	return all, truth
}

// off is the root mean square of sessions' deviations from the truth.
func off(models [][]Sample, truth []float64) float64 {
	sum, n := 0.0, 0.0
	for i, samples := range models {
		for _, s := range samples {
			d := math.Log(steady(s.Runs)) - truth[i]
			sum, n = sum+d*d, n+1
		}
	}
	return math.Sqrt(sum / n)
}

func TestEased(t *testing.T) {
	for name, c := range map[string]struct {
		models, sessions int
		slope, noise     float64
		least, most      float64 // of the error that is left, over what it was
	}{
		// The error that is left of .3·U(±.25) is the noise.
		"many that feel it":     {40, 6, 0.3, 0.01, 0.2, 0.27},
		"one that feels it":     {1, 6, 0.3, 0.01, 0.1, 0.7},
		"many that do not":      {40, 6, 0, 0.01, 0.95, 1.01},
		"faster by slow memory": {40, 6, -0.3, 0.01, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			all, truth := besideMemory(rand.New(rand.NewPCG(1, 2)), c.models, c.sessions, c.slope, c.noise)
			before := off(all, truth)
			if left := off(eased(all), truth) / before; left < c.least || left > c.most {
				t.Errorf("%.3f of the error is left, want %v to %v", left, c.least, c.most)
			}
			if again := off(all, truth); again != before {
				t.Error("the samples themselves have changed")
			}
		})
	}
}

// TestEasedLeaves: what was not looked at stays as it was, and a session beside
// a neighbour does not tell how much of the memory a model feels.
func TestEasedLeaves(t *testing.T) {
	all, _ := besideMemory(rand.New(rand.NewPCG(3, 4)), 20, 6, 0.3, 0.001)
	all[0][0].Memory = Memory{}
	want := slices.Clone(all[0][0].Runs)
	if got := eased(all)[0][0].Runs; !slices.Equal(got, want) {
		t.Errorf("a session without a look at the memory: %v, want %v", got[0], want[0])
	}
	calm := eased(all)
	loudly, _ := besideMemory(rand.New(rand.NewPCG(5, 6)), 1, 6, -5, 0)
	for i := range loudly[0] {
		loudly[0][i].Reference = Reference{Quiet: 100, Before: 130, After: 130}
		loudly[0][i].Started = all[0][0].Started // or they are the last
	}
	for i, samples := range eased(append(slices.Clone(all), loudly[0]))[:len(all)] {
		for k, s := range samples {
			if s.Runs[0] != calm[i][k].Runs[0] {
				t.Fatalf("model %d, session %d: %v beside loud sessions of another, want %v", i, k, s.Runs[0], calm[i][k].Runs[0])
			}
		}
	}
}

func TestSlowness(t *testing.T) {
	for name, c := range map[string]struct {
		m    Memory
		x    float64
		seen bool
	}{
		"usual":           {Memory{100, 100, 100}, 0, true},
		"both looks":      {Memory{100, 121, 100}, math.Log(1.1), true},
		"beyond belief":   {Memory{1e6, 1e6, 100}, 0.4, true},
		"too fast":        {Memory{1, 1, 100}, -0.4, true},
		"one look":        {Memory{100, 0, 100}, 0, false},
		"nothing usual":   {Memory{100, 100, 0}, 0, false},
		"of another time": {Memory{-5, 100, 100}, 0, false},
	} {
		if x, ok := c.m.slowness(c.m.Usual); ok != c.seen || math.Abs(x-c.x) > 1e-9 {
			t.Errorf("%s: %v, %v, want %v, %v", name, x, ok, c.x, c.seen)
		}
	}
}

func TestSweep(t *testing.T) {
	for cache, want := range map[int]int{0: 8 << 20, 32 << 20: 48 << 20, 1 << 30: 64 << 20} {
		if got := 8 * len(newSweep(cache)); got != want {
			t.Errorf("for a cache of %d bytes a pass over %d, want %d", cache, got, want)
		}
	}
	if newSweep(0).look() <= 0 {
		t.Error("a pass took no time")
	}
}

// TestUsualIsShared: processes of a machine average over the looks of all, and
// older looks weigh less where there are many.
func TestUsualIsShared(t *testing.T) {
	path := filepath.Join(t.TempDir(), "quiet.json")
	one, two := &gauge{path: path, key: "this", sweep: newSweep(0)}, &gauge{path: path, key: "this", sweep: newSweep(0)}
	a := one.memory(0)
	b := two.memory(0)
	mid := math.Sqrt(float64(a) * float64(b))
	if got := float64(two.usual); math.Abs(got/mid-1) > 1e-6 || two.sweeps != 2 {
		t.Errorf("usual at %v of %d looks, want %v of 2", two.usual, two.sweeps, time.Duration(mid))
	}
	two.usual, two.sweeps = 1, 1<<40
	two.tell()
	one.memory(0)
	if one.sweeps != lately {
		t.Errorf("an average over %d looks, want %d at most", one.sweeps, lately)
	}
	if usual := average(100, 200, 1); usual != 141 {
		t.Errorf("the average of 100 and 200 is %d, want 141", usual)
	}
}
