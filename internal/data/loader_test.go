package data_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"spos/internal/data"
	"spos/internal/imaging"
)

const testSeed = 20

// numbers is a set of tiny images that carry their index in two pixels.
type numbers struct {
	n      int
	broken int // index that fails, or 0
}

var errBroken = errors.New("broken on purpose")

func (s numbers) Len() int          { return s.n }
func (s numbers) Classes() []string { return []string{"even", "odd", "third"} }
func (s numbers) Label(i int) int   { return i % 3 }

func (s numbers) Image(i int) (imaging.Image, error) {
	if s.broken > 0 && i >= s.broken {
		return imaging.Image{}, fmt.Errorf("image %d: %w", i, errBroken)
	}
	return imaging.Image{W: 2, H: 1, C: 1, Pix: []uint8{uint8(i / 256), uint8(i % 256)}}, nil
}

var plain = imaging.Recipe{Color: imaging.Gray, Range: imaging.Bytes}

// indices reads the image numbers back from a batch, checking its labels.
func indices(t *testing.T, b data.Batch) []int {
	t.Helper()
	if len(b.Labels) != b.N || len(b.Images) != b.N*b.Shape.Numel() {
		t.Fatalf("%d images: %d labels, %d values of %v", b.N, len(b.Labels), len(b.Images), b.Shape)
	}
	out := make([]int, b.N)
	for i := range out {
		out[i] = int(b.Images[2*i])*256 + int(b.Images[2*i+1])
		if int(b.Labels[i]) != out[i]%3 {
			t.Fatalf("image %d has label %d", out[i], b.Labels[i])
		}
	}
	return out
}

// take collects n batches (all, if n is negative).
func take(t *testing.T, l *data.Loader, from data.Position, n int) [][]int {
	t.Helper()
	var out [][]int
	if n == 0 {
		return nil
	}
	for b, err := range l.Batches(t.Context(), from) {
		if err != nil {
			t.Fatal(err)
		}
		if out = append(out, indices(t, b)); len(out) == n {
			break
		}
	}
	return out
}

func TestEvaluationSeesEveryImageOnceInOrder(t *testing.T) {
	l := &data.Loader{Data: numbers{n: 1003}, Recipe: plain, Size: 100, Augment: imaging.Augment{Flip: 1}, Workers: 3}
	got := slices.Concat(take(t, l, data.Position{}, -1)...)
	if len(got) != 1003 || l.PerEpoch() != 11 {
		t.Fatalf("%d images in %d batches", len(got), l.PerEpoch())
	}
	for i, v := range got {
		if v != i {
			t.Fatalf("image %d is number %d", i, v)
		}
	}
	if rest := take(t, l, data.Position{Batch: 10}, -1); len(rest) != 1 || len(rest[0]) != 3 {
		t.Errorf("from batch 10: %v", rest)
	}
	if rest := take(t, l, data.Position{Batch: 11}, -1); len(rest) != 0 {
		t.Errorf("from the end: %v", rest)
	}
}

func TestTrainingOrder(t *testing.T) {
	l := &data.Loader{Data: numbers{n: 1003}, Recipe: plain, Size: 100, Train: true, Seed: testSeed}
	got := take(t, l, data.Position{}, 20)
	for epoch := range 2 {
		seen := map[int]bool{}
		for _, b := range got[10*epoch : 10*epoch+10] {
			for _, i := range b {
				if seen[i] {
					t.Fatalf("epoch %d shows image %d twice", epoch, i)
				}
				seen[i] = true
			}
		}
		if len(seen) != 1000 {
			t.Errorf("epoch %d shows %d images", epoch, len(seen))
		}
	}
	if slices.Equal(got[0], got[10]) {
		t.Error("two epochs have one order")
	}
	other := &data.Loader{Data: l.Data, Recipe: plain, Size: 100, Train: true, Seed: testSeed + 1}
	if slices.Equal(got[0], take(t, other, data.Position{}, 1)[0]) {
		t.Error("two seeds have one order")
	}
}

// Batches from any position, by any number of workers, are those of one
// uninterrupted run: pixels too, augmentation included.
func TestBatchesDependOnThePositionAlone(t *testing.T) {
	load := func(workers, prefetch int, from data.Position, n int) [][]float32 {
		l := &data.Loader{
			Data: numbers{n: 230}, Recipe: plain, Size: 50, Train: true, Seed: testSeed,
			Augment: imaging.Augment{PadCrop: 1, Flip: .5}, Workers: workers, Prefetch: prefetch,
		}
		var out [][]float32
		for b, err := range l.Batches(t.Context(), from) {
			if err != nil {
				t.Fatal(err)
			}
			if out = append(out, slices.Clone(b.Images)); len(out) == n {
				break
			}
		}
		return out
	}
	want := load(1, 1, data.Position{}, 12)
	for _, workers := range []int{2, 7} {
		for step := range 12 {
			l := data.Loader{Data: numbers{n: 230}, Size: 50, Train: true}
			got := load(workers, workers, l.At(step), 12-step)
			for i := range got {
				if !slices.Equal(got[i], want[step+i]) {
					t.Fatalf("%d workers from step %d: batch %d differs", workers, step, i)
				}
			}
		}
	}
}

