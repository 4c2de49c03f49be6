package serve

import (
	"math"
	"sync"
	"time"
)

// A window tells quantiles of the last minute to 1 %: durations are counted in buckets of which each ends 2 % above
// where it begins, apart for each ten seconds. Its zero value is empty and holds no memory.
type window struct {
	mu    sync.Mutex
	start time.Time               // of the first duration: from it on counts a clock that does not jump
	parts [windowParts]windowPart // by their time modulo windowParts
}

const (
	windowParts   = 6
	windowPartIs  = 10 * time.Second
	windowSpan    = windowParts * windowPartIs
	windowRatio   = 1.02
	windowFrom    = 10 * time.Microsecond // all that is shorter is in the first bucket
	windowBuckets = 840                   // and what takes longer than 160 s in the last
)

type windowPart struct {
	at     int64 // its time, in windowPartIs since the start
	n      uint64
	counts []uint32
}

var windowScale = 1 / math.Log(windowRatio)

func bucketOf(d time.Duration) int {
	if d <= windowFrom {
		return 0
	}
	return min(int(math.Log(float64(d)/float64(windowFrom))*windowScale), windowBuckets-1)
}

// partAt puts what ended before the start, while it waited for the lock, at the start.
func (w *window) partAt(now time.Time) int64 { return max(int64(now.Sub(w.start)/windowPartIs), 0) }

// add counts a duration that ended at now.
func (w *window) add(now time.Time, d time.Duration) {
	bucket := bucketOf(d)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.start.IsZero() {
		w.start = now
	}
	at := w.partAt(now)
	p := &w.parts[at%windowParts]
	if p.at > at {
		return // by a goroutine that was held up for a minute
	}
	if p.at < at {
		p.at, p.n = at, 0
		clear(p.counts)
	}
	if p.counts == nil {
		p.counts = make([]uint32, windowBuckets)
	}
	p.counts[bucket]++
	p.n++
}

// reset forgets everything.
func (w *window) reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.parts[:])
}

// read tells how many durations there were in the minute before now, and quantiles of them: zeros where there were
// none.
func (w *window) read(now time.Time, qs ...float64) (n uint64, quantiles []time.Duration) {
	var sum [windowBuckets]uint64
	w.mu.Lock()
	at := w.partAt(now)
	for i := range w.parts {
		p := &w.parts[i]
		if p.n == 0 || p.at > at || p.at <= at-windowParts {
			continue
		}
		n += p.n
		for b, c := range p.counts {
			sum[b] += uint64(c)
		}
	}
	w.mu.Unlock()
	quantiles = make([]time.Duration, len(qs))
	if n == 0 {
		return 0, quantiles
	}
	for i, q := range qs {
		quantiles[i] = quantile(&sum, n, q)
	}
	return n, quantiles
}

// quantile takes the durations of a bucket to lie evenly between its ends, on a logarithmic scale.
func quantile(counts *[windowBuckets]uint64, n uint64, q float64) time.Duration {
	rank, below := q*float64(n), 0.
	for b, c := range counts {
		c := float64(c)
		if c > 0 && below+c >= rank {
			return time.Duration(float64(windowFrom) * math.Pow(windowRatio, float64(b)+(rank-below)/c))
		}
		below += c
	}
	return windowSpan // not reached: the counts' sum is n
}
