package supernet

import (
	"context"
	"fmt"
	"iter"

	"spos/internal/arch"
	"spos/internal/data"
	"spos/supernet/internal/torchx"
)

// Moments are the statistics of one norm, per channel.
type Moments struct {
	Mean []float32 `json:"mean"`
	Var  []float32 `json:"var"`
}

// Stats are batch-norm statistics of one net by op name. They are a value that
// belongs to a net, the weights at the time and the images it was made with.
type Stats map[string]Moments

// Calibrate recomputes the net's batch-norm statistics over batches, which it
// ranges once. Each batch passes forward as in training, every norm using the
// batch's own statistics; the result is the mean over all images of the batch
// means and of the unbiased batch variances. The supernet stays as it is.
func (s *Supernet) Calibrate(ctx context.Context, net *arch.Net, batches iter.Seq2[data.Batch, error]) (Stats, error) {
	var kept torchx.Scope
	defer kept.Close()
	norms := make(map[*arch.Norm]torchx.Norm)
	seen := 0
	for b, err := range batches {
		if err != nil {
			return nil, fmt.Errorf("calibrate %s: %w", name(net), err)
		}
		if err := s.calibrateOn(ctx, net, b, norms, &kept, &seen); err != nil {
			return nil, fmt.Errorf("calibrate: %w", err)
		}
	}
	if seen == 0 {
		return nil, fmt.Errorf("calibrate %s: no images: %w", name(net), ErrBatch)
	}
	stats := make(Stats)
	err := s.worker.Do(func(*torchx.Scope) error {
		for i := range net.Ops {
			op := &net.Ops[i]
			if op.Norm == nil {
				continue
			}
			m := Moments{Mean: make([]float32, op.Out.C), Var: make([]float32, op.Out.C)}
			torchx.Read(norms[op.Norm].Mean, m.Mean)
			torchx.Read(norms[op.Norm].Var, m.Var)
			stats[op.Name] = m
		}
		return nil
	})
	return stats, err
}

// calibrateOn moves the statistics in norms by one batch. A running mean whose
// weight for the new batch is its share of all images so far is the exact mean
// over images.
func (s *Supernet) calibrateOn(ctx context.Context, net *arch.Net, b data.Batch, norms map[*arch.Norm]torchx.Norm, kept *torchx.Scope, seen *int) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := check(net, b); err != nil {
		return err
	}
	if err := checkNorms(net, b.N); err != nil {
		return err
	}
	*seen += b.N
	return s.worker.Do(func(sc *torchx.Scope) error {
		if err := s.bind(net); err != nil {
			return err
		}
		forward(sc, net, s.images(sc, b), s.trainer(func(sc *torchx.Scope, op *arch.Op) torchx.Norm {
			n, ok := norms[op.Norm]
			if !ok {
				zero := func(v *arch.View) torchx.Tensor {
					return sc.Move(sc.ZerosLike(s.part(sc, v, false)), kept)
				}
				n = torchx.Norm{Mean: zero(&op.Norm.Mean), Var: zero(&op.Norm.Var), Eps: op.Norm.Eps}
				norms[op.Norm] = n
			}
			n.Momentum = float64(b.N) / float64(*seen)
			return n
		}))
		return nil
	})
}
