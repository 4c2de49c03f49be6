package export

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"spos/export/onnxpb"
)

// ErrNotONNX is wrapped by every error about a file that is damaged or is no
// ONNX model.
var ErrNotONNX = errors.New("not a valid ONNX model")

// Bounds of what [Inspect] decodes. An empty message costs two bytes in a file
// and a hundred in memory, so messages are counted before any is made.
const (
	maxFile     = 2 << 30 // what protobuf can hold
	maxMessages = 2 << 20
	maxDepth    = 64
	maxInts     = 64 // elements of an integer vector that shapes may depend on
	maxRank     = 32
	maxElements = 1 << 48
)

// parsed is an ONNX file as both readers see it.
type parsed struct {
	graph  *onnxpb.GraphProto
	nodes  []node
	inits  map[string]tensor
	order  []string // of inits
	nested int      // nodes with subgraphs
}

type node struct {
	name, op, domain string
	in, out          []string
	attrs            map[string]any // int64, float32, string, slices of them, tensor
}

// tensor is what of a constant matters here: its type, its shape, and the
// numbers where they may be a shape.
type tensor struct {
	kind  onnxpb.TensorProto_DataType
	shape []int64
	ints  []int64 // of small int64 and int32 tensors, else nil
}

func (t tensor) numel() int64 { return product(t.shape) }

// decode parses a file, bounded in memory by a multiple of its size.
func decode(b []byte) (*onnxpb.ModelProto, error) {
	if len(b) > maxFile {
		return nil, fmt.Errorf("%d bytes: more than protobuf can hold: %w", len(b), ErrNotONNX)
	}
	m := &onnxpb.ModelProto{}
	budget := maxMessages
	if err := count(m.ProtoReflect().Descriptor(), b, &budget, 0); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotONNX, err)
	}
	if err := proto.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotONNX, err)
	}
	if m.GetGraph() == nil || len(m.GetGraph().GetOutput()) == 0 {
		return nil, fmt.Errorf("no graph with outputs in it: %w", ErrNotONNX)
	}
	return m, nil
}

