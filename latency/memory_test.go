package latency

import (
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// besideMemory are sessions of models of 4 to 8 ms on a machine whose memory is
// up to a quarter slower or faster than its usual 2 ms a pass, to and fro in a
// minute, and whose models feel slope of that. Sessions and looks deviate by noise of
// their own.
func besideMemory(rng *rand.Rand, models, sessions int, slope, noise, lookNoise float64) (all [][]Sample, truth []float64) {
	const usual = 2e6
	at := time.Unix(1e9, 0)
	all, truth = make([][]Sample, models), make([]float64, models)
	for i := range all {
		truth[i] = math.Log(4e6 + 4e6*rng.Float64())
	}
	for n := range models * sessions {
		x := math.Sin(float64(n)/300*2*math.Pi) / 4
		i := n % models
		at = at.Add(200 * time.Millisecond)
		look := func() time.Duration { return fromLog(math.Log(usual) + x + lookNoise*rng.NormFloat64()) }
		run := fromLog(truth[i] + slope*x + noise*rng.NormFloat64())
		all[i] = append(all[i], Sample{Started: at, Runs: slices.Repeat([]time.Duration{run}, 9), Memory: Memory{look(), look(), usual}})
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
		models, sessions        int
		slope, noise, lookNoise float64
		least, most             float64 // of the error that is left, over what it was
	}{
		// The error is .4·.25/√2 = .071, of which the noise is .14.
		"many that feel it":        {40, 6, 0.4, 0.01, 0, 0.13, 0.25},
		"many, and looks that lie": {40, 6, 0.4, 0.01, 0.1, 0.13, 0.3},
		"many that do not":         {40, 6, 0, 0.01, 0, 0.95, 1.1},
		"faster by slow memory":    {40, 6, -0.4, 0.01, 0, 1, 1},
		"one as it is assumed":     {1, 20, feltAssumed, 0.001, 0, 0.02, 0.2},
		"one of many sessions":     {1, 200, 0.4, 0.01, 0, 0.13, 0.25},
	} {
		t.Run(name, func(t *testing.T) {
			all, truth := besideMemory(rand.New(rand.NewPCG(1, 2)), c.models, c.sessions, c.slope, c.noise, c.lookNoise)
			before := off(all, truth)
			like, _ := eased(all)
			if left := off(like, truth) / before; left < c.least || left > c.most {
				t.Errorf("%.3f of the error is left, want %v to %v", left, c.least, c.most)
			}
			if again := off(all, truth); again != before {
				t.Error("the samples themselves have changed")
			}
		})
	}
}

// TestFeltAround: a single look deviates by more than the memory's speed does,
// which would take most of a slope over single looks.
func TestFeltAround(t *testing.T) {
	all, _ := besideMemory(rand.New(rand.NewPCG(1, 2)), 40, 10, 0.5, 0.01, 0.2)
	if got, _ := felt(all, slownesses(all)); math.Abs(got-0.5) > 0.1 {
		t.Errorf("slope %.3f, want .5", got)
	}
	for i := range all { // who does not say when it was is not among others
		for k := range all[i] {
			all[i][k].Started = time.Time{}
		}
	}
	if got, _ := felt(all, slownesses(all)); got > 0.4 {
		t.Errorf("slope over single looks %.3f", got)
	}
}

// TestFelt: a slope lies about where it is said to, of one model as of many.
func TestFelt(t *testing.T) {
	if slope, deviation := felt(nil, nil); math.Abs(slope-feltAssumed) > 1e-12 || math.Abs(deviation-feltApart) > 1e-12 {
		t.Errorf("of nothing %v to within %v", slope, deviation)
	}
	for _, c := range []struct{ models, sessions int }{{1, 6}, {4, 6}, {10, 6}} {
		const trials = 400
		rng := rand.New(rand.NewPCG(9, 10))
		squares := 0.0
		for range trials {
			want := math.Abs(feltAssumed + feltApart*rng.NormFloat64())
			all, _ := besideMemory(rng, c.models, c.sessions, want, DefaultSpread, 0)
			slope, deviation := felt(all, slownesses(all))
			squares += math.Pow((slope-want)/deviation, 2)
		}
		if got := math.Sqrt(squares / trials); got < 0.8 || got > 1.4 {
			t.Errorf("%d models: off by %.2f times what is said", c.models, got)
		}
	}
}

// TestUnsure: where the memory was as usual, nothing hangs on the slope.
func TestUnsure(t *testing.T) {
	at := func(looks ...time.Duration) (s []Sample) {
		for _, d := range looks {
			s = append(s, Sample{Runs: []time.Duration{1e6}, Memory: Memory{d, d, 1e6}})
		}
		return s
	}
	_, unsure := eased([][]Sample{at(1e6), at(1e6, 1e6), {{Runs: []time.Duration{1e6}}}, at(1.2e6)})
	for i, want := range []float64{0, 0, 0, feltApart * math.Log(1.2)} {
		if math.Abs(unsure[i]-want) > 1e-9 {
			t.Errorf("model %d: unsure by %v, want %v", i, unsure[i], want)
		}
	}
}

// TestEasedLeaves: what was not looked at stays as it was, and a session beside
// a neighbour does not tell how much of the memory a model feels.
func TestEasedLeaves(t *testing.T) {
	all, _ := besideMemory(rand.New(rand.NewPCG(3, 4)), 20, 6, 0.3, 0.001, 0)
	all[0][0].Memory = Memory{}
	want := slices.Clone(all[0][0].Runs)
	still, _ := eased(all)
	if got := still[0][0].Runs; !slices.Equal(got, want) {
		t.Errorf("a session without a look at the memory: %v, want %v", got[0], want[0])
	}
	loudly, _ := besideMemory(rand.New(rand.NewPCG(5, 6)), 1, 6, 5, 0, 0)
	for i := range loudly[0] {
		s := &loudly[0][i]
		s.Reference = Reference{Quiet: 100, Before: 130, After: 130}
		s.Started = s.Started.Add(-time.Hour) // or its looks count around the others
	}
	beside, _ := eased(append(slices.Clone(all), loudly[0]))
	for i, samples := range beside[:len(all)] {
		for k, s := range samples {
			if s.Runs[0] != still[i][k].Runs[0] {
				t.Fatalf("model %d, session %d: %v beside loud sessions of another, want %v", i, k, s.Runs[0], still[i][k].Runs[0])
			}
		}
	}
}

func TestSlownesses(t *testing.T) {
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
		for _, at := range []time.Time{{}, time.Unix(1e9, 0)} {
			for _, took := range []time.Duration{0, time.Minute} {
				x := slownesses([][]Sample{{{Started: at, Create: took, Memory: c.m}}})[0][0]
				if !math.IsNaN(x) != c.seen || c.seen && math.Abs(x-c.x) > 1e-9 {
					t.Errorf("%s, at %v for %v: %v, want %v, %v", name, at, took, x, c.x, c.seen)
				}
			}
		}
	}
}

func TestHeavy(t *testing.T) {
	for _, c := range []struct {
		bytes, cache int
		want         bool
	}{{8 << 20, 32 << 20, true}, {8<<20 - 1, 32 << 20, false}, {2 << 20, 0, true}, {1 << 20, 0, false}} {
		if got := heavy(c.bytes, c.cache); got != c.want {
			t.Errorf("%d bytes with a last cache of %d: %v", c.bytes, c.cache, got)
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
	one, two := &gauge{path: path, key: "this"}, &gauge{path: path, key: "this"}
	one.remember(100)
	two.remember(121)
	if two.usual != 110 || two.sweeps != 2 {
		t.Errorf("usual at %v of %d looks, want 110 of 2", two.usual, two.sweeps)
	}
	two.usual, two.sweeps = 1, 1<<40
	two.tell()
	one.remember(2)
	if one.sweeps != lately {
		t.Errorf("an average over %d looks, want %d at most", one.sweeps, lately)
	}
	if usual := average(100, 200, 1); usual != 141 {
		t.Errorf("the average of 100 and 200 is %d, want 141", usual)
	}
}
