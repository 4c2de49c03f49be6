package export_test

import (
	"math/rand/v2"
	"testing"

	"spos/configs"
	"spos/export"
	"spos/internal/arch"
	"spos/internal/ckpt"
	"spos/internal/native"
	"spos/internal/ort"
)

// seed is that of every random choice in these tests.
const seed = 7

func rng(stream uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, stream)) }

// nets are named nets: random ones of every shipped space, stand-alone at its
// own size and as the supernet runs them on small images, and one with every
// kind of op.
func nets(t testing.TB, each int) map[string]*arch.Net {
	t.Helper()
	all := map[string]*arch.Net{"every-kind": everyKind()}
	for i, name := range configs.Spaces() {
		s, err := configs.Space(name)
		if err != nil {
			t.Fatal(err)
		}
		small, r := shrunk(t, s), rng(uint64(i))
		for range each {
			a := s.Sample(r)
			for variant, build := range map[string]func(arch.Arch) (*arch.Net, error){"net": s.Net, "path": small.Path} {
				n, err := build(a)
				if err != nil {
					t.Fatal(err)
				}
				all[name+"/"+string(a)+"/"+variant] = n
			}
		}
	}
	return all
}

// shrunk is a space on images small enough for the reference.
func shrunk(t testing.TB, s *arch.Space) *arch.Space {
	t.Helper()
	small, err := s.With(arch.Shape{C: s.In.C, H: min(s.In.H, 64), W: min(s.In.W, 64)}, 10)
	if err != nil {
		t.Fatal(err)
	}
	return small
}

// everyKind is a small net with every kind of op, activation, a norm that is
// not affine, a sliced weight, and chains of Take and Shuffle.
func everyKind() *arch.Net {
	b := &builder{n: &arch.Net{Space: "test", Arch: "0", In: arch.Shape{C: 3, H: 9, W: 7}}}
	stem := b.conv("stem", arch.Input, 12, 3, 2, 1, arch.ReLU6, true)
	b.n.Ops[stem].Norm.Gamma.Init.Mean = 5 // so that its activation meets both of its bounds
	wide := b.conv("wide", stem, 12, 1, 1, 1, arch.None, false)
	sum := b.add(arch.Op{Name: "sum", Kind: arch.Add, Inputs: []int{stem, wide}, Out: b.out(stem)})
	mix := b.shuffle("mix", sum, 3)
	even := b.take("even", mix, 6, 0, 2)
	odd := b.take("odd", mix, 6, 1, 2)
	deep := b.conv("deep", odd, 6, 5, 1, 6, arch.ReLU, true)
	join := b.concat("join", even, deep, mix)
	tail := b.shuffle("tail", join, 4)
	last := b.conv("last", tail, 10, 3, 1, 2, arch.ReLU, true)
	op := &b.n.Ops[last] // half of the rows and all columns of a wider tensor
	op.Weight = &arch.View{Param: op.Weight.Param, Take: []arch.Span{{Start: 4, Len: 10}, {Start: 0, Len: 12}, {Start: 0, Len: 3}, {Start: 0, Len: 3}}}
	op.Weight.Shape = []int{20, 12, 3, 3}
	half := b.take("half", last, 5, 5, 1)
	pool := b.add(arch.Op{Name: "pool", Kind: arch.GlobalPool, Inputs: []int{half}, Out: arch.Shape{C: 5, H: 1, W: 1}})
	drop := b.add(arch.Op{Name: "drop", Kind: arch.Dropout, Inputs: []int{pool}, Out: b.out(pool), Rate: 0.1})
	hidden := b.linear("hidden", drop, 8, true)
	swap := b.shuffle("swap", hidden, 2)
	b.linear("head", swap, 4, false)
	return b.n
}

type builder struct{ n *arch.Net }

func (b *builder) out(i int) arch.Shape {
	if i == arch.Input {
		return b.n.In
	}
	return b.n.Ops[i].Out
}

func (b *builder) add(o arch.Op) int {
	o.In, o.Block = b.out(o.Inputs[0]), -1
	b.n.Ops = append(b.n.Ops, o)
	return len(b.n.Ops) - 1
}

