package supernet_test

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"spos/configs"
	"spos/internal/arch"
	"spos/internal/data"
	"spos/supernet"
)

// noise is a batch of random images; speed does not depend on what they show.
func noise(shape arch.Shape, classes, n int, seed uint64) data.Batch {
	r := rand.New(rand.NewPCG(seed, 0))
	b := data.Batch{Images: make([]float32, n*shape.Numel()), Labels: make([]int64, n), N: n, Shape: shape}
	for i := range b.Images {
		b.Images[i] = float32(r.NormFloat64())
	}
	for i := range b.Labels {
		b.Labels[i] = r.Int64N(int64(classes))
	}
	return b
}

// cpuTime is what the process has used of all CPUs: steadier than the clock on
// a shared machine, if OMP_WAIT_POLICY=passive keeps waiting threads asleep.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkStep is a training step of random paths of the small space.
func BenchmarkStep(b *testing.B) {
	space, err := configs.Space("shufflenetv2-small")
	if err != nil {
		b.Fatal(err)
	}
	for _, layout := range []supernet.Layout{supernet.ChannelsLast, supernet.RowMajor} {
		for _, n := range []int{64, 128} {
			b.Run(fmt.Sprintf("layout=%d/batch=%d", layout, n), func(b *testing.B) {
				s, err := supernet.New(space.Params(), supernet.Options{Layout: layout})
				if err != nil {
					b.Fatal(err)
				}
				defer s.Close()
				batch := noise(space.In, space.Classes, n, 1)
				r := rand.New(rand.NewPCG(1, 2))
				cpu := cpuTime()
				for b.Loop() {
					net, err := space.Path(space.Sample(r))
					if err != nil {
						b.Fatal(err)
					}
					if _, err := s.Step(b.Context(), net, batch, 1e-3); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "img/s")
				b.ReportMetric(float64(b.N*n)/(cpuTime()-cpu).Seconds(), "img/cpu-s")
			})
		}
	}
}
