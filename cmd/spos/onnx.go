package main

import (
	"context"
	"fmt"
	"iter"

	"spos/export"
	"spos/internal/arch"
	"spos/internal/data"
	"spos/internal/ort"
	"spos/supernet"
)

// onnxNet is an exported model in ONNX Runtime, run as it will be served.
type onnxNet struct {
	session *ort.Session
	classes int
	batch   int // of a static graph; 0 for any
}

func openONNX(rt *ort.Runtime, model []byte, n *arch.Net, batch int) (*onnxNet, error) {
	s, err := rt.NewSession(model, ort.Options{Name: string(n.Arch)})
	if err != nil {
		return nil, err
	}
	return &onnxNet{s, n.Classes(), batch}, nil
}

// logits of a batch, (N, classes) row-major.
func (o *onnxNet) logits(ctx context.Context, b data.Batch) ([]float32, error) {
	step := b.N
	if o.batch > 0 {
		step = o.batch
	}
	if b.N%step != 0 {
		return nil, fmt.Errorf("%d images do not fill runs of %d", b.N, step)
	}
	size := b.Shape.Numel()
	logits := make([]float32, 0, b.N*o.classes)
	for i := 0; i < b.N; i += step {
		in := ort.Of(b.Images[i*size:(i+step)*size], int64(step), int64(b.Shape.C), int64(b.Shape.H), int64(b.Shape.W))
		out := make([]ort.Tensor, 1)
		if err := o.session.Run(ctx, []ort.Tensor{in}, out); err != nil {
			return nil, err
		}
		logits = append(logits, ort.View[float32](out[0])...)
	}
	return logits, nil
}

// top1 is the accuracy on batches.
func (o *onnxNet) top1(ctx context.Context, batches iter.Seq2[data.Batch, error]) (float64, error) {
	right, seen := 0, 0
	for b, err := range batches {
		if err != nil {
			return 0, err
		}
		logits, err := o.logits(ctx, b)
		if err != nil {
			return 0, err
		}
		for i, label := range b.Labels {
			if argmax(logits[i*o.classes:(i+1)*o.classes]) == int(label) {
				right++
			}
		}
		seen += b.N
	}
	return float64(right) / float64(seen), nil
}

func argmax(row []float32) int {
	best := 0
	for i, v := range row {
		if v > row[best] {
			best = i
		}
	}
	return best
}

// verification is what comparing an exported file with libtorch found.
type verification struct {
	Images int     `json:"images"`
	MaxAbs float64 `json:"max_abs_diff"` // of the logits
	Agree  float64 `json:"agree"`        // share of images with the same class
	Noise  bool    `json:"noise,omitempty"`
}

// maxDiff is how far logits of ONNX Runtime may be from libtorch's. Folding
// norms in float64 and summing in another order gives a few 1e-5 on logits of
// about ten.
const maxDiff = 1e-3

// verify compares the file with the net it came from on real images.
func verify(ctx context.Context, o *onnxNet, m *supernet.Supernet, n *arch.Net, stats supernet.Stats, batches iter.Seq2[data.Batch, error]) (verification, error) {
	var v verification
	same := 0
	for b, err := range batches {
		if err != nil {
			return v, err
		}
		want, err := m.Logits(ctx, n, stats, b)
		if err != nil {
			return v, err
		}
		got, err := o.logits(ctx, b)
		if err != nil {
			return v, err
		}
		d := export.Compare(want, got, o.classes)
		v.MaxAbs = max(v.MaxAbs, d.MaxAbs)
		same += d.Top1
		v.Images += b.N
	}
	v.Agree = float64(same) / float64(v.Images)
	if !(v.MaxAbs <= maxDiff) {
		return v, fmt.Errorf("logits of ONNX Runtime differ from libtorch's by %.3g on %d images, more than %g: the file is not written", v.MaxAbs, v.Images, maxDiff)
	}
	return v, nil
}
