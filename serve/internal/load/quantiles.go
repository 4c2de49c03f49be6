package load

import (
	"fmt"
	"slices"
	"time"
)

// Quantiles describe latencies, in milliseconds.
type Quantiles struct {
	N    int     `json:"n"`
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
	Max  float64 `json:"max"`
}

// quantiles sorts its argument. Of n values, quantile q is the ⌈q·n⌉-th: one that was measured.
func quantiles(times []time.Duration) Quantiles {
	if len(times) == 0 {
		return Quantiles{}
	}
	slices.Sort(times)
	at := func(perMille int) float64 {
		return ms(times[max((len(times)*perMille+999)/1000, 1)-1])
	}
	return Quantiles{len(times), at(500), at(900), at(990), at(999), at(1000)}
}

// String is p50/p90/p99/p99.9/max.
func (q Quantiles) String() string {
	if q.N == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f/%.2f/%.2f/%.2f/%.2f", q.P50, q.P90, q.P99, q.P999, q.Max)
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// Median is that of values, which it sorts; of an even number, the mean of the two in the middle.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}
