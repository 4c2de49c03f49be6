package latency

import (
	"context"
	"slices"
	"time"
)

// loop is the part of a measurement that must stay free of everything else.
type loop struct {
	// run runs and times, as often as its argument is long.
	run func(times []time.Duration) error
}

// warm runs until times settle, at least p.WarmupMin and at most p.WarmupMax
// times.
func (l *loop) warm(ctx context.Context, p Protocol) (times []time.Duration, settled bool, err error) {
	times = make([]time.Duration, 0, p.WarmupMax)
	scratch := make([]time.Duration, 0, window)
	for len(times) < p.WarmupMax {
		if ctx.Err() != nil {
			return times, false, context.Cause(ctx)
		}
		times = append(times, 0)
		if err := l.run(times[len(times)-1:]); err != nil {
			return times, false, err
		}
		if len(times) >= p.WarmupMin && settledBy(times, p.Settle, scratch) {
			return times, true, nil
		}
	}
	return times, p.WarmupMax == 0, nil
}

// window is how many runs back the warm-up looks.
const window = 10

// settledBy reports whether the median of the later half of the last runs is
// within a fraction of the earlier half's.
func settledBy(times []time.Duration, fraction float64, scratch []time.Duration) bool {
	half := min(len(times), window) / 2
	if half == 0 {
		return false
	}
	n := len(times)
	earlier := median(append(scratch[:0], times[n-2*half:n-half]...))
	later := median(append(scratch[:0], times[n-half:]...))
	return max(earlier-later, later-earlier) <= fraction*earlier
}

// stride is about how long a measurement goes on before it looks whether it
// has been cancelled.
const stride = 50 * time.Millisecond

// measure fills times; a run takes about typical.
func (l *loop) measure(ctx context.Context, times []time.Duration, typical time.Duration) error {
	n := int(max(1, stride/max(typical, 1)))
	for len(times) > 0 {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		now := times[:min(n, len(times))]
		if err := l.run(now); err != nil {
			return err
		}
		times = times[len(now):]
	}
	return nil
}

// runs is how many runs p asks for where one takes about typical.
func (p Protocol) runs(typical time.Duration) int {
	n := p.Runs
	if p.MinTime > 0 {
		n = max(n, int((p.MinTime+typical-1)/max(typical, 1)))
	}
	return min(n, MaxRuns)
}

// typical is a run's time as the warm-up's end saw it; the least of the last
// ones, so that a disturbance does not cut the number of runs.
func typical(warmup []time.Duration) time.Duration {
	if len(warmup) == 0 {
		return 0
	}
	return slices.Min(warmup[max(0, len(warmup)-window):])
}
