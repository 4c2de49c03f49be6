package export

import (
	"errors"
	"fmt"
	"slices"

	"spos/export/onnxpb"
)

// inference follows shapes through a graph, and integer vectors where shapes
// are computed in it. A symbolic dimension counts as one.
type inference struct {
	shapes map[string][]int64 // known ones; a nil slice is a scalar's and must exist
	ints   map[string][]int64 // known integer values
}

// errUnknown says that a shape cannot be told, which is no fault of the file.
var errUnknown = errors.New("shape not known")

func newInference(m *parsed) *inference {
	f := &inference{shapes: map[string][]int64{}, ints: map[string][]int64{}}
	for _, v := range m.graph.GetInput() {
		if s, ok := declared(v); ok {
			f.shapes[v.GetName()] = s
		}
	}
	for name, t := range m.inits {
		f.shapes[name] = t.shape
		if t.ints != nil {
			f.ints[name] = t.ints
		}
	}
	return f
}

// declared is the stated shape of a value, symbols as one.
func declared(v *onnxpb.ValueInfoProto) ([]int64, bool) {
	shape := v.GetType().GetTensorType().GetShape()
	if shape == nil {
		return nil, false
	}
	dims := make([]int64, len(shape.GetDim()))
	for i, d := range shape.GetDim() {
		dims[i] = 1
		if _, ok := d.GetValue().(*onnxpb.TensorShapeProto_Dimension_DimValue); ok {
			dims[i] = d.GetDimValue()
		}
	}
	if _, err := elements(dims); err != nil {
		return nil, false
	}
	return dims, true
}

// node infers the outputs of one node and returns its multiply-accumulates.
// The error wraps errUnknown where the node is beyond what is known here, and
// is another one where the graph contradicts itself.
func (f *inference) node(n node) (macs int64, err error) {
	rule := rules[n.op]
	if rule == nil || n.domain != "" {
		return 0, fmt.Errorf("operator %s: %w", n.op, errUnknown)
	}
	shapes, macs, err := rule(f, n)
	if err != nil {
		return 0, err
	}
	for i, s := range shapes {
		if _, err := elements(s); err != nil {
			return 0, err
		}
		if i < len(n.out) {
			f.shapes[n.out[i]] = s
		}
	}
	return macs, nil
}

// shape is that of the node's i-th input.
func (f *inference) shape(n node, i int) ([]int64, error) {
	if i >= len(n.in) || n.in[i] == "" {
		return nil, fmt.Errorf("input %d is missing", i)
	}
	s, ok := f.shapes[n.in[i]]
	if !ok {
		return nil, fmt.Errorf("%s: %w", n.in[i], errUnknown)
	}
	return s, nil
}

// ranked is shape for inputs whose rank is prescribed, at least.
func (f *inference) ranked(n node, i, rank int) ([]int64, error) {
	s, err := f.shape(n, i)
	if err == nil && len(s) < rank {
		return nil, fmt.Errorf("input %s has shape %v: %d dimensions are needed", n.in[i], s, rank)
	}
	return s, err
}

// values are the integers of the i-th input, nil where the node has none.
func (f *inference) values(n node, i int) ([]int64, error) {
	if i >= len(n.in) || n.in[i] == "" {
		return nil, nil
	}
	v, ok := f.ints[n.in[i]]
	if !ok {
		return nil, fmt.Errorf("%s is computed: %w", n.in[i], errUnknown)
	}
	return v, nil
}

// list is an integer list that older operator sets have as an attribute and
// newer ones as an input.
func (f *inference) list(n node, attr string, input int) ([]int64, error) {
	if v, ok := n.attrs[attr].([]int64); ok {
		return v, nil
	}
	v, err := f.values(n, input)
	return v, err
}

func (n node) int(name string, otherwise int64) int64 {
	if v, ok := n.attrs[name].(int64); ok {
		return v
	}
	return otherwise
}

// intList is an attribute of exactly size elements, or the fill where absent.
func (n node) intList(name string, size int, fill int64) ([]int64, error) {
	v, ok := n.attrs[name].([]int64)
	if !ok || len(v) == 0 {
		return slices.Repeat([]int64{fill}, size), nil
	}
	if len(v) != size {
		return nil, fmt.Errorf("attribute %s has %d elements, not %d", name, len(v), size)
	}
	return v, nil
}

// axisOf turns a possibly negative axis into an index below rank.
func axisOf(axis int64, rank int) (int, error) {
	if axis < 0 {
		axis += int64(rank)
	}
	if axis < 0 || axis >= int64(rank) {
		return 0, fmt.Errorf("axis %d of %d dimensions", axis, rank)
	}
	return int(axis), nil
}

// broadcast joins shapes as numpy does.
func broadcast(shapes ...[]int64) ([]int64, error) {
	rank := 0
	for _, s := range shapes {
		rank = max(rank, len(s))
	}
	out := slices.Repeat([]int64{1}, rank)
	for _, s := range shapes {
		for i, d := range s {
			o := &out[rank-len(s)+i]
			switch {
			case *o == 1:
				*o = d
			case d != 1 && d != *o:
				return nil, fmt.Errorf("shapes %v do not broadcast", shapes)
			}
		}
	}
	return out, nil
}
