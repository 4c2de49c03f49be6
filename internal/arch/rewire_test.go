package arch_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"spos/configs"
	"spos/internal/arch"
	"spos/internal/ckpt"
	"spos/internal/refnet"
)

// weights are tensors by name.
type weights map[string]ckpt.Tensor

// Tensor implements [refnet.Weights].
func (w weights) Tensor(name string) (ckpt.Tensor, error) {
	if _, ok := w[name]; !ok {
		return ckpt.Tensor{}, ckpt.ErrMissing
	}
	return w[name], nil
}

// draw makes tensors of which no two channels are alike, and under which
// activations keep their size.
func draw(params []arch.Param, r *rand.Rand) weights {
	w := weights{}
	for _, p := range params {
		t := ckpt.Tensor{Shape: p.Shape, Data: make([]float32, p.Numel())}
		for i := range t.Data {
			switch v := r.Float64(); p.Role {
			case arch.ConvWeight, arch.DepthwiseWeight, arch.LinearWeight:
				fan := float64(p.Numel() / p.Shape[0])
				t.Data[i] = float32((v - 0.5) * math.Sqrt(24/fan))
			case arch.NormGamma, arch.RunningVar:
				t.Data[i] = float32(0.5 + v)
			default:
				t.Data[i] = float32(v - 0.5)
			}
		}
		w[p.Name] = t
	}
	return w
}

func (w weights) rewired(orders map[string]arch.Order) weights {
	out := weights{}
	for name, t := range w {
		out[name] = ckpt.Tensor{Shape: t.Shape, Data: orders[name].Apply(t.Shape, t.Data)}
	}
	return out
}

// wired is a shipped space under another wiring, for small pictures.
func wired(t *testing.T, name, wiring, projection string) *arch.Space {
	t.Helper()
	s, err := configs.Space(name)
	if err != nil {
		t.Fatal(err)
	}
	spec := s.Spec()
	spec.Shuffle = &arch.ShuffleSpec{Wiring: wiring, Projection: projection}
	spec.Input, spec.Classes = [3]int{spec.Input[0], 8, 8}, 7
	if s, err = arch.NewSpace(spec); err != nil {
		t.Fatal(err)
	}
	return s
}

// distance is the largest difference relative to the spread of the logits.
func distance(a, b []float32) float64 {
	spread, most := float64(slices.Max(a)-slices.Min(a)), 0.0
	for i := range a {
		most = max(most, math.Abs(float64(a[i]-b[i])))
	}
	return most / spread
}

// sameLogits runs both nets in float64; what the order of a sum changes is far
// below the rounding of the answer to float32.
func sameLogits(t *testing.T, from, to *arch.Net, a, b weights, images []float32) {
	t.Helper()
	want, err := refnet.Run(from, a, nil, images, 1)
	if err != nil {
		t.Fatal(err)
	}
	got, err := refnet.Run(to, b, nil, images, 1)
	if err != nil {
		t.Fatal(err)
	}
	if d := distance(want, got); !(d < 1e-6) {
		t.Errorf("%s: logits differ by %g of their spread", to.Arch, d)
	}
}

// TestRewire: the same logits after rewiring, for nets and for mixed paths of
// a supernet; and there and back again, the same bytes.
func TestRewire(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for _, c := range []struct{ space, projection, from, to string }{
		{"shufflenetv2-small", "half", "deinterleave", "shuffle"},
		{"shufflenetv2-small", "half", "deinterleave", "main_first"},
		{"shufflenetv2-small", "half", "shuffle", "main_first"},
		{"shufflenetv2-small", "input", "deinterleave", "main_first"},
		{"shufflenetv2-mmrazor", "half", "shuffle", "deinterleave"},
		{"shufflenetv2-mmrazor", "half", "main_first", "shuffle"},
		{"shufflenetv2-spos", "input", "main_first", "deinterleave"},
		{"shufflenetv2-channels", "input", "deinterleave", "main_first"},
		{"shufflenetv2-cifar", "input", "main_first", "deinterleave"},
	} {
		t.Run(c.space+"/"+c.from+"-"+c.to, func(t *testing.T) {
			testRewire(t, wired(t, c.space, c.from, c.projection), wired(t, c.space, c.to, c.projection), r)
		})
	}
}

