package arch_test

import (
	"errors"
	"math"
	"math/big"
	"slices"
	"strings"
	"testing"

	"spos/configs"
	"spos/internal/arch"
)

func TestCount(t *testing.T) {
	for name, want := range map[string]string{
		"shufflenetv2-spos":               "1099511627776",                   // 4²⁰
		"mobilenet-proxylessgpu-anglenas": "221502229807900608",              // 6⁶·7¹⁵
		"mobilenet-proxylessgpu-mmrazor":  "558545864083284007",              // 7²¹
		"shufflenetv2-channels":           "1267650600228229401496703205376", // 32²⁰
	} {
		if got := space(t, name).Count().String(); got != want {
			t.Errorf("%s has %s archs, want %s", name, got, want)
		}
	}
	for _, name := range configs.Spaces() {
		s := space(t, name)
		got, _ := new(big.Float).SetInt(s.Count()).Float64()
		if math.Abs(got/s.Size()-1) > 1e-12 {
			t.Errorf("%s: exactly %v archs, about %v", name, got, s.Size())
		}
		if canonical := s.CanonicalCount(); canonical.Cmp(s.Count()) > 0 {
			t.Errorf("%s: %v canonical archs of %v", name, canonical, s.Count())
		}
	}
}

// TestCanonicalCount against all archs of small spaces: NAS-Bench-Macro with
// its 3,969 distinct networks, a stage whose first block can change places too,
// and one whose first block has choices of its own.
func TestCanonicalCount(t *testing.T) {
	keeping := macroSpec(t)
	keeping.Stem[0].Out = keeping.Stages[0].Out
	keeping.Stages[0].Stride = 1
	own := keeping
	own.Stages = slices.Clone(own.Stages)
	own.Stages[0].Blocks = 3
	own.Stages[0].FirstChoices = []string{"mb_k3e3", "mb_k5e6"}
	for name, tt := range map[string]struct {
		spec arch.Spec
		want int64
	}{
		"first blocks change shape": {macroSpec(t), 3969},
		"first stage keeps it":      {keeping, 7 * 21 * 21},
		"first block apart":         {own, 2 * 7 * 21 * 21},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := arch.NewSpace(tt.spec)
			if err != nil {
				t.Fatal(err)
			}
			unique := map[arch.Arch]bool{}
			every(s, func(a arch.Arch) { unique[s.Canonical(a)] = true })
			if got := s.CanonicalCount().Int64(); got != tt.want || len(unique) != int(tt.want) {
				t.Errorf("%d canonical archs, %d found, want %d", got, len(unique), tt.want)
			}
		})
	}
}

// TestSupernetParams holds the sizes that follow from the four code bases.
func TestSupernetParams(t *testing.T) {
	for name, want := range map[string][2]int64{
		"shufflenetv2-spos":               {8388176, 8489648},
		"shufflenetv2-mmrazor":            {8488600, 8488600},
		"mobilenet-proxylessgpu-anglenas": {27684320, 27684320},
		"mobilenet-proxylessgpu-mmrazor":  {27852880, 27852880},
	} {
		s := space(t, name)
		if own, affine := s.SupernetParams(); own != want[0] || affine != want[1] {
			t.Errorf("%s: %d trainable elements and %d with affine norms, want %d", name, own, affine, want)
		}
		seen := map[string]bool{}
		for _, p := range s.Params() {
			if seen[p.Name] {
				t.Errorf("%s: %s is listed twice", name, p.Name)
			}
			seen[p.Name] = true
		}
	}
	// mmrazor's without affine norms: 8,387,128.
	spec := space(t, "shufflenetv2-mmrazor").Spec()
	spec.Norm.SupernetAffine = false
	s, err := arch.NewSpace(spec)
	if err != nil {
		t.Fatal(err)
	}
	if own, affine := s.SupernetParams(); own != 8387128 || affine != 8488600 {
		t.Errorf("mmrazor's without affine norms: %d, with %d", own, affine)
	}
}

