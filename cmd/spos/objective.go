package main

import (
	"context"
	"fmt"
	"iter"
	"math"

	"spos/internal/arch"
	"spos/internal/config"
	"spos/internal/data"
	"spos/search"
	"spos/supernet"
)

// judge scores nets by the supernet's weights: batch-norm statistics of the
// net's own on training images, then accuracy on images held out of training.
type judge struct {
	*setup
	model       *supernet.Supernet
	calibration config.Images
	validation  config.Images
	known       map[arch.Arch]search.Score // an arch's score never changes
}

func newJudge(s *setup, m *supernet.Supernet, calibration, validation config.Images) *judge {
	return &judge{setup: s, model: m, calibration: calibration, validation: validation, known: map[arch.Arch]search.Score{}}
}

// scores is a [search.Objective].
func (j *judge) scores(ctx context.Context, nets []*arch.Net) ([]search.Score, error) {
	scores := make([]search.Score, len(nets))
	for i, n := range nets {
		score, ok := j.known[n.Arch]
		if !ok {
			acc, err := j.accuracy(ctx, n.Arch)
			if err != nil {
				return nil, err
			}
			score = scoreOf(acc)
			j.known[n.Arch] = score
		}
		scores[i] = score
	}
	return scores, nil
}

// scoreOf leaves out a loss that a journal cannot hold.
func scoreOf(a supernet.Accuracy) search.Score {
	s := search.Score{Accuracy: a.Top1, Values: map[string]float64{"top5": a.Top5}}
	if finite(a.Loss) {
		s.Values["loss"] = a.Loss
	}
	return s
}

// finite tells whether JSON can say x.
func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }

// accuracy calibrates and evaluates one path of the supernet.
func (j *judge) accuracy(ctx context.Context, a arch.Arch) (supernet.Accuracy, error) {
	path, err := j.space.Path(a)
	if err != nil {
		return supernet.Accuracy{}, err
	}
	stats, err := j.model.Calibrate(ctx, path, j.calibrationBatches(ctx))
	if err != nil {
		return supernet.Accuracy{}, err
	}
	held := j.sets.Val
	if n := j.validation.Images; n > 0 && n < held.Len() {
		held = data.Sample(held, n, j.cfg.Seed)
	}
	return j.model.Evaluate(ctx, path, stats, j.evalLoader(held, j.validation.Batch).Batches(ctx, data.Position{}))
}

// calibrationBatches yields the first epoch of the calibration images, the
// same for every net, augmented as in training.
func (j *judge) calibrationBatches(ctx context.Context) iter.Seq2[data.Batch, error] {
	d := subset(j.sets.Train, j.calibration.Images, j.cfg.Seed)
	return oneEpoch(ctx, j.trainLoader(d, min(j.calibration.Batch, d.Len())))
}

// subset is n images of d, all of it for zero or too many.
func subset(d data.Dataset, n int, seed uint64) data.Dataset {
	if n == 0 || n >= d.Len() {
		return d
	}
	return data.Sample(d, n, seed)
}

// oneEpoch ends a training loader's endless sequence.
func oneEpoch(ctx context.Context, l *data.Loader) iter.Seq2[data.Batch, error] {
	return func(yield func(data.Batch, error) bool) {
		if l.PerEpoch() == 0 {
			yield(data.Batch{}, fmt.Errorf("%d images do not fill a batch of %d", l.Data.Len(), l.Size))
			return
		}
		seen := 0
		for b, err := range l.Batches(ctx, data.Position{}) {
			if !yield(b, err) {
				return
			}
			if seen++; seen == l.PerEpoch() {
				return
			}
		}
	}
}
