package arch

import (
	"fmt"
	"math/big"
	"path"
	"slices"
	"strings"
)

// Count is the number of archs.
func (s *Space) Count() *big.Int {
	n := big.NewInt(1)
	for _, b := range s.blocks {
		n.Mul(n, big.NewInt(int64(len(b.candidates))))
	}
	return n
}

// CanonicalCount is the number of distinct stand-alone nets as
// [Space.Canonical] tells them apart: of archs that are their own canonical
// form. In a run of blocks that can change places, those are sequences of
// working candidates followed by idle ones.
func (s *Space) CanonicalCount() *big.Int {
	total := big.NewInt(1)
	for from := 0; from < s.Len(); {
		first, end := s.run(from)
		if first > from {
			total.Mul(total, big.NewInt(int64(len(s.blocks[from].candidates))))
		}
		if first < end {
			total.Mul(total, s.blocks[first].orders(end-first))
		}
		from = end
	}
	return total
}

// run is the blocks first to end that can change places, of the stage that
// begins at block from: all of them, without the first where it changes the
// shape or has choices of its own.
func (s *Space) run(from int) (first, end int) {
	end = from + 1
	for end < s.Len() && s.blocks[end].stage == s.blocks[from].stage {
		end++
	}
	b := s.blocks[from]
	if !b.keeps || end > from+1 && !slices.Equal(b.names, s.blocks[from+1].names) {
		return from + 1, end
	}
	return from, end
}

// orders is Σ workingʲ · idle^(m−j), j = 0…m.
func (b block) orders(m int) *big.Int {
	idle := int64(0)
	for _, c := range b.alone {
		if len(c.ops) == 0 {
			idle++
		}
	}
	power := func(base int64, n int) *big.Int {
		return new(big.Int).Exp(big.NewInt(base), big.NewInt(int64(n)), nil)
	}
	sum := new(big.Int)
	for j := range m + 1 {
		sum.Add(sum, new(big.Int).Mul(power(int64(len(b.alone))-idle, j), power(idle, m-j)))
	}
	return sum
}

// SupernetParams is the number of trainable elements of the supernet, and what
// it would be if every norm had gamma and beta.
func (s *Space) SupernetParams() (own, affine int64) {
	own = trainable(s.Params())
	all := *s
	all.spec.Norm.SupernetAffine = true
	return own, trainable(all.Params())
}

func trainable(ps []Param) int64 {
	n := 0
	for _, p := range ps {
		if p.Role.Trainable() {
			n += p.Numel()
		}
	}
	return int64(n)
}

// Only is the part of the space whose blocks choose among the candidates that
// match one of the patterns (as [path.Match] has them; a name without its
// @NUMBER stands for all of its widths). Its archs are its own: digits count
// the candidates that are left. Errors wrap [ErrSpec].
func (s *Space) Only(patterns ...string) (*Space, error) {
	for _, p := range patterns {
		if _, err := path.Match(p, ""); err != nil {
			return nil, fmt.Errorf("space %q: pattern %q: %w: %w", s.Name, p, err, ErrSpec)
		}
	}
	spec := s.spec
	spec.Name += " (only " + strings.Join(patterns, ", ") + ")"
	spec.Stages = slices.Clone(spec.Stages)
	for i, st := range spec.Stages {
		first := namesLike(patterns, s.spec.choices(st, true))
		rest := first
		if st.Blocks > 1 {
			rest = namesLike(patterns, s.spec.choices(st, false))
		}
		if len(first) == 0 || len(rest) == 0 {
			return nil, fmt.Errorf("space %q: stages[%d]: no candidate of a block matches %s: %w", s.Name, i, strings.Join(patterns, ", "), ErrSpec)
		}
		spec.Stages[i].FirstChoices, spec.Stages[i].Choices = first, rest
	}
	return NewSpace(spec)
}

// namesLike is the names of the candidates that one of the patterns means.
func namesLike(patterns []string, candidates []candidate) []string {
	var names []string
	for _, c := range candidates {
		base, _, _ := strings.Cut(c.Name, "@")
		if slices.ContainsFunc(patterns, func(p string) bool {
			whole, _ := path.Match(p, c.Name)
			all, _ := path.Match(p, base)
			return whole || all
		}) {
			names = append(names, c.Name)
		}
	}
	return names
}
