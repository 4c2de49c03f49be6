package serve

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
	"unsafe"
)

// TestWindowQuantiles: within one bucket of the true ones, over five decades.
func TestWindowQuantiles(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	start := time.Unix(1_000_000, 0)
	for _, center := range []time.Duration{50 * time.Microsecond, 4 * time.Millisecond, 2 * time.Second} {
		var w window
		var all []time.Duration
		for i := range 10_000 {
			d := time.Duration(float64(center) * math.Exp(0.3*r.NormFloat64()))
			all = append(all, d)
			w.add(start.Add(time.Duration(i)*5*time.Millisecond), d)
		}
		slices.Sort(all)
		qs := []float64{0.01, 0.5, 0.95, 0.99}
		n, got := w.read(start.Add(50*time.Second), qs...)
		if n != 10_000 {
			t.Errorf("%d of 10000 in the window", n)
		}
		for i, q := range qs {
			want := all[int(q*10_000)-1]
			if ratio := float64(got[i]) / float64(want); ratio < 0.98 || ratio > 1.02 {
				t.Errorf("around %v: the %g quantile is %v, want %v within 2 %%", center, q, got[i], want)
			}
		}
	}
}

// TestWindowSlides: what is older than a minute is forgotten, ten seconds at a time.
func TestWindowSlides(t *testing.T) {
	var w window
	start := time.Unix(1_000_000, 0)
	if n, q := w.read(start, 0.5); n != 0 || q[0] != 0 {
		t.Errorf("an empty window has %d, %v", n, q)
	}
	for i := range 6 {
		w.add(start.Add(time.Duration(i)*windowPartIs), time.Duration(i+1)*time.Millisecond)
	}
	for i := range 7 {
		now := start.Add(time.Duration(5+i) * windowPartIs)
		if n, _ := w.read(now, 0.5); n != uint64(6-i) {
			t.Errorf("%v later there are %d, want %d", time.Duration(i)*windowPartIs, n, 6-i)
		}
	}
	w.add(start.Add(windowSpan), time.Second) // in place of the first
	if n, q := w.read(start.Add(windowSpan), 1); n != 6 || q[0] < 980*time.Millisecond || q[0] > 1020*time.Millisecond {
		t.Errorf("%d, at most %v", n, q)
	}
	w.add(start, time.Second) // too late
	if n, _ := w.read(start.Add(windowSpan), 0.5); n != 6 {
		t.Errorf("what came too late counts: %d", n)
	}
	w.reset()
	if n, _ := w.read(start.Add(windowSpan), 0.5); n != 0 {
		t.Errorf("%d after a reset", n)
	}
}

// TestWindowEnds: what lies outside of the buckets is in the outermost.
func TestWindowEnds(t *testing.T) {
	var w window
	now := time.Unix(1_000_000, 0)
	for _, d := range []time.Duration{-time.Second, 0, 1, windowFrom, time.Hour, math.MaxInt64} {
		w.add(now, d)
	}
	n, q := w.read(now, 0.5, 1)
	if n != 6 || q[0] > 11*time.Microsecond || q[1] < 150*time.Second || q[1] > 200*time.Second {
		t.Errorf("%d, %v", n, q)
	}
}

// jumped is what time.Now would have returned, had the system's clock been set by d before: the wall's reading is
// another, the monotonic one is not.
func jumped(t time.Time, d time.Duration) time.Time {
	const secondAt = 30 // bit; above the nanoseconds, below the mark that there is a monotonic reading
	*(*uint64)(unsafe.Pointer(&t)) += uint64(d/time.Second) << secondAt
	return t
}

// ClockJumps sets the clock back and forth while durations are counted: none is lost, and none counts longer.
func ClockJumps(t *testing.T) {
	start := time.Now()
	for _, d := range []time.Duration{-24 * time.Hour, 24 * time.Hour} {
		later := jumped(start.Add(windowSpan/2), d)
		if wall, clock := later.Round(0).Sub(start.Round(0)), later.Sub(start); wall != d+windowSpan/2 || clock != windowSpan/2 {
			t.Fatalf("the test's clock went by %v and %v", wall, clock)
		}
		var w window
		w.add(start, time.Millisecond)
		w.add(later, time.Millisecond)
		for after, want := range map[time.Duration]uint64{0: 2, windowSpan / 2: 1, windowSpan: 0} {
			if n, _ := w.read(later.Add(after), 0.5); n != want {
				t.Errorf("%v after a jump by %v, %d are in the window, want %d", after, d, n, want)
			}
		}
	}
}
