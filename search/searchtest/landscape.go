package searchtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"math"
	"os"
	"slices"

	"spos/internal/arch"
	"spos/search"
)

// Landscape is the true accuracy, a fraction, of every arch of a space: what
// a search climbs in a test, in microseconds.
type Landscape map[arch.Arch]float64

// Objective looks nets up. A net that is not in the landscape is an error.
func (l Landscape) Objective(_ context.Context, nets []*arch.Net) ([]search.Score, error) {
	scores := make([]search.Score, len(nets))
	for i, n := range nets {
		v, ok := l[n.Arch]
		if !ok {
			return nil, fmt.Errorf("landscape has no %s", n.Arch)
		}
		scores[i].Accuracy = v
	}
	return scores, nil
}

// Best is the highest accuracy among the archs that keep admits; nil admits
// all.
func (l Landscape) Best(keep func(arch.Arch) bool) float64 {
	best := 0.0
	for a, v := range l {
		if keep == nil || keep(a) {
			best = max(best, v)
		}
	}
	return best
}

// RandomRegret is the expected gap to the best after n draws without
// replacement: the closed form that random search has to meet. With values
// v₁ ≥ v₂ ≥ … ≥ v_N the best of n is vᵢ with probability C(N−i, n−1)/C(N, n).
func (l Landscape) RandomRegret(n int) float64 {
	v := slices.Sorted(maps.Values(l))
	slices.Reverse(v)
	total := float64(len(v))
	n = min(n, len(v))
	p := float64(n) / total // C(N−1, n−1)/C(N, n)
	mean := 0.0
	for i, x := range v {
		mean += p * x
		left := total - float64(i) - 1 // C(N−i−1, n−1) from C(N−i, n−1), i from 1
		if left > 0 {
			p *= (left - float64(n) + 1) / left
		}
	}
	return v[0] - mean
}

// All lists every arch of a small space in order; it panics beyond a million.
func All(s *arch.Space) []arch.Arch {
	if s.Size() > 1e6 {
		panic("searchtest: space is too large to list")
	}
	all := []arch.Arch{""}
	for b := range s.Len() {
		var longer []arch.Arch
		for _, a := range all {
			for c := range s.Candidates(b) {
				longer = append(longer, a+arch.Make([]int{c}))
			}
		}
		all = longer
	}
	return all
}

// Macro is the space of NAS-Bench-Macro (Su et al. 2021): 3 candidates in 8
// blocks, CIFAR-10. An identity makes 2,592 of its 6,561 archs aliases.
func Macro() *arch.Space { return mbSpace("nas-bench-macro", identity, 32, 1280, 2, 3, 3) }

// Codes is a space of [Macro]'s 6,561 codes in which none is an alias, for
// statistics that count codes: a landscape of Macro can be searched in it.
func Codes() *arch.Space {
	return mbSpace("codes", arch.CandidateSpec{Name: "mb_k3e1", Block: "mbconv", Kernel: 3, Expand: 1, Act: "relu"}, 8, 16, 2, 3, 3)
}

// Tiny is a space of 3⁴ archs, 63 of them distinct, in the style of [Macro].
func Tiny() *arch.Space { return mbSpace("tiny", identity, 8, 16, 1, 3) }

var identity = arch.CandidateSpec{Name: "identity", Block: "identity"}

func mbSpace(name string, first arch.CandidateSpec, stem, tail int, blocks ...int) *arch.Space {
	spec := arch.Spec{
		Name: name, Input: [3]int{3, 32, 32}, Classes: 10, Init: arch.InitKaiming,
		Norm: arch.NormSpec{Eps: 1e-5, Momentum: 0.1, SupernetAffine: true},
		Stem: []arch.LayerSpec{{Out: stem, Kernel: 3, Stride: 1, Act: "relu"}},
		Candidates: []arch.CandidateSpec{
			first,
			{Name: "mb_k3e3", Block: "mbconv", Kernel: 3, Expand: 3, Act: "relu"},
			{Name: "mb_k5e6", Block: "mbconv", Kernel: 5, Expand: 6, Act: "relu"},
		},
		Tail: []arch.LayerSpec{{Out: tail, Kernel: 1, Act: "relu"}},
		Head: arch.HeadSpec{Bias: true},
	}
	for i, n := range blocks {
		spec.Stages = append(spec.Stages, arch.StageSpec{Out: stem << (i + 1), Blocks: n, Stride: 2})
	}
	s, err := arch.NewSpace(spec)
	if err != nil {
		panic(err) // a constant
	}
	return s
}

// Synthetic is a landscape for a space with [Macro]'s candidates, of the same
// character as the measured one: a long tail of bad nets without blocks, a
// crowded top where more capacity gives less and less, and an epistasis of a
// tenth of a point that no single block explains. Aliases are equal.
func Synthetic(s *arch.Space) Landscape {
	gain := map[byte]float64{'0': 0, '1': 1, '2': 1.3}
	l := Landscape{}
	for _, a := range All(s) {
		c := s.Canonical(a)
		score, share, stage := 0.0, 1.0, -1
		for i := range len(c) {
			if s.Stage(i) != stage {
				stage, share = s.Stage(i), 1.2
			}
			score += share * gain[c[i]]
			share *= 0.75
		}
		h := fnv.New64a()
		h.Write([]byte(c))
		rough := float64(h.Sum64()>>11)/(1<<53) - 0.5
		l[a] = 0.93 - 0.47*math.Exp(-0.75*score) + 0.003*rough
	}
	return l
}

// ReadMacro reads NAS-Bench-Macro's nas-bench-macro_cifar10.json and checks
// every entry's parameters and MACs against the arithmetic of [Macro].
func ReadMacro(path string) (Landscape, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var entries map[arch.Arch]struct {
		Mean   float64 `json:"mean_acc"`
		Params int64   `json:"params"`
		MACs   int64   `json:"flops"`
	}
	if err := json.Unmarshal(text, &entries); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	s, l := Macro(), Landscape{}
	var bad []error
	for a, e := range entries {
		n, err := s.Net(a)
		if err != nil {
			return nil, err
		}
		if c := n.Cost(); c.Params != e.Params || c.MACs != e.MACs {
			bad = append(bad, fmt.Errorf("%s costs %d params, %d MACs; published are %d, %d", a, c.Params, c.MACs, e.Params, e.MACs))
		}
		l[a] = e.Mean / 100
	}
	if len(bad) > 0 {
		return nil, fmt.Errorf("%d nets differ, first: %w", len(bad), bad[0])
	}
	if float64(len(l)) != s.Size() {
		return nil, errors.New("read " + path + ": archs are missing")
	}
	return l, nil
}
