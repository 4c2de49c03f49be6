package supernet

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"spos/configs"
	"spos/internal/arch"
	"spos/internal/ckpt"
	"spos/internal/data"
	"spos/internal/dialect"
	"spos/internal/pth"
	"spos/internal/refnet"
	"spos/supernet/internal/torchx"
)

// original is one fixture of testdata/originals: a tiny net of another code
// base in its own file, and what PyTorch computes with it in float64.
type original struct {
	Space string
	Tiny  struct {
		Side, Stem, Tail, Classes, First int
		Stages                           [][3]int // width, blocks, stride
	}
	Supernet bool
	Prefix   string // of the file's keys, which the arrays' names do not have
	Archs    []arch.Arch
	Recipe   struct {
		Decay       string
		WeightDecay float64 `json:"weight_decay"`
		Smoothing   float64
		ClipValue   float64 `json:"clip_value"`
		ClipNorm    float64 `json:"clip_norm"`
		Rates       []float64
	}
	TrainLoss []float64 `json:"train_loss"` // of each path, on the first batch
	Losses    []float64
	After     map[string][2]float64 // norm and product with a fixed vector

	arrays *ckpt.File
	// shift is what a norm's running mean is less here than there: the bias of
	// the convolution before it, which our nets do not have.
	shift map[string][]float32
}

// detnas names the fixture of ShuffleNet-Series/DetNAS: the official space
// with a bias in the linear layer, and names that no dialect has.
const detnas = "shufflenetv2-detnas"

// The tolerances, in units of each tensor's largest element. golden.py prints
// how far PyTorch's own float32 strays from float64: 3e-7 in eval logits, 1e-6
// in train logits, 4e-6 in gradients, 1e-7 in running statistics, 2e-6 in
// tensors after ten steps, 1e-6 in losses. Another order of summation strays
// further, gradients by up to five times, so they are four to ten times that.
const (
	originalEval   = 1.5e-6
	originalTrain  = 6e-6
	originalGrad   = 4e-5
	originalState  = 1e-6
	originalAfter  = 8e-6
	originalLosses = 5e-6
)

// TestOriginals compares our nets with the modules of the published code bases
// as testdata/originals has them: file, names, eval logits, train logits,
// every gradient, running statistics, ten steps of their own recipe.
func TestOriginals(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "originals", "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatal("no fixtures", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		t.Run(name, func(t *testing.T) {
			o := readOriginal(t, strings.TrimSuffix(file, ".json"))
			target := o.target(t)
			key, ours := o.load(t, strings.TrimSuffix(file, ".json")+".pth.gz", target)
			params, err := target.Params()
			if err != nil {
				t.Fatal(err)
			}
			s, err := New(params, o.options(t))
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			for i, a := range o.Archs {
				if err := s.Load(ours); err != nil {
					t.Fatal(err)
				}
				o.pathAgrees(t, s, o.net(t, target, a), i, key, ours)
			}
			if err := s.Load(ours); err != nil {
				t.Fatal(err)
			}
			o.trainingAgrees(t, s, target, key, ours)
		})
	}
}

func readOriginal(t *testing.T, path string) *original {
	t.Helper()
	text, err := os.ReadFile(path + ".json")
	if err != nil {
		t.Fatal(err)
	}
	o := new(original)
	if err := json.Unmarshal(text, o); err != nil {
		t.Fatal(err)
	}
	if o.arrays, err = ckpt.Open(path + ".safetensors"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.arrays.Close() })
	return o
}

// target is the shipped space with the fixture's widths and without dropout.
func (o *original) target(t *testing.T) dialect.Target {
	t.Helper()
	name := o.Space
	if name == detnas {
		name = "shufflenetv2-spos"
	}
	shipped, err := configs.Space(name)
	if err != nil {
		t.Fatal(err)
	}
	spec := shipped.Spec()
	spec.Head.Bias = spec.Head.Bias || o.Space == detnas
	spec.Input, spec.Classes = [3]int{3, o.Tiny.Side, o.Tiny.Side}, o.Tiny.Classes
	spec.Stem, spec.Tail = slices.Clone(spec.Stem), slices.Clone(spec.Tail)
	spec.Stem[0].Out, spec.Tail[0].Out = o.Tiny.Stem, o.Tiny.Tail
	if len(spec.Stem) > 1 {
		spec.Stem[1].Out = o.Tiny.First
	}
	spec.Head.Dropout, spec.Head.SupernetDropout = 0, nil
	stage := spec.Stages[0]
	spec.Stages = nil
	for _, st := range o.Tiny.Stages {
		stage.Out, stage.Blocks, stage.Stride = st[0], st[1], st[2]
		spec.Stages = append(spec.Stages, stage)
	}
	space, err := arch.NewSpace(spec)
	if err != nil {
		t.Fatal(err)
	}
	if o.Supernet {
		return dialect.Target{Space: space}
	}
	return dialect.Target{Space: space, Arch: o.Archs[0]}
}

