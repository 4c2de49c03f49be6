package supernet_test

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
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
func cpuTime(tb testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// paths are random paths of a space.
func paths(tb testing.TB, space *arch.Space, n int) []*arch.Net {
	r := rand.New(rand.NewPCG(1, 2))
	nets := make([]*arch.Net, n)
	for i := range nets {
		var err error
		if nets[i], err = space.Path(space.Sample(r)); err != nil {
			tb.Fatal(err)
		}
	}
	return nets
}

func open(tb testing.TB, name string, o supernet.Options) (*arch.Space, *supernet.Supernet) {
	space, err := configs.Space(name)
	if err != nil {
		tb.Fatal(err)
	}
	s, err := supernet.New(space.Params(), o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.Close)
	return space, s
}

// BenchmarkSmall is training, calibration and evaluation of random paths of
// the small space.
func BenchmarkSmall(b *testing.B) {
	const images = 128
	run := func(name string, o supernet.Options, n int, f func(*supernet.Supernet, *arch.Net, data.Batch) error) {
		b.Run(fmt.Sprintf("%s/batch=%d", name, n), func(b *testing.B) {
			space, s := open(b, "shufflenetv2-small", o)
			batch, nets := noise(space.In, space.Classes, n, 1), paths(b, space, 64)
			cpu := cpuTime(b)
			for i := 0; b.Loop(); i++ {
				if err := f(s, nets[i%len(nets)], batch); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "img/s")
			b.ReportMetric(float64(b.N*n)/(cpuTime(b)-cpu).Seconds(), "img/cpu-s")
		})
	}
	step := func(s *supernet.Supernet, net *arch.Net, batch data.Batch) error {
		_, err := s.Step(b.Context(), net, batch, 1e-3)
		return err
	}
	for _, n := range []int{64, images, 256} {
		run("step/channels-last", supernet.Options{Layout: supernet.ChannelsLast}, n, step)
	}
	run("step/one-thread", supernet.Options{Threads: 1}, images, step)
	run("step/row-major", supernet.Options{Layout: supernet.RowMajor}, images, step)
	for _, n := range []int{images, 500} {
		run("calibrate", supernet.Options{}, n, func(s *supernet.Supernet, net *arch.Net, batch data.Batch) error {
			_, err := s.Calibrate(b.Context(), net, one(batch))
			return err
		})
		run("evaluate", supernet.Options{}, n, func(s *supernet.Supernet, net *arch.Net, batch data.Batch) error {
			_, err := s.Evaluate(b.Context(), net, nil, one(batch))
			return err
		})
	}
}

func one(b data.Batch) func(func(data.Batch, error) bool) {
	return func(yield func(data.Batch, error) bool) { yield(b, nil) }
}

// BenchmarkStepVsEager runs the same random paths of the official space, one
// step here and one in PyTorch eager, in turn, on the same threads. It fails
// if the median step here takes longer. It needs a Python with torch:
// $SPOS_PYTHON, or python3.
func BenchmarkStepVsEager(b *testing.B) {
	for _, c := range []struct {
		space string
		batch int
	}{{"shufflenetv2-spos", 32}, {"shufflenetv2-small", 128}} {
		b.Run(c.space, func(b *testing.B) { versusEager(b, c.space, c.batch) })
	}
}

func versusEager(b *testing.B, name string, n int) {
	threads := runtime.GOMAXPROCS(0)
	space, s := open(b, name, supernet.Options{Threads: threads})
	nets, batch := paths(b, space, 16), noise(space.In, space.Classes, n, 1)
	eager := startEager(b, map[string]any{
		"Nets": nets, "Params": space.Params(), "Batch": n, "Threads": threads, "Classes": space.Classes,
	})
	ours := func(i int) (wall, cpu float64) {
		start, used := time.Now(), cpuTime(b)
		if _, err := s.Step(b.Context(), nets[i], batch, 1e-3); err != nil {
			b.Fatal(err)
		}
		return time.Since(start).Seconds(), (cpuTime(b) - used).Seconds()
	}
	for i := range 2 { // the first steps allocate
		ours(i)
		eager(i)
	}
	var our, their, ratio, cpuRatio []float64
	for i := 0; b.Loop(); i++ {
		ow, oc := ours(i % len(nets))
		tw, tc := eager(i % len(nets))
		our, their = append(our, ow), append(their, tw)
		ratio, cpuRatio = append(ratio, ow/tw), append(cpuRatio, oc/tc)
	}
	b.ReportMetric(float64(n)/median(our), "img/s")
	b.ReportMetric(float64(n)/median(their), "eager-img/s")
	b.ReportMetric(median(ratio), "time/eager")
	b.ReportMetric(median(cpuRatio), "cpu/eager")
	if r := median(ratio); b.N >= 5 && r > 1 {
		b.Errorf("a step takes %.2f times as long as PyTorch eager", r)
	}
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

// startEager starts testdata/eager.py and returns what runs one of its steps.
func startEager(b *testing.B, setup any) func(net int) (wall, cpu float64) {
	python := cmp.Or(os.Getenv("SPOS_PYTHON"), "python3")
	if err := exec.Command(python, "-c", "import torch").Run(); err != nil {
		b.Skipf("%s cannot import torch (%v): set SPOS_PYTHON to a Python that can", python, err)
	}
	cmd := exec.Command(python, "testdata/eager.py") // ends with its standard input
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			b.Log(err)
		}
	})
	answers := bufio.NewReader(out)
	if err := json.NewEncoder(in).Encode(setup); err != nil {
		b.Fatal(err)
	}
	if line, err := answers.ReadString('\n'); err != nil || strings.TrimSpace(line) != "ready" {
		b.Fatalf("eager.py said %q: %v", line, err)
	}
	return func(net int) (wall, cpu float64) {
		if _, err := io.WriteString(in, fmt.Sprintln(net)); err != nil {
			b.Fatal(err)
		}
		if _, err := fmt.Fscan(answers, &wall, &cpu); err != nil {
			b.Fatal(err)
		}
		return wall, cpu
	}
}