func TestOnly(t *testing.T) {
	channels := space(t, "shufflenetv2-channels")
	tests := map[string]struct {
		patterns []string
		want     string // candidates of block 1
	}{
		"all widths by pattern": {[]string{"shuffle_3x3@*"}, "shuffle_3x3@0.2 shuffle_3x3@0.4 shuffle_3x3@0.6 shuffle_3x3@0.8 shuffle_3x3@1 shuffle_3x3@1.2 shuffle_3x3@1.4 shuffle_3x3@1.6"},
		"all widths by name":    {[]string{"shuffle_3x3"}, "shuffle_3x3@0.2 shuffle_3x3@0.4 shuffle_3x3@0.6 shuffle_3x3@0.8 shuffle_3x3@1 shuffle_3x3@1.2 shuffle_3x3@1.4 shuffle_3x3@1.6"},
		"one width of all":      {[]string{"*@1"}, "shuffle_3x3@1 shuffle_5x5@1 shuffle_7x7@1 shuffle_xception@1"},
		"the space's order":     {[]string{"*xception@0.2", "shuffle_5x5@1.6"}, "shuffle_5x5@1.6 shuffle_xception@0.2"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s, err := channels.Only(tt.patterns...)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(s.Candidates(1), " "); got != tt.want {
				t.Errorf("candidates %s, want %s", got, tt.want)
			}
			if s.Len() != channels.Len() || !strings.Contains(s.Name, tt.patterns[0]) {
				t.Errorf("%d blocks, called %s", s.Len(), s.Name)
			}
		})
	}
	// At scale one it is the space without widths.
	one, err := channels.Only("*@1")
	if err != nil {
		t.Fatal(err)
	}
	for i := range one.Len() {
		for c := range one.Candidates(i) {
			if got, want := one.BlockCost(i, c), space(t, "shufflenetv2-spos").BlockCost(i, c); got != want {
				t.Errorf("block %d choice %d costs %+v, want %+v", i, c, got, want)
			}
		}
	}
	first, err := space(t, "mobilenet-proxylessgpu-anglenas").Only("mb_k7*", "identity")
	if err != nil {
		t.Fatal(err)
	}
	if len(first.Candidates(0)) != 2 || len(first.Candidates(1)) != 3 || len(first.Candidates(20)) != 2 {
		t.Errorf("candidates %v, %v and %v", first.Candidates(0), first.Candidates(1), first.Candidates(20))
	}
	for _, patterns := range [][]string{{"mb_k9*"}, {"identity"}, {"[a"}} {
		if _, err := space(t, "mobilenet-proxylessgpu-anglenas").Only(patterns...); !errors.Is(err, arch.ErrSpec) || !strings.Contains(err.Error(), patterns[0]) {
			t.Errorf("%q: error %v, want ErrSpec that names it", patterns, err)
		}
	}
}

// TestMobileNetBlockCosts compares every candidate of every block of both
// MobileNet-ProxylessGPU spaces with the table in testdata, and their fixed
// parts.
func TestMobileNetBlockCosts(t *testing.T) {
	names := []string{"mb_k3e3", "mb_k3e6", "mb_k5e3", "mb_k5e6", "mb_k7e3", "mb_k7e6", "identity"}
	for _, spaceName := range []string{"mobilenet-proxylessgpu-anglenas", "mobilenet-proxylessgpu-mmrazor"} {
		s := space(t, spaceName)
		seen := 0
		for _, row := range table(t, "mobilenet_blocks.tsv", 63) {
			block, q := int(integer(t, row[0])), arch.Quantity(row[1])
			for c, name := range s.Candidates(block) {
				cost := s.BlockCost(block, c)
				if want := integer(t, row[2+slices.Index(names, name)]); cost.Of(q) != want {
					t.Errorf("%s block %d %s: %d %s, want %d", spaceName, block, name, cost.Of(q), q, want)
				}
				if cost.FLOPs.Thop != cost.MACs {
					t.Errorf("%s block %d %s: thop counts %d, not the %d MACs", spaceName, block, name, cost.FLOPs.Thop, cost.MACs)
				}
				seen++
			}
		}
		if want := map[bool]int{true: 3 * 21 * 7, false: 3 * (6*6 + 15*7)}[strings.HasSuffix(spaceName, "mmrazor")]; seen != want {
			t.Errorf("%s: %d costs compared, want %d", spaceName, seen, want)
		}
		// First convolution + the fixed block k3e1 + last convolution, pool and linear.
		fixed := s.FixedCost()
		got := [4]int64{fixed.MACs, fixed.Params, fixed.FLOPs.MMCV, fixed.FLOPs.Thop}
		want := [4]int64{13547520 + 16558080 + 38306304, 1160 + 1448 + 2478952, 15052800 + 18665472 + 38644992, 13547520 + 16558080 + 40033304}
		if got != want {
			t.Errorf("%s: fixed MACs, params, mmcv, thop %d, want %d", spaceName, got, want)
		}
	}
}
