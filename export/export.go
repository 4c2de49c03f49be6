// Package export turns a net and its weights into an ONNX model, and reads any
// ONNX file back. It writes protobuf messages and knows no runtime: neither
// libtorch nor ONNX Runtime is involved. What it must never know is how the
// weights came to be.
package export

import (
	"encoding/json"
	"fmt"

	"github.com/google/renameio/v2"
	"google.golang.org/protobuf/proto"

	"spos/export/onnxpb"
	"spos/internal/arch"
	"spos/internal/ckpt"
)

// The names of the graph's input (N,C,H,W) and output (N,classes). The output
// is the logits; no softmax is exported.
const (
	InputName  = "input"
	OutputName = "logits"
)

// DefaultOpset is the operator set of an exported file unless told otherwise:
// the one that ONNX Runtime 1.12 and later reads.
const DefaultOpset = 17

// The operator sets that [Model] can write: what it emits means the same in
// all of them.
const (
	minOpset = 13
	maxOpset = 22
)

// Weights is where tensors come from: a checkpoint, a supernet's host copy,
// or [Random].
type Weights interface {
	// Tensor returns the whole tensor of that name.
	Tensor(name string) (ckpt.Tensor, error)
}

// Stats replaces running statistics of batch norms, by the name of the op:
// what recalibration on a net's own activations gives. Each slice has one
// value per output channel of the op; ok is false where the op's tensors in
// the weights hold.
type Stats interface {
	Moments(op string) (mean, variance []float32, ok bool)
}

// Options of [Model]. The zero value is a float32 graph of dynamic batch size
// with batch norms folded.
type Options struct {
	Batch    int    // images a run; zero is any number, the symbolic dimension "N"
	Opset    int    // zero is DefaultOpset
	KeepNorm bool   // BatchNormalization nodes instead of norms folded into the convolutions
	Stats    Stats  // nil takes all running statistics from the weights
	Version  string // of the producer; empty is "devel"

	// What the file says about itself, stored under the keys of [Summary.Metadata].
	Preprocess json.RawMessage   // recipe from a picture to the input, JSON; empty leaves it out
	Labels     []string          // of the logits, in order; nil leaves them out
	Lineage    map[string]string // where the weights come from; nil leaves it out
}

// Model builds the ONNX model of a net. Equal arguments give equal bytes under
// [Marshal]. Errors of w are wrapped; a weight that is missing, of another
// shape or not finite is named.
func Model(n *arch.Net, w Weights, o Options) (*onnxpb.ModelProto, error) {
	if o.Opset == 0 {
		o.Opset = DefaultOpset
	}
	if o.Version == "" {
		o.Version = "devel"
	}
	m, err := model(n, w, o)
	if err != nil {
		return nil, fmt.Errorf("export %s of %s: %w", n.Arch, n.Space, err)
	}
	return m, nil
}

func model(n *arch.Net, w Weights, o Options) (*onnxpb.ModelProto, error) {
	if o.Opset < minOpset || o.Opset > maxOpset {
		return nil, fmt.Errorf("opset %d: only %d to %d can be written", o.Opset, minOpset, maxOpset)
	}
	if o.Batch < 0 {
		return nil, fmt.Errorf("batch %d: use 0 for a dynamic batch", o.Batch)
	}
	props, err := metadata(n, o)
	if err != nil {
		return nil, err
	}
	g, err := newGraph(n, w, o)
	if err != nil {
		return nil, err
	}
	return &onnxpb.ModelProto{
		IrVersion:       new(irVersion(o.Opset)),
		OpsetImport:     []*onnxpb.OperatorSetIdProto{{Domain: new(""), Version: new(int64(o.Opset))}},
		ProducerName:    new("spos"),
		ProducerVersion: &o.Version,
		Graph:           g,
		MetadataProps:   props,
	}, nil
}

// irVersion is the file format that came with an operator set: not newer, so
// that a runtime that knows the operators opens the file.
func irVersion(opset int) int64 {
	switch {
	case opset <= 18:
		return 8
	case opset <= 20:
		return 9
	default:
		return 10
	}
}

// Marshal is the bytes of the file: the same for the same model.
func Marshal(m *onnxpb.ModelProto) ([]byte, error) {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode model: %w", err)
	}
	return b, nil
}

// Write writes the bytes of a model to a temporary file that replaces path once
// all of it is on the disk.
func Write(path string, file []byte) error {
	if err := renameio.WriteFile(path, file, 0o644); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
