package serve_test

import (
	"image"
	"image/jpeg"
	"io"
	"slices"
	"testing"
	"time"
)

// timed reports the median and the 99th percentile beside the mean.
func timed(b *testing.B, f func() error) {
	b.Helper()
	b.ReportAllocs()
	var all []time.Duration
	for b.Loop() {
		start := time.Now()
		if err := f(); err != nil {
			b.Fatal(err)
		}
		all = append(all, time.Since(start))
	}
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2].Microseconds())/1e3, "p50-ms")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds())/1e3, "p99-ms")
}

func encodeJPEG(w io.Writer, img image.Image) error { return jpeg.Encode(w, img, nil) }
