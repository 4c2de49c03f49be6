package latency_test

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"spos/latency"
)

// envPython names a Python that has onnxruntime and numpy.
const envPython = "SPOS_PYTHON"

// BenchmarkOverhead sets our timed loop beside the same library's Python API
// in a tight loop, on one model, one processor and one set of options, in
// turns. It reports the ratio of medians and of least times, ours over
// Python's: 1.00 is no overhead, and below 1 ours is the leaner.
func BenchmarkOverhead(b *testing.B) {
	python := os.Getenv(envPython)
	if python == "" {
		b.Skipf("no yardstick: set %s to a Python with onnxruntime and numpy", envPython)
	}
	l := local(b)
	p := latency.Screening()
	p.Runs, p.MinTime = 400, 0
	for _, model := range []string{"convs2.onnx", "convs8.onnx"} {
		b.Run(model, func(b *testing.B) {
			var ours, oursMin, run, runMin, bind, bindMin []float64
			for b.Loop() {
				s, err := l.Time(b.Context(), latency.Task{Model: read(b, model), Protocol: p})
				if err != nil {
					b.Fatal(err)
				}
				ours = append(ours, quantile(s.Runs, 0.5))
				oursMin = append(oursMin, quantile(s.Runs, 0))
				cpu := strconv.Itoa(s.Fingerprint.Session.Affinity[0])
				cmd := exec.CommandContext(b.Context(), python, "testdata/tight.py", filepath.Join("testdata", model), cpu, strconv.Itoa(p.Runs), "1")
				cmd.Env = append(os.Environ(), "ORT_DISABLE_TELEMETRY=1")
				out, err := cmd.Output()
				if err != nil {
					b.Fatalf("%s: %v", cmd, err)
				}
				var row [4]float64
				if _, err := fmt.Fscan(bufio.NewReader(bytes.NewReader(out)), &row[0], &row[1], &row[2], &row[3]); err != nil {
					b.Fatalf("%s: %v in %q", cmd, err, out)
				}
				run, runMin, bind, bindMin = append(run, row[0]), append(runMin, row[1]), append(bind, row[2]), append(bindMin, row[3])
			}
			b.ReportMetric(middle(ours)/1e3, "p50-µs")
			b.ReportMetric(middle(ours)/middle(run), "p50/run")
			b.ReportMetric(middle(ours)/middle(bind), "p50/binding")
			b.ReportMetric(slices.Min(oursMin)/slices.Min(runMin), "min/run")
			b.ReportMetric(slices.Min(oursMin)/slices.Min(bindMin), "min/binding")
		})
	}
}

func quantile(d []time.Duration, q float64) float64 {
	s := slices.Sorted(slices.Values(d))
	return float64(s[int(q*float64(len(s)-1))])
}

func middle(x []float64) float64 {
	return slices.Sorted(slices.Values(x))[len(x)/2]
}
