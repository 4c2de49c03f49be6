package supernet

import (
	"context"
	"fmt"

	"spos/internal/arch"
	"spos/internal/data"
	"spos/supernet/internal/torchx"
)

// StepResult is what a training step saw, before its update.
type StepResult struct {
	Loss    float64 // mean over the batch, label smoothing included
	Correct int     // images whose largest logit was their label's
}

// Step trains one path on one batch: forward with the batch's own statistics,
// backward, and SGD on exactly the tensors that the net uses. Nothing else
// changes: other paths get neither decay nor momentum. The error wraps
// [ErrNet] or [ErrBatch]. A loss that is not finite is no error, but the
// weights are spoiled then.
func (s *Supernet) Step(ctx context.Context, net *arch.Net, b data.Batch, lr float64) (StepResult, error) {
	if err := ctx.Err(); err != nil {
		return StepResult{}, context.Cause(ctx)
	}
	if err := check(net, b); err != nil {
		return StepResult{}, err
	}
	if err := checkNorms(net, b.N); err != nil {
		return StepResult{}, err
	}
	var r StepResult
	err := s.worker.Do(func(sc *torchx.Scope) error {
		if err := s.bind(net); err != nil {
			return err
		}
		t := s.trainer(s.running)
		loss, logits, labels := s.gradients(sc, net, b, t)
		s.update(sc, t, lr)
		s.steps++
		// Last: it waits for the device.
		r.Loss, r.Correct = torchx.Score(loss, logits, labels)
		return nil
	})
	return r, err
}

// checkNorms refuses a batch that leaves a norm one value per channel: it has
// no variance.
func checkNorms(net *arch.Net, n int) error {
	for i := range net.Ops {
		if op := &net.Ops[i]; op.Norm != nil && n*op.Out.H*op.Out.W < 2 {
			return fmt.Errorf("%s: one image gives the norm of %s a single value per channel; use a larger batch: %w", name(net), op.Name, ErrBatch)
		}
	}
	return nil
}

// gradients runs forward and backward; t has the leaves afterwards.
func (s *Supernet) gradients(sc *torchx.Scope, net *arch.Net, b data.Batch, t *trainer) (loss, logits, labels torchx.Tensor) {
	t.leaf = true
	x := s.images(sc, b)
	labels = sc.Ints(b.Labels, s.place)
	sc.WithGrad(func() {
		logits = forward(sc, net, x, t)
		loss = sc.CrossEntropy(logits, labels, s.options.labelSmoothing())
		torchx.Backward(loss)
	})
	return loss, logits, labels
}

// update moves the trainer's leaves along their gradients.
func (s *Supernet) update(sc *torchx.Scope, t *trainer, lr float64) {
	velocity := make([]torchx.Tensor, len(t.leaves))
	decay := make([]float64, len(t.leaves))
	for i, v := range t.views {
		own := s.tensors[v.Name]
		if own.velocity.T == nil {
			own.velocity = sc.Move(sc.ZerosLike(own.value), &s.home)
		}
		velocity[i] = sc.Part(own.velocity, spans(v.Take), false)
		decay[i] = own.decay
	}
	torchx.SGD{
		LR: lr, Momentum: s.options.momentum(), Nesterov: s.options.Nesterov,
		ClipNorm: s.options.ClipNorm, ClipValue: s.options.ClipValue,
	}.Step(t.leaves, velocity, decay)
}

// trainer runs layers in training mode.
type trainer struct {
	s    *Supernet
	leaf bool // weights collect gradients, and dropout is on
	norm func(*torchx.Scope, *arch.Op) torchx.Norm

	views  []*arch.View // what the leaves are parts of
	leaves []torchx.Tensor
}

func (s *Supernet) trainer(norm func(*torchx.Scope, *arch.Op) torchx.Norm) *trainer {
	return &trainer{s: s, norm: norm}
}

// running are the statistics that a supernet itself keeps.
func (s *Supernet) running(sc *torchx.Scope, op *arch.Op) torchx.Norm {
	return torchx.Norm{
		Mean: s.part(sc, &op.Norm.Mean, false), Var: s.part(sc, &op.Norm.Var, false),
		Momentum: op.Norm.Momentum, Eps: op.Norm.Eps,
	}
}

func (t *trainer) weight(sc *torchx.Scope, v *arch.View) torchx.Tensor {
	w := t.s.part(sc, v, t.leaf)
	if v != nil && t.leaf {
		t.views, t.leaves = append(t.views, v), append(t.leaves, w)
	}
	return w
}

func (t *trainer) conv(sc *torchx.Scope, _ int, op *arch.Op, x torchx.Tensor) torchx.Tensor {
	var y torchx.Tensor
	if w := t.weight(sc, op.Weight); op.Groups == op.In.C && op.Groups == op.Out.C && op.Groups > 1 {
		y = sc.Depthwise(x, w, op.Stride, op.Pad)
	} else {
		y = sc.Conv2D(x, w, torchx.Tensor{}, op.Stride, op.Pad, op.Groups)
	}
	defer sc.Free(y)
	n := t.norm(sc, op)
	n.Gamma, n.Beta = t.weight(sc, op.Norm.Gamma), t.weight(sc, op.Norm.Beta)
	return sc.NormAct(y, n, act(op.Act))
}

func (t *trainer) linear(sc *torchx.Scope, _ int, op *arch.Op, x torchx.Tensor) torchx.Tensor {
	return sc.Linear(x, t.weight(sc, op.Weight), t.weight(sc, op.Bias))
}

func (t *trainer) dropout(sc *torchx.Scope, i int, op *arch.Op, x torchx.Tensor) torchx.Tensor {
	rate := op.Rate
	if !t.leaf {
		rate = 0
	}
	return sc.Dropout(x, rate, dropoutSeed(t.s.options.Seed, t.s.steps, i))
}

// dropoutSeed mixes (seed, step, op) with splitmix64's finaliser, so that
// neighbouring steps have unrelated masks and a resumed run repeats its own.
func dropoutSeed(seed, step uint64, op int) uint64 {
	z := seed
	for _, v := range [...]uint64{step, uint64(op)} {
		z += 0x9e3779b97f4a7c15 * (v + 1)
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		z ^= z >> 31
	}
	return z
}
