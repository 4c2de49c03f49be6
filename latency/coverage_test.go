package latency_test

import (
	"math"
	"os"
	"path/filepath"
	"testing"

	"spos/latency"
)

// BenchmarkCoverage measures how far the interval of a screening can be
// trusted on this machine: every model of $SPOS_MODELS (*.onnx; else those of
// the tests) is screened, and later confirmed, twice. It reports
//
//	covered         share of screenings whose interval holds the confirmed p50: above 0.95, as that is surer than a second screening
//	confirmed-twice share of confirmations whose interval holds the other's p50: 0.95 is nominal
//	half-width-%    mean half width of a screening's interval
//	spread-%        root mean square of log(screening/confirmation): what DefaultSpread stands for
//	median-%        median of its size
//
// Run it with -benchtime 1x on the machine in question, once quiet and once
// as busy as it will be.
func BenchmarkCoverage(b *testing.B) {
	l := local(b)
	dir := os.Getenv("SPOS_MODELS")
	if dir == "" {
		dir = "testdata"
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.onnx"))
	if err != nil || len(files) == 0 {
		b.Skipf("no models in %s", dir)
	}
	var models []latency.Model
	for _, f := range files {
		if filepath.Base(f) == "strings.onnx" {
			continue // cannot be timed
		}
		bytes, err := os.ReadFile(f)
		if err != nil {
			b.Fatal(err)
		}
		models = append(models, latency.Model{Name: filepath.Base(f), Bytes: bytes})
	}
	var covered, twice, width, squares, n float64
	var logs []float64
	for b.Loop() {
		measure := func(p latency.Protocol) []latency.Result {
			r, err := latency.MeasureAll(b.Context(), l, models, p)
			if err != nil {
				b.Fatal(err)
			}
			return r
		}
		screened := measure(latency.Screening())
		first, second := measure(latency.Confirmation()), measure(latency.Confirmation())
		for i := range models {
			s, c, d := screened[i], first[i], second[i]
			within := func(r latency.Result, of latency.Result) float64 {
				if r.Low <= of.P50 && of.P50 <= r.High {
					return 1
				}
				return 0
			}
			covered += within(s, c)
			twice += within(c, d)
			width += math.Log(float64(s.High)/float64(s.Low)) / 2
			log := math.Log(float64(s.P50) / float64(c.P50))
			squares += log * log
			logs = append(logs, math.Abs(log))
			n++
			b.Logf("%-28s screened %s  confirmed %s  again %s", s.Model, text(s.Estimate), text(c.Estimate), text(d.Estimate))
		}
	}
	b.ReportMetric(covered/n, "covered")
	b.ReportMetric(twice/n, "confirmed-twice")
	b.ReportMetric(100*width/n, "half-width-%")
	b.ReportMetric(100*math.Sqrt(squares/n), "spread-%")
	b.ReportMetric(100*middle(logs), "median-%")
}

func text(e latency.Estimate) string {
	return e.P50.String() + " (" + e.Low.String() + " – " + e.High.String() + ")"
}
