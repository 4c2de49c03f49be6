package arch_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"spos/internal/arch"
)

// oneShot is the network that the authors released from their block and
// channel search: blocks 0 0 3 1 1 1 0 0 2 0 2 1 1 0 2 0 2 1 3 2, scales 1.4
// 1.2 .8 1.2 .6 1.4 .8 1 .6 1.2 1.6 1.2 1 1.4 1.6 1 1 1.2 1 .8
// (megvii-model/ShuffleNet-Series, OneShot).
const oneShot = "65rdae34i5ndc6n4kdsj"

// TestChannels holds the middle widths of the released network, and that a net
// on its own has tensors of its widths where the supernet takes leading parts.
func TestChannels(t *testing.T) {
	s := space(t, "shufflenetv2-channels")
	want := []int{44, 38, 25, 38, 48, 112, 64, 80, 96, 192, 256, 192, 160, 224, 256, 160, 320, 384, 320, 256}
	alone := net(t, s, oneShot)
	path, err := s.Path(oneShot)
	if err != nil {
		t.Fatal(err)
	}
	mids := map[int]int{}
	for i := range alone.Ops {
		a, p := &alone.Ops[i], &path.Ops[i]
		if a.Name != p.Name || a.Out != p.Out || a.Groups != p.Groups {
			t.Fatalf("op %d is %s %v, in the supernet %s %v", i, a.Name, a.Out, p.Name, p.Out)
		}
		if a.Weight == nil {
			continue
		}
		if a.Weight.Take != nil || a.Norm != nil && a.Norm.Mean.Take != nil {
			t.Errorf("%s alone takes a part of a tensor", a.Name)
		}
		if !slices.Equal(a.Weight.Dims(), p.Weight.Dims()) {
			t.Errorf("%s alone is %v, in the supernet %v", a.Name, a.Weight.Dims(), p.Weight.Dims())
		}
		if strings.HasSuffix(a.Name, ".main.0") && !strings.Contains(a.Name, "xception") || strings.HasSuffix(a.Name, "xception.main.1") {
			mids[a.Block] = a.Out.C
		}
	}
	for i, w := range want {
		if mids[i] != w {
			t.Errorf("block %d is %d wide in the middle, want %d", i, mids[i], w)
		}
	}
}

// TestSharedWidths: every path reads tensors of the supernet with their
// shapes, and takes the leading part of those that its widths share.
func TestSharedWidths(t *testing.T) {
	s := space(t, "shufflenetv2-channels")
	params := map[string]arch.Param{}
	for _, p := range s.Params() {
		if _, twice := params[p.Name]; twice {
			t.Fatalf("tensor %s is listed twice", p.Name)
		}
		params[p.Name] = p
	}
	if p := params["blocks.19.shuffle_7x7.main.2.weight"]; !slices.Equal(p.Shape, []int{320, 512, 1, 1}) {
		t.Errorf("the last projection has shape %v, want 320×512 at scale 1.6", p.Shape)
	}
	r := rand.New(rand.NewPCG(1, 2))
	taken := 0
	for range 50 {
		path, err := s.Path(s.Sample(r))
		if err != nil {
			t.Fatal(err)
		}
		for v := range path.Views() {
			if !slices.Equal(v.Shape, params[v.Name].Shape) {
				t.Fatalf("%s has shape %v, the supernet's %v", v.Name, v.Shape, params[v.Name].Shape)
			}
			for d, span := range v.Take {
				if span.Start != 0 || span.Len > v.Shape[d] {
					t.Fatalf("%s takes %+v of %v", v.Name, span, v.Shape)
				}
			}
			if v.Take != nil {
				taken++
			}
		}
	}
	if taken == 0 {
		t.Error("no view takes a part")
	}
}

func TestFirstChoices(t *testing.T) {
	s := space(t, "mobilenet-proxylessgpu-anglenas")
	for i := range s.Len() {
		want := 7
		if i%4 == 0 {
			want = 6
		}
		if got := len(s.Candidates(i)); got != want {
			t.Errorf("block %d has %d candidates, want %d", i, got, want)
		}
	}
	if got, want := s.Size(), math.Pow(6, 6)*math.Pow(7, 15); math.Abs(got/want-1) > 1e-12 {
		t.Errorf("%g archs, want %g", got, want)
	}
	if _, err := s.Parse("600000000000000000000"); !errors.Is(err, arch.ErrNotInSpace) || !strings.Contains(err.Error(), "block 0: choice 6") {
		t.Errorf("identity in a first block: %v", err)
	}
}

func TestChoicesOfWidths(t *testing.T) {
	spec := space(t, "shufflenetv2-channels").Spec()
	spec.Stages[0].Choices = []string{"shuffle_5x5", "shuffle_3x3@1.2"}
	s, err := arch.NewSpace(spec)
	if err != nil {
		t.Fatal(err)
	}
	got := s.Candidates(1)
	if len(got) != 9 || got[0] != "shuffle_5x5@0.2" || got[8] != "shuffle_3x3@1.2" {
		t.Errorf("candidates %v, want the eight widths of shuffle_5x5 and one of shuffle_3x3", got)
	}
	spec.Stages[0].Choices = []string{"shuffle_3x3@1.3"}
	if _, err := arch.NewSpace(spec); !errors.Is(err, arch.ErrSpec) {
		t.Errorf("a width that is none: %v", err)
	}
}