func (b *builder) conv(name string, in, c, kernel, stride, groups int, act arch.Act, affine bool) int {
	from := b.out(in)
	size := func(d int) int { return (d-1)/stride + 1 }
	view := func(suffix string, role arch.Role, i arch.Init, shape ...int) arch.View {
		return arch.View{Param: arch.Param{Name: name + suffix, Shape: shape, Role: role, Init: i}}
	}
	o := arch.Op{
		Name: name, Kind: arch.Conv, Inputs: []int{in}, Out: arch.Shape{C: c, H: size(from.H), W: size(from.W)},
		Kernel: kernel, Stride: stride, Pad: kernel / 2, Groups: groups, Act: act,
		Weight: new(view(".weight", arch.ConvWeight, arch.Init{Std: 0.3}, c, from.C/groups, kernel, kernel)),
		Norm: &arch.Norm{
			Mean: view(".bn.running_mean", arch.RunningMean, arch.Init{}, c),
			Var:  view(".bn.running_var", arch.RunningVar, arch.Init{Mean: 1}, c),
			Eps:  1e-5,
		},
	}
	if affine {
		o.Norm.Gamma = new(view(".bn.weight", arch.NormGamma, arch.Init{Mean: 1}, c))
		o.Norm.Beta = new(view(".bn.bias", arch.NormBeta, arch.Init{}, c))
	}
	return b.add(o)
}

func (b *builder) linear(name string, in, c int, bias bool) int {
	o := arch.Op{
		Name: name, Kind: arch.Linear, Inputs: []int{in}, Out: arch.Shape{C: c, H: 1, W: 1},
		Weight: &arch.View{Param: arch.Param{Name: name + ".weight", Shape: []int{c, b.out(in).C}, Role: arch.LinearWeight, Init: arch.Init{Std: 0.5}}},
	}
	if bias {
		o.Bias = &arch.View{Param: arch.Param{Name: name + ".bias", Shape: []int{c}, Role: arch.LinearBias}}
	}
	return b.add(o)
}

func (b *builder) take(name string, in, c, start, step int) int {
	s := b.out(in)
	s.C = c
	return b.add(arch.Op{Name: name, Kind: arch.Take, Inputs: []int{in}, Out: s, Start: start, Step: step})
}

func (b *builder) shuffle(name string, in, groups int) int {
	return b.add(arch.Op{Name: name, Kind: arch.Shuffle, Inputs: []int{in}, Out: b.out(in), Groups: groups})
}

func (b *builder) concat(name string, in ...int) int {
	s := b.out(in[0])
	s.C = 0
	for _, i := range in {
		s.C += b.out(i).C
	}
	return b.add(arch.Op{Name: name, Kind: arch.Concat, Inputs: in, Out: s})
}

// tensors is weights in memory.
type tensors map[string]ckpt.Tensor

func (ts tensors) Tensor(name string) (ckpt.Tensor, error) {
	t, ok := ts[name]
	if !ok {
		return t, ckpt.ErrMissing
	}
	return t, nil
}

// copied is random weights of a net that a test may spoil.
func copied(t testing.TB, n *arch.Net) tensors {
	t.Helper()
	w, ts := export.Random(n, seed), tensors{}
	for v := range n.Views() {
		var err error
		if ts[v.Name], err = w.Tensor(v.Name); err != nil {
			t.Fatal(err)
		}
	}
	return ts
}

// stats is recalibrated statistics of some ops.
type stats map[string][2][]float32

func (s stats) Moments(op string) (mean, variance []float32, ok bool) {
	m, ok := s[op]
	return m[0], m[1], ok
}

// runtime is ONNX Runtime, or the reason why the test is skipped.
func runtime(t testing.TB) *ort.Runtime {
	t.Helper()
	path, err := native.ONNXRuntime()
	if err != nil {
		t.Skip(err)
	}
	r, err := ort.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// images are batch random inputs of a net.
func images(n *arch.Net, batch int) []float32 {
	x, r := make([]float32, batch*n.In.Numel()), rng(1)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}

// bytesOf is the exported file.
func bytesOf(t testing.TB, n *arch.Net, w export.Weights, o export.Options) []byte {
	t.Helper()
	m, err := export.Model(n, w, o)
	if err != nil {
		t.Fatal(err)
	}
	b, err := export.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
