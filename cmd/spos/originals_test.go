package main

import (
	"encoding/json"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"spos/cmd/internal/cli"
	"spos/configs"
	"spos/export"
	"spos/internal/arch"
	"spos/internal/ckpt"
	"spos/internal/data"
	"spos/internal/refnet"
	"spos/supernet"
)

// An imported net's logits may differ from the original module's by this share
// of their spread, from the least to the greatest; a training loss by that much.
const (
	originalLogits = 1e-4
	originalLoss   = 1e-3
)

// published is one full-size net of another code base, as
// supernet/testdata/originals/originals.py makes it.
type published struct {
	Space    string
	Supernet bool
	Archs    []arch.Arch
	Recipe   struct {
		Decay       string
		WeightDecay float64 `json:"weight_decay"`
		Smoothing   float64
		ClipValue   float64 `json:"clip_value"`
		ClipNorm    float64 `json:"clip_norm"`
		Rates       []float64
	}
	Side      int
	TrainSide int         `json:"train_side"`
	Logits    [][]float64 // of one image, for each arch
	Losses    []float64
	// How far PyTorch's own float32 strays, and how much training moves a loss.
	LogitStray float64 `json:"logit_stray"`
	Stray      float64
	Change     float64
}

// TestOriginals imports full-size checkpoints in the files of every code base
// that PyTorch wrote, and compares logits on libtorch, on the reference and in
// ONNX Runtime, and the losses of ten steps, with the original modules'.
func TestOriginals(t *testing.T) {
	python := os.Getenv("SPOS_TORCH_PYTHON")
	if python == "" {
		t.Skip("SPOS_TORCH_PYTHON names no Python with torch and numpy: make originals")
	}
	script := filepath.Join("..", "..", "supernet", "testdata", "originals", "originals.py")
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.Command(python, append([]string{"-B", script}, args...)...)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %v", cmd, err)
		}
		return string(out)
	}
	for name := range strings.FieldsSeq(run("list")) {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			run("full", dir, name)
			text, err := os.ReadFile(filepath.Join(dir, name+".json"))
			if err != nil {
				t.Fatal(err)
			}
			var p published
			if err := json.Unmarshal(text, &p); err != nil {
				t.Fatal(err)
			}
			p.agree(t, p.importFile(t, filepath.Join(dir, name+".pth")))
		})
	}
}

