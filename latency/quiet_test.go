package latency

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// machine is a gauge whose reference takes 100 µs, times slow.
func machine(path string, slow func() float64) *gauge {
	g := &gauge{path: path, key: "this"}
	g.run = func(times []time.Duration) error {
		for i := range times {
			times[i] = time.Duration(slow() * 1e5)
			time.Sleep(times[i])
		}
		return nil
	}
	return g
}

func TestAwait(t *testing.T) {
	for name, c := range map[string]struct {
		until    time.Duration // the machine is a fifth slower
		patience time.Duration
		waited   time.Duration // about
		slowdown float64
	}{
		"quiet":        {0, time.Second, 0, 1},
		"a while":      {300 * time.Millisecond, time.Second, 300 * time.Millisecond, 1},
		"no patience":  {300 * time.Millisecond, 0, 0, 1.2},
		"out of it":    {time.Hour, time.Second, time.Second, 1.2},
		"little of it": {300 * time.Millisecond, 100 * time.Millisecond, 100 * time.Millisecond, 1.2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var until time.Time
				g := machine("", func() float64 {
					if time.Now().Before(until) {
						return 1.2
					}
					return 1
				})
				for range quietKnown {
					if _, err := g.look(); err != nil {
						t.Fatal(err)
					}
				}
				until = time.Now().Add(c.until)
				r, err := g.await(t.Context(), c.patience)
				if err != nil {
					t.Fatal(err)
				}
				if got := r.slowdown(r.Quiet); got != c.slowdown {
					t.Errorf("a slowdown of %v, want %v", got, c.slowdown)
				}
				if off := (r.Waited - c.waited).Abs(); off > lookAgain+5*time.Millisecond {
					t.Errorf("waited %v, want about %v", r.Waited, c.waited)
				}
			})
		})
	}
}

// TestResign: a machine that stays slower is not waited for again and again.
func TestResign(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := 1.0
		g := machine("", func() float64 { return slow })
		for range quietKnown {
			_, _ = g.look()
		}
		slow = 1.2
		start := time.Now()
		for range 1000 {
			if _, err := g.await(t.Context(), time.Second); err != nil {
				t.Fatal(err)
			}
		}
		// What 1,000 sessions cost beside: a look each.
		if took := time.Since(start); took > resign+5*time.Second {
			t.Errorf("waited %v in all for a machine that has become slower, want about %v", took, resign)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		over := errors.New("over")
		cancel(over)
		slow = 2
		if _, err := g.await(ctx, time.Second); !errors.Is(err, over) {
			t.Errorf("an ended context: %v, want its cause", err)
		}
	})
}

// TestQuietIsShared: one least time may be chance and is not believed, and
// processes tell each other; files that hold nonsense know nothing.
func TestQuietIsShared(t *testing.T) {
	path := filepath.Join(t.TempDir(), "quiet.json")
	speeds := []float64{1.02, 0.5, 1.01, 1.03, 1}
	i := 0
	g := machine(path, func() float64 { return speeds[i] })
	for i = range speeds {
		if _, err := g.look(); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := g.quiet(), time.Duration(1.01e5); got != want {
		t.Errorf("quiet at %v, want the third least, %v", got, want)
	}
	other := machine(path, nil)
	other.recall()
	if other.quiet() != g.quiet() {
		t.Errorf("another process knows %v, want %v", other.quiet(), g.quiet())
	}
	stranger := machine(path, nil)
	stranger.key = "that"
	stranger.recall()
	if stranger.quiet() != 0 {
		t.Errorf("another machine knows %v, want nothing", stranger.quiet())
	}
	for _, text := range []string{"", "{", `{"this": 3}`, `{"this":{"least_ns":[3,2,1],"at":"2999-01-01T00:00:00Z"}}`, `{"this":{"least_ns":[1,2,3],"at":"2001-01-01T00:00:00Z"}}`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		damaged := machine(path, nil)
		damaged.recall()
		if damaged.quiet() != 0 {
			t.Errorf("%s: knows %v, want nothing", text, damaged.quiet())
		}
	}
}

// TestQuietIsLearnt: processes that run side by side learn from one another,
// neither takes back what the other has found, and where one finds that the
// machine has become slower, it has for both.
func TestQuietIsLearnt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "quiet.json")
		slow := map[string]float64{"a": 1.1, "b": 1}
		process := func(name string) *gauge { return machine(path, func() float64 { return slow[name] }) }
		look := func(g *gauge, times int) {
			t.Helper()
			for range times {
				if _, err := g.look(); err != nil {
					t.Fatal(err)
				}
			}
		}
		a, b := process("a"), process("b")
		look(a, quietKnown)
		look(b, quietKnown)
		slow["a"] = 1.05 // less than a knew, more than b does
		look(a, 1)
		later := process("a")
		later.recall()
		for name, g := range map[string]*gauge{"a": a, "b": b, "a third": later} {
			if got, want := g.quiet(), time.Duration(1e5); got != want {
				t.Errorf("%s: quiet at %v, want %v", name, got, want)
			}
		}
		slow["a"], slow["b"] = 1.3, 1.3
		for a.quiet() == 1e5 {
			if _, err := a.await(t.Context(), time.Second); err != nil {
				t.Fatal(err)
			}
		}
		look(a, quietKnown)
		look(b, 1)
		if got, want := b.quiet(), time.Duration(1.3e5); got != want {
			t.Errorf("b: quiet at %v, want %v, which the machine has come to", got, want)
		}
	})
}

