package export

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"

	"spos/export/onnxpb"
	"spos/internal/arch"
)

// Summary is what [Inspect] tells of an ONNX file.
type Summary struct {
	Bytes    int64            `json:"bytes"`
	Reader   string           `json:"reader"` // "onnx-go", or "onnxpb" and why onnx-go could not or differed
	IR       int64            `json:"ir_version"`
	Opsets   map[string]int64 `json:"opsets"` // by domain; ONNX's own is "ai.onnx"
	Producer string           `json:"producer"`
	Graph    string           `json:"graph"`
	Inputs   []Value          `json:"inputs"` // those that are no initializers
	Outputs  []Value          `json:"outputs"`
	Ops      []OpCount        `json:"ops"` // the most frequent first

	// Params counts the elements of numeric initializers of one dimension or
	// more, integers of 32 and 64 bits and a norm's running statistics (Buffers)
	// aside. Of these, ConvBias are biases of convolutions and NormParams scales
	// and shifts of batch norms.
	Params     int64 `json:"params"`
	ConvBias   int64 `json:"conv_bias"`
	NormParams int64 `json:"norm_params"`
	Buffers    int64 `json:"buffers"`

	// MACs are multiply-accumulates of one run, Conv, Gemm and MatMul alone, a
	// symbolic dimension counted as one. Unknown lists the nodes that they leave
	// out because their cost cannot be told.
	MACs    int64    `json:"macs"`
	Unknown []string `json:"unknown,omitempty"`

	Metadata map[string]string `json:"metadata,omitempty"`
	Net      *NetSummary       `json:"net,omitempty"` // of files of [Model]
}

// NetSummary compares an exported file with the net that it says it was made
// of. A folded norm's scale and shift are gone and its convolution has a bias
// instead, so Params is the file's count less its convolutions' biases and its
// norms, plus the norms' parameters as the metadata has them.
type NetSummary struct {
	Space  string `json:"space"`
	Arch   string `json:"arch"`
	Params int64  `json:"params"` // trainable, norms unfolded
	MACs   int64  `json:"macs"`   // of one image
	Agrees bool   `json:"agrees"` // both are what the metadata's cost says
}

// Value is an input or output.
type Value struct {
	Name  string `json:"name"`
	Type  string `json:"type"`  // element type, ONNX's spelling; "" where it is no tensor
	Shape []Dim  `json:"shape"` // nil where it is not declared
}

// Dim is a dimension: a number, or a name where it is free ("?" for none).
// It is a number or a string in JSON.
type Dim struct {
	Size   int64
	Symbol string // empty where Size holds
}

func (d Dim) String() string {
	if d.Symbol != "" {
		return d.Symbol
	}
	return strconv.FormatInt(d.Size, 10)
}

// MarshalJSON writes the number or the name.
func (d Dim) MarshalJSON() ([]byte, error) {
	if d.Symbol != "" {
		return json.Marshal(d.Symbol)
	}
	return json.Marshal(d.Size)
}

// UnmarshalJSON reads what MarshalJSON writes.
func (d *Dim) UnmarshalJSON(b []byte) error {
	*d = Dim{}
	if json.Unmarshal(b, &d.Symbol) == nil {
		return nil
	}
	return json.Unmarshal(b, &d.Size)
}

// OpCount is the nodes of one operator.
type OpCount struct {
	Type  string `json:"type"` // with its domain, where that is not ONNX's own
	Count int    `json:"count"`
	MACs  int64  `json:"macs"`
}

