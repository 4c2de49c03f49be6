package export

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"spos/export/onnxpb"
	"spos/internal/arch"
)

// ErrMismatch is wrapped by [Check] where a model is not the net's.
var ErrMismatch = errors.New("model and net differ")

// Check proves a model of [Model] from its own graph: names are unique, every
// value is made before it is read, all shapes follow from the nodes and are
// those that the file declares and the net has, and parameters and
// multiply-accumulates are the net's. It wraps [ErrMismatch] or [ErrNotONNX].
func Check(p *onnxpb.ModelProto, n *arch.Net) error {
	m, err := read(p)
	if err == nil {
		err = wellFormed(m)
	}
	if err != nil {
		return fmt.Errorf("check: %w: %w", ErrNotONNX, err)
	}
	s := header(p, m)
	s.countParams(m)
	if err := s.countOps(m); err != nil {
		return fmt.Errorf("check: %w: %w", ErrNotONNX, err)
	}
	if err := checkShapes(m, n); err != nil {
		return fmt.Errorf("check: %w: %w", ErrMismatch, err)
	}
	c, got := n.Cost(), netOf(&s, p)
	if got == nil || got.Params != c.Params || got.MACs != c.MACs || len(s.Unknown) > 0 {
		return fmt.Errorf("check: %w: %+v instead of %d parameters and %d MACs", ErrMismatch, got, c.Params, c.MACs)
	}
	return nil
}

// checkShapes compares inferred, declared and the net's shapes.
func checkShapes(m *parsed, n *arch.Net) error {
	f := newInference(m)
	for i, nd := range m.nodes {
		if _, err := f.node(nd); err != nil {
			return fmt.Errorf("node %d (%s): %w", i, describe(nd), err)
		}
	}
	for _, v := range slices.Concat(m.graph.GetValueInfo(), m.graph.GetOutput()) {
		said, _ := declared(v)
		if got := f.shapes[v.GetName()]; !slices.Equal(got, said) {
			return fmt.Errorf("value %s has shape %v and is declared as %v", v.GetName(), got, said)
		}
	}
	for i := range n.Ops {
		o := &n.Ops[i]
		name := o.Name
		if i == len(n.Ops)-1 {
			name = OutputName
		}
		got, ok := f.shapes[name]
		if !ok && o.Kind != arch.Dropout && o.Kind != arch.Take && o.Kind != arch.Shuffle {
			return fmt.Errorf("no value for op %s", o.Name)
		}
		if ok && (len(got) < 2 || product(got) != got[0]*int64(o.Out.Numel()) || got[1] != int64(o.Out.C)) {
			return fmt.Errorf("op %s: shape %v for %v", o.Name, got, o.Out)
		}
	}
	return nil
}

// wellFormed reports whether every value has one maker, before its readers.
func wellFormed(m *parsed) error {
	made := map[string]bool{} // by any node, so far or later
	for i, n := range m.nodes {
		for _, v := range n.out {
			if v != "" && made[v] {
				return fmt.Errorf("node %d (%s): value %q has two makers", i, describe(n), v)
			}
			made[v] = true
		}
	}
	known := map[string]bool{"": true} // an input that is left out
	for _, v := range m.graph.GetInput() {
		if known[v.GetName()] {
			return fmt.Errorf("input %q is listed twice or has no name", v.GetName())
		}
		known[v.GetName()] = true
	}
	for _, v := range m.graph.GetSparseInitializer() {
		known[v.GetValues().GetName()] = true
	}
	seen := map[string]bool{}
	for _, name := range m.order {
		if seen[name] || name == "" {
			return fmt.Errorf("initializer %q exists twice or has no name", name)
		}
		seen[name], known[name] = true, true
	}
	for i, n := range m.nodes {
		for _, v := range n.in {
			switch {
			case known[v]:
			case made[v]:
				return fmt.Errorf("node %d (%s) reads %q before a node makes it: the nodes are out of order or form a cycle", i, describe(n), v)
			default:
				return fmt.Errorf("node %d (%s) reads %q, which is no input, no initializer and made by no node", i, describe(n), v)
			}
		}
		for _, v := range n.out {
			if known[v] && v != "" {
				return fmt.Errorf("node %d (%s) makes %q, which is an input or initializer", i, describe(n), v)
			}
			known[v] = true
		}
	}
	for _, v := range m.graph.GetOutput() {
		if !known[v.GetName()] || v.GetName() == "" {
			return fmt.Errorf("output %q is made by no node", v.GetName())
		}
	}
	return nil
}

// Diff is how far two runtimes' logits are apart.
type Diff struct {
	MaxAbs   float64 `json:"max_abs"` // largest absolute difference; +Inf where one is not a number
	MaxRel   float64 `json:"max_rel"` // MaxAbs over the spread of a
	Spread   float64 `json:"spread"`  // largest less smallest value of a
	Top1     int     `json:"top1"`    // rows whose largest value is at the same place
	Rows     int     `json:"rows"`
	WorstRow int     `json:"worst_row"` // the row of MaxAbs
}

// Compare compares two row-major matrices of the same number of columns: a is
// the reference. It panics where their sizes differ or are no multiple of
// columns.
func Compare(a, b []float32, columns int) Diff {
	if len(a) != len(b) || columns < 1 || len(a)%columns != 0 {
		panic(fmt.Sprintf("export: compare %d and %d values in rows of %d", len(a), len(b), columns))
	}
	d := Diff{Rows: len(a) / columns}
	if len(a) == 0 {
		return d
	}
	for i := range a {
		diff := math.Abs(float64(a[i]) - float64(b[i]))
		if math.IsNaN(diff) {
			diff = math.Inf(1)
		}
		if diff > d.MaxAbs {
			d.MaxAbs, d.WorstRow = diff, i/columns
		}
	}
	d.Spread = float64(slices.Max(a)) - float64(slices.Min(a))
	if d.Spread > 0 {
		d.MaxRel = d.MaxAbs / d.Spread
	}
	for r := range d.Rows {
		if argMax(a[r*columns:(r+1)*columns]) == argMax(b[r*columns:(r+1)*columns]) {
			d.Top1++
		}
	}
	return d
}

func argMax(xs []float32) int {
	best := 0
	for i, x := range xs {
		if x > xs[best] {
			best = i
		}
	}
	return best
}
