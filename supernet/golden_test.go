package supernet

import (
	"encoding/json"
	"flag"
	"fmt"
	"iter"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"spos/internal/arch"
	"spos/internal/ckpt"
	"spos/internal/data"
	"spos/supernet/internal/torchx"
)

var update = flag.Bool("update", false, "rewrite the inputs of testdata/golden.py")

const (
	goldenSeed  = 7
	goldenSteps = 10
	goldenLR    = 0.05
)

// tinyNet has every kind of op and every activation, both wirings of a shuffle
// block, and sliced views of a wider supernet.
func tinyNet() *arch.Net {
	n := &arch.Net{Space: "tiny", Arch: "0", In: arch.Shape{C: 3, H: 9, W: 9}}
	norm := func(name string, c int, affine bool) *arch.Norm {
		vec := func(part string, role arch.Role, mean float64) arch.View {
			return arch.View{Param: arch.Param{Name: name + ".bn." + part, Shape: []int{c}, Role: role, Init: arch.Init{Mean: mean}}}
		}
		m := &arch.Norm{Mean: vec("running_mean", arch.RunningMean, 0), Var: vec("running_var", arch.RunningVar, 1), Eps: 1e-5, Momentum: 0.1}
		if affine {
			g, b := vec("weight", arch.NormGamma, 1), vec("bias", arch.NormBeta, 0)
			g.Init.Std, b.Init.Std = 0.2, 0.2
			m.Gamma, m.Beta = &g, &b
		}
		return m
	}
	out := func(v int) arch.Shape {
		if v == arch.Input {
			return n.In
		}
		return n.Ops[v].Out
	}
	push := func(op arch.Op) int {
		op.Block, op.In = -1, out(op.Inputs[0])
		n.Ops = append(n.Ops, op)
		return len(n.Ops) - 1
	}
	conv := func(name string, v, c, kernel, stride, groups int, act arch.Act, affine bool) int {
		in := out(v)
		role := arch.ConvWeight
		if groups > 1 {
			role = arch.DepthwiseWeight
		}
		w := &arch.View{Param: arch.Param{Name: name + ".weight", Shape: []int{c, in.C / groups, kernel, kernel}, Role: role,
			Init: arch.Init{Std: 1 / math.Sqrt(float64(in.C/groups*kernel*kernel))}}}
		pad := kernel / 2
		side := func(x int) int { return (x+2*pad-kernel)/stride + 1 }
		return push(arch.Op{Name: name, Kind: arch.Conv, Inputs: []int{v}, Kernel: kernel, Stride: stride, Pad: pad, Groups: groups, Act: act,
			Out: arch.Shape{C: c, H: side(in.H), W: side(in.W)}, Weight: w, Norm: norm(name, c, affine)})
	}
	take := func(name string, v, start, step, c int) int {
		s := out(v)
		s.C = c
		return push(arch.Op{Name: name, Kind: arch.Take, Inputs: []int{v}, Start: start, Step: step, Out: s})
	}
	concat := func(name string, vs ...int) int {
		s := out(vs[0])
		s.C = 0
		for _, v := range vs {
			s.C += out(v).C
		}
		return push(arch.Op{Name: name, Kind: arch.Concat, Inputs: vs, Out: s})
	}

	stem := conv("stem", arch.Input, 8, 3, 2, 1, arch.ReLU, true)
	// Stride 1, de-interleaving; main branch with a sliced pointwise weight.
	pass, main := take("a.pass", stem, 0, 2, 4), take("a.main", stem, 1, 2, 4)
	main = conv("a.pw", main, 6, 1, 1, 1, arch.ReLU, false)
	w := n.Ops[main].Weight
	w.Shape, w.Take = []int{10, 5, 1, 1}, []arch.Span{{Start: 2, Len: 6}, {Start: 1, Len: 4}, {Len: 1}, {Len: 1}}
	main = conv("a.dw", main, 6, 5, 1, 6, arch.None, true)
	main = conv("a.out", main, 4, 1, 1, 1, arch.ReLU6, true)
	v := concat("a.cat", pass, main)
	// Stride 1 of the other wiring: halves, and a shuffle at the end.
	pass, main = take("b.pass", v, 0, 1, 4), take("b.main", v, 4, 1, 4)
	main = conv("b.dw", main, 4, 3, 1, 4, arch.None, true)
	v = push(arch.Op{Name: "b.shuffle", Kind: arch.Shuffle, Inputs: []int{concat("b.cat", pass, main)}, Groups: 2, Out: out(v)})
	// Stride 2: both branches read all channels; then a residual sum.
	left := conv("c.left", v, 6, 3, 2, 1, arch.ReLU, true)
	right := conv("c.right", v, 6, 1, 2, 1, arch.ReLU, true)
	v = push(arch.Op{Name: "c.add", Kind: arch.Add, Inputs: []int{left, right}, Out: out(left)})
	v = concat("d.cat", v, left)
	v = conv("tail", v, 16, 1, 1, 1, arch.ReLU, true)
	v = push(arch.Op{Name: "pool", Kind: arch.GlobalPool, Inputs: []int{v}, Out: arch.Shape{C: 16, H: 1, W: 1}})
	v = push(arch.Op{Name: "drop", Kind: arch.Dropout, Inputs: []int{v}, Rate: 0.25, Out: arch.Shape{C: 16, H: 1, W: 1}})
	fc := arch.Param{Name: "fc.weight", Shape: []int{5, 16}, Role: arch.LinearWeight, Init: arch.Init{Std: 0.3}}
	bias := arch.Param{Name: "fc.bias", Shape: []int{5}, Role: arch.LinearBias, Init: arch.Init{Std: 0.3}}
	push(arch.Op{Name: "fc", Kind: arch.Linear, Inputs: []int{v}, Out: arch.Shape{C: 5, H: 1, W: 1},
		Weight: &arch.View{Param: fc}, Bias: &arch.View{Param: bias}})
	return n
}