// TestOtherInits holds the bounds that PyTorch's modules start from and mmcv's
// deviations, where a depthwise kernel counts all its output channels.
func TestOtherInits(t *testing.T) {
	tests := map[string]map[string]arch.Init{
		"mobilenet-proxylessgpu-anglenas": {
			"stem.0.weight":                  {Bound: 1 / math.Sqrt(27)},
			"blocks.0.mb_k3e3.main.0.weight": {Bound: 1 / math.Sqrt(24)},
			"blocks.0.mb_k3e3.main.1.weight": {Bound: 1. / 3},
			"head.weight":                    {Bound: 1 / math.Sqrt(1728)},
			"head.bias":                      {Bound: 1 / math.Sqrt(1728)},
			"tail.0.bn.bias":                 {},
		},
		"mobilenet-proxylessgpu-mmrazor": {
			"stem.0.weight":                  {Std: math.Sqrt(2. / (9 * 40))},
			"blocks.0.mb_k3e3.main.0.weight": {Std: math.Sqrt(2. / 72)},
			"blocks.0.mb_k3e3.main.1.weight": {Std: math.Sqrt(2. / (9 * 72))},
			"head.weight":                    {Std: .01},
			"head.bias":                      {},
		},
	}
	for name, want := range tests {
		s := space(t, name)
		for v := range net(t, s, strings.Repeat("0", s.Len())).Views() {
			w, ok := want[v.Name]
			if !ok {
				continue
			}
			delete(want, v.Name)
			if math.Abs(v.Init.Bound-w.Bound) > 1e-15 || math.Abs(v.Init.Std-w.Std) > 1e-15 || v.Init.Mean != w.Mean {
				t.Errorf("%s: %s starts as %+v, want %+v", name, v.Name, v.Init, w)
			}
		}
		for v := range want {
			t.Errorf("%s: no tensor %s", name, v)
		}
	}
	if d := (arch.Init{Bound: 3}).Deviation(); math.Abs(d-math.Sqrt(3)) > 1e-15 {
		t.Errorf("a uniform in ±3 deviates by %v, want √3", d)
	}
}

// TestCIFAR: the variant for small images halves twice, and its first and last
// stage change their width at stride one: half of the channels pass.
func TestCIFAR(t *testing.T) {
	s := space(t, "shufflenetv2-cifar")
	sides := map[int]arch.Shape{}
	n := net(t, s, "10313030033010122113")
	for i := range n.Ops {
		if n.Ops[i].Kind == arch.Concat {
			sides[n.Ops[i].Block] = n.Ops[i].Out
		}
	}
	for block, want := range map[int]arch.Shape{0: {C: 64, H: 32, W: 32}, 4: {C: 160, H: 16, W: 16}, 8: {C: 320, H: 8, W: 8}, 16: {C: 640, H: 8, W: 8}} {
		if sides[block] != want {
			t.Errorf("block %d gives %v, want %v", block, sides[block], want)
		}
	}
	for i := range n.Ops {
		switch op := &n.Ops[i]; op.Name {
		case "blocks.0.shuffle_5x5.split": // even channels, and the main branch comes first
			if op.Start != 0 || op.Step != 2 || op.Out.C != 8 {
				t.Errorf("main branch reads %d channels from %d by %d", op.Out.C, op.Start, op.Step)
			}
		case "blocks.0.shuffle_5x5.main.2":
			if op.Out.C != 56 {
				t.Errorf("main branch gives %d channels, want 64 without the 8 that pass", op.Out.C)
			}
		case "blocks.0.shuffle_5x5.concat":
			if got := n.Ops[op.Inputs[0]].Name; got != "blocks.0.shuffle_5x5.main.2" {
				t.Errorf("%s comes first", got)
			}
		}
	}
}

func TestSupernetDropout(t *testing.T) {
	s := space(t, "mobilenet-fairnas")
	a := strings.Repeat("0", s.Len())
	path, err := s.Path(arch.Arch(a))
	if err != nil {
		t.Fatal(err)
	}
	rates := map[string]float64{"alone": rate(net(t, s, a)), "supernet": rate(path)}
	if rates["alone"] != 0.2 || rates["supernet"] != 0 {
		t.Errorf("dropout %v, want 0.2 alone and none in the supernet", rates)
	}
}

func rate(n *arch.Net) float64 {
	for i := range n.Ops {
		if n.Ops[i].Kind == arch.Dropout {
			return n.Ops[i].Rate
		}
	}
	return math.NaN()
}

// TestOneShotDigits decodes the digits of oneShot back into the two lists.
func TestOneShotDigits(t *testing.T) {
	blocks := strings.Fields("0 0 3 1 1 1 0 0 2 0 2 1 1 0 2 0 2 1 3 2")
	scales := strings.Fields("1.4 1.2 .8 1.2 .6 1.4 .8 1.0 .6 1.2 1.6 1.2 1.0 1.4 1.6 1.0 1.0 1.2 1.0 .8")
	kinds := []string{"shuffle_3x3", "shuffle_5x5", "shuffle_7x7", "shuffle_xception"}
	s := space(t, "shufflenetv2-channels")
	for i := range s.Len() {
		c, err := arch.Arch(oneShot).Choice(i)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := strconv.Atoi(blocks[i])
		w, _ := strconv.ParseFloat(scales[i], 64)
		want := kinds[b] + "@" + strconv.FormatFloat(w, 'f', -1, 64)
		if got := s.Candidates(i)[c]; got != want {
			t.Errorf("block %d is %s, want %s", i, got, want)
		}
	}
}
