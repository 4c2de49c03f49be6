package serve

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"spos/internal/imaging"
	"spos/internal/ort"
)

// The keys of an ONNX file's metadata that are obeyed. They are written by export; a file without them is served as
// tensors only.
const (
	keyFormat     = "spos.format"
	keyPreprocess = "spos.preprocess"
	keyLabels     = "spos.labels"
	keyLineage    = "spos.lineage"
	keySpace      = "spos.space"
	keyArch       = "spos.arch"
	keyCost       = "spos.cost"
	keyLatency    = "spos.latency"

	knownFormat = "1"
)

// ONNX is a Model that ONNX Runtime computes.
type ONNX struct {
	session *ort.Session
	info    ModelInfo
	outputs []ort.Info
	inputs  []ort.Info
}

// NewONNX makes a Model of a session, which it owns from here on, also when it fails. name and version are what
// clients ask for. It reads the file's metadata, strictly where there is some, and runs the model once on zeros,
// because a first run costs more than twice the second.
func NewONNX(ctx context.Context, session *ort.Session, name, version string) (_ *ONNX, err error) {
	m := &ONNX{session: session, inputs: session.Inputs(), outputs: session.Outputs()}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("serve: model %q version %q: %w", name, version, err), session.Close())
		}
	}()
	m.info = ModelInfo{
		Name: name, Version: version, Platform: "onnxruntime_onnx", Threads: max(session.Options().IntraOp, 1),
		Properties: map[string]string{},
	}
	if m.info.Inputs, err = tensorInfos(m.inputs); err != nil {
		return nil, err
	}
	if m.info.Outputs, err = tensorInfos(m.outputs); err != nil {
		return nil, err
	}
	if err := m.info.readMetadata(session.Metadata()); err != nil {
		return nil, err
	}
	if err := m.info.checkRecipe(); err != nil {
		return nil, err
	}
	if err := m.warm(ctx); err != nil {
		return nil, fmt.Errorf("a first run on zeros: %w", err)
	}
	return m, nil
}

// Info describes the model.
func (m *ONNX) Info() ModelInfo { return m.info }

// Close waits for running Runs, frees the session and gives its memory back to the system.
func (m *ONNX) Close() error {
	err := m.session.Close()
	ort.Trim()
	return err
}

// Run computes the wanted outputs. It stops within one operator of ctx's end.
func (m *ONNX) Run(ctx context.Context, in, out []Tensor) error {
	ins := make([]ort.Tensor, len(in))
	for i := range in {
		ins[i] = toORT(in[i])
	}
	outs := make([]ort.Tensor, len(m.outputs))
	given := m.place(in, out, outs)
	err := m.session.Run(ctx, ins, outs)
	if err != nil && given && ctx.Err() == nil && !errors.Is(err, ort.ErrTensor) {
		// A file may state other shapes than its graph makes.
		clear(outs)
		err = m.session.Run(ctx, ins, outs)
	}
	switch {
	case errors.Is(err, ort.ErrTensor):
		return badRequest("the inputs do not fit the model: %v", err)
	case errors.Is(err, ort.ErrClosed):
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	case err != nil:
		return err
	}
	for i := range out {
		if at := m.output(out[i].Name); at >= 0 {
			fromORT(&out[i], outs[at])
		}
	}
	return nil
}

func (m *ONNX) output(name string) int {
	return slices.IndexFunc(m.outputs, func(o ort.Info) bool { return o.Name == name })
}

// place lends the memory of out to the outputs whose shapes are known before the run, and reports whether it did.
func (m *ONNX) place(in, out []Tensor, outs []ort.Tensor) (given bool) {
	for i := range out {
		at := m.output(out[i].Name)
		if at < 0 || out[i].Type == Bytes || cap(out[i].Data) == 0 {
			continue
		}
		shape := m.shape(m.outputs[at], in)
		n, ok := elements(shape)
		if size := n * int64(out[i].Type.Size()); shape != nil && ok && size > 0 && size <= int64(cap(out[i].Data)) {
			outs[at] = ort.Tensor{Type: m.outputs[at].Type, Shape: shape, Data: out[i].Data[:size]}
			given = true
		}
	}
	return given
}

// shape is an output's shape with the inputs' extents in place of symbols; nil when that leaves something open.
func (m *ONNX) shape(o ort.Info, in []Tensor) []int64 {
	shape := slices.Clone(o.Shape)
	for d := range shape {
		if shape[d] >= 0 {
			continue
		}
		if shape[d] = m.extent(o.Symbols[d], in); shape[d] < 0 {
			return nil
		}
	}
	return shape
}

func (m *ONNX) extent(symbol string, in []Tensor) int64 {
	if symbol != "" {
		for i, info := range m.inputs {
			if d := slices.Index(info.Symbols, symbol); d >= 0 && d < len(in[i].Shape) {
				return in[i].Shape[d]
			}
		}
	}
	return -1
}