func testRewire(t *testing.T, from, to *arch.Space, r *rand.Rand) {
	images := make([]float32, from.In.Numel())
	for i := range images {
		images[i] = r.Float32()
	}
	orders, err := arch.RewireSpace(from, to)
	if err != nil {
		t.Fatal(err)
	}
	if len(orders) == 0 {
		t.Fatal("nothing moves")
	}
	super := draw(from.Params(), r)
	moved := super.rewired(orders)
	path := from.Sample(r)
	a, err := from.Path(path)
	if err != nil {
		t.Fatal(err)
	}
	b, err := to.Path(path)
	if err != nil {
		t.Fatal(err)
	}
	sameLogits(t, a, b, super, moved, images)
	back, err := arch.RewireSpace(to, from)
	if err != nil {
		t.Fatal(err)
	}
	for name, x := range moved.rewired(back) {
		if !slices.Equal(x.Data, super[name].Data) {
			t.Errorf("%s is another after there and back", name)
		}
	}

	testRewireNet(t, from, to, from.Sample(r), images, r)
}

func testRewireNet(t *testing.T, from, to *arch.Space, path arch.Arch, images []float32, r *rand.Rand) {
	a, err := from.Net(path)
	if err != nil {
		t.Fatal(err)
	}
	b, err := to.Net(path)
	if err != nil {
		t.Fatal(err)
	}
	var params []arch.Param
	for v := range a.Views() {
		params = append(params, v.Param)
	}
	w := draw(params, r)
	orders, err := arch.Rewire(a, b)
	if err != nil {
		t.Fatal(err)
	}
	sameLogits(t, a, b, w, w.rewired(orders), images)
}

// TestRewireMatters: without rewiring the logits are others, so the tests
// above can fail.
func TestRewireMatters(t *testing.T) {
	from, to := wired(t, "shufflenetv2-small", "deinterleave", "half"), wired(t, "shufflenetv2-small", "shuffle", "half")
	a, _ := from.Path("00000000")
	b, _ := to.Path("00000000")
	r := rand.New(rand.NewPCG(1, 1))
	w, images := draw(from.Params(), r), make([]float32, from.In.Numel())
	for i := range images {
		images[i] = r.Float32()
	}
	x, err := refnet.Run(a, w, nil, images, 1)
	if err != nil {
		t.Fatal(err)
	}
	y, err := refnet.Run(b, w, nil, images, 1)
	if err != nil {
		t.Fatal(err)
	}
	if d := distance(x, y); d < 0.01 {
		t.Errorf("logits differ by %g only", d)
	}
}

// TestRewireNothing: nets without wiring, residual sums and all, stay.
func TestRewireNothing(t *testing.T) {
	for _, name := range []string{"nasbench-macro", "mobilenet-proxylessgpu-mmrazor"} {
		s, err := configs.Space(name)
		if err != nil {
			t.Fatal(err)
		}
		orders, err := arch.RewireSpace(s, s)
		if err != nil || len(orders) != 0 {
			t.Errorf("%s: %d tensors move (%v)", name, len(orders), err)
		}
	}
}

// TestRewireRefuses: other functions and other spaces are errors that name
// the place.
func TestRewireRefuses(t *testing.T) {
	spos := wired(t, "shufflenetv2-spos", "deinterleave", "input")
	// Where the projection is not half of the block, the official split sends
	// half of its channels to the next main branch and mmrazor's sends none.
	if _, err := arch.RewireSpace(spos, wired(t, "shufflenetv2-spos", "shuffle", "input")); err == nil || !strings.Contains(err.Error(), "op blocks.0.shuffle_3x3.proj.1") {
		t.Errorf("another wiring of uneven branches: %v", err)
	}
	if _, err := arch.RewireSpace(spos, wired(t, "shufflenetv2-mmrazor", "shuffle", "half")); err == nil || !strings.Contains(err.Error(), "blocks.0.shuffle_3x3") {
		t.Errorf("other projections: %v", err)
	}
	if _, err := arch.RewireSpace(spos, wired(t, "shufflenetv2-small", "shuffle", "half")); err == nil || !strings.Contains(err.Error(), "other blocks") {
		t.Errorf("other blocks: %v", err)
	}
	a, _ := spos.Net("00000000000000000000")
	b, _ := spos.Net("00000000000000000001")
	if _, err := arch.Rewire(a, b); err == nil || !strings.Contains(err.Error(), "blocks.19") {
		t.Errorf("another arch: %v", err)
	}
	// A block that reads its input twice over is another function.
	n := *a
	n.Ops = slices.Clone(a.Ops)
	for i, o := range n.Ops {
		if o.Name == "blocks.1.shuffle_3x3.split" {
			n.Ops[i].Start = 0
		}
	}
	if _, err := arch.Rewire(a, &n); err == nil || !strings.Contains(err.Error(), "not the same function") {
		t.Errorf("another split: %v", err)
	}
}
