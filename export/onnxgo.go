package export

import (
	"errors"
	"fmt"

	"github.com/owulveryck/onnx-go"
	gonum "gonum.org/v1/gonum/graph"
	"google.golang.org/protobuf/proto"
	dense "gorgonia.org/tensor"

	"spos/export/onnxpb"
)

// readIndependently decodes nodes, attributes and initializers once more with
// onnx-go, an implementation that shares nothing with ours. It gets the graph
// without its declared types, because it allocates an array for every value
// that has one, and only after read found initializers and data in agreement.
// Its panics are errors; what it has no notion of (subgraphs, external data,
// small floats) is an error as well.
func readIndependently(p *onnxpb.ModelProto, ours *parsed) (m *parsed, err error) {
	if ours.nested > 0 {
		return nil, errors.New("subgraphs")
	}
	bare := &onnxpb.ModelProto{IrVersion: p.IrVersion, OpsetImport: p.OpsetImport, Graph: &onnxpb.GraphProto{
		Name: p.Graph.Name, Node: p.Graph.Node, Initializer: p.Graph.Initializer,
		Input: untyped(p.Graph.Input), Output: untyped(p.Graph.Output),
	}}
	for _, t := range p.Graph.Initializer {
		if t.GetDataLocation() == onnxpb.TensorProto_EXTERNAL || len(t.GetExternalData()) > 0 {
			return nil, errors.New("external data")
		}
	}
	b, err := proto.Marshal(bare)
	if err != nil {
		return nil, err
	}
	defer func() {
		if r := recover(); r != nil {
			m, err = nil, fmt.Errorf("onnx-go panics: %v", r)
		}
	}()
	g := &recorder{m: &parsed{graph: p.Graph, inits: map[string]tensor{}}, inputs: map[int64][]string{}}
	if err := onnx.NewModel(g).UnmarshalBinary(b); err != nil {
		return nil, err
	}
	for _, v := range g.values {
		if v.data == nil {
			continue
		}
		t, err := fromDense(v.data)
		if err != nil {
			return nil, fmt.Errorf("initializer %s: %w", v.name, err)
		}
		g.m.inits[v.name] = t
		g.m.order = append(g.m.order, v.name)
	}
	return g.m, nil
}

func untyped(vs []*onnxpb.ValueInfoProto) []*onnxpb.ValueInfoProto {
	names := make([]*onnxpb.ValueInfoProto, len(vs))
	for i, v := range vs {
		names[i] = &onnxpb.ValueInfoProto{Name: v.Name}
	}
	return names
}

// recorder is a backend of onnx-go that executes nothing: it writes down what
// it is told. The embedded interface stays nil; its other methods belong to
// the graph algorithms that nobody runs here.
type recorder struct {
	gonum.DirectedWeightedBuilder
	m      *parsed
	values []*value
	inputs map[int64][]string // of a value: the inputs of the node that makes it
}

// value is a node in onnx-go's sense.
type value struct {
	id   int64
	name string
	data dense.Tensor
}

func (v *value) ID() int64                      { return v.id }
func (v *value) GetName() string                { return v.name }
func (v *value) SetName(s string)               { v.name = s }
func (v *value) GetTensor() dense.Tensor        { return v.data }
func (v *value) SetTensor(t dense.Tensor) error { v.data = t; return nil }
func (r *recorder) AddNode(gonum.Node)          {}
func (r *recorder) SetWeightedEdge(e gonum.WeightedEdge) {
	from := e.From().ID()
	r.inputs[from] = append(r.inputs[from], e.To().(*value).name)
}

func (r *recorder) NewNode() gonum.Node {
	v := &value{id: int64(len(r.values))}
	r.values = append(r.values, v)
	return v
}

func (r *recorder) NewWeightedEdge(from, to gonum.Node, w float64) gonum.WeightedEdge {
	return edge{from, to, w}
}

type edge struct {
	from, to gonum.Node
	weight   float64
}

func (e edge) From() gonum.Node         { return e.from }
func (e edge) To() gonum.Node           { return e.to }
func (e edge) Weight() float64          { return e.weight }
func (e edge) ReversedEdge() gonum.Edge { return edge{e.to, e.from, e.weight} }

// ApplyOperation is called for each node of the file, after its edges.
func (r *recorder) ApplyOperation(o onnx.Operation, outputs ...gonum.Node) error {
	n := node{op: o.Name, attrs: map[string]any{}}
	for _, out := range outputs {
		n.out = append(n.out, out.(*value).name)
	}
	if len(outputs) > 0 {
		n.in = r.inputs[outputs[0].ID()]
	}
	for k, v := range o.Attributes {
		if t, ok := v.(dense.Tensor); ok {
			d, err := fromDense(t)
			if err != nil {
				return fmt.Errorf("attribute %s: %w", k, err)
			}
			v = d
		}
		n.attrs[k] = v
	}
	r.m.nodes = append(r.m.nodes, n)
	return nil
}

// fromDense is what of an onnx-go tensor matters here.
func fromDense(t dense.Tensor) (tensor, error) {
	r := tensor{}
	for _, d := range t.Shape() {
		r.shape = append(r.shape, int64(d))
	}
	switch t.Dtype() {
	case dense.Float32:
		r.kind = onnxpb.TensorProto_FLOAT
	case dense.Float64:
		r.kind = onnxpb.TensorProto_DOUBLE
	case dense.Int64:
		r.kind = onnxpb.TensorProto_INT64
	case dense.Int32:
		r.kind = onnxpb.TensorProto_INT32
	default:
		return r, fmt.Errorf("type %v", t.Dtype())
	}
	if r.numel() > maxInts {
		return r, nil
	}
	switch data := t.Data().(type) {
	case []int64:
		r.ints = data
	case int64:
		r.ints = []int64{data}
	case []int32:
		for _, x := range data {
			r.ints = append(r.ints, int64(x))
		}
	case int32:
		r.ints = []int64{int64(data)}
	}
	return r, nil
}
