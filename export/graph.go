package export

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"spos/export/onnxpb"
	"spos/internal/arch"
)

// graph writes the ops of a net as nodes. A node is named as the first value
// that it makes; an op's output value has the op's name, the last one's is
// OutputName.
type graph struct {
	net *arch.Net
	w   Weights
	o   Options
	pb  *onnxpb.GraphProto

	value    []string        // of each op: the name of its output; empty until there is a node
	selected []selection     // of each Take and Shuffle
	rank2    []bool          // of each op: its output is (N, C), not (N, C, H, W)
	names    map[string]bool // of values, initializers included
}

func newGraph(n *arch.Net, w Weights, o Options) (*onnxpb.GraphProto, error) {
	if len(n.Ops) == 0 {
		return nil, errors.New("net without ops")
	}
	g := &graph{
		net: n, w: w, o: o,
		pb:       &onnxpb.GraphProto{Name: new(n.Space + "/" + string(n.Arch))},
		value:    make([]string, len(n.Ops)),
		selected: make([]selection, len(n.Ops)),
		rank2:    make([]bool, len(n.Ops)),
		names:    map[string]bool{},
	}
	if err := g.claim(InputName); err != nil {
		return nil, err
	}
	g.pb.Input = []*onnxpb.ValueInfoProto{g.info(InputName, n.In, false)}
	for i := range n.Ops {
		if name := n.Ops[i].Name; strings.HasPrefix(name, intPrefix) || strings.HasPrefix(name, floatPrefix) {
			return nil, fmt.Errorf("op %s: that prefix is kept for constants", name)
		}
		if err := g.op(i); err != nil {
			return nil, fmt.Errorf("op %s: %w", n.Ops[i].Name, err)
		}
	}
	last := len(n.Ops) - 1
	g.pb.Output = []*onnxpb.ValueInfoProto{g.info(OutputName, n.Ops[last].Out, g.rank2[last])}
	return g.pb, nil
}

// op emits the nodes of one op.
func (g *graph) op(i int) error {
	o := &g.net.Ops[i]
	if o.Kind != arch.Take && o.Kind != arch.Shuffle {
		for _, j := range o.Inputs {
			if err := g.materialize(j); err != nil {
				return err
			}
		}
	}
	switch o.Kind {
	case arch.Conv:
		return g.conv(i, o)
	case arch.Linear:
		return g.linear(i, o)
	case arch.GlobalPool:
		return g.emit(i, "GlobalAveragePool", nil, g.in(o, 0))
	case arch.Dropout:
		return g.dropout(i, o)
	case arch.Take, arch.Shuffle:
		return g.route(i, o)
	case arch.Concat:
		return g.concat(i, o)
	case arch.Add:
		g.rank2[i] = g.isRank2(o.Inputs[0])
		return g.emit(i, "Add", nil, g.in(o, 0), g.in(o, 1))
	}
	return fmt.Errorf("unknown kind %d", o.Kind)
}

func (g *graph) conv(i int, o *arch.Op) error {
	weight, err := view(g.w, o.Weight)
	if err != nil {
		return err
	}
	nm, err := fetchNorm(g.w, g.o.Stats, o)
	if err != nil {
		return err
	}
	inputs := []string{g.in(o, 0), o.Name + ".weight"}
	if !g.o.KeepNorm {
		if err := g.floats(o.Name+".bias", nm.fold(weight), o.Out.C); err != nil {
			return err
		}
		inputs = append(inputs, o.Name+".bias")
	}
	if err := g.floats(o.Name+".weight", weight, o.Weight.Dims()...); err != nil {
		return err
	}
	k, s, p := int64(o.Kernel), int64(o.Stride), int64(o.Pad)
	as := attrs{
		attrInts("dilations", 1, 1),
		attrInt("group", int64(o.Groups)),
		attrInts("kernel_shape", k, k),
		attrInts("pads", p, p, p, p),
		attrInts("strides", s, s),
	}
	if !g.o.KeepNorm && o.Act == arch.None {
		return g.emit(i, "Conv", as, inputs...)
	}
	if err := g.node("Conv", as, inputs, o.Name+".conv"); err != nil {
		return err
	}
	x := o.Name + ".conv"
	if g.o.KeepNorm {
		return g.norm(i, o, nm, x)
	}
	return g.act(i, o, x)
}

