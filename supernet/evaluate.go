package supernet

import (
	"context"
	"fmt"
	"iter"
	"math"

	"spos/internal/arch"
	"spos/internal/data"
	"spos/supernet/internal/torchx"
)

// maxConfusion is the number of classes up to which Evaluate counts who was
// taken for whom: beyond it the table is larger than anybody reads.
const maxConfusion = 256

// Accuracy is the outcome of an evaluation. Among equal logits the class of
// the lower index wins; a label's logit that is not a number loses.
type Accuracy struct {
	N          int     // images
	Top1, Top5 float64 // fractions of N; Top5 with fewer than five classes is 1
	Loss       float64 // mean cross entropy, no label smoothing
	Confusion  [][]int // [label][prediction]; nil above 256 classes
}

// Evaluate measures the net on batches, which it ranges once, with the given
// batch-norm statistics, or with the supernet's own where stats is nil.
func (s *Supernet) Evaluate(ctx context.Context, net *arch.Net, stats Stats, batches iter.Seq2[data.Batch, error]) (Accuracy, error) {
	var a Accuracy
	if k := net.Classes(); k <= maxConfusion {
		a.Confusion = make([][]int, k)
		for i := range a.Confusion {
			a.Confusion[i] = make([]int, k)
		}
	}
	err := s.infer(net, stats, func(logits func(data.Batch) ([]float32, error)) error {
		for b, err := range batches {
			switch {
			case err != nil:
				return err
			case ctx.Err() != nil:
				return context.Cause(ctx)
			}
			l, err := logits(b)
			if err != nil {
				return err
			}
			a.add(l, b.Labels, net.Classes())
		}
		return nil
	})
	if err != nil {
		return Accuracy{}, fmt.Errorf("evaluate: %w", err)
	}
	if a.N == 0 {
		return Accuracy{}, fmt.Errorf("evaluate %s: no images: %w", name(net), ErrBatch)
	}
	n := float64(a.N)
	a.Top1, a.Top5, a.Loss = a.Top1/n, a.Top5/n, a.Loss/n
	return a, nil
}

// add counts a batch; Top1, Top5 and Loss are sums until the end.
func (a *Accuracy) add(logits []float32, labels []int64, classes int) {
	for i, label := range labels {
		row := logits[i*classes : (i+1)*classes]
		own := row[label]
		best, above := 0, 0
		for c, v := range row {
			if v > row[best] {
				best = c
			}
			if c != int(label) && !(v < own || v == own && c > int(label)) {
				above++
			}
		}
		// Counted from the largest: an exponential of more than 709 is infinite.
		most, sum := float64(row[best]), 0.0
		for _, v := range row {
			sum += math.Exp(float64(v) - most)
		}
		a.N++
		a.Loss += most - float64(own) + math.Log(sum)
		if above == 0 {
			a.Top1++
		}
		if above < 5 {
			a.Top5++
		}
		if a.Confusion != nil {
			a.Confusion[label][best]++
		}
	}
}

// Logits runs one batch in inference mode and returns (N, classes), row-major.
// The labels are not looked at. stats is as for [Supernet.Evaluate].
func (s *Supernet) Logits(ctx context.Context, net *arch.Net, stats Stats, b data.Batch) ([]float32, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	b.Labels = make([]int64, b.N)
	var out []float32
	err := s.infer(net, stats, func(logits func(data.Batch) ([]float32, error)) error {
		var err error
		out, err = logits(b)
		return err
	})
	return out, err
}

// infer prepares the net once and calls f with what runs it on batches.
func (s *Supernet) infer(net *arch.Net, stats Stats, f func(logits func(data.Batch) ([]float32, error)) error) error {
	var kept torchx.Scope
	defer kept.Close()
	var l folded
	err := s.worker.Do(func(sc *torchx.Scope) (err error) {
		if err := s.bind(net); err != nil {
			return err
		}
		l, err = s.fold(sc, net, stats, &kept)
		return err
	})
	if err != nil {
		return err
	}
	return f(func(b data.Batch) (out []float32, err error) {
		if err := check(net, b); err != nil {
			return nil, err
		}
		out = make([]float32, b.N*net.Classes())
		err = s.worker.Do(func(sc *torchx.Scope) error {
			torchx.Read(forward(sc, net, s.images(sc, b), l), out)
			return nil
		})
		return out, err
	})
}

// folded runs layers in inference mode: weights and biases per op, norms
// folded into them.
type folded []struct{ weight, bias torchx.Tensor }

func (s *Supernet) fold(sc *torchx.Scope, net *arch.Net, stats Stats, kept *torchx.Scope) (folded, error) {
	l := make(folded, len(net.Ops))
	for i := range net.Ops {
		op := &net.Ops[i]
		switch {
		case op.Norm != nil:
			n, err := s.fixed(sc, op, stats)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name(net), err)
			}
			w, b := sc.FoldNorm(s.part(sc, op.Weight, false), n)
			l[i].weight, l[i].bias = sc.Move(w, kept), sc.Move(b, kept)
		case op.Weight != nil:
			l[i].weight = sc.Move(s.part(sc, op.Weight, false), kept)
			if op.Bias != nil {
				l[i].bias = sc.Move(s.part(sc, op.Bias, false), kept)
			}
		}
	}
	return l, nil
}

// fixed is the op's norm with the statistics of stats, or the supernet's own.
func (s *Supernet) fixed(sc *torchx.Scope, op *arch.Op, stats Stats) (torchx.Norm, error) {
	n := s.running(sc, op)
	n.Gamma, n.Beta = s.part(sc, op.Norm.Gamma, false), s.part(sc, op.Norm.Beta, false)
	if stats == nil {
		return n, nil
	}
	m, ok := stats[op.Name]
	if !ok || len(m.Mean) != op.Out.C || len(m.Var) != op.Out.C {
		return n, fmt.Errorf("the statistics have no %d channels for %s: they are of another net: %w", op.Out.C, op.Name, ErrNet)
	}
	c := []int64{int64(op.Out.C)}
	n.Mean, n.Var = sc.Floats(m.Mean, c, s.place), sc.Floats(m.Var, c, s.place)
	return n, nil
}

func (l folded) conv(sc *torchx.Scope, i int, op *arch.Op, x torchx.Tensor) torchx.Tensor {
	y := sc.Conv2D(x, l[i].weight, l[i].bias, op.Stride, op.Pad, op.Groups)
	torchx.Apply(y, act(op.Act))
	return y
}

func (l folded) linear(sc *torchx.Scope, i int, _ *arch.Op, x torchx.Tensor) torchx.Tensor {
	return sc.Linear(x, l[i].weight, l[i].bias)
}

func (folded) dropout(sc *torchx.Scope, _ int, _ *arch.Op, x torchx.Tensor) torchx.Tensor {
	return sc.Part(x, nil, false)
}
