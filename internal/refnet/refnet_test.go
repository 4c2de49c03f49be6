package refnet_test

import (
	"math"
	"slices"
	"strings"
	"testing"

	"spos/internal/arch"
	"spos/internal/ckpt"
	"spos/internal/refnet"
)

type tensors map[string]ckpt.Tensor

func (ts tensors) Tensor(name string) (ckpt.Tensor, error) {
	t, ok := ts[name]
	if !ok {
		return t, ckpt.ErrMissing
	}
	return t, nil
}

type stats map[string][2][]float32

func (s stats) Moments(op string) (mean, variance []float32, ok bool) {
	m, ok := s[op]
	return m[0], m[1], ok
}

// view names a whole tensor of that shape.
func view(name string, shape ...int) arch.View {
	return arch.View{Param: arch.Param{Name: name, Shape: shape}}
}

// norm of c channels without scale and shift; eps is zero so that results are
// round.
func norm(c int) *arch.Norm {
	return &arch.Norm{Mean: view("mean", c), Var: view("var", c)}
}

func shape(c, h, w int) arch.Shape { return arch.Shape{C: c, H: h, W: w} }

// TestOps computes each op on numbers small enough for paper.
func TestOps(t *testing.T) {
	plain := func(c int) tensors {
		return tensors{"mean": {Shape: []int{c}, Data: make([]float32, c)}, "var": {Shape: []int{c}, Data: slices.Repeat([]float32{1}, c)}}
	}
	with := func(ts tensors, name string, data []float32, shape ...int) tensors {
		ts[name] = ckpt.Tensor{Shape: shape, Data: data}
		return ts
	}
	tests := map[string]struct {
		op   arch.Op
		w    tensors
		s    refnet.Stats
		in   []float32
		want []float32
	}{
		// 1 2 3 / 4 5 6 / 7 8 9 under a cross, edges padded with zeros.
		"conv 3×3": {
			op: arch.Op{Kind: arch.Conv, In: shape(1, 3, 3), Out: shape(1, 3, 3), Kernel: 3, Stride: 1, Pad: 1, Groups: 1, Weight: new(view("w", 1, 1, 3, 3)), Norm: norm(1)},
			w:  with(plain(1), "w", []float32{0, 1, 0, 10, 100, 1000, 0, -1, 0}, 1, 1, 3, 3),
			in: []float32{1, 2, 3, 4, 5, 6, 7, 8, 9},
			want: []float32{
				100 + 2000 - 4, 10 + 200 + 3000 - 5, 20 + 300 - 6,
				400 + 5000 + 1 - 7, 40 + 500 + 6000 + 2 - 8, 50 + 600 + 3 - 9,
				700 + 8000 + 4, 70 + 800 + 9000 + 5, 80 + 900 + 6,
			},
		},
		// The same kernel with stride 2 keeps the corners.
		"conv stride 2": {
			op:   arch.Op{Kind: arch.Conv, In: shape(1, 3, 3), Out: shape(1, 2, 2), Kernel: 3, Stride: 2, Pad: 1, Groups: 1, Weight: new(view("w", 1, 1, 3, 3)), Norm: norm(1)},
			w:    with(plain(1), "w", []float32{0, 1, 0, 10, 100, 1000, 0, -1, 0}, 1, 1, 3, 3),
			in:   []float32{1, 2, 3, 4, 5, 6, 7, 8, 9},
			want: []float32{2096, 314, 8704, 986},
		},
		// A kernel wider than the input: only its middle meets anything.
		"conv 5×5 on 1×1": {
			op:   arch.Op{Kind: arch.Conv, In: shape(1, 1, 1), Out: shape(1, 1, 1), Kernel: 5, Stride: 1, Pad: 2, Groups: 1, Weight: new(view("w", 1, 1, 5, 5)), Norm: norm(1)},
			w:    with(plain(1), "w", []float32{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9}, 1, 1, 5, 5),
			in:   []float32{2},
			want: []float32{6},
		},
		"conv in groups": {
			op:   arch.Op{Kind: arch.Conv, In: shape(4, 1, 1), Out: shape(2, 1, 1), Kernel: 1, Stride: 1, Groups: 2, Weight: new(view("w", 2, 2, 1, 1)), Norm: norm(2)},
			w:    with(plain(2), "w", []float32{1, 10, 100, 1000}, 2, 2, 1, 1),
			in:   []float32{1, 2, 3, 4},
			want: []float32{21, 4300},
		},
		// Row 1 and column 2 of a wider weight.
		"sliced weight": {
			op: arch.Op{Kind: arch.Conv, In: shape(1, 1, 1), Out: shape(1, 1, 1), Kernel: 1, Stride: 1, Groups: 1, Norm: norm(1), Weight: &arch.View{
				Param: arch.Param{Name: "w", Shape: []int{2, 3, 1, 1}}, Take: []arch.Span{{Start: 1, Len: 1}, {Start: 2, Len: 1}, {Len: 1}, {Len: 1}},
			}},
			w:    with(plain(1), "w", []float32{1, 2, 3, 4, 5, 6}, 2, 3, 1, 1),
			in:   []float32{2},
			want: []float32{12},
		},
		// (x − 3) / √(3 + 1) · 2 + 0.5, cut at 0 and 6.
		"norm and relu6": {
			op: arch.Op{
				Kind: arch.Conv, In: shape(1, 1, 4), Out: shape(1, 1, 4), Kernel: 1, Stride: 1, Groups: 1, Act: arch.ReLU6, Weight: new(view("w", 1, 1, 1, 1)),
				Norm: &arch.Norm{Mean: view("mean", 1), Var: view("var", 1), Gamma: new(view("g", 1)), Beta: new(view("b", 1)), Eps: 1},
			},
			w: tensors{
				"w": {Shape: []int{1, 1, 1, 1}, Data: []float32{1}}, "mean": {Shape: []int{1}, Data: []float32{3}}, "var": {Shape: []int{1}, Data: []float32{3}},
				"g": {Shape: []int{1}, Data: []float32{2}}, "b": {Shape: []int{1}, Data: []float32{0.5}},
			},
			in:   []float32{0, 3, 5, 50},
			want: []float32{0, 0.5, 2.5, 6},
		},
		"statistics handed in": {
			op:   arch.Op{Name: "op", Kind: arch.Conv, In: shape(1, 1, 2), Out: shape(1, 1, 2), Kernel: 1, Stride: 1, Groups: 1, Act: arch.ReLU, Weight: new(view("w", 1, 1, 1, 1)), Norm: norm(1)},
			w:    with(tensors{}, "w", []float32{1}, 1, 1, 1, 1),
			s:    stats{"op": {{1}, {4}}},
			in:   []float32{0, 5},
			want: []float32{0, 2},
		},
		"linear": {
			op:   arch.Op{Kind: arch.Linear, In: shape(2, 1, 1), Out: shape(3, 1, 1), Weight: new(view("w", 3, 2)), Bias: new(view("b", 3))},
			w:    tensors{"w": {Shape: []int{3, 2}, Data: []float32{1, 0, 0, 1, 1, 1}}, "b": {Shape: []int{3}, Data: []float32{0, 0, 100}}},
			in:   []float32{5, 7},
			want: []float32{5, 7, 112},
		},
		"global pool": {
			op: arch.Op{Kind: arch.GlobalPool, In: shape(2, 1, 2), Out: shape(2, 1, 1)},
			in: []float32{1, 3, 10, 30}, want: []float32{2, 20},
		},
		"dropout": {
			op: arch.Op{Kind: arch.Dropout, In: shape(2, 1, 1), Out: shape(2, 1, 1), Rate: 0.9},
			in: []float32{1, 3}, want: []float32{1, 3},
		},
		"take odd": {
			op: arch.Op{Kind: arch.Take, In: shape(4, 1, 2), Out: shape(2, 1, 2), Start: 1, Step: 2},
			in: []float32{0, 1, 10, 11, 20, 21, 30, 31}, want: []float32{10, 11, 30, 31},
		},
		"take half": {
			op: arch.Op{Kind: arch.Take, In: shape(4, 1, 1), Out: shape(2, 1, 1), Start: 2, Step: 1},
			in: []float32{0, 1, 2, 3}, want: []float32{2, 3},
		},
		// View (2, 3), transpose, flatten.
		"shuffle": {
			op: arch.Op{Kind: arch.Shuffle, In: shape(6, 1, 1), Out: shape(6, 1, 1), Groups: 2},
			in: []float32{0, 1, 2, 3, 4, 5}, want: []float32{0, 3, 1, 4, 2, 5},
		},
	}
	for name, tt := range tests {
		tt.op.Inputs = []int{arch.Input}
		n := &arch.Net{In: tt.op.In, Ops: []arch.Op{tt.op}}
		// Twice the same image: the second must not see the first.
		got, err := refnet.Run(n, tt.w, tt.s, slices.Concat(tt.in, tt.in), 2)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if want := slices.Concat(tt.want, tt.want); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

// TestWiring joins and adds values of earlier ops, which are freed on the way.
func TestWiring(t *testing.T) {
	s := shape(1, 1, 1)
	n := &arch.Net{In: shape(2, 1, 1), Ops: []arch.Op{
		{Kind: arch.Take, Inputs: []int{arch.Input}, In: shape(2, 1, 1), Out: s, Start: 1, Step: 1},
		{Kind: arch.Take, Inputs: []int{arch.Input}, In: shape(2, 1, 1), Out: s, Step: 1},
		{Kind: arch.Add, Inputs: []int{0, 1}, In: s, Out: s},
		{Kind: arch.Concat, Inputs: []int{2, arch.Input, 0}, In: s, Out: shape(4, 1, 1)},
	}}
	got, err := refnet.Run(n, tensors{}, nil, []float32{1, 10}, 1)
	if err != nil || !slices.Equal(got, []float32{11, 1, 10, 10}) {
		t.Errorf("%v, %v", got, err)
	}
}

func TestRunErrors(t *testing.T) {
	n := &arch.Net{In: shape(1, 1, 1), Ops: []arch.Op{{
		Name: "op", Kind: arch.Linear, Inputs: []int{arch.Input}, In: shape(1, 1, 1), Out: shape(1, 1, 1), Weight: new(view("w", 1, 1)),
	}}}
	if _, err := refnet.Run(n, tensors{}, nil, []float32{1}, 1); err == nil || !strings.Contains(err.Error(), "op op") {
		t.Errorf("missing tensor: %v", err)
	}
	if _, err := refnet.Run(n, tensors{"w": {Shape: []int{1}, Data: []float32{1}}}, nil, []float32{1}, 1); err == nil {
		t.Error("a tensor of another shape is taken")
	}
	if _, err := refnet.Run(n, tensors{}, nil, []float32{1, float32(math.Pi)}, 1); err == nil {
		t.Error("two values for one image are taken")
	}
}
