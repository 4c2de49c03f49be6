package latency

import (
	"context"
	"errors"
	"testing"
	"time"
)

// clock is a model whose runs take what it says.
type clock struct {
	takes []time.Duration // of each run; the last one repeats
	n     int             // runs
	calls int
}

func (c *clock) run(times []time.Duration) error {
	for i := range times {
		times[i] = c.takes[min(c.n, len(c.takes)-1)]
		c.n++
	}
	c.calls++
	return nil
}

func (c *clock) loop() *loop { return &loop{run: c.run} }

func ms(x ...float64) []time.Duration {
	d := make([]time.Duration, len(x))
	for i := range x {
		d[i] = time.Duration(x[i] * 1e6)
	}
	return d
}

func TestWarm(t *testing.T) {
	p := Screening()
	falling := make([]float64, 60) // 2 % a run, never settles
	for i := range falling {
		falling[i] = 1
		for range i {
			falling[i] *= 0.98
		}
	}
	for name, c := range map[string]struct {
		takes   []time.Duration
		runs    int
		settled bool
	}{
		"steady at once": {ms(1), 8, true},
		// At 14 the last ten are 1.07 1.06 1 1 1 and five of 1, at 13 the
		// earlier five still have the median 1.06.
		"first runs slow": {ms(1.33, 1.19, 1.08, 1.07, 1.07, 1.06, 1.00), 14, true},
		"one outlier":     {ms(1, 1, 1, 1, 1, 9, 1), 8, true},
		"falling":         {ms(falling...), 50, false},
	} {
		t.Run(name, func(t *testing.T) {
			k := &clock{takes: c.takes}
			times, settled, err := k.loop().warm(t.Context(), p)
			if err != nil || len(times) != c.runs || settled != c.settled {
				t.Errorf("%d runs, settled %v, %v, want %d, %v", len(times), settled, err, c.runs, c.settled)
			}
		})
	}
}

func TestRuns(t *testing.T) {
	p := Screening()
	for typical, want := range map[time.Duration]int{
		10 * time.Millisecond: 20,      // 200 ms
		time.Millisecond:      30,      // 30 ms
		7 * time.Microsecond:  4286,    // 30.002 ms
		0:                     MaxRuns, // bounded whatever the clock says
	} {
		if got := p.runs(typical); got != want {
			t.Errorf("runs of %v: %d, want %d", typical, got, want)
		}
	}
}

func TestMeasureLoop(t *testing.T) {
	k := &clock{takes: ms(1, 2, 3)}
	l := k.loop()
	times := make([]time.Duration, 300)
	if allocs := testing.AllocsPerRun(10, func() {
		k.n, k.calls = 0, 0
		if err := l.measure(t.Context(), times, time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}); allocs != 0 {
		t.Errorf("%v allocations in the timed loop", allocs)
	}
	for i, want := range ms(1, 2, 3) {
		if times[i] != want {
			t.Errorf("run %d took %v, want %v", i, times[i], want)
		}
	}
	if k.n != 300 || k.calls != 6 || times[299] != 3*time.Millisecond {
		t.Errorf("%d runs in %d calls, the last took %v, want 300 in 6 of 50 ms", k.n, k.calls, times[299])
	}
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	l.run = func([]time.Duration) error { cancel(why); return nil }
	if err := l.measure(ctx, times, time.Second); !errors.Is(err, why) {
		t.Errorf("cancelled in a run: %v, want the cause", err)
	}
	broken := errors.New("broken")
	l.run = func([]time.Duration) error { return broken }
	if err := l.measure(t.Context(), times, 0); !errors.Is(err, broken) {
		t.Errorf("measure = %v, want the run's error", err)
	}
}

func TestHalf(t *testing.T) {
	for x, want := range map[float64]uint16{1: 0x3c00, -1: 0xbc00, 0.5: 0x3800, 1.5: 0x3e00, -0.75: 0xba00, 0: 0, 1e-6: 0} {
		if got := half(x); got != want {
			t.Errorf("half(%v) = %#x, want %#x", x, got, want)
		}
	}
}
