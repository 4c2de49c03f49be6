package arch_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"spos/configs"
	"spos/internal/arch"
)

// macroSpec is NAS-Bench-Macro: its published counts prove mbconv, identity and
// the canonical form.
func macroSpec(t *testing.T) arch.Spec { return space(t, "nasbench-macro").Spec() }

func TestNASBenchMacro(t *testing.T) {
	s := space(t, "nasbench-macro")
	// Parameters and FLOPs of the benchmark's own JSON.
	if c := net(t, s, "22212220").Cost(); c.Params != 1985514 || math.Round(float64(c.MACs)/1e4) != 8516 {
		t.Errorf("22212220: %d parameters, %d MACs; want 1985514 and 85.16M", c.Params, c.MACs)
	}
	unique := map[arch.Arch]bool{}
	for i := range 6561 {
		choices := make([]int, 8)
		for j := range choices {
			choices[j], i = i%3, i/3
		}
		a := arch.Make(choices)
		c := s.Canonical(a)
		if s.Canonical(c) != c {
			t.Fatalf("%s: canonical form %s is not its own", a, c)
		}
		if x, y := net(t, s, string(a)).Cost(), net(t, s, string(c)).Cost(); x.MACs != y.MACs || x.Params != y.Params {
			t.Fatalf("%s and its canonical form %s differ in cost", a, c)
		}
		unique[c] = true
	}
	if len(unique) != 3969 {
		t.Errorf("%d canonical archs, want 3969", len(unique))
	}
	if got := s.Canonical("22212202"); got != "22212220" {
		t.Errorf("22212202 is %s, want 22212220", got)
	}
}

