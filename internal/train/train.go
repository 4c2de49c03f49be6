// Package train is the training loop: which path and which images belong to
// a step, the learning rate along the way, reports, checkpoints, a clean stop
// and an exact resume. It knows a [Stepper] and never a tensor.
package train

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"time"

	"spos/internal/arch"
	"spos/internal/data"
)

// ErrDiverged is wrapped when a loss is not finite. The weights are spoiled;
// the last checkpoint is not.
var ErrDiverged = errors.New("train: diverged")

// StepResult is what one step saw before its update.
type StepResult struct {
	Loss    float64 // mean over the batch
	Correct int     // images whose largest logit was their label's
}

// Stepper trains a net on one batch at a learning rate. Its context is never
// cancelled: a step is taken or it is not.
type Stepper func(ctx context.Context, net *arch.Net, b data.Batch, lr float64) (StepResult, error)

// Source yields the batches of the steps after from, without end. What a
// batch holds depends on its step alone.
type Source func(ctx context.Context, from int64) iter.Seq2[data.Batch, error]

// Loop trains from one step to another. The first four fields are required.
// The hooks are called between steps, on the loop's own goroutine; one that
// fails ends the loop.
type Loop struct {
	Step    Stepper
	Paths   PathSampler
	Batches Source
	LR      func(step int64) float64 // of steps counted from one
	Steps   int64                    // in all

	// Report is told what the steps since its last call saw, every
	// ReportEvery steps and at the end. Zero: at the end only.
	Report      func(Progress) error
	ReportEvery int64
	// Evaluate measures the weights, every EvaluateEvery steps and at the end.
	// Zero: at the end only. It comes before the checkpoint of its step, so
	// that a run which is killed between the two repeats it. The last one may
	// finish the weights, as long as doing so twice is as good as once.
	Evaluate      func(ctx context.Context, step int64) error
	EvaluateEvery int64
	// Checkpoint keeps the weights, every CheckpointEvery steps and whenever
	// the loop ends with weights that are worth it: at the last step, on
	// cancellation, after an error that is not the step's own. Its context is
	// never cancelled. It is called once for a step at most, and once more for
	// the last step of a run that goes on there, after its evaluation.
	Checkpoint      func(ctx context.Context, step int64) error
	CheckpointEvery int64

	Now func() time.Time // nil: time.Now
}

// Progress is what the steps since the last report saw.
type Progress struct {
	Step, Steps     int64
	Arch            arch.Arch     // of the last step
	LR              float64       // of the last step
	Loss            float64       // mean over the images
	Top1            float64       // share of them that was right, in training
	Elapsed         time.Duration // in these steps, hooks not counted
	ImagesPerSecond float64
	Wait            float64       // share of Elapsed spent waiting for images
	Remaining       time.Duration // at the speed since Run began
}

func (l *Loop) validate(from int64) error {
	switch {
	case l.Step == nil || l.Paths == nil || l.Batches == nil || l.LR == nil:
		return errors.New("train: Step, Paths, Batches and LR are required")
	case from < 0 || from > l.Steps:
		return fmt.Errorf("train: cannot go on after step %d of %d: the checkpoint is of a longer run; set schedule.steps", from, l.Steps)
	}
	return nil
}

// Run takes the steps after from, the step of the checkpoint that the
// Stepper's state was restored from, or zero. The steps are the same ones as
// in a run that was never interrupted. It returns nil after the last step; the
// context's cause, wrapped, when ctx is done; and errors of any part, naming
// the step. A run that is at its last step already is evaluated and kept: what
// interrupted it may have been its evaluation.
func (l *Loop) Run(ctx context.Context, from int64) error {
	if err := l.validate(from); err != nil {
		return err
	}
	now := l.Now
	if now == nil {
		now = time.Now
	}
	r := &running{Loop: l, now: now, from: from, step: from, saved: from}
	err := r.train(ctx)
	if r.spoiled {
		return err
	}
	return errors.Join(err, r.save(ctx))
}

// running is one call of Run.
type running struct {
	*Loop
	now     func() time.Time
	from    int64
	step    int64 // taken
	saved   int64 // has a checkpoint
	spoiled bool  // a step failed: the weights are not those of r.step

	window window        // since the last report
	spent  time.Duration // in steps and waiting, since from
}

