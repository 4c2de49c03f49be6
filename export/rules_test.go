package export_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"spos/export"
	"spos/export/onnxpb"
	"spos/internal/ort"
)

// op is a node of a test model. Inputs starting with "x" are the model's own.
type op struct {
	kind, in, out string // names are separated by spaces, "_" is an input left out
	attrs         map[string]any
}

// sketch is a model in few words.
type sketch struct {
	x    map[string][]int64 // inputs, float
	w    map[string][]int64 // float initializers of ones
	ints map[string][]int64 // integer vectors
	ops  []op
	outs string
}

func (s sketch) model() *onnxpb.ModelProto {
	g := &onnxpb.GraphProto{Name: new("test")}
	for name, shape := range s.x {
		g.Input = append(g.Input, info(name, shape))
	}
	for name, shape := range s.w {
		n := int64(1)
		for _, d := range shape {
			n *= d
		}
		g.Initializer = append(g.Initializer, &onnxpb.TensorProto{
			Name: &name, Dims: shape, DataType: new(int32(onnxpb.TensorProto_FLOAT)), FloatData: slices.Repeat([]float32{1}, int(n)),
		})
	}
	for name, v := range s.ints {
		var raw []byte
		for _, x := range v {
			raw = binary.LittleEndian.AppendUint64(raw, uint64(x))
		}
		g.Initializer = append(g.Initializer, &onnxpb.TensorProto{
			Name: &name, Dims: []int64{int64(len(v))}, DataType: new(int32(onnxpb.TensorProto_INT64)), RawData: raw,
		})
	}
	for _, o := range s.ops {
		n := &onnxpb.NodeProto{OpType: &o.kind, Output: strings.Fields(o.out)}
		for in := range strings.FieldsSeq(o.in) {
			n.Input = append(n.Input, strings.TrimSuffix(in, "_"))
		}
		for name, v := range o.attrs {
			n.Attribute = append(n.Attribute, attribute(name, v))
		}
		g.Node = append(g.Node, n)
	}
	for name := range strings.FieldsSeq(s.outs) {
		g.Output = append(g.Output, info(name, nil))
	}
	return &onnxpb.ModelProto{IrVersion: new(int64(8)), Graph: g, OpsetImport: []*onnxpb.OperatorSetIdProto{{Version: new(int64(17))}}}
}

func info(name string, shape []int64) *onnxpb.ValueInfoProto {
	t := &onnxpb.TypeProto_Tensor{ElemType: new(int32(onnxpb.TensorProto_FLOAT))}
	if shape != nil {
		t.Shape = &onnxpb.TensorShapeProto{}
	}
	for _, d := range shape {
		t.Shape.Dim = append(t.Shape.Dim, &onnxpb.TensorShapeProto_Dimension{Value: &onnxpb.TensorShapeProto_Dimension_DimValue{DimValue: d}})
	}
	return &onnxpb.ValueInfoProto{Name: &name, Type: &onnxpb.TypeProto{Value: &onnxpb.TypeProto_TensorType{TensorType: t}}}
}

func attribute(name string, v any) *onnxpb.AttributeProto {
	a := &onnxpb.AttributeProto{Name: &name}
	switch v := v.(type) {
	case int:
		a.Type, a.I = onnxpb.AttributeProto_INT.Enum(), new(int64(v))
	case string:
		a.Type, a.S = onnxpb.AttributeProto_STRING.Enum(), []byte(v)
	case []int64:
		a.Type, a.Ints = onnxpb.AttributeProto_INTS.Enum(), v
	case *onnxpb.TensorProto:
		a.Type, a.T = onnxpb.AttributeProto_TENSOR.Enum(), v
	default:
		panic(fmt.Sprintf("attribute %s of type %T", name, v))
	}
	return a
}