// count walks the messages of an encoded one without making them, and fails
// where there are more than the budget or they nest too deep.
func count(d protoreflect.MessageDescriptor, b []byte, budget *int, depth int) error {
	if *budget--; *budget < 0 {
		return fmt.Errorf("more than %d parts", maxMessages)
	}
	if depth > maxDepth {
		return fmt.Errorf("parts nested deeper than %d", maxDepth)
	}
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if typ != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
				return protowire.ParseError(n)
			}
			b = b[n:]
			continue
		}
		part, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if f := d.Fields().ByNumber(num); f != nil && f.Message() != nil {
			if err := count(f.Message(), part, budget, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

// read makes a parsed one of a decoded file and checks that it hangs together.
func read(p *onnxpb.ModelProto) (*parsed, error) {
	m := &parsed{graph: p.GetGraph(), inits: map[string]tensor{}}
	for i, t := range m.graph.GetInitializer() {
		read, err := readTensor(t)
		if err != nil {
			return nil, fmt.Errorf("initializer %d, %q: %w", i, t.GetName(), err)
		}
		m.inits[t.GetName()] = read
		m.order = append(m.order, t.GetName())
	}
	for i, n := range m.graph.GetNode() {
		nd := node{name: n.GetName(), op: n.GetOpType(), domain: n.GetDomain(), in: n.GetInput(), out: n.GetOutput(), attrs: map[string]any{}}
		if nd.domain == "ai.onnx" {
			nd.domain = ""
		}
		for _, a := range n.GetAttribute() {
			if a.G != nil || len(a.Graphs) > 0 {
				m.nested++
			}
			v, err := readAttr(a)
			if err != nil {
				return nil, fmt.Errorf("node %d (%s), attribute %q: %w", i, describe(nd), a.GetName(), err)
			}
			nd.attrs[a.GetName()] = v
		}
		m.nodes = append(m.nodes, nd)
	}
	return m, nil
}

func readAttr(a *onnxpb.AttributeProto) (any, error) {
	switch a.GetType() {
	case onnxpb.AttributeProto_FLOAT:
		return a.GetF(), nil
	case onnxpb.AttributeProto_INT:
		return a.GetI(), nil
	case onnxpb.AttributeProto_STRING:
		return string(a.GetS()), nil
	case onnxpb.AttributeProto_TENSOR:
		return readTensor(a.GetT())
	case onnxpb.AttributeProto_INTS:
		return a.GetInts(), nil
	case onnxpb.AttributeProto_FLOATS:
		return a.GetFloats(), nil
	default: // nothing that shapes or costs here depend on
		return nil, nil
	}
}

// describe names a node in errors: few exporters leave the name empty.
func describe(n node) string {
	if n.name == "" && len(n.out) > 0 {
		return n.op + " making " + n.out[0]
	}
	return n.op + " " + n.name
}

func readTensor(t *onnxpb.TensorProto) (tensor, error) {
	r := tensor{kind: onnxpb.TensorProto_DataType(t.GetDataType()), shape: t.GetDims()}
	n, err := elements(r.shape)
	if err != nil {
		return r, err
	}
	if t.GetDataLocation() == onnxpb.TensorProto_EXTERNAL || len(t.GetExternalData()) > 0 {
		return r, nil // its numbers are in another file, which is not read
	}
	size := elementBytes[r.kind]
	var has int64
	switch {
	case size == 0:
		return r, nil
	case len(t.GetRawData()) > 0:
		if int64(len(t.GetRawData())) != n*size {
			return r, fmt.Errorf("%d bytes of data for shape %v of %v", len(t.GetRawData()), r.shape, r.kind)
		}
		has = n
	case r.kind == onnxpb.TensorProto_FLOAT:
		has = int64(len(t.GetFloatData()))
	case r.kind == onnxpb.TensorProto_INT64:
		has = int64(len(t.GetInt64Data()))
	case r.kind == onnxpb.TensorProto_DOUBLE:
		has = int64(len(t.GetDoubleData()))
	case r.kind == onnxpb.TensorProto_UINT64 || r.kind == onnxpb.TensorProto_UINT32:
		has = int64(len(t.GetUint64Data()))
	default:
		has = int64(len(t.GetInt32Data()))
	}
	if has != n {
		return r, fmt.Errorf("%d elements of data for shape %v", has, r.shape)
	}
	r.ints = smallInts(t, r.kind, n)
	return r, nil
}

func smallInts(t *onnxpb.TensorProto, kind onnxpb.TensorProto_DataType, n int64) []int64 {
	if n > maxInts {
		return nil
	}
	ints := make([]int64, 0, n)
	switch raw := t.GetRawData(); {
	case kind == onnxpb.TensorProto_INT64 && len(raw) > 0:
		for ; len(raw) > 0; raw = raw[8:] {
			ints = append(ints, int64(binary.LittleEndian.Uint64(raw)))
		}
	case kind == onnxpb.TensorProto_INT64:
		ints = append(ints, t.GetInt64Data()...)
	case kind == onnxpb.TensorProto_INT32 && len(raw) > 0:
		for ; len(raw) > 0; raw = raw[4:] {
			ints = append(ints, int64(int32(binary.LittleEndian.Uint32(raw))))
		}
	case kind == onnxpb.TensorProto_INT32:
		for _, x := range t.GetInt32Data() {
			ints = append(ints, int64(x))
		}
	default:
		return nil
	}
	return ints
}

// elementBytes is the size of an element in raw_data; types of less than a
// byte, strings and complex numbers are not measured.
var elementBytes = map[onnxpb.TensorProto_DataType]int64{
	onnxpb.TensorProto_FLOAT: 4, onnxpb.TensorProto_DOUBLE: 8, onnxpb.TensorProto_FLOAT16: 2, onnxpb.TensorProto_BFLOAT16: 2,
	onnxpb.TensorProto_INT64: 8, onnxpb.TensorProto_INT32: 4, onnxpb.TensorProto_INT16: 2, onnxpb.TensorProto_INT8: 1,
	onnxpb.TensorProto_UINT64: 8, onnxpb.TensorProto_UINT32: 4, onnxpb.TensorProto_UINT16: 2, onnxpb.TensorProto_UINT8: 1,
	onnxpb.TensorProto_BOOL: 1,
}

// elements is the product of dimensions that a file may claim.
func elements(shape []int64) (int64, error) {
	if len(shape) > maxRank {
		return 0, fmt.Errorf("impossible shape of %d dimensions", len(shape))
	}
	n := int64(1)
	if slices.Contains(shape, 0) {
		n = 0
	}
	for _, d := range shape {
		if d < 0 || n > 0 && d > maxElements/n {
			return 0, fmt.Errorf("impossible shape %v", shape)
		}
		n *= d
	}
	return n, nil
}

// product is the number of elements of a shape, capped where it would
// overflow: inferred shapes can be anything.
func product(shape []int64) int64 {
	n := int64(1)
	for _, d := range shape {
		if d != 0 && n > math.MaxInt64/d {
			return math.MaxInt64
		}
		n *= d
	}
	return n
}