func TestUndisturbed(t *testing.T) {
	const quiet = 100
	sample := func(run, reference time.Duration) Sample {
		return Sample{Runs: []time.Duration{run, run, run}, Reference: Reference{Quiet: quiet, Before: reference, After: quiet}}
	}
	type pair = [2]time.Duration
	for name, c := range map[string]struct {
		sessions []pair
		kept     int
	}{
		"all alike":                  {[]pair{{1000, 100}, {1010, 101}, {990, 102}, {1020, 100}}, 4},
		"one slow":                   {[]pair{{1000, 100}, {1010, 101}, {990, 102}, {1220, 100}}, 3},
		"one beside a neighbour":     {[]pair{{1000, 100}, {1010, 101}, {990, 102}, {1005, 120}}, 3},
		"most beside a neighbour":    {[]pair{{1000, 100}, {1210, 121}, {990, 102}, {1205, 120}, {1205, 120}}, 2},
		"nearly all beside one":      {[]pair{{1000, 100}, {1210, 121}, {1190, 122}, {1205, 120}}, 4},
		"too few to say":             {[]pair{{1000, 100}, {1210, 100}}, 2},
		"one fast by chance":         {[]pair{{500, 100}, {1010, 101}, {990, 102}, {1000, 100}, {1000, 100}}, 5},
		"nothing known of the speed": {[]pair{{1000, 0}, {1010, 0}, {990, 0}, {1020, 0}}, 4},
	} {
		var samples []Sample
		for _, s := range c.sessions {
			samples = append(samples, sample(s[0], s[1]))
		}
		if got := len(undisturbed(samples)); got != c.kept {
			t.Errorf("%s: %d kept, want %d", name, got, c.kept)
		}
		if said := len(aside(samples)) > 0; said != (c.kept < len(samples) || name == "nearly all beside one") {
			t.Errorf("%s: %q", name, aside(samples))
		}
	}
}

type runnerOf func() Sample

func (f runnerOf) Time(context.Context, Task) (Sample, error) { return f(), nil }

// TestLoudSessionsAreMadeUpFor: where nearly all sessions ran beside a
// neighbour and none can be set aside, others are measured all the same.
func TestLoudSessionsAreMadeUpFor(t *testing.T) {
	const quiet = 100
	n := 0
	r, err := Measure(t.Context(), runnerOf(func() Sample {
		n++
		run, reference := time.Duration(1_000_000), time.Duration(quiet)
		if 2 <= n && n <= 6 {
			run, reference = 1_200_000, 121
		}
		return Sample{Runs: slices.Repeat([]time.Duration{run}, 9), Reference: Reference{Quiet: quiet, Before: reference, After: quiet}}
	}), Model{Name: "m"}, Confirmation())
	if err != nil {
		t.Fatal(err)
	}
	if r.Sessions != 11 || r.P50 != 1_000_000 {
		t.Errorf("%d sessions, p50 %v; want 11, five of which replace the slow ones, and 1ms", r.Sessions, r.P50)
	}
	known := r.Samples[:6]
	if Confirmation().enough(known) || !Confirmation().enough(r.Samples) {
		t.Error("five slow sessions of six are enough, or what replaced them is not")
	}
	more, err := measureMore(t.Context(), runnerOf(func() Sample { return known[0] }), []Model{{Name: "m"}}, [][]Sample{known}, Confirmation(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if more[0].Sessions != 11 {
		t.Errorf("%d sessions of a model known from six, want 11", more[0].Sessions)
	}
}