// Neighbouring images of neighbouring epochs draw independently: their
// generators are seeded with consecutive numbers.
func TestAugmentationOfNeighboursIsIndependent(t *testing.T) {
	const n = 4000
	l := &data.Loader{Data: numbers{n: n}, Recipe: plain, Size: n, Train: true, Seed: 0, Augment: imaging.Augment{Flip: .5}}
	flips := make([]float64, 0, 2*n)
	for b, err := range l.Batches(t.Context(), data.Position{}) {
		if err != nil {
			t.Fatal(err)
		}
		epoch := make([]float64, n)
		for i := range b.N {
			// A flipped image has its low byte first; the label tells which.
			hi, lo := int(b.Images[2*i]), int(b.Images[2*i+1])
			k, f := hi*256+lo, -1.
			if k >= n || k%3 != int(b.Labels[i]) {
				k, f = lo*256+hi, 1
			}
			if k < n {
				epoch[k] = f
			}
		}
		if flips = append(flips, epoch...); len(flips) == 2*n {
			break
		}
	}
	mean, next, across := 0., 0., 0.
	for i, f := range flips {
		mean += f / (2 * n)
		if i+1 < len(flips) {
			next += f * flips[i+1] / (2 * n)
		}
		if i < n {
			across += f * flips[i+n] / n
		}
	}
	// The deviation of each is at most 1/√n = 0.016; some flips of ambiguous
	// images are read wrongly, which shifts the mean and little else.
	if math.Abs(next-mean*mean) > .08 || math.Abs(across-mean*mean) > .08 || math.Abs(mean) > .4 {
		t.Errorf("mean %.3f, correlation with the next image %.3f, with the next epoch %.3f", mean, next, across)
	}
}

func TestErrorNamesTheForemostImage(t *testing.T) {
	for range 20 {
		l := &data.Loader{Data: numbers{n: 300, broken: 137}, Recipe: plain, Size: 100, Workers: 4}
		var batches int
		var last error
		for _, err := range l.Batches(t.Context(), data.Position{}) {
			batches++
			last = err
		}
		if batches != 2 || !errors.Is(last, errBroken) || last.Error() != "load batches: image 137: broken on purpose" {
			t.Fatalf("%d batches, then %v", batches, last)
		}
	}
}

func TestLoaderRefusesNonsense(t *testing.T) {
	for name, l := range map[string]*data.Loader{
		"no data":      {Recipe: plain, Size: 1},
		"empty":        {Data: numbers{}, Recipe: plain, Size: 1},
		"no size":      {Data: numbers{n: 3}, Recipe: plain},
		"large batch":  {Data: numbers{n: 3}, Recipe: plain, Size: 4, Train: true},
		"bad recipe":   {Data: numbers{n: 3}, Recipe: imaging.Recipe{Color: "x"}, Size: 1},
		"bad augment":  {Data: numbers{n: 3}, Recipe: plain, Size: 1, Augment: imaging.Augment{Flip: 2}},
		"broken first": {Data: brokenFirst{numbers{n: 3}}, Recipe: plain, Size: 1},
	} {
		n := 0
		for _, err := range l.Batches(t.Context(), data.Position{}) {
			if n++; err == nil || n > 1 {
				t.Fatalf("%s: batch %d, err %v", name, n, err)
			}
		}
		if n != 1 {
			t.Errorf("%s: nothing yielded", name)
		}
	}
}

type brokenFirst struct{ numbers }

func (brokenFirst) Image(int) (imaging.Image, error) { return imaging.Image{}, errBroken }

// watched takes its time (the bubble's, not ours) over an image, and reports
// those still in the making once the loop has been left.
type watched struct {
	numbers
	t    *testing.T
	left atomic.Bool
}

func (w *watched) Image(i int) (imaging.Image, error) {
	time.Sleep(time.Millisecond)
	if w.left.Load() {
		w.t.Error("a worker outlives the loop")
	}
	return w.numbers.Image(i)
}