// warm runs the model on zeros of the smallest shape. Only a model whose every extent but the first is fixed has to
// succeed: others may refuse such a shape for good reasons.
func (m *ONNX) warm(ctx context.Context) error {
	strict := true
	in := make([]Tensor, len(m.inputs))
	for i, info := range m.info.Inputs {
		in[i] = Tensor{Name: info.Name, Type: info.Type, Shape: slices.Clone(info.Shape)}
		strict = strict && info.Shape != nil
		for d, extent := range info.Shape {
			if extent < 0 {
				in[i].Shape[d] = 1
				strict = strict && d == 0
			}
		}
		n, ok := elements(in[i].Shape)
		if !ok || n > 1<<28 {
			return fmt.Errorf("input %q of shape %v is too large", info.Name, info.Shape)
		}
		size := int(n) * info.Type.Size()
		if info.Type == Bytes {
			size = 4 * int(n) // empty strings
		}
		in[i].Data = make([]byte, size)
	}
	out := make([]Tensor, len(m.info.Outputs))
	for i, info := range m.info.Outputs {
		out[i] = Tensor{Name: info.Name, Type: info.Type}
	}
	if err := m.Run(ctx, in, out); err != nil && strict {
		return err
	}
	return nil
}

// readMetadata takes what export wrote.
func (info *ModelInfo) readMetadata(meta map[string]string) error {
	if f, ok := meta[keyFormat]; ok && f != knownFormat {
		return fmt.Errorf("its metadata is of format %s, this program reads %s: use a newer spos, or export it again", f, knownFormat)
	}
	if text, ok := meta[keyPreprocess]; ok {
		r, err := imaging.ParseRecipe([]byte(text))
		if err != nil {
			return fmt.Errorf("metadata %s: %w", keyPreprocess, err)
		}
		info.Recipe = &r
	}
	if text, ok := meta[keyLabels]; ok {
		if err := json.Unmarshal([]byte(text), &info.Labels); err != nil {
			return fmt.Errorf("metadata %s: %w", keyLabels, err)
		}
	}
	if text, ok := meta[keyLineage]; ok {
		var lineage map[string]string
		if err := json.Unmarshal([]byte(text), &lineage); err != nil {
			return fmt.Errorf("metadata %s: %w", keyLineage, err)
		}
		for k, v := range lineage {
			info.Properties["lineage."+k] = v
		}
	}
	if text, ok := meta[keyCost]; ok {
		if err := info.readCost(text); err != nil {
			return fmt.Errorf("metadata %s: %w", keyCost, err)
		}
	}
	if text, ok := meta[keyLatency]; ok {
		var err error
		if info.Promise, err = readPromise(text); err != nil {
			return fmt.Errorf("metadata %s: %w", keyLatency, err)
		}
	}
	for name, key := range map[string]string{"space": keySpace, "arch": keyArch} {
		if v, ok := meta[key]; ok {
			info.Properties[name] = v
		}
	}
	return nil
}

// readCost makes properties of what the network costs.
func (info *ModelInfo) readCost(text string) error {
	var cost struct{ Params, MACs int64 }
	if err := json.Unmarshal([]byte(text), &cost); err != nil {
		return err
	}
	info.Properties["cost.params"] = strconv.FormatInt(cost.Params, 10)
	info.Properties["cost.macs"] = strconv.FormatInt(cost.MACs, 10)
	return nil
}

func tensorInfos(infos []ort.Info) ([]TensorInfo, error) {
	out := make([]TensorInfo, len(infos))
	for i, info := range infos {
		out[i] = TensorInfo{Name: info.Name, Type: fromType[info.Type], Shape: slices.Clone(info.Shape)}
		if out[i].Type == 0 {
			return nil, fmt.Errorf("tensor %q: elements of type %s cannot be served", info.Name, info.Type)
		}
	}
	return out, nil
}

var toType = [...]ort.Type{
	Bool: ort.Bool, Uint8: ort.Uint8, Uint16: ort.Uint16, Uint32: ort.Uint32, Uint64: ort.Uint64,
	Int8: ort.Int8, Int16: ort.Int16, Int32: ort.Int32, Int64: ort.Int64,
	FP16: ort.Float16, BF16: ort.BFloat16, FP32: ort.Float32, FP64: ort.Float64, Bytes: ort.String,
}

var fromType = func() (from [ort.String + 1]Datatype) {
	for d, t := range toType {
		from[t] = Datatype(d)
	}
	return from
}()

func toORT(t Tensor) ort.Tensor {
	o := ort.Tensor{Type: toType[t.Type], Shape: t.Shape, Data: t.Data}
	if t.Type != Bytes {
		return o
	}
	o.Data, o.Strings = nil, []string{}
	for d := t.Data; len(d) > 0; {
		n := binary.LittleEndian.Uint32(d)
		o.Strings = append(o.Strings, string(d[4:4+n]))
		d = d[4+n:]
	}
	return o
}

func fromORT(t *Tensor, o ort.Tensor) {
	t.Shape = o.Shape
	if o.Type != ort.String {
		t.Data = o.Data
		return
	}
	t.Data = t.Data[:0]
	for _, s := range o.Strings {
		t.Data = append(binary.LittleEndian.AppendUint32(t.Data, uint32(len(s))), s...)
	}
}