func TestParseErrors(t *testing.T) {
	s := space(t, "shufflenetv2-spos")
	tests := map[string]string{
		"":                     "has 0 digits, space shufflenetv2-spos has 20 choice blocks",
		"2020311001010312201":  "has 19 digits",
		"20203110010103122014": "block 19: choice 4 of space shufflenetv2-spos is none of 0 shuffle_3x3, 1 shuffle_5x5",
		"2020311001010312201-": `block 19: '-' is no base-36 digit`,
		"A0203110010103122013": `block 0: 'A' is no base-36 digit`,
	}
	for digits, want := range tests {
		_, err := s.Parse(digits)
		if !errors.Is(err, arch.ErrNotInSpace) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want ErrNotInSpace with %q", digits, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	s := space(f, "shufflenetv2-small")
	f.Add(strings.Repeat("0", s.Len()))
	f.Add("123")
	f.Add("\xff")
	f.Fuzz(func(t *testing.T, digits string) {
		a, err := s.Parse(digits)
		if err != nil {
			if !errors.Is(err, arch.ErrNotInSpace) {
				t.Fatalf("%q: %v", digits, err)
			}
			return
		}
		n, err := s.Net(a)
		if err != nil || n.Cost().Params == 0 {
			t.Fatalf("%q parses and is no net: %v", digits, err)
		}
	})
}

// TestNetsAreWellFormed: inputs come first, shapes follow, names are unique,
// and the additive costs are the net's.
func TestNetsAreWellFormed(t *testing.T) {
	for _, name := range configs.Spaces() {
		s := space(t, name)
		r := rand.New(rand.NewPCG(1, 2))
		for range 50 {
			a := s.Sample(r)
			n := net(t, s, string(a))
			names := map[string]bool{}
			for i, op := range n.Ops {
				if names[op.Name] {
					t.Fatalf("%s %s: op %s twice", name, a, op.Name)
				}
				names[op.Name] = true
				channels := 0
				for _, in := range op.Inputs {
					if in >= i {
						t.Fatalf("%s %s: %s reads op %d after it", name, a, op.Name, in)
					}
					shape := n.In
					if in != arch.Input {
						shape = n.Ops[in].Out
					}
					channels += shape.C
				}
				if op.Kind == arch.Concat && channels != op.Out.C {
					t.Fatalf("%s %s: %s joins %d channels into %d", name, a, op.Name, channels, op.Out.C)
				}
			}
			sum := s.FixedCost()
			for i := range s.Len() {
				c, err := a.Choice(i)
				if err != nil {
					t.Fatal(err)
				}
				b := s.BlockCost(i, c)
				sum.MACs, sum.Params, sum.FLOPs.MMCV = sum.MACs+b.MACs, sum.Params+b.Params, sum.FLOPs.MMCV+b.FLOPs.MMCV
			}
			if c := n.Cost(); c.MACs != sum.MACs || c.Params != sum.Params || c.FLOPs.MMCV != sum.FLOPs.MMCV {
				t.Fatalf("%s %s: cost %+v is not the sum of its blocks %+v", name, a, c, sum)
			}
		}
	}
}

// TestWiring follows channel numbers through one stride-1 block of each
// wiring: the official one passes even channels, mmrazor's shuffles halves.
func TestWiring(t *testing.T) {
	keep := func(name string) arch.Op {
		for _, op := range net(t, space(t, name), strings.Repeat("0", 20)).Ops {
			if op.Name == "blocks.1.shuffle_3x3.keep" {
				return op
			}
		}
		t.Fatal("no keep")
		return arch.Op{}
	}
	if op := keep("shufflenetv2-spos"); op.Start != 0 || op.Step != 2 || op.Out.C != 32 {
		t.Errorf("official keeps %d channels from %d by %d", op.Out.C, op.Start, op.Step)
	}
	if op := keep("shufflenetv2-mmrazor"); op.Start != 0 || op.Step != 1 || op.Out.C != 32 {
		t.Errorf("mmrazor keeps %d channels from %d by %d", op.Out.C, op.Start, op.Step)
	}
}

// TestInit holds the official initialisation: depthwise kernels N(0, 1), for
// their shape[1] is 1.
func TestInit(t *testing.T) {
	want := map[string]arch.Init{
		"stem.0.weight":                      {Std: .01},
		"blocks.0.shuffle_3x3.proj.0.weight": {Std: 1},
		"blocks.0.shuffle_3x3.main.0.weight": {Std: 1.0 / 16},
		"tail.0.weight":                      {Std: 1.0 / 640},
		"tail.0.bn.bias":                     {Mean: .0001},
		"tail.0.bn.weight":                   {Mean: 1},
		"head.weight":                        {Std: .01},
	}
	for v := range net(t, space(t, "shufflenetv2-spos"), strings.Repeat("0", 20)).Views() {
		if w, ok := want[v.Name]; ok {
			delete(want, v.Name)
			if v.Init != w {
				t.Errorf("%s starts as %+v, want %+v", v.Name, v.Init, w)
			}
		}
	}
	for name := range want {
		t.Errorf("no tensor %s", name)
	}
}

// TestDraws: mutation redraws over all candidates (so a digit changes with
// probability p·3/4) and a child's digits come from its parents. Bounds are
// five standard deviations.
func TestDraws(t *testing.T) {
	s := space(t, "shufflenetv2-spos")
	r := rand.New(rand.NewPCG(3, 4))
	const n = 4000
	changed, fromB := 0, 0
	a, b := arch.Arch(strings.Repeat("0", 20)), arch.Arch(strings.Repeat("1", 20))
	for range n {
		changed += 20 - strings.Count(string(s.Mutate(r, a, .1)), "0")
		fromB += strings.Count(string(s.Crossover(r, a, b)), "1")
	}
	within := func(what string, got int, p float64) {
		draws := 20.0 * n
		if dev := math.Abs(float64(got)-draws*p) / math.Sqrt(draws*p*(1-p)); dev > 5 {
			t.Errorf("%s: %d of %.0f, %.1f deviations from %.3f", what, got, draws, dev, p)
		}
	}
	within("mutated", changed, .1*.75)
	within("from the second parent", fromB, .5)
}

func TestMalformedSpecs(t *testing.T) {
	tests := map[string]struct {
		change func(*arch.Spec)
		want   string
	}{
		"no name":         {func(s *arch.Spec) { s.Name = "" }, "name: is missing"},
		"zero input":      {func(s *arch.Spec) { s.Input[1] = 0 }, "input: height 0"},
		"huge input":      {func(s *arch.Spec) { s.Input[2] = 1 << 30 }, "input: width"},
		"unknown init":    {func(s *arch.Spec) { s.Init = "zeros" }, `init: "zeros"`},
		"eps":             {func(s *arch.Spec) { s.Norm.Eps = 0 }, "eps must be positive"},
		"even kernel":     {func(s *arch.Spec) { s.Candidates[1].Kernel = 4 }, "kernel 4 is not an odd number"},
		"unknown block":   {func(s *arch.Spec) { s.Candidates[1].Block = "swirl" }, `block "swirl"`},
		"shuffle unwired": {func(s *arch.Spec) { s.Candidates[1].Block = "shuffle" }, "no section `shuffle`"},
		"twice":           {func(s *arch.Spec) { s.Candidates[1].Name = "identity" }, "used twice"},
		"no stage":        {func(s *arch.Spec) { s.Stages = nil }, "stages: there are none"},
		"unknown choice":  {func(s *arch.Spec) { s.Stages[1].Choices = []string{"mb9"} }, `no candidate is called "mb9"`},
		"too many blocks": {func(s *arch.Spec) { s.Stages[0].Blocks = 1 << 20 }, "choice blocks, more than"},
		"unknown act":     {func(s *arch.Spec) { s.Tail[0].Act = "gelu" }, `act: "gelu"`},
		"dropout":         {func(s *arch.Spec) { s.Head.Dropout = 1 }, "head.dropout"},
		"supernet's":      {func(s *arch.Spec) { s.Head.SupernetDropout = new(-0.5) }, "head.supernet_dropout"},
		"first choice":    {func(s *arch.Spec) { s.Stages[1].FirstChoices = []string{"mb9"} }, `stages[1].first_choices: no candidate is called "mb9"`},
		"chosen twice":    {func(s *arch.Spec) { s.Stages[1].Choices = []string{"identity", "identity"} }, `"identity" is there twice`},
		"at sign":         {func(s *arch.Spec) { s.Candidates[1].Name = "mb@2" }, "has an @"},
		"widths of an mb": {func(s *arch.Spec) { s.Candidates[1].WidthScales = []float64{1} }, "only shuffle and xception blocks"},
		"unknown wiring":  {func(s *arch.Spec) { s.Shuffle = &arch.ShuffleSpec{Wiring: "none", Projection: "half"} }, `shuffle.wiring: "none"`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			spec := macroSpec(t)
			tt.change(&spec)
			_, err := arch.NewSpace(spec)
			if !errors.Is(err, arch.ErrSpec) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want ErrSpec with %q", err, tt.want)
			}
		})
	}
}

func TestSlice(t *testing.T) {
	v := arch.View{Param: arch.Param{Name: "w", Shape: []int{3, 4}}, Take: []arch.Span{{Start: 1, Len: 2}, {Start: 0, Len: 3}}}
	got := v.Slice([]float32{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11})
	want := []float32{4, 5, 6, 8, 9, 10}
	for i := range want {
		if len(got) != len(want) || got[i] != want[i] {
			t.Fatalf("rows 1–2, columns 0–2: %v, want %v", got, want)
		}
	}
}
