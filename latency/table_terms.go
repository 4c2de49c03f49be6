package latency

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"spos/internal/arch"
)

// ErrUnmeasured is wrapped where a table is asked for a net with a part that
// it has never measured.
var ErrUnmeasured = errors.New("latency: not in the table")

// The kinds of terms that a net's latency is the sum of.
const (
	fixedTerm = iota // stem, tail, head and what every run costs
	blockTerm        // a candidate at a geometry, wherever it stands
	placeTerm        // what it costs more at one place than at the others
	pairTerm         // what two neighbours cost more than each by itself
	termKinds
)

// term is one unknown. Its scale is a guess at a block's cost, in the unit of
// [proxy]: priors are fractions of it.
type term struct {
	kind  int
	scale float64
}

// part is a choice block of a net as the table knows it.
type part struct {
	block     int
	signature string
	place     int // among the blocks of its output's shape
	scale     float64
	first     int // index of its first op
}

// split takes a net apart: what does not vary, as one signature, and the
// blocks that do something.
func split(n *arch.Net) (fixed string, scale float64, parts []part) {
	var b strings.Builder
	var shape arch.Shape
	place := 0
	for i := 0; i < len(n.Ops); {
		end := i + 1
		for end < len(n.Ops) && n.Ops[end].Block == n.Ops[i].Block {
			end++
		}
		p := part{block: n.Ops[i].Block, first: i}
		var s strings.Builder
		for j := i; j < end; j++ {
			describeOp(&s, &n.Ops[j], i)
			p.scale += proxy(&n.Ops[j])
		}
		if p.block < 0 {
			b.WriteString(s.String())
			b.WriteByte('|')
			scale += p.scale
		} else {
			p.signature = s.String()
			if out := n.Ops[end-1].Out; out != shape {
				shape, place = out, 0
			}
			p.place = place
			place++
			parts = append(parts, p)
		}
		i = end
	}
	return b.String(), scale, parts
}

// describeOp writes everything of an op that its time depends on; inputs are
// counted from the block's first op, those from before it are one.
func describeOp(b *strings.Builder, o *arch.Op, first int) {
	b.WriteString(o.Kind.String())
	for _, v := range []int{o.In.C, o.In.H, o.In.W, o.Out.C, o.Out.H, o.Out.W, o.Kernel, o.Stride, o.Groups, o.Start, o.Step, int(o.Act)} {
		b.WriteByte(' ')
		b.WriteString(strconv.Itoa(v))
	}
	for _, in := range o.Inputs {
		b.WriteByte('<')
		b.WriteString(strconv.Itoa(max(in-first, -1)))
	}
	b.WriteByte(';')
}

// proxy is a guess at an op's share of the time: arithmetic, and elements
// written, which cost more than an addition does. Only priors are made of it.
func proxy(o *arch.Op) float64 {
	const perElement = 16
	each := perElement
	switch o.Kind {
	case arch.Conv:
		each += o.Kernel * o.Kernel * o.In.C / o.Groups
	case arch.Linear:
		each += o.In.C
	default: // elements only
	}
	return float64(each) * float64(o.Out.Numel())
}

// feature is a term and how often a net has it.
type feature struct {
	term  int
	count float64
}

// vocabulary numbers terms.
type vocabulary struct {
	fixed string
	terms []term
	at    map[string]int
}

func newVocabulary() *vocabulary { return &vocabulary{at: map[string]int{}} }

func blockKey(p part) string { return "b" + p.signature }
func placeKey(p part) string { return "p" + strconv.Itoa(p.place) + " " + p.signature }
func pairKey(a, b part) string {
	return "n" + a.signature + "+" + b.signature
}

// features are a net's terms, ascending. Where grow is set the net's unknown
// terms join the vocabulary; else a net with an unknown candidate is an error
// that wraps [ErrUnmeasured], and places and neighbours that no measured net
// had are returned as the sum of the squares of their scales, by kind.
func (v *vocabulary) features(n *arch.Net, grow bool) (fs []feature, unseen [termKinds]float64, err error) {
	fixed, scale, parts := split(n)
	counts := map[int]float64{}
	note := func(kind int, key string, scale float64) {
		i, ok := v.at[key]
		if !ok && grow {
			i, ok = len(v.terms), true
			v.at[key] = i
			v.terms = append(v.terms, term{kind, scale})
		}
		if ok {
			counts[i]++
		} else {
			unseen[kind] += scale * scale
		}
	}
	if grow && v.fixed == "" {
		v.fixed = fixed
	}
	if fixed != v.fixed {
		return nil, unseen, fmt.Errorf("net %s of space %s: its stem, tail or head, or its input, is another than the table's: %w", n.Arch, n.Space, ErrUnmeasured)
	}
	note(fixedTerm, "f", scale)
	for i, p := range parts {
		if _, ok := v.at[blockKey(p)]; !ok && !grow {
			return nil, unseen, fmt.Errorf("net %s of space %s: block %d: %s at %s → %s: %w",
				n.Arch, n.Space, p.block, candidateName(n, p), n.Ops[p.first].In, lastOf(n, p).Out, ErrUnmeasured)
		}
		note(blockTerm, blockKey(p), p.scale)
		note(placeTerm, placeKey(p), p.scale)
		if i > 0 {
			note(pairTerm, pairKey(parts[i-1], p), min(parts[i-1].scale, p.scale))
		}
	}
	for i, c := range counts {
		fs = append(fs, feature{i, c})
	}
	slices.SortFunc(fs, func(a, b feature) int { return a.term - b.term })
	return fs, unseen, nil
}

// candidateName is what a block's ops are named after.
func candidateName(n *arch.Net, p part) string {
	if f := strings.Split(n.Ops[p.first].Name, "."); len(f) > 2 {
		return f[2]
	}
	return n.Ops[p.first].Name
}

func lastOf(n *arch.Net, p part) *arch.Op {
	i := p.first
	for i+1 < len(n.Ops) && n.Ops[i+1].Block == p.block {
		i++
	}
	return &n.Ops[i]
}

// gone stands in an architecture for a block that is left out: what is left is
// no point of the space, but tells what the block costs.
const gone = '-'

// netOf is the net of an architecture in which blocks may be gone. A block may
// only go where it leaves the shape as it is.
func netOf(s *arch.Space, a arch.Arch) (*arch.Net, error) {
	full := []byte(a)
	for i, c := range full {
		if c == gone {
			full[i] = '0'
		}
	}
	n, err := s.Net(arch.Arch(full))
	if err != nil || !strings.ContainsRune(string(a), gone) {
		return n, err
	}
	m := &arch.Net{Space: n.Space, Arch: a, In: n.In}
	at := make([]int, len(n.Ops)) // where each op's value is now
	value := func(i int) int {
		if i == arch.Input {
			return i
		}
		return at[i]
	}
	for i := 0; i < len(n.Ops); i++ {
		op := n.Ops[i]
		if op.Block >= 0 && a[op.Block] == gone {
			p := part{block: op.Block, first: i}
			if last := lastOf(n, p); last.Out != op.In {
				return nil, fmt.Errorf("arch %s: block %d changes the shape and cannot be left out: %w", a, op.Block, arch.ErrNotInSpace)
			}
			entered := value(op.Inputs[0])
			for ; i < len(n.Ops) && n.Ops[i].Block == p.block; i++ {
				at[i] = entered
			}
			i--
			continue
		}
		op.Inputs = slices.Clone(op.Inputs)
		for k, in := range op.Inputs {
			op.Inputs[k] = value(in)
		}
		at[i] = len(m.Ops)
		m.Ops = append(m.Ops, op)
	}
	return m, nil
}