func paramsOf(net *arch.Net) []arch.Param {
	var ps []arch.Param
	for v := range net.Views() {
		ps = append(ps, v.Param)
	}
	return ps
}

// tinyBatches have different sizes, so that weighting by size shows.
func tinyBatches() []data.Batch {
	net := tinyNet()
	r := rand.New(rand.NewPCG(goldenSeed, 1))
	var bs []data.Batch
	for _, n := range []int{7, 4} {
		b := data.Batch{N: n, Shape: net.In}
		for range n * net.In.Numel() {
			b.Images = append(b.Images, float32(r.NormFloat64()))
		}
		for range n {
			b.Labels = append(b.Labels, r.Int64N(int64(net.Classes())))
		}
		bs = append(bs, b)
	}
	return bs
}

func all(bs []data.Batch) iter.Seq2[data.Batch, error] {
	return func(yield func(data.Batch, error) bool) {
		for _, b := range bs {
			if !yield(b, nil) {
				return
			}
		}
	}
}

var goldenRecipes = map[string]Options{
	"paper":   {},
	"bounded": {Nesterov: true, ClipValue: 0.05, ClipNorm: 0.2, WeightDecay: new(0.01), LabelSmoothing: new(0.0)},
	"plain":   {Momentum: new(0.0), WeightDecay: new(0.0)},
}

type golden struct {
	Train map[string]struct {
		Losses  []float64
		Grads   map[string][]float64
		Tensors map[string][]float64
	}
	Calibrated struct {
		Stats  map[string][]float64
		Logits []float64
	}
}

func readGolden(t *testing.T) golden {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "golden", "want.json"))
	if err != nil {
		t.Fatal(err)
	}
	var g golden
	if err := json.Unmarshal(text, &g); err != nil {
		t.Fatal(err)
	}
	return g
}