// TestRules holds every rule against numbers from the operators'
// specification, and against what ONNX Runtime makes where it is there.
func TestRules(t *testing.T) {
	x := func(shape ...int64) map[string][]int64 { return map[string][]int64{"x": shape} }
	single := func(kind string, shape []int64, attrs map[string]any) sketch {
		return sketch{x: map[string][]int64{"x": shape}, ops: []op{{kind, "x", "y", attrs}}, outs: "y"}
	}
	tests := map[string]struct {
		s    sketch
		want [][]int64
		macs int64
	}{
		"conv": {
			sketch{x: x(2, 4, 9, 8), w: map[string][]int64{"w": {6, 2, 3, 5}}, ops: []op{{"Conv", "x w", "y", map[string]any{"group": 2, "pads": []int64{1, 0, 2, 1}, "strides": []int64{2, 1}, "dilations": []int64{1, 2}}}}, outs: "y"},
			[][]int64{{2, 6, 5, 1}}, 2 * 6 * 5 * 1 * 2 * 3 * 5,
		},
		"conv 1d": {
			sketch{x: x(1, 3, 10), w: map[string][]int64{"w": {4, 3, 3}}, ops: []op{{"Conv", "x w", "y", nil}}, outs: "y"},
			[][]int64{{1, 4, 8}}, 8 * 4 * 3 * 3,
		},
		"conv same": {
			sketch{x: x(1, 1, 7, 8), w: map[string][]int64{"w": {1, 1, 3, 3}}, ops: []op{{"Conv", "x w", "y", map[string]any{"auto_pad": "SAME_UPPER", "strides": []int64{2, 2}}}}, outs: "y"},
			[][]int64{{1, 1, 4, 4}}, 16 * 9,
		},
		"conv valid": {
			sketch{x: x(1, 1, 7, 8), w: map[string][]int64{"w": {1, 1, 3, 3}}, ops: []op{{"Conv", "x w", "y", map[string]any{"auto_pad": "VALID"}}}, outs: "y"},
			[][]int64{{1, 1, 5, 6}}, 30 * 9,
		},
		"gemm": {
			sketch{x: x(5, 3), w: map[string][]int64{"w": {7, 5}, "b": {7}}, ops: []op{{"Gemm", "x w b", "y", map[string]any{"transA": 1, "transB": 1}}}, outs: "y"},
			[][]int64{{3, 7}}, 3 * 5 * 7,
		},
		"matmul": {
			sketch{x: x(2, 1, 3, 4), w: map[string][]int64{"w": {6, 4, 5}}, ops: []op{{"MatMul", "x w", "y", nil}}, outs: "y"},
			[][]int64{{2, 6, 3, 5}}, 2 * 6 * 3 * 4 * 5,
		},
		"max pool":             {single("MaxPool", []int64{1, 2, 112, 113}, map[string]any{"kernel_shape": []int64{3, 3}, "strides": []int64{2, 2}, "pads": []int64{1, 1, 1, 1}}), [][]int64{{1, 2, 56, 57}}, 0},
		"pool ceil":            {single("MaxPool", []int64{1, 2, 112, 8}, map[string]any{"kernel_shape": []int64{3, 3}, "strides": []int64{2, 2}, "ceil_mode": 1}), [][]int64{{1, 2, 56, 4}}, 0},
		"pool ceil in padding": {single("MaxPool", []int64{1, 1, 5, 4}, map[string]any{"kernel_shape": []int64{2, 2}, "strides": []int64{3, 3}, "pads": []int64{0, 0, 1, 1}, "ceil_mode": 1}), [][]int64{{1, 1, 2, 2}}, 0},
		"average pool":         {single("AveragePool", []int64{1, 2, 8, 8}, map[string]any{"kernel_shape": []int64{2, 4}, "strides": []int64{2, 2}}), [][]int64{{1, 2, 4, 3}}, 0},
		"global pool":          {single("GlobalAveragePool", []int64{3, 2, 8, 7}, nil), [][]int64{{3, 2, 1, 1}}, 0},
		"reduce":               {single("ReduceMean", []int64{3, 2, 8, 7}, map[string]any{"axes": []int64{2, -1}, "keepdims": 0}), [][]int64{{3, 2}}, 0},
		"reduce all":           {single("ReduceMax", []int64{3, 2}, nil), [][]int64{{1, 1}}, 0},
		"reduce by input": {
			sketch{x: x(3, 2, 4), ints: map[string][]int64{"a": {1}}, ops: []op{{"ReduceSum", "x a", "y", nil}}, outs: "y"},
			[][]int64{{3, 1, 4}}, 0,
		},
		"flatten":              {single("Flatten", []int64{3, 2, 8, 7}, map[string]any{"axis": 2}), [][]int64{{6, 56}}, 0},
		"flatten from the end": {single("Flatten", []int64{3, 2, 8, 7}, map[string]any{"axis": -1}), [][]int64{{48, 7}}, 0},
		"transpose":            {single("Transpose", []int64{3, 2, 8}, map[string]any{"perm": []int64{2, 0, 1}}), [][]int64{{8, 3, 2}}, 0},
		"transpose all":        {single("Transpose", []int64{3, 2, 8}, nil), [][]int64{{8, 2, 3}}, 0},
		"reshape": {
			sketch{x: x(3, 2, 8, 7), ints: map[string][]int64{"s": {0, -1, 4}}, ops: []op{{"Reshape", "x s", "y", nil}}, outs: "y"},
			[][]int64{{3, 28, 4}}, 0,
		},
		"concat": {
			sketch{x: map[string][]int64{"x": {1, 2, 3}, "x2": {1, 5, 3}}, ops: []op{{"Concat", "x x2 x", "y", map[string]any{"axis": -2}}}, outs: "y"},
			[][]int64{{1, 9, 3}}, 0,
		},
		"slice": {
			sketch{x: x(10, 8, 5), ints: map[string][]int64{"s": {1, -1}, "e": {100, -100}, "a": {0, -1}, "t": {3, -2}}, ops: []op{{"Slice", "x s e a t", "y", nil}}, outs: "y"},
			[][]int64{{3, 8, 3}}, 0,
		},
		"slice without axes": {
			sketch{x: x(10, 8), ints: map[string][]int64{"s": {-3, 2}, "e": {10, 7}}, ops: []op{{"Slice", "x s e", "y", nil}}, outs: "y"},
			[][]int64{{3, 5}}, 0,
		},
		"split": {single("Split", []int64{2, 6}, map[string]any{"axis": 1}), [][]int64{{2, 6}}, 0},
		"split in two": {
			sketch{x: x(2, 6), ints: map[string][]int64{"s": {4, 2}}, ops: []op{{"Split", "x s", "y z", map[string]any{"axis": -1}}}, outs: "y z"},
			[][]int64{{2, 4}, {2, 2}}, 0,
		},
		"gather": {
			sketch{x: x(2, 6, 3), ints: map[string][]int64{"i": {5, 0, 5, 1}}, ops: []op{{"Gather", "x i", "y", map[string]any{"axis": 1}}}, outs: "y"},
			[][]int64{{2, 4, 3}}, 0,
		},
		"squeeze": {
			sketch{x: x(2, 1, 3, 1), ints: map[string][]int64{"a": {-1}}, ops: []op{{"Squeeze", "x a", "y", nil}, {"Squeeze", "x", "z", nil}}, outs: "y z"},
			[][]int64{{2, 1, 3}, {2, 3}}, 0,
		},
		"unsqueeze": {
			sketch{x: x(2, 3), ints: map[string][]int64{"a": {-1, 0}}, ops: []op{{"Unsqueeze", "x a", "y", nil}}, outs: "y"},
			[][]int64{{1, 2, 3, 1}}, 0,
		},
		"pad": {
			sketch{x: x(1, 2, 4, 4), ints: map[string][]int64{"p": {0, 0, 1, 2, 0, 1, -1, 0}}, ops: []op{{"Pad", "x p", "y", nil}}, outs: "y"},
			[][]int64{{1, 3, 4, 6}}, 0,
		},
		"broadcast": {
			sketch{x: map[string][]int64{"x": {2, 1, 3}, "x2": {4, 1}}, ops: []op{{"Mul", "x x2", "y", nil}}, outs: "y"},
			[][]int64{{2, 4, 3}}, 0,
		},
		"batch norm": {
			sketch{x: x(2, 3, 4, 4), w: map[string][]int64{"w": {3}}, ops: []op{{"BatchNormalization", "x w w w w", "y", nil}}, outs: "y"},
			[][]int64{{2, 3, 4, 4}}, 0,
		},
		"same shape": {
			sketch{x: x(2, 3), ops: []op{{"Relu", "x", "a", nil}, {"Clip", "a", "b", nil}, {"Identity", "b", "c", nil}, {"HardSwish", "c", "y", nil}}, outs: "y"},
			[][]int64{{2, 3}}, 0,
		},
		// How PyTorch writes x.view(x.size(0), -1).
		"computed shape": {
			sketch{x: x(2, 3, 4), ints: map[string][]int64{"m": {-1}, "zero": {0}, "i": {0}}, ops: []op{
				{"Shape", "x", "s", nil}, {"Gather", "s i", "n1", nil}, {"Squeeze", "n1 zero", "n0", nil}, {"Unsqueeze", "n0 zero", "n", nil},
				{"Concat", "n m", "t", map[string]any{"axis": 0}}, {"Reshape", "x t", "y", nil},
			}, outs: "y"},
			[][]int64{{2, 12}}, 0,
		},
		"constant": {
			sketch{x: x(2, 12), ops: []op{
				{"Constant", "", "s", map[string]any{"value": &onnxpb.TensorProto{Dims: []int64{2}, DataType: new(int32(onnxpb.TensorProto_INT64)), Int64Data: []int64{6, 4}}}},
				{"Reshape", "x s", "y", nil},
			}, outs: "y"},
			[][]int64{{6, 4}}, 0,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m := tt.s.model()
			shapes, macs, err := export.Shapes(m)
			if err != nil {
				t.Fatal(err)
			}
			for i, out := range strings.Fields(tt.s.outs) {
				if !slices.Equal(shapes[out], tt.want[i]) {
					t.Errorf("%s has shape %v, want %v", out, shapes[out], tt.want[i])
				}
			}
			if macs != tt.macs {
				t.Errorf("%d MACs, want %d", macs, tt.macs)
			}
			if !t.Failed() {
				again(t, m, tt.s, tt.want)
			}
		})
	}
}