// importFile runs the verb, and returns the weights of what it wrote.
func (p *published) importFile(t *testing.T, path string) *ckpt.File {
	t.Helper()
	out := filepath.Join(t.TempDir(), "imported")
	args := []string{path, "--space", p.Space, "-o", out}
	if !p.Supernet {
		args = append(args, "--arch", string(p.Archs[0]))
	}
	cmd := cli.NewImportCommand()
	cmd.SetArgs(args)
	cmd.SetOut(io.Discard)
	cmd.SetContext(t.Context())
	if err := cmd.Execute(); err != nil {
		t.Fatal(err)
	}
	c, err := ckpt.Find(out)
	if err != nil {
		t.Fatal(err)
	}
	f, err := c.Model()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func (p *published) agree(t *testing.T, f *ckpt.File) {
	space, training := p.spaces(t)
	params := space.Params()
	if !p.Supernet {
		params = nil
		for v := range p.net(t, space, p.Archs[0]).Views() {
			params = append(params, v.Param)
		}
	}
	r := p.Recipe
	s, err := supernet.New(params, supernet.Options{
		Decay: map[string]supernet.Decay{
			"matrices": supernet.DecayWeights, "dense": supernet.DecayDense, "kernels": supernet.DecayKernels,
			"kernels_and_head": supernet.DecayHead, "everything": supernet.DecayAll,
		}[r.Decay],
		WeightDecay: &r.WeightDecay, LabelSmoothing: &r.Smoothing, ClipValue: r.ClipValue, ClipNorm: r.ClipNorm,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Load(f); err != nil {
		t.Fatal(err)
	}
	for i, a := range p.Archs {
		p.logitsAgree(t, s, f, p.net(t, space, a), p.Logits[i])
	}
	worst := 0.0
	for i, rate := range r.Rates {
		n := p.net(t, training, p.Archs[i/2%len(p.Archs)])
		b := i % 2
		step, err := s.Step(t.Context(), n, uniformBatch(uint64(b), []int{8, 6}[b], n), rate)
		if err != nil {
			t.Fatal(err)
		}
		d := math.Abs(step.Loss - p.Losses[i])
		worst = math.Max(worst, d)
		if !(d <= originalLoss) {
			t.Errorf("step %d: loss %v, the original's is %v", i, step.Loss, p.Losses[i])
		}
	}
	t.Logf("losses within %.1e; PyTorch's float32 strays by %.1e, training moves them by %.1e", worst, p.Stray, p.Change)
	if p.Change < 5*originalLoss {
		t.Error("training moves the losses too little to tell")
	}
}

// spaces are the shipped one at the size of the logits, and at that of the
// training steps, without dropout.
func (p *published) spaces(t *testing.T) (logits, training *arch.Space) {
	t.Helper()
	shipped, err := configs.Space(p.Space)
	if err != nil {
		t.Fatal(err)
	}
	at := func(side int) *arch.Space {
		spec := shipped.Spec()
		spec.Input = [3]int{3, side, side}
		spec.Head.Dropout, spec.Head.SupernetDropout = 0, nil
		s, err := arch.NewSpace(spec)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	return at(p.Side), at(p.TrainSide)
}

func (p *published) net(t *testing.T, s *arch.Space, a arch.Arch) *arch.Net {
	t.Helper()
	spell := s.Net
	if p.Supernet {
		spell = s.Path
	}
	n, err := spell(a)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (p *published) logitsAgree(t *testing.T, s *supernet.Supernet, f *ckpt.File, n *arch.Net, want []float64) {
	b := uniformBatch(0, 1, n)
	got := map[string][]float32{}
	var err error
	if got["libtorch"], err = s.Logits(t.Context(), n, nil, b); err != nil {
		t.Fatal(err)
	}
	if got["the reference"], err = refnet.Run(n, f, nil, b.Images, b.N); err != nil {
		t.Fatal(err)
	}
	model, err := export.Model(n, f, export.Options{})
	if err != nil {
		t.Fatal(err)
	}
	text, err := export.Marshal(model)
	if err != nil {
		t.Fatal(err)
	}
	rt, err := cli.OpenRuntime()
	if err != nil {
		t.Fatal(err)
	}
	on, err := openONNX(rt, text, n, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer on.session.Close()
	if got["ONNX Runtime"], err = on.logits(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	for where, y := range got {
		far := farthest(y, want) / (slices.Max(want) - slices.Min(want))
		t.Logf("%s, %d pixels: logits on %s within %.1e of their spread, PyTorch's float32 within %.1e", n.Arch, n.In.H, where, far, p.LogitStray)
		if !(far <= originalLogits) {
			t.Errorf("%s: logits on %s are %.1e of their spread off", n.Arch, where, far)
		}
	}
}

func farthest(got []float32, want []float64) float64 {
	if len(got) != len(want) {
		return math.Inf(1)
	}
	worst := 0.0
	for i, w := range want {
		if d := math.Abs(float64(got[i]) - w); !(d <= worst) {
			worst = d
		}
	}
	return worst
}

// uniformBatch is golden.py's batch: 24 bits of splitmix64 a number, in
// [-1, 1), and labels (3i + state) mod classes.
func uniformBatch(state uint64, n int, net *arch.Net) data.Batch {
	b := data.Batch{N: n, Shape: net.In}
	for i := range n {
		b.Labels = append(b.Labels, int64((3*i+int(state))%net.Classes()))
	}
	for range n * net.In.Numel() {
		state += 0x9e3779b97f4a7c15
		z := (state ^ state>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		b.Images = append(b.Images, float32((z^z>>31)>>40)/(1<<23)-1)
	}
	return b
}
