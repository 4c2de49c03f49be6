package train_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"spos/configs"
	"spos/internal/arch"
	"spos/internal/data"
	"spos/internal/train"

	"github.com/google/go-cmp/cmp"
)

const steps = 23

// chain is a Stepper whose state is a hash over everything that it was ever
// shown, in order.
type chain struct {
	state [32]byte
	taken int64
	kept  map[int64]chain                    // checkpoints
	hook  func(taken int64) (float64, error) // before a step
}

func (c *chain) step(ctx context.Context, net *arch.Net, b data.Batch, lr float64) (train.StepResult, error) {
	if ctx.Err() != nil {
		return train.StepResult{}, errors.New("a step's context was cancelled")
	}
	loss, err := 1.0, error(nil)
	if c.hook != nil {
		loss, err = c.hook(c.taken)
	}
	h := sha256.New()
	fmt.Fprint(h, net.Arch, b.Labels, b.N, math.Float64bits(lr))
	binary.Write(h, binary.LittleEndian, b.Images)
	h.Write(c.state[:])
	h.Sum(c.state[:0])
	c.taken++
	return train.StepResult{Loss: loss, Correct: 1}, err
}

func (c *chain) checkpoint(_ context.Context, step int64) error {
	if _, twice := c.kept[step]; twice {
		return fmt.Errorf("step %d was kept twice", step)
	}
	if c.kept == nil {
		c.kept = map[int64]chain{}
	}
	c.kept[step] = chain{state: c.state, taken: c.taken}
	return nil
}

// last restores the newest checkpoint, as a new process would.
func (c *chain) last() (*chain, int64) {
	newest := int64(0)
	for step := range c.kept {
		newest = max(newest, step)
	}
	if newest == 0 {
		return &chain{}, 0
	}
	again := c.kept[newest]
	again.kept = c.kept
	return &again, newest
}

// batches makes the batch of a step out of its number.
func batches(ctx context.Context, from int64) iter.Seq2[data.Batch, error] {
	return func(yield func(data.Batch, error) bool) {
		for step := from + 1; ; step++ {
			if ctx.Err() != nil {
				yield(data.Batch{}, context.Cause(ctx))
				return
			}
			r := rand.New(rand.NewPCG(5, uint64(step)))
			b := data.Batch{Images: []float32{r.Float32(), r.Float32()}, Labels: []int64{r.Int64N(10), r.Int64N(10)}, N: 2, Shape: arch.Shape{C: 1, H: 1, W: 1}}
			if !yield(b, nil) {
				return
			}
		}
	}
}

func loop(t *testing.T, c *chain) *train.Loop {
	t.Helper()
	space, err := configs.Space("shufflenetv2-small")
	if err != nil {
		t.Fatal(err)
	}
	s := train.Schedule{WarmupSteps: 3}
	return &train.Loop{
		Step: c.step, Paths: train.Uniform{Space: space, Seed: 9}, Batches: batches,
		LR: func(k int64) float64 { return s.LR(0.5, k, steps) }, Steps: steps,
		Checkpoint: c.checkpoint, CheckpointEvery: 5,
	}
}