// again asks ONNX Runtime for the shapes.
func again(t *testing.T, m *onnxpb.ModelProto, s sketch, want [][]int64) {
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	sess, err := runtime(t).NewSession(b, ort.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer sess.Close()
	var in []ort.Tensor
	for _, i := range sess.Inputs() {
		x, err := ort.New(ort.Float32, s.x[i.Name]...)
		if err != nil {
			t.Fatal(err)
		}
		in = append(in, x)
	}
	out := make([]ort.Tensor, len(want))
	if err := sess.Run(context.Background(), in, out); err != nil {
		t.Fatal(err)
	}
	for i := range out {
		if !slices.Equal(out[i].Shape, want[i]) {
			t.Errorf("ONNX Runtime makes %v, want %v", out[i].Shape, want[i])
		}
	}
}

// TestRuleErrors feeds each rule what contradicts it.
func TestRuleErrors(t *testing.T) {
	x := func(shape ...int64) map[string][]int64 { return map[string][]int64{"x": shape} }
	ints := func(v ...int64) map[string][]int64 { return map[string][]int64{"i": v} }
	w := func(shape ...int64) map[string][]int64 { return map[string][]int64{"w": shape} }
	tests := map[string]sketch{
		"conv channels":    {x: x(1, 3, 4, 4), w: w(2, 4, 1, 1), ops: []op{{"Conv", "x w", "y", nil}}},
		"conv groups":      {x: x(1, 4, 4, 4), w: w(3, 2, 1, 1), ops: []op{{"Conv", "x w", "y", map[string]any{"group": 2}}}},
		"conv group zero":  {x: x(1, 4, 4, 4), w: w(3, 2, 1, 1), ops: []op{{"Conv", "x w", "y", map[string]any{"group": 0}}}},
		"conv rank":        {x: x(1, 4, 4, 4), w: w(3, 4, 1), ops: []op{{"Conv", "x w", "y", nil}}},
		"conv without w":   {x: x(1, 4, 4, 4), ops: []op{{"Conv", "x", "y", nil}}},
		"stride zero":      {x: x(1, 1, 4, 4), w: w(1, 1, 1, 1), ops: []op{{"Conv", "x w", "y", map[string]any{"strides": []int64{0, 1}}}}},
		"strides":          {x: x(1, 1, 4, 4), w: w(1, 1, 1, 1), ops: []op{{"Conv", "x w", "y", map[string]any{"strides": []int64{1}}}}},
		"negative pad":     {x: x(1, 1, 4, 4), w: w(1, 1, 1, 1), ops: []op{{"Conv", "x w", "y", map[string]any{"pads": []int64{-1, 0, 0, 0}}}}},
		"large dilation":   {x: x(1, 1, 4, 4), w: w(1, 1, 3, 3), ops: []op{{"Conv", "x w", "y", map[string]any{"dilations": []int64{1 << 62, 1}}}}},
		"kernel too large": {x: x(1, 1, 4, 4), w: w(1, 1, 5, 5), ops: []op{{"Conv", "x w", "y", nil}}},
		"pool rank":        {x: x(1, 1, 4, 4), ops: []op{{"MaxPool", "x", "y", map[string]any{"kernel_shape": []int64{2}}}}},
		"pool of a vector": {x: x(4), ops: []op{{"GlobalAveragePool", "x", "y", nil}}},
		"gemm":             {x: x(2, 3), w: w(4, 5), ops: []op{{"Gemm", "x w", "y", nil}}},
		"gemm rank":        {x: x(2, 3, 3), w: w(3, 5), ops: []op{{"Gemm", "x w", "y", nil}}},
		"matmul":           {x: x(2, 3), w: w(3), ops: []op{{"MatMul", "x w", "y", nil}}},
		"broadcast":        {x: x(2, 3), w: w(2, 4), ops: []op{{"Add", "x w", "y", nil}}},
		"reshape":          {x: x(2, 3), ints: ints(4, 2), ops: []op{{"Reshape", "x i", "y", nil}}},
		"reshape twice -1": {x: x(2, 3), ints: ints(-1, -1), ops: []op{{"Reshape", "x i", "y", nil}}},
		"reshape rest":     {x: x(2, 3), ints: ints(4, -1), ops: []op{{"Reshape", "x i", "y", nil}}},
		"perm":             {x: x(2, 3), ops: []op{{"Transpose", "x", "y", map[string]any{"perm": []int64{0, 0}}}}},
		"perm range":       {x: x(2, 3), ops: []op{{"Transpose", "x", "y", map[string]any{"perm": []int64{5, 0}}}}},
		"perm size":        {x: x(2, 3), ops: []op{{"Transpose", "x", "y", map[string]any{"perm": []int64{0, 1, 2}}}}},
		"concat axis":      {x: x(2, 3), ops: []op{{"Concat", "x x", "y", map[string]any{"axis": 2}}}},
		"concat":           {x: x(2, 3), w: w(3, 3), ops: []op{{"Concat", "x w", "y", map[string]any{"axis": 1}}}},
		"slice step":       {x: x(9), ints: ints(0), ops: []op{{"Slice", "x i i i i", "y", nil}}},
		"slice lists":      {x: x(9), ints: map[string][]int64{"i": {0}, "j": {0, 1}}, ops: []op{{"Slice", "x i j", "y", nil}}},
		"split parts":      {x: x(9), ints: ints(4, 4, 1), ops: []op{{"Split", "x i", "y z", nil}}},
		"split":            {x: x(9), ints: ints(4, 4), ops: []op{{"Split", "x i", "y z", nil}}},
		"split outputs":    {x: x(9), ints: ints(4, 5), ops: []op{{"Split", "x i", "y", nil}}},
		"squeeze":          {x: x(9), ints: ints(0), ops: []op{{"Squeeze", "x i", "y", nil}}},
		"unsqueeze":        {x: x(9), ints: ints(0, 0), ops: []op{{"Unsqueeze", "x i", "y", nil}}},
		"pad":              {x: x(9), ints: ints(-5, -5), ops: []op{{"Pad", "x i", "y", nil}}},
		"flatten":          {x: x(9), ops: []op{{"Flatten", "x", "y", map[string]any{"axis": 2}}}},
		"unknown operator": {x: x(9), ops: []op{{"NonZero", "x", "y", nil}}},
	}
	for name, s := range tests {
		if shapes, _, err := export.Shapes(s.model()); err == nil {
			t.Errorf("%s: no error, shapes %v", name, shapes)
		}
	}
}

// FuzzRules builds one node of any operator with any shapes, attributes and
// integers: no rule may panic, whatever the graph claims.
func FuzzRules(f *testing.F) {
	kinds := strings.Fields(`Conv QLinearConv Gemm MatMul MaxPool AveragePool GlobalAveragePool ReduceMean Flatten Reshape Transpose
		Concat Slice Split Gather Squeeze Unsqueeze Pad Constant Shape Identity Add BatchNormalization`)
	names := strings.Fields(`group pads strides dilations kernel_shape auto_pad ceil_mode axis axes keepdims perm split allowzero
		transA transB starts ends shape value value_ints value_int start end`)
	numbers := []int64{0, 1, 2, 3, 4, 7, 16, -1, -2, -3, 1 << 20, 1 << 31, 1 << 47, 1 << 62, -1 << 62, 1<<63 - 1, -1 << 63}
	f.Add(uint8(0), []byte("abcdef"), []byte("ghijkl"), []byte("mnop"), []byte("qrst"), []byte("uvw"))
	for i := range kinds {
		f.Add(uint8(i), []byte{1, 2, 4, 4}, []byte{2, 2, 1, 1}, []byte{0}, []byte{1, 2}, []byte{7, 0, 7, 1})
	}
	f.Fuzz(func(t *testing.T, kind uint8, x, w, i, j, attrs []byte) {
		draw := func(b []byte) []int64 {
			v := make([]int64, min(len(b), 40))
			for k := range v {
				v[k] = numbers[int(b[k])%len(numbers)]
			}
			return v
		}
		o := op{kinds[int(kind)%len(kinds)], "x w i j", "y z", map[string]any{}}
		if len(attrs) > 0 {
			o.in = []string{"x w i j", "x i j", "x w", "x", "x i", "i j", "i x", "_ x", "x x2 x2 w"}[int(attrs[0])%9]
		}
		for k := 1; k+1 < len(attrs); k += 2 {
			name, v := names[int(attrs[k])%len(names)], draw(attrs[k+1:])
			switch attrs[k+1] % 3 {
			case 0:
				o.attrs[name] = int(v[0])
			case 1:
				o.attrs[name] = v
			default:
				o.attrs[name] = "SAME_LOWER"
			}
		}
		// Declared shapes may be anything; only initializers hold data.
		m := sketch{
			x: map[string][]int64{"x": draw(x), "x2": draw(x), "w": draw(w)}, ints: map[string][]int64{"i": draw(i), "j": draw(j)},
			ops: []op{o, {"Flatten", "y", "flat", nil}}, outs: "flat",
		}.model()
		b, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		export.Inspect(b)
	})
}
