package torchx

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
)

var (
	last = Place{CUDA: -1, ChannelsLast: true}
	rows = Place{CUDA: -1}
)

func newWorker(t testing.TB, threads int) *Worker {
	w := NewWorker(threads)
	t.Cleanup(w.Close)
	return w
}

func do(t *testing.T, w *Worker, f func(*Scope)) {
	t.Helper()
	err := w.Do(func(s *Scope) error {
		f(s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func random(n int, seed uint64) []float32 {
	r := rand.New(rand.NewPCG(seed, 0))
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(r.NormFloat64())
	}
	return v
}

func read(t Tensor, n int) []float32 {
	v := make([]float32, n)
	Read(t, v)
	return v
}

// near compares in units of the largest element: sums of float32 in another
// order differ by a few roundings.
func near(t *testing.T, what string, got, want []float32, tolerance float64) {
	t.Helper()
	var scale, worst float64
	for i := range want {
		scale = math.Max(scale, math.Abs(float64(want[i])))
		worst = math.Max(worst, math.Abs(float64(got[i]-want[i])))
	}
	if !(worst <= tolerance*scale) {
		t.Errorf("%s: off by %g of at most %g", what, worst, scale)
	}
}

func TestNativeErrorComesBack(t *testing.T) {
	w := newWorker(t, 1)
	err := w.Do(func(s *Scope) error {
		x := s.Floats(random(12, 1), []int64{1, 3, 2, 2}, rows)
		k := s.Floats(random(8, 2), []int64{2, 4, 1, 1}, rows)
		s.Conv2D(x, k, Tensor{}, 1, 0, 1) // gotorch throws
		return nil
	})
	if ne, ok := errors.AsType[*NativeError](err); !ok || ne.Op != "conv2d" || !strings.Contains(ne.Text, "channels") {
		t.Errorf("convolution of wrong channels: %v", err)
	}
	err = w.Do(func(s *Scope) error {
		Backward(s.Floats(random(1, 1), []int64{1}, rows)) // our library throws
		return nil
	})
	if ne, ok := errors.AsType[*NativeError](err); !ok || ne.Op != "backward" {
		t.Errorf("backward without a graph: %v", err)
	}
	do(t, w, func(s *Scope) { // the worker survives
		near(t, "round trip", read(s.Floats([]float32{1, 2}, []int64{2}, rows), 2), []float32{1, 2}, 0)
	})
}

func TestOtherPanicsContinueInTheCaller(t *testing.T) {
	w := newWorker(t, 1)
	defer func() {
		if p := fmt.Sprint(recover()); !strings.Contains(p, "a bug") {
			t.Errorf("panic %q, want the worker's", p)
		}
		if err := w.Do(func(*Scope) error { return nil }); err != nil {
			t.Error(err)
		}
		w.Close()
		if err := w.Do(func(*Scope) error { return nil }); !errors.Is(err, ErrClosed) {
			t.Errorf("closed worker: %v", err)
		}
	}()
	_ = w.Do(func(*Scope) error { panic("a bug") })
}

func TestScopeFreesWhatWasNotMoved(t *testing.T) {
	w := newWorker(t, 1)
	const n = 1 << 18 // 1 MiB: counted by HostMemory
	base := HostMemory().Used
	var kept Scope
	var moved Tensor
	do(t, w, func(s *Scope) {
		for i := range 4 {
			x := s.Floats(make([]float32, n), []int64{n}, rows)
			switch i {
			case 0:
				moved = s.Move(x, &kept)
			case 1:
				s.Free(x)
			}
		}
		if used := HostMemory().Used - base; used < 3*4*n || used > 4*4*n {
			t.Errorf("three tensors of %d bytes hold %d", 4*n, used)
		}
	})
	if used := HostMemory().Used - base; used < 4*n || used > 2*4*n {
		t.Errorf("after the scope, one tensor of %d bytes holds %d", 4*n, used)
	}
	do(t, w, func(*Scope) { near(t, "moved", read(moved, n), make([]float32, n), 0) })
	kept.Close()
	if used := HostMemory().Used - base; used != 0 {
		t.Errorf("%d bytes are left", used)
	}
	ReleaseHostMemory()
	if m := HostMemory(); m.Held != m.Used || m.Peak < 3*4*n {
		t.Errorf("after release: %+v", m)
	}
}

// TestDepthwise compares with libtorch's own gradient, for every kernel and
// stride that has a fast one, channels that do not fill a vector, and an image
// that needs several bands.
func TestDepthwise(t *testing.T) {
	w := newWorker(t, 2)
	for _, kernel := range []int{3, 5, 7, 9} {
		for _, stride := range []int{1, 2, 3} {
			for _, c := range []int{6, 16, 40} {
				for _, side := range []int{5, 12, 90} {
					if side == 90 && c != 16 {
						continue
					}
					n := 3
					shape := []int64{int64(n), int64(c), int64(side), int64(side + 1)}
					x, k := random(n*c*side*(side+1), 1), random(c*kernel*kernel, 2)
					grads := func(f func(s *Scope, x, k Tensor) Tensor, p Place) (dx, dk []float32) {
						do(t, w, func(s *Scope) {
							xt := s.Part(s.Floats(x, shape, p), nil, true)
							kt := s.Part(s.Floats(k, []int64{int64(c), 1, int64(kernel), int64(kernel)}, p), nil, true)
							s.WithGrad(func() {
								y := f(s, xt, kt)
								// A loss whose gradient differs from place to place.
								Backward(s.CrossEntropy(s.Flatten(y), s.Ints([]int64{0, 1, 2}, rows), 0))
							})
							dx, dk = read(s.Grad(xt), len(x)), read(s.Grad(kt), len(k))
						})
						return dx, dk
					}
					dx, dk := grads(func(s *Scope, x, k Tensor) Tensor { return s.Depthwise(x, k, stride, kernel/2) }, last)
					wx, wk := grads(func(s *Scope, x, k Tensor) Tensor { return s.Conv2D(x, k, Tensor{}, stride, kernel/2, c) }, rows)
					what := fmt.Sprintf("kernel %d stride %d channels %d side %d", kernel, stride, c, side)
					near(t, what+": input", dx, wx, 1e-5)
					near(t, what+": weight", dk, wk, 1e-5)
				}
			}
		}
	}
}

// TestRegroup compares the kernel with ATen's slices and joins, values and
// gradients: a permutation, a selection that drops channels, and one that uses
// a channel twice.
func TestRegroup(t *testing.T) {
	w := newWorker(t, 2)
	const n, a, b, side = 2, 3, 5, 4
	for name, lists := range map[string][][]int32{
		"de-interleave": {{0, 2, 4, 6}, {1, 3, 5, 7}},
		"shuffle":       {{0, 4, 1, 5, 2, 6, 3, 7}},
		"drop":          {{7, 1}, {2}},
		"twice":         {{0, 1, 2}, {2, 2}},
	} {
		run := func(p Place) (out [][]float32) {
			do(t, w, func(s *Scope) {
				x := s.Part(s.Floats(random(n*a*side*side, 1), []int64{n, a, side, side}, p), nil, true)
				y := s.Part(s.Floats(random(n*b*side*side, 2), []int64{n, b, side, side}, p), nil, true)
				s.WithGrad(func() {
					for i, r := range s.Regroup([]Tensor{x, y}, lists) {
						out = append(out, read(r, n*len(lists[i])*side*side))
						Backward(s.CrossEntropy(s.Flatten(r), s.Ints([]int64{1, int64(3 + i)}, rows), 0))
					}
				})
				out = append(out, read(s.Grad(x), n*a*side*side), read(s.Grad(y), n*b*side*side))
			})
			return out
		}
		got, want, again := run(last), run(rows), run(rows) // lists are kept from one time to the next
		for i := range want {
			near(t, fmt.Sprint(name, " ", i), got[i], want[i], 1e-6)
			near(t, fmt.Sprint(name, " ", i, ", again"), again[i], want[i], 0)
		}
	}
}

func TestDropoutFollowsItsSeed(t *testing.T) {
	w := newWorker(t, 2)
	const n = 10000
	ones := make([]float32, n)
	for i := range ones {
		ones[i] = 1
	}
	mask := func(seed uint64) (out []float32) {
		do(t, w, func(s *Scope) {
			out = read(s.Dropout(s.Floats(ones, []int64{n}, rows), 0.25, seed), n)
		})
		return out
	}
	first, again, other := mask(1), mask(1), mask(2)
	same, kept := 0, 0
	for i := range n {
		if first[i] != again[i] {
			t.Fatal("one seed, two masks")
		}
		if first[i] == other[i] {
			same++
		}
		if first[i] != 0 {
			kept++
			if first[i] != float32(1/0.75) {
				t.Fatalf("a kept element is %v", first[i])
			}
		}
	}
	// Binomial: five standard deviations are 217 of 7,500, and 242 of 6,250.
	if kept < 7283 || kept > 7717 || same > 6492 {
		t.Errorf("%d of %d kept, %d alike under another seed", kept, n, same)
	}
}
