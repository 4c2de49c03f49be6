package supernet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"spos/internal/arch"
	"spos/internal/ckpt"
	"spos/internal/data"
	"spos/supernet/internal/torchx"
)

func tiny(t testing.TB, o Options) (*Supernet, *arch.Net) {
	net := tinyNet()
	// A second path: it shares the stem and has a block of its own.
	params := append(paramsOf(net), paramsOf(otherNet())...)
	slices.SortStableFunc(params, func(a, b arch.Param) int { return strings.Compare(a.Name, b.Name) })
	params = slices.CompactFunc(params, func(a, b arch.Param) bool { return a.Name == b.Name })
	s, err := New(params, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s, net
}

// otherNet is tinyNet with the names of its block a changed.
func otherNet() *arch.Net {
	net := tinyNet()
	net.Arch = "1"
	rename := func(v *arch.View) {
		if v != nil && strings.HasPrefix(v.Name, "a.") {
			v.Name = "other." + v.Name
		}
	}
	for i := range net.Ops {
		op := &net.Ops[i]
		rename(op.Weight)
		if op.Norm != nil {
			rename(op.Norm.Gamma)
			rename(op.Norm.Beta)
			rename(&op.Norm.Mean)
			rename(&op.Norm.Var)
		}
	}
	return net
}

func train(t *testing.T, s *Supernet, net *arch.Net, from, to int) {
	t.Helper()
	bs := tinyBatches()
	for i := from; i < to; i++ {
		if _, err := s.Step(t.Context(), net, bs[i%len(bs)], goldenLR); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOtherPathsStayAsTheyAre(t *testing.T) {
	s, net := tiny(t, Options{Seed: 3})
	other := otherNet()
	train(t, s, other, 0, 3) // so that the other path has a velocity to decay
	weights, state := maps.Collect(s.Tensors()), maps.Collect(s.OptimizerState())
	train(t, s, net, 3, 6)
	used := map[string]bool{stepsName: true}
	for v := range net.Views() {
		used[v.Name] = true
	}
	moved := 0
	for n, v := range s.Tensors() {
		switch {
		case used[n] && !same(v.Data, weights[n].Data):
			moved++
		case !used[n] && !same(v.Data, weights[n].Data):
			t.Errorf("%s changed", n)
		}
	}
	if moved != len(used)-1 {
		t.Errorf("%d tensors of the path moved, want %d", moved, len(used)-1)
	}
	for n, v := range s.OptimizerState() {
		if !used[n] && !same(v.Data, state[n].Data) {
			t.Errorf("the velocity of %s changed", n)
		}
	}
	// The path takes rows 2 to 7 and columns 1 to 4 of this one.
	old, now := weights["a.pw.weight"].Data, maps.Collect(s.Tensors())["a.pw.weight"].Data
	for i := range old {
		row, col := i/5, i%5
		if inside := row >= 2 && row < 8 && col >= 1; inside == (old[i] == now[i]) {
			t.Errorf("a.pw.weight[%d,%d]: in the path %v, %v became %v", row, col, inside, old[i], now[i])
		}
	}
}

// TestResumeIsExact also shows that training is deterministic.
func TestResumeIsExact(t *testing.T) {
	o := Options{Seed: 5, Threads: 2}
	whole, net := tiny(t, o)
	train(t, whole, net, 0, 12)

	first, _ := tiny(t, o)
	train(t, first, net, 0, 5)
	path := t.TempDir() + "/"
	for name, tensors := range map[string]func(func(string, ckpt.Tensor) bool){"model": first.Tensors(), "optimizer": first.OptimizerState()} {
		if err := ckpt.Write(path+name, nil, tensors); err != nil {
			t.Fatal(err)
		}
	}
	o.Seed = 5 // dropout goes on with the run's seed
	second, _ := tiny(t, o)
	train(t, second, otherNet(), 0, 2) // something to overwrite
	for name, load := range map[string]func(Weights) error{"model": second.Load, "optimizer": second.LoadOptimizerState} {
		f, err := ckpt.Open(path + name)
		if err != nil {
			t.Fatal(err)
		}
		if err := load(f); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	if second.Steps() != 5 {
		t.Errorf("resumed at step %d", second.Steps())
	}
	train(t, second, net, 5, 12)
	for name, pair := range map[string][2]map[string]ckpt.Tensor{
		"weights": {maps.Collect(whole.Tensors()), maps.Collect(second.Tensors())},
		"state":   {maps.Collect(whole.OptimizerState()), maps.Collect(second.OptimizerState())},
	} {
		if len(pair[0]) != len(pair[1]) {
			t.Errorf("%s: %d tensors, resumed %d", name, len(pair[0]), len(pair[1]))
		}
		for n, v := range pair[0] {
			if !same(v.Data, pair[1][n].Data) {
				t.Errorf("%s: %s differs after resuming", name, n)
			}
		}
	}
}

func TestSeedDecidesTheStart(t *testing.T) {
	a, _ := tiny(t, Options{Seed: 1})
	b, _ := tiny(t, Options{Seed: 1, Layout: RowMajor})
	c, _ := tiny(t, Options{Seed: 2})
	other := maps.Collect(c.Tensors())
	again := maps.Collect(b.Tensors())
	for n, v := range a.Tensors() {
		if !same(v.Data, again[n].Data) {
			t.Errorf("%s differs under one seed", n)
		}
		if a.tensors[n].Init.Std > 0 && same(v.Data, other[n].Data) {
			t.Errorf("%s is the same under two seeds", n)
		}
	}
}

func TestLoadNamesEverythingThatIsWrong(t *testing.T) {
	s, _ := tiny(t, Options{})
	before := maps.Collect(s.Tensors())
	w := bag(maps.Clone(before))
	delete(w, "fc.bias")
	w["stem.weight"] = ckpt.Tensor{Shape: []int{8, 3, 1, 9}, Data: make([]float32, 8*3*9)}
	w["nobody"] = ckpt.Tensor{Shape: []int{1}, Data: []float32{1}}
	w["tail.weight"] = ckpt.Tensor{Shape: before["tail.weight"].Shape, Data: make([]float32, len(before["tail.weight"].Data))}
	err := s.Load(w)
	if !errors.Is(err, ErrTensors) {
		t.Fatalf("load: %v", err)
	}
	for _, want := range []string{"fc.bias is missing", "stem.weight has shape [8 3 1 9], not [8 3 3 3]", "nobody is unknown"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
	for n, v := range s.Tensors() {
		if !same(v.Data, before[n].Data) {
			t.Errorf("the failed load changed %s", n)
		}
	}
	if err := s.LoadOptimizerState(bag{}); !errors.Is(err, ckpt.ErrMissing) {
		t.Errorf("empty state: %v", err)
	}
}

func TestBadInputs(t *testing.T) {
	s, net := tiny(t, Options{})
	good := tinyBatches()[0]
	stranger := tinyNet()
	stranger.Ops[0].Weight.Name = "unheard.of"
	reshaped := tinyNet()
	reshaped.Ops[0].Weight.Shape = []int{8, 3, 5, 5}
	broken := tinyNet()
	broken.Ops[2].Out.C = 3 // a Take that no longer fits the next weight
	for name, c := range map[string]struct {
		net  *arch.Net
		edit func(*data.Batch)
		lr   float64
		want error
		says string
	}{
		"unknown tensor":  {net: stranger, want: ErrNet, says: "unheard.of is not there"},
		"other shape":     {net: reshaped, want: ErrNet, says: "[8 3 5 5]"},
		"empty":           {edit: func(b *data.Batch) { *b = data.Batch{Shape: b.Shape} }, want: ErrBatch, says: "no images"},
		"other size":      {edit: func(b *data.Batch) { b.Shape.H = 8 }, want: ErrBatch, says: "3×8×9"},
		"cut short":       {edit: func(b *data.Batch) { b.Images = b.Images[1:] }, want: ErrBatch, says: "values"},
		"label too large": {edit: func(b *data.Batch) { b.Labels = slices.Clone(b.Labels); b.Labels[2] = 5 }, want: ErrBatch, says: "label 5 of image 2"},
	} {
		t.Run(name, func(t *testing.T) {
			b := good
			if c.edit != nil {
				c.edit(&b)
			}
			n := c.net
			if n == nil {
				n = net
			}
			_, err := s.Step(t.Context(), n, b, goldenLR)
			if !errors.Is(err, c.want) || !strings.Contains(fmt.Sprint(err), c.says) {
				t.Errorf("got %v, want %v saying %q", err, c.want, c.says)
			}
		})
	}
	if _, err := s.Step(t.Context(), broken, good, goldenLR); err == nil {
		t.Error("a net that does not fit together ran")
	} else if _, ok := errors.AsType[*torchx.NativeError](err); !ok {
		t.Errorf("a net that does not fit together: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Step(ctx, net, good, goldenLR); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	spoiled := good
	spoiled.Images = slices.Clone(good.Images)
	spoiled.Images[0] = float32(math.NaN())
	if r, err := s.Step(t.Context(), net, spoiled, goldenLR); err != nil || !math.IsNaN(r.Loss) {
		t.Errorf("not a number: %+v, %v", r, err)
	}
	s.Close()
	if _, err := s.Step(t.Context(), net, good, goldenLR); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for name, o := range map[string]Options{
		"threads": {Threads: -1}, "momentum": {Momentum: new(1.0)}, "decay": {WeightDecay: new(-1.0)},
		"smoothing": {LabelSmoothing: new(math.NaN())}, "bound": {ClipNorm: -1},
	} {
		if s, err := New(nil, o); err == nil {
			s.Close()
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestDecayFollowsTheRole(t *testing.T) {
	roles := []arch.Role{arch.ConvWeight, arch.DepthwiseWeight, arch.LinearWeight, arch.LinearBias, arch.NormGamma, arch.NormBeta, arch.RunningMean, arch.RunningVar}
	for rule, decayed := range map[Decay][]arch.Role{
		DecayWeights: {arch.ConvWeight, arch.DepthwiseWeight, arch.LinearWeight},
		DecayDense:   {arch.ConvWeight, arch.LinearWeight},
		DecayKernels: {arch.ConvWeight, arch.DepthwiseWeight},
		DecayHead:    {arch.ConvWeight, arch.DepthwiseWeight, arch.LinearWeight, arch.LinearBias},
		DecayAll:     roles[:6],
	} {
		for _, role := range roles {
			want := 0.0
			if slices.Contains(decayed, role) {
				want = 4e-5
			}
			if got := (Options{Decay: rule}).decay(role); got != want {
				t.Errorf("rule %d, role %d: decay %v, want %v", rule, role, got, want)
			}
		}
	}
}

func TestEvaluateCountsWhatLogitsSay(t *testing.T) {
	s, net := tiny(t, Options{Seed: goldenSeed})
	train(t, s, net, 0, 4)
	var want Accuracy
	want.Confusion = make([][]int, 5)
	for i := range want.Confusion {
		want.Confusion[i] = make([]int, 5)
	}
	for _, b := range tinyBatches() {
		l, err := s.Logits(t.Context(), net, nil, b)
		if err != nil {
			t.Fatal(err)
		}
		for i, label := range b.Labels {
			row := l[i*5 : i*5+5]
			best := slices.Index(row, slices.Max(row))
			want.Confusion[label][best]++
			want.N++
			if best == int(label) {
				want.Top1++
			}
			var sum float64
			for _, v := range row {
				sum += math.Exp(float64(v))
			}
			want.Loss += math.Log(sum) - float64(row[label])
		}
	}
	got, err := s.Evaluate(t.Context(), net, nil, all(tinyBatches()))
	if err != nil {
		t.Fatal(err)
	}
	n := float64(want.N)
	if got.N != want.N || got.Top1 != want.Top1/n || got.Top5 != 1 || math.Abs(got.Loss-want.Loss/n) > 1e-6 {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for i := range want.Confusion {
		if !slices.Equal(got.Confusion[i], want.Confusion[i]) {
			t.Errorf("label %d: predictions %v, want %v", i, got.Confusion[i], want.Confusion[i])
		}
	}
	broken := errors.New("disk on fire")
	_, err = s.Evaluate(t.Context(), net, nil, func(yield func(data.Batch, error) bool) { yield(data.Batch{}, broken) })
	if !errors.Is(err, broken) {
		t.Errorf("the data's error became %v", err)
	}
	if _, err := s.Evaluate(t.Context(), net, Stats{}, all(tinyBatches())); !errors.Is(err, ErrNet) {
		t.Errorf("statistics of another net: %v", err)
	}
	if _, err := s.Calibrate(t.Context(), net, all(nil)); !errors.Is(err, ErrBatch) {
		t.Errorf("calibration without images: %v", err)
	}
}

// TestExtract starts a net of its own from a slice of the supernet, and gives
// it calibrated statistics: both must answer alike.
func TestExtract(t *testing.T) {
	s, net := tiny(t, Options{Seed: 9})
	train(t, s, net, 0, 3)
	stats, err := s.Calibrate(t.Context(), net, all(tinyBatches()))
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(stats)
	if err != nil {
		t.Fatal(err)
	}
	var back Stats
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	tensors, err := s.Extract(net, back)
	if err != nil {
		t.Fatal(err)
	}
	alone := tinyNet()
	for i := range alone.Ops { // the slices are whole tensors now
		if w := alone.Ops[i].Weight; w != nil {
			w.Shape, w.Take = w.Dims(), nil
		}
	}
	sub, err := New(paramsOf(alone), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	if err := sub.Load(bag(tensors)); err != nil {
		t.Fatal(err)
	}
	b := tinyBatches()[1]
	want, err := s.Logits(t.Context(), net, stats, b)
	if err != nil {
		t.Fatal(err)
	}
	got, err := sub.Logits(t.Context(), alone, nil, b)
	if err != nil {
		t.Fatal(err)
	}
	if !same(got, want) {
		t.Errorf("extracted net says %v, supernet %v", got, want)
	}
}

func TestCloseGivesMemoryBack(t *testing.T) {
	s, net := tiny(t, Options{})
	b := tinyBatches()[0]
	for range 9 { // the smallest blocks are not kept
		b.Images, b.Labels, b.N = append(b.Images, b.Images...), append(b.Labels, b.Labels...), 2*b.N
	}
	if _, err := s.Step(t.Context(), net, b, goldenLR); err != nil {
		t.Fatal(err)
	}
	if m := torchx.HostMemory(); m.Held == m.Used {
		t.Fatalf("a step leaves nothing for the next: %+v", m)
	}
	s.Close()
	if m := torchx.HostMemory(); m.Held != m.Used {
		t.Errorf("%d bytes are held, %d used", m.Held, m.Used)
	}
}

func TestParseDevice(t *testing.T) {
	for text, want := range map[string]string{"cpu": "cpu", "": "", "gpu": "", "auto": "", "cpu:1": "", "cuda:x": "", "cuda:-1": "", "cuda:999": ""} {
		d, err := ParseDevice(text)
		if (err == nil) != (want != "") || err == nil && d.String() != want {
			t.Errorf("%q: %v, %v", text, d, err)
		}
	}
	if torchx.CUDADevices() == 0 {
		if _, err := ParseDevice("cuda"); !errors.Is(err, ErrNoCUDA) || !strings.Contains(err.Error(), "use cpu") {
			t.Errorf("cuda on a machine without: %v", err)
		}
	}
}
