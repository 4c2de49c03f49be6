package dialect

import (
	"cmp"
	"errors"
	"iter"
	"slices"

	"spos/internal/arch"
)

// DetectNet finds the one network that a file holds when nobody says which:
// block by block, the candidate whose layers the file has. Where spaces hold
// the same network, the smallest is taken. The error is a
// [*MismatchError] of the last one tried, or wraps [ErrNoTarget].
func DetectNet(file []Tensor, spaces iter.Seq[*arch.Space], dialects []*Dialect) (*Match, error) {
	if dialects == nil {
		dialects = all
	}
	f, err := open(file)
	if err != nil {
		return nil, err
	}
	var fits []attempt
	last := ErrNoTarget
	for s := range spaces {
		for _, d := range dialects {
			a, ok := f.infer(d, s)
			if !ok {
				continue
			}
			t := Target{s, a}
			layers, err := t.layers()
			if err != nil {
				return nil, err
			}
			fit, bad, err := f.match(d, t, layers)
			switch {
			case errors.Is(err, ErrUnfit):
			case err != nil:
				return nil, err
			case bad != nil:
				last = bad
			default:
				fits = append(fits, fit)
			}
		}
	}
	if len(fits) == 0 {
		return nil, last
	}
	return slices.MinFunc(fits, func(a, b attempt) int {
		return cmp.Compare(a.target.Space.Size(), b.target.Space.Size())
	}).complete()
}

// infer reads a net's choices off the file. A code base numbers blocks, or
// those of them that have layers, so what a block is called follows from the
// blocks before it. A candidate without layers is taken where no other fits:
// that of equivalent nets in which such blocks come last in their stage.
func (f *contents) infer(d *Dialect, s *arch.Space) (arch.Arch, bool) {
	choices := make([]int, s.Len())
	if has, _ := f.has(d, Target{s, arch.Make(choices)}, func(l layer) bool { return l.part == "stem" }); !has {
		return "", false // most code bases are told apart here
	}
	for i := range choices {
		found := -1
		for c := range s.Candidates(i) {
			choices[i] = c
			has, layers := f.has(d, Target{s, arch.Make(choices)}, func(l layer) bool { return l.op.Block == i })
			if has && (layers > 0 || found < 0) {
				found = c
			}
			if has && layers > 0 {
				break
			}
		}
		if found < 0 {
			return "", false
		}
		choices[i] = found
	}
	return arch.Make(choices), true
}

// has tells whether the file has those convolutions of a net, and how many
// they are.
func (f *contents) has(d *Dialect, t Target, which func(layer) bool) (has bool, layers int) {
	all, err := t.layers()
	if err != nil {
		return false, 0
	}
	for _, l := range all {
		if !which(l) {
			continue
		}
		layers++
		module, _ := d.name(l)
		have, ok := f.tensors[module+".weight"]
		if !ok || !slices.Equal(have.Shape, l.op.Weight.Dims()) {
			return false, layers
		}
	}
	return true, layers
}
