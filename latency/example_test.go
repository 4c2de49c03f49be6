package latency_test

import (
	"context"
	"fmt"
	"os"
	"time"

	"spos/latency"
)

// quiet is a machine that takes 2 ms for everything, so that the example has
// an output; a program uses a [latency.Local].
type quiet struct{}

func (quiet) Time(context.Context, latency.Task) (latency.Sample, error) {
	s := latency.Sample{Settled: true, Pinned: true}
	for i := range 20 {
		s.Runs = append(s.Runs, 2*time.Millisecond+time.Duration(i%5)*time.Microsecond)
	}
	return s, nil
}

func ExampleSettle() {
	m := latency.Model{Name: "net.onnx"}
	r, verdict, err := latency.Settle(context.Background(), quiet{}, m, 2200*time.Microsecond,
		latency.Screening(), latency.Confirmation())
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(verdict)
	latency.Write(os.Stdout, []latency.Result{r})
	// Output:
	// met
	// model     p50 ms  95 % interval  p90 ms  min ms  runs    mode
	// net.onnx  2.002   1.880 – 2.123  2.004   2.000   1 × 20  hot
}