// norm emits a BatchNormalization node and the activation.
func (g *graph) norm(i int, o *arch.Op, nm norm, x string) error {
	inputs := []string{x}
	for _, v := range []struct {
		name string
		data []float32
	}{{"weight", nm.gamma}, {"bias", nm.beta}, {"running_mean", nm.mean}, {"running_var", nm.variance}} {
		name := o.Name + ".bn." + v.name
		if err := g.floats(name, v.data, o.Out.C); err != nil {
			return err
		}
		inputs = append(inputs, name)
	}
	as := attrs{attrFloat("epsilon", float32(nm.eps))}
	if o.Act == arch.None {
		return g.emit(i, "BatchNormalization", as, inputs...)
	}
	if err := g.node("BatchNormalization", as, inputs, o.Name+".bn"); err != nil {
		return err
	}
	return g.act(i, o, o.Name+".bn")
}

func (g *graph) act(i int, o *arch.Op, x string) error {
	switch o.Act {
	case arch.ReLU:
		return g.emit(i, "Relu", nil, x)
	case arch.ReLU6:
		lo, hi := g.constFloat(0), g.constFloat(6)
		return g.emit(i, "Clip", nil, x, lo, hi)
	default:
		return fmt.Errorf("unknown activation %d", o.Act)
	}
}

func (g *graph) linear(i int, o *arch.Op) error {
	x := g.in(o, 0)
	if !g.isRank2(o.Inputs[0]) {
		flat := o.Name + ".flat"
		if err := g.node("Flatten", attrs{attrInt("axis", 1)}, []string{x}, flat); err != nil {
			return err
		}
		x = flat
	}
	inputs := []string{x, o.Name + ".weight"}
	weight, err := view(g.w, o.Weight)
	if err != nil {
		return err
	}
	if err := g.floats(o.Name+".weight", weight, o.Weight.Dims()...); err != nil {
		return err
	}
	if o.Bias != nil {
		bias, err := view(g.w, o.Bias)
		if err != nil {
			return err
		}
		if err := g.floats(o.Name+".bias", bias, o.Bias.Dims()...); err != nil {
			return err
		}
		inputs = append(inputs, o.Name+".bias")
	}
	g.rank2[i] = true
	return g.emit(i, "Gemm", attrs{attrInt("transB", 1)}, inputs...)
}

// dropout is the identity in evaluation: no node, but where it is the output.
func (g *graph) dropout(i int, o *arch.Op) error {
	g.rank2[i] = g.isRank2(o.Inputs[0])
	if i == len(g.net.Ops)-1 {
		return g.emit(i, "Identity", nil, g.in(o, 0))
	}
	g.value[i] = g.in(o, 0)
	return nil
}

// route notes what a Take or Shuffle selects; its reader emits the node.
func (g *graph) route(i int, o *arch.Op) error {
	g.rank2[i] = g.isRank2(o.Inputs[0])
	g.selected[i] = g.choose(o)
	if i == len(g.net.Ops)-1 {
		return g.materialize(i)
	}
	return nil
}

func (g *graph) concat(i int, o *arch.Op) error {
	g.rank2[i] = g.isRank2(o.Inputs[0])
	inputs := make([]string, len(o.Inputs))
	for k := range o.Inputs {
		inputs[k] = g.in(o, k)
	}
	return g.emit(i, "Concat", attrs{attrInt("axis", 1)}, inputs...)
}

// in is the name of an op's k-th input value.
func (g *graph) in(o *arch.Op, k int) string { return g.valueOf(o.Inputs[k]) }

func (g *graph) valueOf(i int) string {
	if i == arch.Input {
		return InputName
	}
	return g.value[i]
}

func (g *graph) isRank2(i int) bool { return i != arch.Input && g.rank2[i] }

// emit adds the node that makes op i's output.
func (g *graph) emit(i int, kind string, as attrs, inputs ...string) error {
	g.name(i)
	if err := g.node(kind, as, inputs, g.value[i]); err != nil {
		return err
	}
	g.describe(i)
	return nil
}

// name sets the name of op i's output value.
func (g *graph) name(i int) {
	g.value[i] = g.net.Ops[i].Name
	if i == len(g.net.Ops)-1 {
		g.value[i] = OutputName
	}
}

// describe states the shape of op i's output; the graph's own is stated by
// the graph.
func (g *graph) describe(i int) {
	if i < len(g.net.Ops)-1 {
		g.pb.ValueInfo = append(g.pb.ValueInfo, g.info(g.value[i], g.net.Ops[i].Out, g.rank2[i]))
	}
}