// writeInputs writes what golden.py reads.
func writeInputs(t *testing.T, s *Supernet) {
	type param struct {
		arch.Param
		Data []float32
	}
	var params []param
	for n, v := range s.Tensors() {
		params = append(params, param{s.tensors[n].Param, v.Data})
	}
	net := tinyNet()
	masks := make([]map[string]uint64, goldenSteps)
	for step := range masks {
		masks[step] = map[string]uint64{}
		for i := range net.Ops {
			if net.Ops[i].Kind == arch.Dropout {
				masks[step][fmt.Sprint(i)] = dropoutSeed(goldenSeed, uint64(step), i)
			}
		}
	}
	recipes := make(map[string]any)
	for name, o := range goldenRecipes {
		recipes[name] = map[string]any{
			"Momentum": o.momentum(), "Nesterov": o.Nesterov, "WeightDecay": o.weightDecay(),
			"LabelSmoothing": o.labelSmoothing(), "ClipNorm": o.ClipNorm, "ClipValue": o.ClipValue,
		}
	}
	config := map[string]any{"LR": goldenLR, "Steps": goldenSteps, "Masks": masks, "Recipes": recipes}
	for name, v := range map[string]any{"net": net, "params": params, "batches": tinyBatches(), "config": config} {
		text, err := json.MarshalIndent(v, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join("testdata", "golden", name+".json"), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestGolden compares training and calibrated inference with PyTorch's in
// double precision. golden.py prints how far PyTorch's own float32 strays, in
// units of each tensor's largest element: 2e-6 in gradients, 4e-7 in
// statistics, logits and weights after ten steps, 1e-7 in losses. Another
// order of summation may stray as far, so the tolerances are five times that.
func TestGolden(t *testing.T) {
	if *update {
		s, err := New(paramsOf(tinyNet()), Options{Seed: goldenSeed})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		writeInputs(t, s)
		t.Skip("inputs written; now run testdata/golden.py")
	}
	want := readGolden(t)
	for layout, place := range map[string]Layout{"channels last": ChannelsLast, "row major": RowMajor} {
		for recipe, o := range goldenRecipes {
			t.Run(layout+"/"+recipe, func(t *testing.T) {
				o.Seed, o.Layout, o.Threads = goldenSeed, place, 2
				net := tinyNet()
				s, err := New(paramsOf(net), o)
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				if recipe == "paper" {
					calibratedAgrees(t, s, net, want)
					gradientsAgree(t, s, net, want)
				}
				trainingAgrees(t, s, net, want, recipe)
			})
		}
	}
}

func calibratedAgrees(t *testing.T, s *Supernet, net *arch.Net, want golden) {
	before := maps.Collect(s.Tensors())
	stats, err := s.Calibrate(t.Context(), net, all(tinyBatches()))
	if err != nil {
		t.Fatal(err)
	}
	for i := range net.Ops {
		op := &net.Ops[i]
		if op.Norm == nil {
			continue
		}
		near(t, op.Name+" mean", stats[op.Name].Mean, want.Calibrated.Stats[op.Norm.Mean.Name], 2e-6)
		near(t, op.Name+" var", stats[op.Name].Var, want.Calibrated.Stats[op.Norm.Var.Name], 2e-6)
	}
	logits, err := s.Logits(t.Context(), net, stats, tinyBatches()[0])
	if err != nil {
		t.Fatal(err)
	}
	near(t, "calibrated logits", logits, want.Calibrated.Logits, 2e-6)
	for n, v := range s.Tensors() {
		if !same(before[n].Data, v.Data) {
			t.Errorf("calibration changed %s", n)
		}
	}
}

func gradientsAgree(t *testing.T, s *Supernet, net *arch.Net, want golden) {
	err := s.worker.Do(func(sc *torchx.Scope) error {
		still := func(sc *torchx.Scope, op *arch.Op) torchx.Norm {
			n := s.running(sc, op)
			n.Momentum = 0
			return n
		}
		tr := s.trainer(still)
		s.gradients(sc, net, tinyBatches()[0], tr)
		for i, v := range tr.views {
			g := make([]float32, v.Numel())
			torchx.Read(sc.Grad(tr.leaves[i]), g)
			near(t, "gradient of "+v.Name, g, slicedRef(*v, want.Train["paper"].Grads[v.Name]), 1e-5)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func slicedRef(v arch.View, whole []float64) []float64 {
	single := make([]float32, len(whole))
	for i, x := range whole {
		single[i] = float32(x)
	}
	var out []float64
	for _, x := range v.Slice(single) {
		out = append(out, float64(x))
	}
	return out
}

func trainingAgrees(t *testing.T, s *Supernet, net *arch.Net, want golden, recipe string) {
	bs := tinyBatches()
	for i, loss := range want.Train[recipe].Losses {
		r, err := s.Step(t.Context(), net, bs[i%len(bs)], goldenLR)
		if err != nil {
			t.Fatal(err)
		}
		if math.Abs(r.Loss-loss) > 1e-6 {
			t.Errorf("step %d: loss %v, PyTorch's is %v", i, r.Loss, loss)
		}
	}
	// Sliced: golden.py's optimiser decays rows that the net does not use.
	got, err := s.Extract(net, nil)
	if err != nil {
		t.Fatal(err)
	}
	for v := range net.Views() {
		near(t, v.Name+" after ten steps", got[v.Name].Data, slicedRef(v, want.Train[recipe].Tensors[v.Name]), 2e-6)
	}
}

// near compares in units of the largest expected element.
func near(t *testing.T, what string, got []float32, want []float64, tolerance float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %d elements, want %d", what, len(got), len(want))
		return
	}
	var scale, worst float64
	at := 0
	for i, w := range want {
		scale = math.Max(scale, math.Abs(w))
		if d := math.Abs(float64(got[i]) - w); d > worst || math.IsNaN(d) {
			worst, at = d, i
		}
	}
	if !(worst <= tolerance*math.Max(scale, 1e-2)) {
		t.Errorf("%s: element %d is %v, want %v (largest %v)", what, at, got[at], want[at], scale)
	}
}

func same(a, b []float32) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if math.Float32bits(a[i]) != math.Float32bits(b[i]) {
			return false
		}
	}
	return true
}

var _ Weights = bag(nil)

// bag is a set of tensors as a [Weights].
type bag map[string]ckpt.Tensor

func (b bag) Names() []string {
	var ns []string
	for n := range b {
		ns = append(ns, n)
	}
	return ns
}

func (b bag) Tensor(name string) (ckpt.Tensor, error) {
	t, ok := b[name]
	if !ok {
		return t, fmt.Errorf("%s: %w", name, ckpt.ErrMissing)
	}
	return t, nil
}