// Leaving the loop in whatever way ends every goroutine. The bubble panics if
// one stays blocked.
func TestNoGoroutineOutlivesTheLoop(t *testing.T) {
	why := errors.New("enough")
	ways := map[string]func(t *testing.T, l *data.Loader){
		"break": func(t *testing.T, l *data.Loader) {
			t.Helper()
			n := 0
			for range l.Batches(t.Context(), data.Position{}) {
				if n++; n == 3 {
					break
				}
			}
		},
		"break at once": func(t *testing.T, l *data.Loader) {
			t.Helper()
			for range l.Batches(t.Context(), data.Position{}) {
				break
			}
		},
		"panic": func(t *testing.T, l *data.Loader) {
			t.Helper()
			defer func() { _ = recover() }()
			for range l.Batches(t.Context(), data.Position{}) {
				panic("consumer")
			}
		},
		"cancel": func(t *testing.T, l *data.Loader) {
			t.Helper()
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			var last error
			n := 0
			for _, err := range l.Batches(ctx, data.Position{}) {
				if n++; n == 3 {
					cancel(why)
				}
				last = err
			}
			if !errors.Is(last, why) {
				t.Errorf("the last error is %v", last)
			}
		},
		"error": func(t *testing.T, l *data.Loader) {
			t.Helper()
			l.Data.(*watched).broken = 100
			var last error
			for _, err := range l.Batches(t.Context(), data.Position{}) {
				last = err
			}
			if !errors.Is(last, errBroken) {
				t.Errorf("the last error is %v", last)
			}
		},
	}
	for name, leave := range ways {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &watched{numbers: numbers{n: 10000}, t: t}
				leave(t, &data.Loader{Data: w, Recipe: plain, Size: 64, Train: true, Workers: 8, Prefetch: 6})
				w.left.Store(true)
				time.Sleep(time.Second)
			})
		})
	}
}

func TestSplitIsStratified(t *testing.T) {
	d := numbers{n: 1000}
	rest, held, err := data.Split(d, 0.1, testSeed)
	if err != nil {
		t.Fatal(err)
	}
	count := func(s data.Dataset) (perClass [3]int, all []int) {
		for i := range s.Len() {
			im, err := s.Image(i)
			if err != nil {
				t.Fatal(err)
			}
			k := int(im.Pix[0])*256 + int(im.Pix[1])
			if s.Label(i) != k%3 {
				t.Fatalf("image %d has label %d", k, s.Label(i))
			}
			perClass[s.Label(i)]++
			all = append(all, k)
		}
		return perClass, all
	}
	a, inRest := count(rest)
	b, inHeld := count(held)
	if b != [3]int{33, 33, 33} || a != [3]int{301, 300, 300} {
		t.Errorf("%v kept, %v held out", a, b)
	}
	both := slices.Concat(inRest, inHeld)
	slices.Sort(both)
	for i, k := range both {
		if i != k {
			t.Fatalf("image %d is lost or doubled", i)
		}
	}
	_, again, _ := data.Split(d, 0.1, testSeed)
	_, other, _ := data.Split(d, 0.1, testSeed+1)
	_, x := count(again)
	_, y := count(other)
	if !slices.Equal(x, inHeld) || slices.Equal(y, inHeld) {
		t.Error("the split does not depend on its seed alone")
	}
	for _, f := range []float64{0, 1, -1, math.NaN()} {
		if _, _, err := data.Split(d, f, 0); err == nil {
			t.Errorf("fraction %v accepted", f)
		}
	}
	if _, _, err := data.Split(numbers{n: 2}, .5, 0); !errors.Is(err, data.ErrData) {
		t.Errorf("two images of two classes: %v", err)
	}
}

func TestSampleGrows(t *testing.T) {
	d := numbers{n: 100}
	small, large := data.Sample(d, 10, testSeed), data.Sample(d, 1000, testSeed)
	if small.Len() != 10 || large.Len() != 100 {
		t.Fatalf("%d and %d images", small.Len(), large.Len())
	}
	for i := range 10 {
		a, _ := small.Image(i)
		b, _ := large.Image(i)
		if !slices.Equal(a.Pix, b.Pix) {
			t.Fatal("a smaller sample is not the beginning of a larger one")
		}
	}
}

func TestMoments(t *testing.T) {
	// 0..255 in the second pixel and zero in the first.
	mean, std, err := data.Moments(t.Context(), numbers{n: 256}, imaging.Recipe{Color: imaging.Gray, Range: imaging.Bytes, Mean: []float32{9}})
	if err != nil {
		t.Fatal(err)
	}
	// Mean 127.5/2; E[x²] = (255·256·511/6/256)/2 = 10858.75.
	if math.Abs(float64(mean[0])-63.75) > 1e-3 || math.Abs(float64(std[0])-math.Sqrt(10858.75-63.75*63.75)) > 1e-3 {
		t.Errorf("mean %v, std %v", mean, std)
	}
}