// window adds up what the steps between two reports saw.
type window struct {
	images, correct int
	loss            float64 // weighted by images
	wait, compute   time.Duration
	last            Progress // of the last step: Arch and LR
}

func (r *running) train(ctx context.Context) error {
	if r.step == r.Steps {
		if err := r.evaluate(ctx); err != nil {
			return err
		}
		if r.Evaluate != nil {
			r.saved = -1 // without what the evaluation did to the weights
		}
		return nil
	}
	before := r.now()
	for b, err := range r.Batches(ctx, r.from) {
		if ctx.Err() != nil {
			return fmt.Errorf("train: stopped after step %d of %d: %w", r.step, r.Steps, context.Cause(ctx))
		}
		if err != nil {
			return fmt.Errorf("train: images of step %d: %w", r.step+1, err)
		}
		if err := r.take(ctx, b, before); err != nil {
			return err
		}
		if err := r.hooks(ctx); err != nil {
			return err
		}
		if r.step == r.Steps {
			return nil
		}
		before = r.now()
	}
	return fmt.Errorf("train: images ended after step %d of %d", r.step, r.Steps)
}

// take takes the next step; before is when it began to wait for b.
func (r *running) take(ctx context.Context, b data.Batch, before time.Time) error {
	step := r.step + 1
	net, err := r.Paths.Path(step)
	if err != nil {
		return fmt.Errorf("train: path of step %d: %w", step, err)
	}
	lr := r.LR(step)
	arrived := r.now()
	res, err := r.Step(context.WithoutCancel(ctx), net, b, lr)
	if err == nil && (math.IsNaN(res.Loss) || math.IsInf(res.Loss, 0)) {
		err = fmt.Errorf("the loss is %v: start another --work-dir with a lower optimizer.lr, a warm-up or optimizer.clip_norm, and init_from a checkpoint of this one: %w", res.Loss, ErrDiverged)
	}
	if err != nil {
		r.spoiled = true
		return fmt.Errorf("train: step %d, path %s, learning rate %g: %w", step, net.Arch, lr, err)
	}
	r.step = step
	w := &r.window
	w.images += b.N
	w.correct += res.Correct
	w.loss += res.Loss * float64(b.N)
	w.wait += arrived.Sub(before)
	w.compute += r.now().Sub(arrived)
	w.last = Progress{Arch: net.Arch, LR: lr}
	return nil
}

func (r *running) hooks(ctx context.Context) error {
	if r.due(r.ReportEvery) {
		if err := r.report(); err != nil {
			return err
		}
	}
	if r.due(r.EvaluateEvery) {
		if err := r.evaluate(ctx); err != nil {
			return err
		}
	}
	if r.due(r.CheckpointEvery) {
		return r.save(ctx)
	}
	return nil
}

func (r *running) due(every int64) bool {
	return r.step == r.Steps || every > 0 && r.step%every == 0
}

func (r *running) report() error {
	w := r.window
	r.window = window{}
	r.spent += w.wait + w.compute
	if r.Report == nil {
		return nil
	}
	p := w.last
	p.Step, p.Steps = r.step, r.Steps
	p.Loss, p.Top1 = w.loss/float64(w.images), float64(w.correct)/float64(w.images)
	p.Elapsed = w.wait + w.compute
	if t := p.Elapsed.Seconds(); t > 0 {
		p.ImagesPerSecond, p.Wait = float64(w.images)/t, w.wait.Seconds()/t
	}
	p.Remaining = time.Duration(float64(r.spent) / float64(r.step-r.from) * float64(r.Steps-r.step))
	if err := r.Report(p); err != nil {
		return fmt.Errorf("train: report step %d: %w", r.step, err)
	}
	return nil
}

func (r *running) evaluate(ctx context.Context) error {
	if r.Evaluate == nil {
		return nil
	}
	if err := r.Evaluate(ctx, r.step); err != nil {
		return fmt.Errorf("train: evaluate step %d: %w", r.step, err)
	}
	return nil
}

func (r *running) save(ctx context.Context) error {
	if r.Checkpoint == nil || r.saved == r.step {
		return nil
	}
	r.saved = r.step // not again, should it fail
	if err := r.Checkpoint(context.WithoutCancel(ctx), r.step); err != nil {
		return fmt.Errorf("train: checkpoint of step %d: %w", r.step, err)
	}
	return nil
}