func (o *original) net(t *testing.T, target dialect.Target, a arch.Arch) *arch.Net {
	t.Helper()
	spell := target.Space.Net
	if o.Supernet {
		spell = target.Space.Path
	}
	n, err := spell(a)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// load reads the file. key is the name, there and in the fixture's arrays, of
// each of our tensors.
func (o *original) load(t *testing.T, path string, target dialect.Target) (key map[string]string, ours bag) {
	t.Helper()
	packed, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	f, err := pth.Read(bytes.NewReader(raw), int64(len(raw)), path, "")
	if err != nil {
		t.Fatal(err)
	}
	key, ours = map[string]string{}, bag{}
	for _, e := range o.entries(t, f, target) {
		key[e.Name] = strings.TrimPrefix(e.Key, o.Prefix)
		if ours[e.Name], err = f.Tensor(e.Key); err != nil {
			t.Fatal(err)
		}
		for i, b := range o.shift[e.Name] {
			ours[e.Name].Data[i] -= b
		}
	}
	return key, ours
}

// entries name the target's tensors as the file does.
func (o *original) entries(t *testing.T, f *pth.File, target dialect.Target) []dialect.Entry {
	t.Helper()
	if o.Space == detnas {
		return o.detnasEntries(t, f, target)
	}
	var names []dialect.Tensor
	for _, n := range f.Names() {
		shape, err := f.Shape(n)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, dialect.Tensor{Name: n, Shape: shape})
	}
	m, err := dialect.Detect(names, slices.Values([]dialect.Target{target}), nil)
	if err != nil {
		t.Fatal(err)
	}
	if m.Moved() > 0 {
		t.Errorf("%d tensors are reordered between equal wirings", m.Moved())
	}
	return m.Entries
}

// detnasEntries go by order: each block's main branch, then its projection, of
// each convolution and norm the tensors in the order of a state dict.
func (o *original) detnasEntries(t *testing.T, f *pth.File, target dialect.Target) []dialect.Entry {
	t.Helper()
	groups := map[string][]string{} // of names in the file
	o.shift = map[string][]float32{}
	for _, n := range f.Names() {
		group := strings.Split(strings.TrimPrefix(n, o.Prefix), ".")
		switch bias := strings.HasSuffix(n, "_conv.conv.bias"); {
		case strings.HasSuffix(n, ".num_batches_tracked"):
		case bias:
			v, err := f.Tensor(n)
			if err != nil {
				t.Fatal(err)
			}
			o.shift[map[string]string{"first_conv": "stem", "last_conv": "tail"}[group[0]]+".0.bn.running_mean"] = v.Data
		case group[0] == "features":
			g := "blocks." + group[1] + map[string]string{"conv": ".main", "proj_conv": ".proj"}[group[2]]
			groups[g] = append(groups[g], n)
		default:
			g := map[string]string{"first_conv": "stem", "last_conv": "tail", "fc": "head"}[group[0]]
			groups[g] = append(groups[g], n)
		}
	}
	params, err := target.Params()
	if err != nil {
		t.Fatal(err)
	}
	var entries []dialect.Entry
	for _, p := range params {
		g := strings.Split(p.Name, ".")[0]
		if parts := strings.Split(p.Name, "."); g == "blocks" {
			g = "blocks." + parts[1] + "." + parts[3]
		}
		if len(groups[g]) == 0 {
			t.Fatalf("the file has nothing left for %s", p.Name)
		}
		entries = append(entries, dialect.Entry{Param: p, Key: groups[g][0]})
		groups[g] = groups[g][1:]
	}
	return entries
}

func (o *original) options(t *testing.T) Options {
	t.Helper()
	decay, ok := map[string]Decay{
		"matrices": DecayWeights, "dense": DecayDense, "kernels": DecayKernels,
		"kernels_and_head": DecayHead, "everything": DecayAll,
	}[o.Recipe.Decay]
	if !ok {
		t.Fatalf("no rule of weight decay is called %q", o.Recipe.Decay)
	}
	return Options{
		Threads: 1, Decay: decay, WeightDecay: &o.Recipe.WeightDecay, LabelSmoothing: &o.Recipe.Smoothing,
		ClipValue: o.Recipe.ClipValue, ClipNorm: o.Recipe.ClipNorm,
	}
}

// batches are golden.py's: images of splitmix64, labels (3i + b) mod classes.
func (o *original) batches() []data.Batch {
	var bs []data.Batch
	for b, n := range []int{5, 4} {
		batch := data.Batch{N: n, Shape: arch.Shape{C: 3, H: o.Tiny.Side, W: o.Tiny.Side}}
		for x := range uniform(uint64(b), n*batch.Shape.Numel()) {
			batch.Images = append(batch.Images, float32(x))
		}
		for i := range n {
			batch.Labels = append(batch.Labels, int64((3*i+b)%o.Tiny.Classes))
		}
		bs = append(bs, batch)
	}
	return bs
}

// uniform yields n numbers in [-1, 1), 24 bits of splitmix64 each.
func uniform(state uint64, n int) iter.Seq[float64] {
	return func(yield func(float64) bool) {
		for range n {
			state += 0x9e3779b97f4a7c15
			z := (state ^ state>>30) * 0xbf58476d1ce4e5b9
			z = (z ^ z>>27) * 0x94d049bb133111eb
			if !yield(float64((z^z>>31)>>40)/(1<<23) - 1) {
				return
			}
		}
	}
}