// whole is the state after an uninterrupted run.
func whole(t *testing.T) [32]byte {
	t.Helper()
	c := &chain{}
	if err := loop(t, c).Run(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if c.taken != steps || len(c.kept) != 5 { // 5, 10, 15, 20 and 23
		t.Fatalf("%d steps, checkpoints %v", c.taken, c.kept)
	}
	return c.state
}

// Stopped at any step, a run keeps that step, and goes on to the same end.
func TestStopAnywhere(t *testing.T) {
	want := whole(t)
	stop := errors.New("stop")
	for n := range int64(steps) {
		c := &chain{}
		ctx, cancel := context.WithCancelCause(t.Context())
		c.hook = func(taken int64) (float64, error) {
			if taken == n {
				cancel(stop)
			}
			return 1, nil
		}
		err := loop(t, c).Run(ctx, 0)
		// The step during which the signal came is finished; the last one
		// leaves nothing to stop.
		if n < steps-1 && !errors.Is(err, stop) {
			t.Fatalf("stopped at %d: %v", n, err)
		}
		again, from := c.last()
		if from != n+1 {
			t.Fatalf("stopped in step %d: kept step %d", n+1, from)
		}
		if err := loop(t, again).Run(t.Context(), from); err != nil {
			t.Fatal(err)
		}
		if again.state != want {
			t.Errorf("stopped in step %d: another end", n+1)
		}
	}
}

// Killed at any step, and again two steps after each resume, a run comes to
// the same end from its periodic checkpoints.
func TestKilledAnywhere(t *testing.T) {
	want := whole(t)
	killed := errors.New("killed")
	for n := range int64(steps) {
		c, from := &chain{}, int64(0)
		at := n
		for range steps {
			c.hook = func(taken int64) (float64, error) {
				if taken == at {
					return 1, killed
				}
				return 1, nil
			}
			err := loop(t, c).Run(t.Context(), from)
			if err == nil {
				break
			}
			if !errors.Is(err, killed) || !strings.Contains(err.Error(), fmt.Sprintf("step %d,", at+1)) {
				t.Fatal(err)
			}
			c, from = c.last()
			at += 2
		}
		if c.taken != steps || c.state != want {
			t.Errorf("killed in step %d: ended after %d steps, same state: %t", n+1, c.taken, c.state == want)
		}
	}
}

func TestStopWhileWaitingForImages(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c := &chain{}
	l := loop(t, c)
	l.Batches = func(ctx context.Context, from int64) iter.Seq2[data.Batch, error] {
		return func(yield func(data.Batch, error) bool) {
			for b, err := range batches(ctx, from) {
				if c.taken == 7 {
					cancel()
					<-ctx.Done()
					yield(data.Batch{}, context.Cause(ctx))
					return
				}
				if !yield(b, err) {
					return
				}
			}
		}
	}
	if err := l.Run(ctx, 0); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if _, from := c.last(); from != 7 {
		t.Errorf("kept step %d, want 7", from)
	}
}

func TestDiverged(t *testing.T) {
	for _, loss := range []float64{math.NaN(), math.Inf(1)} {
		c := &chain{hook: func(taken int64) (float64, error) {
			if taken == 6 {
				return loss, nil
			}
			return 1, nil
		}}
		l := loop(t, c)
		net, err := l.Paths.Path(7)
		if err != nil {
			t.Fatal(err)
		}
		err = l.Run(t.Context(), 0)
		if !errors.Is(err, train.ErrDiverged) || !strings.Contains(err.Error(), "step 7, path "+string(net.Arch)) {
			t.Errorf("%v: %v", loss, err)
		}
		if _, from := c.last(); from != 5 {
			t.Errorf("spoiled weights were kept: step %d", from)
		}
	}
}

func TestHooks(t *testing.T) {
	c := &chain{}
	l := loop(t, c)
	var calls []string
	l.ReportEvery, l.EvaluateEvery, l.CheckpointEvery = 10, 20, 20
	l.Report = func(p train.Progress) error { calls = append(calls, fmt.Sprint("report ", p.Step)); return nil }
	l.Evaluate = func(_ context.Context, step int64) error {
		calls = append(calls, fmt.Sprint("evaluate ", step))
		return nil
	}
	l.Checkpoint = func(_ context.Context, step int64) error {
		calls = append(calls, fmt.Sprint("keep ", step))
		return nil
	}
	if err := l.Run(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if err := l.Run(t.Context(), steps); err != nil {
		t.Fatal(err)
	}
	want := []string{"report 10", "report 20", "evaluate 20", "keep 20", "report 23", "evaluate 23", "keep 23", "evaluate 23", "keep 23"}
	if d := cmp.Diff(want, calls); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

// The last evaluation finishes the weights. Stopped in it, before or after it
// did so, and again when it is repeated, a run keeps finished ones.
func TestStopInTheLastEvaluation(t *testing.T) {
	stop := errors.New("stop")
	for _, stops := range []int{1, 2} {
		for _, late := range []bool{false, true} {
			left, finished, kept := stops, false, false
			l := loop(t, &chain{})
			l.Evaluate = func(context.Context, int64) error {
				finished = finished || late || left == 0
				if left == 0 {
					return nil
				}
				left--
				return stop
			}
			l.CheckpointEvery = 0
			l.Checkpoint = func(context.Context, int64) error { kept = finished; return nil }
			for from := int64(0); ; from = steps {
				finished = kept // as a new process finds them
				err := l.Run(t.Context(), from)
				if err == nil {
					break
				}
				if !errors.Is(err, stop) {
					t.Fatal(err)
				}
			}
			if !kept {
				t.Errorf("stopped %d times, late %t: what was evaluated is not what was kept", stops, late)
			}
		}
	}
}

// Whatever fails between steps, the weights are good and are kept.
func TestFailures(t *testing.T) {
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		change func(*train.Loop)
		want   string
		kept   int64
	}{
		"report": {func(l *train.Loop) { l.ReportEvery = 3; l.Report = func(train.Progress) error { return broken } }, "report step 3", 3},
		"evaluate": {func(l *train.Loop) {
			l.EvaluateEvery = 4
			l.Evaluate = func(context.Context, int64) error { return broken }
		}, "evaluate step 4", 4},
		"images": {func(l *train.Loop) {
			l.Batches = func(ctx context.Context, from int64) iter.Seq2[data.Batch, error] {
				return func(yield func(data.Batch, error) bool) {
					n := 0
					for b := range batches(ctx, from) {
						if n++; n == 9 {
							yield(data.Batch{}, broken)
							return
						}
						if !yield(b, nil) {
							return
						}
					}
				}
			}
		}, "images of step 9", 8},
		"path": {func(l *train.Loop) { l.Paths = failing{l.Paths, broken} }, "path of step 12", 11},
	} {
		t.Run(name, func(t *testing.T) {
			state := &chain{}
			l := loop(t, state)
			c.change(l)
			err := l.Run(t.Context(), 0)
			if !errors.Is(err, broken) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if _, from := state.last(); from != c.kept {
				t.Errorf("kept step %d, want %d", from, c.kept)
			}
		})
	}
	l := loop(t, &chain{})
	calls := 0
	l.Checkpoint = func(context.Context, int64) error { calls++; return broken }
	if err := l.Run(t.Context(), 0); !errors.Is(err, broken) || !strings.Contains(err.Error(), "checkpoint of step 5") || calls != 1 {
		t.Errorf("checkpoint: %v after %d calls", err, calls)
	}
	l.Batches = func(context.Context, int64) iter.Seq2[data.Batch, error] {
		return func(func(data.Batch, error) bool) {}
	}
	if err := l.Run(t.Context(), 4); err == nil || !strings.Contains(err.Error(), "images ended after step 4") {
		t.Errorf("no images: %v", err)
	}
	for _, from := range []int64{-1, steps + 1} {
		if err := l.Run(t.Context(), from); err == nil {
			t.Errorf("went on after step %d", from)
		}
	}
	if err := (&train.Loop{}).Run(t.Context(), 0); err == nil {
		t.Error("an empty loop ran")
	}
}

type failing struct {
	train.PathSampler
	err error
}

func (f failing) Path(step int64) (*arch.Net, error) {
	if step == 12 {
		return nil, f.err
	}
	return f.PathSampler.Path(step)
}

func TestProgress(t *testing.T) {
	clock := time.Unix(0, 0)
	c := &chain{hook: func(taken int64) (float64, error) {
		clock = clock.Add(3 * time.Second)
		return float64(taken), nil
	}}
	l := loop(t, c)
	l.Now = func() time.Time { return clock }
	l.Batches = func(ctx context.Context, from int64) iter.Seq2[data.Batch, error] {
		return func(yield func(data.Batch, error) bool) {
			for b, err := range batches(ctx, from) {
				clock = clock.Add(time.Second)
				if !yield(b, err) {
					return
				}
			}
		}
	}
	l.ReportEvery = 10
	var got []train.Progress
	l.Report = func(p train.Progress) error {
		clock = clock.Add(time.Hour) // hooks do not count
		got = append(got, p)
		return nil
	}
	if err := l.Run(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if len(got) != 3 {
		t.Fatalf("%d reports", len(got))
	}
	p := got[1]
	net, err := l.Paths.Path(20)
	if err != nil {
		t.Fatal(err)
	}
	want := train.Progress{
		Step: 20, Steps: steps, Arch: net.Arch, LR: l.LR(20),
		Loss: 14.5, Top1: 0.5, // losses 10 to 19; one of two images
		// 1 s of waiting and 3 s of computing a step
		Elapsed: 40 * time.Second, ImagesPerSecond: 0.5, Wait: 0.25, Remaining: 12 * time.Second,
	}
	if d := cmp.Diff(want, p); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func Example() {
	space, err := configs.Space("shufflenetv2-small")
	if err != nil {
		panic(err)
	}
	schedule := train.Schedule{Kind: train.Cosine, Steps: 4}
	l := train.Loop{
		Step: func(_ context.Context, net *arch.Net, b data.Batch, lr float64) (train.StepResult, error) {
			fmt.Printf("%d images at %.3f\n", b.N, lr)
			return train.StepResult{Loss: 2.3, Correct: 1}, nil
		},
		Paths:   train.Uniform{Space: space, Seed: 1},
		Batches: batches,
		LR:      func(k int64) float64 { return schedule.LR(0.5, k, 4) },
		Steps:   4,
		Report: func(p train.Progress) error {
			fmt.Printf("loss %.1f, top-1 %.1f\n", p.Loss, p.Top1)
			return nil
		},
	}
	if err := l.Run(context.Background(), 0); err != nil {
		panic(err)
	}
	// Output:
	// 2 images at 0.500
	// 2 images at 0.427
	// 2 images at 0.250
	// 2 images at 0.073
	// loss 2.3, top-1 0.5
}