// InspectFile is [Inspect] of a file. Data in further files beside it is
// counted and not read.
func InspectFile(path string) (Summary, error) {
	f, err := os.Open(path)
	if err != nil {
		return Summary{}, fmt.Errorf("inspect: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return Summary{}, fmt.Errorf("inspect %s: %w", path, err)
	}
	s, err := Inspect(b)
	if err != nil {
		return s, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// Inspect reads any ONNX model. What our own decoder finds is checked against
// onnx-go, an independent reader, where that can read the file. Errors wrap
// [ErrNotONNX]; input from outside can neither make it panic nor take memory
// beyond a multiple of its size.
func Inspect(file []byte) (Summary, error) {
	p, err := decode(file)
	if err != nil {
		return Summary{}, fmt.Errorf("inspect: %w", err)
	}
	m, err := read(p)
	if err == nil {
		err = wellFormed(m)
	}
	if err != nil {
		return Summary{}, fmt.Errorf("inspect: %w: %w", ErrNotONNX, err)
	}
	s := header(p, m)
	s.Bytes = int64(len(file))
	s.Reader, m = second(p, m)
	s.countParams(m)
	if err := s.countOps(m); err != nil {
		return Summary{}, fmt.Errorf("inspect: %w: %w", ErrNotONNX, err)
	}
	s.Net = netOf(&s, p)
	return s, nil
}

// second reads the graph independently and chooses whose reading to report.
func second(p *onnxpb.ModelProto, ours *parsed) (string, *parsed) {
	theirs, err := readIndependently(p, ours)
	if err == nil {
		err = differ(ours, theirs)
	}
	if err != nil {
		return fmt.Sprintf("onnxpb (onnx-go: %v)", err), ours
	}
	for i := range theirs.nodes { // it has no notion of these
		theirs.nodes[i].name, theirs.nodes[i].domain = ours.nodes[i].name, ours.nodes[i].domain
	}
	return "onnx-go", theirs
}

// differ tells where two readings of one file disagree.
func differ(a, b *parsed) error {
	if len(a.nodes) != len(b.nodes) || len(a.inits) != len(b.inits) {
		return fmt.Errorf("%d nodes and %d initializers instead of %d and %d", len(b.nodes), len(b.inits), len(a.nodes), len(a.inits))
	}
	for i, n := range a.nodes {
		o := b.nodes[i]
		if n.op != o.op || !slices.Equal(n.out, o.out) || len(n.in) > 0 && !slices.Equal(n.in, o.in) || len(n.attrs) != len(o.attrs) {
			return fmt.Errorf("node %d differs: %s %v instead of %s %v", i, o.op, o.out, n.op, n.out)
		}
	}
	for name, t := range a.inits {
		o, ok := b.inits[name]
		if !ok || t.kind != o.kind || !slices.Equal(t.shape, o.shape) {
			return fmt.Errorf("initializer %s differs: %v %v instead of %v %v", name, o.kind, o.shape, t.kind, t.shape)
		}
	}
	return nil
}

func header(p *onnxpb.ModelProto, m *parsed) Summary {
	s := Summary{
		IR: p.GetIrVersion(), Opsets: map[string]int64{}, Graph: p.Graph.GetName(),
		Producer: p.GetProducerName(), Metadata: map[string]string{},
	}
	if v := p.GetProducerVersion(); v != "" {
		s.Producer += " " + v
	}
	for _, o := range p.GetOpsetImport() {
		domain := o.GetDomain()
		if domain == "" {
			domain = "ai.onnx"
		}
		s.Opsets[domain] = o.GetVersion()
	}
	for _, v := range p.Graph.GetInput() {
		if _, ok := m.inits[v.GetName()]; !ok { // files before IR 4 list the initializers, too
			s.Inputs = append(s.Inputs, valueOf(v))
		}
	}
	for _, v := range p.Graph.GetOutput() {
		s.Outputs = append(s.Outputs, valueOf(v))
	}
	for _, e := range p.GetMetadataProps() {
		s.Metadata[e.GetKey()] = e.GetValue()
	}
	return s
}

func valueOf(v *onnxpb.ValueInfoProto) Value {
	t := v.GetType().GetTensorType()
	r := Value{Name: v.GetName()}
	if t == nil {
		return r
	}
	r.Type = onnxpb.TensorProto_DataType(t.GetElemType()).String()
	for _, d := range t.GetShape().GetDim() {
		switch x := d.GetValue().(type) {
		case *onnxpb.TensorShapeProto_Dimension_DimValue:
			r.Shape = append(r.Shape, Dim{Size: x.DimValue})
		case *onnxpb.TensorShapeProto_Dimension_DimParam:
			r.Shape = append(r.Shape, Dim{Symbol: x.DimParam})
		default:
			r.Shape = append(r.Shape, Dim{Symbol: "?"})
		}
	}
	return r
}

// countParams counts by what the numbers are for.
func (s *Summary) countParams(m *parsed) {
	seen := map[string]bool{}
	use := func(n node, i int, to *int64) {
		if i < len(n.in) && !seen[n.in[i]] {
			t := m.inits[n.in[i]]
			seen[n.in[i]] = true
			*to += weights(t)
		}
	}
	for _, n := range m.nodes {
		switch {
		case n.domain != "":
		case n.op == "Conv":
			use(n, 2, &s.ConvBias)
		case n.op == "QLinearConv":
			use(n, 8, &s.ConvBias)
		case n.op == "BatchNormalization":
			use(n, 1, &s.NormParams)
			use(n, 2, &s.NormParams)
			use(n, 3, &s.Buffers)
			use(n, 4, &s.Buffers)
		case n.op == "Constant":
			if t, ok := n.attrs["value"].(tensor); ok {
				s.Params += weights(t)
			}
		}
	}
	for _, t := range m.inits {
		s.Params += weights(t)
	}
	s.Params -= s.Buffers
}

// weights is the number of elements that may have been trained.
func weights(t tensor) int64 {
	switch t.kind {
	case onnxpb.TensorProto_INT64, onnxpb.TensorProto_INT32, onnxpb.TensorProto_UINT64, onnxpb.TensorProto_UINT32,
		onnxpb.TensorProto_BOOL, onnxpb.TensorProto_STRING, onnxpb.TensorProto_UNDEFINED:
		return 0
	}
	if len(t.shape) == 0 {
		return 0
	}
	return t.numel()
}

// maxUnknown bounds the list of nodes that nothing is known of.
const maxUnknown = 20

func (s *Summary) countOps(m *parsed) error {
	f := newInference(m)
	at := map[string]int{}
	for i, n := range m.nodes {
		kind := n.op
		if n.domain != "" {
			kind = n.domain + "." + n.op
		}
		k, ok := at[kind]
		if !ok {
			k = len(s.Ops)
			at[kind] = k
			s.Ops = append(s.Ops, OpCount{Type: kind})
		}
		s.Ops[k].Count++
		macs, err := f.node(n)
		switch {
		case errors.Is(err, errUnknown):
			if len(s.Unknown) < maxUnknown {
				s.Unknown = append(s.Unknown, fmt.Sprintf("%s: %v", describe(n), err))
			}
		case err != nil:
			return fmt.Errorf("node %d (%s): %w", i, describe(n), err)
		}
		s.Ops[k].MACs += macs
		if s.MACs += macs; s.MACs > maxElements {
			return fmt.Errorf("node %d (%s): more multiplications than any machine does", i, describe(n))
		}
	}
	slices.SortStableFunc(s.Ops, func(a, b OpCount) int { return b.Count - a.Count })
	return nil
}

// netOf is nil for files that [Model] did not write.
func netOf(s *Summary, p *onnxpb.ModelProto) *NetSummary {
	if s.Metadata[KeyFormat] != FormatVersion {
		return nil
	}
	norms, err := strconv.ParseInt(s.Metadata[KeyNormParams], 10, 64)
	var cost arch.Cost
	if err = errors.Join(err, json.Unmarshal([]byte(s.Metadata[KeyCost]), &cost)); err != nil || len(s.Inputs) != 1 {
		return nil
	}
	in, _ := declared(p.Graph.Input[0])
	images := int64(1)
	if len(in) > 0 && in[0] > 0 {
		images = in[0]
	}
	n := &NetSummary{
		Space: s.Metadata[KeySpace], Arch: s.Metadata[KeyArch],
		Params: s.Params - s.ConvBias - s.NormParams + norms,
		MACs:   s.MACs / images,
	}
	n.Agrees = n.Params == cost.Params && n.MACs == cost.MACs && len(s.Unknown) == 0
	return n
}