// array is one of the fixture's, or nil where it has none of this name.
func (o *original) array(name string, args ...any) []float64 {
	v, err := o.arrays.Tensor(fmt.Sprintf(name, args...))
	if err != nil {
		return nil
	}
	wide := make([]float64, len(v.Data))
	for i, x := range v.Data {
		wide[i] = float64(x)
	}
	return wide
}

func (o *original) pathAgrees(t *testing.T, s *Supernet, net *arch.Net, i int, key map[string]string, ours bag) {
	b := o.batches()[0]
	logits, err := s.Logits(t.Context(), net, nil, b)
	if err != nil {
		t.Fatal(err)
	}
	near(t, "eval logits", logits, o.array("%d/eval", i), originalEval)
	if logits, err = refnet.Run(net, ours, nil, b.Images, b.N); err != nil {
		t.Fatal(err)
	}
	near(t, "the reference's logits", logits, o.array("%d/eval", i), originalEval)

	grads, states := 0, 0
	err = s.worker.Do(func(sc *torchx.Scope) error {
		tr := s.trainer(s.running)
		loss, _ := torchx.Score(s.gradients(sc, net, b, tr))
		if math.Abs(loss-o.TrainLoss[i]) > originalLosses {
			t.Errorf("path %d: loss %v, want %v", i, loss, o.TrainLoss[i])
		}
		for j, v := range tr.views {
			g := make([]float32, v.Numel())
			torchx.Read(sc.Grad(tr.leaves[j]), g)
			near(t, "gradient of "+v.Name, g, part(v, o.array("%d/grad/%s", i, key[v.Name])), originalGrad)
			grads++
		}
		for v := range net.Views() {
			if v.Role.Trainable() {
				continue
			}
			x := make([]float32, v.Param.Numel())
			torchx.Read(s.tensors[v.Name].value, x)
			for c, b := range o.shift[v.Name] {
				x[c] += b
			}
			near(t, v.Name, x, o.array("%d/state/%s", i, key[v.Name]), originalState)
			states++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Load(ours); err != nil {
		t.Fatal(err)
	}
	err = s.worker.Do(func(sc *torchx.Scope) error {
		got := make([]float32, b.N*net.Classes())
		torchx.Read(forward(sc, net, s.images(sc, b), s.trainer(s.running)), got)
		near(t, "train logits", got, o.array("%d/train", i), originalTrain)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := o.count("%d/grad/", i) - len(o.shift); grads != want {
		t.Errorf("path %d: %d gradients, the original has %d", i, grads, want)
	}
	if want := o.count("%d/state/", i); states != want {
		t.Errorf("path %d: %d running statistics, the original has %d", i, states, want)
	}
}

func (o *original) count(prefix string, args ...any) int {
	n := 0
	for _, name := range o.arrays.Names() {
		if strings.HasPrefix(name, fmt.Sprintf(prefix, args...)) {
			n++
		}
	}
	return n
}

// part is the view's share of a whole tensor's gradient.
func part(v *arch.View, whole []float64) []float64 {
	if v.Take == nil || whole == nil {
		return whole
	}
	return slicedRef(*v, whole)
}

func (o *original) trainingAgrees(t *testing.T, s *Supernet, target dialect.Target, key map[string]string, ours bag) {
	bs := o.batches()
	for i, rate := range o.Recipe.Rates {
		net := o.net(t, target, o.Archs[i/2%len(o.Archs)])
		r, err := s.Step(t.Context(), net, bs[i%len(bs)], rate)
		if err != nil {
			t.Fatal(err)
		}
		if math.Abs(r.Loss-o.Losses[i]) > originalLosses {
			t.Errorf("step %d: loss %v, the original's is %v", i, r.Loss, o.Losses[i])
		}
	}
	trained := 0
	for n, v := range s.Tensors() {
		want, ok := o.After[key[n]]
		if !ok {
			if !same(v.Data, ours[n].Data) {
				t.Errorf("%s is on no path and changed", n)
			}
			continue
		}
		trained++
		for c, b := range o.shift[n] {
			v.Data[c] += b
		}
		norm, dot := checksum(v.Data)
		if scale := math.Max(want[0], 1e-2); math.Abs(norm-want[0]) > originalAfter*scale || math.Abs(dot-want[1]) > originalAfter*scale {
			t.Errorf("%s after %d steps: norm %v and product %v, want %v", n, len(o.Losses), norm, dot, want)
		}
	}
	if trained != len(o.After)-len(o.shift) {
		t.Errorf("%d tensors are on the paths, %d in the original", trained, len(o.After))
	}
}

// checksum is golden.py's.
func checksum(v []float32) (norm, dot float64) {
	i := 0
	for u := range uniform(99, len(v)) {
		x := float64(v[i])
		norm += x * x
		dot += x * u
		i++
	}
	return math.Sqrt(norm), dot
}