// node adds a node, named as its first output.
func (g *graph) node(kind string, as attrs, inputs []string, outputs ...string) error {
	for _, out := range outputs {
		if err := g.claim(out); err != nil {
			return err
		}
	}
	g.pb.Node = append(g.pb.Node, &onnxpb.NodeProto{
		Name: &outputs[0], OpType: &kind, Input: inputs, Output: outputs, Attribute: as,
	})
	return nil
}

func (g *graph) claim(name string) error {
	if g.names[name] {
		return fmt.Errorf("two values are named %q", name)
	}
	g.names[name] = true
	return nil
}

// info describes a value; dimension 0 is the batch.
func (g *graph) info(name string, s arch.Shape, rank2 bool) *onnxpb.ValueInfoProto {
	batch := &onnxpb.TensorShapeProto_Dimension{Value: &onnxpb.TensorShapeProto_Dimension_DimParam{DimParam: "N"}}
	if g.o.Batch > 0 {
		batch = dim(g.o.Batch)
	}
	dims := []*onnxpb.TensorShapeProto_Dimension{batch, dim(s.C)}
	if !rank2 {
		dims = append(dims, dim(s.H), dim(s.W))
	}
	return &onnxpb.ValueInfoProto{Name: &name, Type: &onnxpb.TypeProto{Value: &onnxpb.TypeProto_TensorType{
		TensorType: &onnxpb.TypeProto_Tensor{
			ElemType: new(int32(onnxpb.TensorProto_FLOAT)),
			Shape:    &onnxpb.TensorShapeProto{Dim: dims},
		},
	}}}
}

func dim(d int) *onnxpb.TensorShapeProto_Dimension {
	return &onnxpb.TensorShapeProto_Dimension{Value: &onnxpb.TensorShapeProto_Dimension_DimValue{DimValue: int64(d)}}
}

// floats adds a float initializer.
func (g *graph) floats(name string, data []float32, dims ...int) error {
	d := make([]int64, len(dims))
	for i, n := range dims {
		d[i] = int64(n)
	}
	if err := g.claim(name); err != nil {
		return err
	}
	g.add(name, onnxpb.TensorProto_FLOAT, rawFloats(data), d)
	return nil
}

// ints adds an integer initializer, a vector.
func (g *graph) ints(name string, data []int64) error {
	if err := g.claim(name); err != nil {
		return err
	}
	g.add(name, onnxpb.TensorProto_INT64, rawInts(data), []int64{int64(len(data))})
	return nil
}

// Prefixes of the names of shared constants, which are named by value, such as
// int64.0.160.28.28.
const (
	intPrefix   = "int64."
	floatPrefix = "float."
)

// constInts is the name of a vector, added when first used.
func (g *graph) constInts(xs ...int64) string {
	name := intPrefix + strings.Trim(strings.ReplaceAll(fmt.Sprint(xs), " ", "."), "[]")
	g.constant(name, onnxpb.TensorProto_INT64, rawInts(xs), int64(len(xs)))
	return name
}

// constFloat is the name of a scalar, added when first used.
func (g *graph) constFloat(x float32) string {
	name := fmt.Sprint(floatPrefix, x)
	g.constant(name, onnxpb.TensorProto_FLOAT, rawFloats([]float32{x}))
	return name
}

func (g *graph) constant(name string, t onnxpb.TensorProto_DataType, raw []byte, dims ...int64) {
	if !g.names[name] {
		g.names[name] = true
		g.add(name, t, raw, dims)
	}
}

func (g *graph) add(name string, t onnxpb.TensorProto_DataType, raw []byte, dims []int64) {
	g.pb.Initializer = append(g.pb.Initializer, &onnxpb.TensorProto{Name: &name, DataType: new(int32(t)), Dims: dims, RawData: raw})
}

type attrs = []*onnxpb.AttributeProto

func attrInt(name string, v int64) *onnxpb.AttributeProto {
	return &onnxpb.AttributeProto{Name: &name, Type: onnxpb.AttributeProto_INT.Enum(), I: &v}
}

func attrFloat(name string, v float32) *onnxpb.AttributeProto {
	return &onnxpb.AttributeProto{Name: &name, Type: onnxpb.AttributeProto_FLOAT.Enum(), F: &v}
}

func attrInts(name string, vs ...int64) *onnxpb.AttributeProto {
	return &onnxpb.AttributeProto{Name: &name, Type: onnxpb.AttributeProto_INTS.Enum(), Ints: slices.Clone(vs)}
}
