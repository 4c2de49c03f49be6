package train

import (
	"errors"
	"fmt"
	"math"
)

// Decay is how the learning rate falls.
type Decay string

// The decays. T is the number of steps after warm-up, k counts them from one.
const (
	// Linear is base·(1−k/T): the official code steps its scheduler before its
	// optimiser, so that the last step is taken at zero.
	Linear Decay = "linear"
	// Poly is base·(1−(k−1)/T): mmrazor's polynomial of power one.
	Poly Decay = "poly"
	// Cosine is half a period from base at k = 1 towards MinLR.
	Cosine Decay = "cosine"
	// Constant is base throughout.
	Constant Decay = "constant"
)

// Schedule is the length of training and the learning rate along it.
type Schedule struct {
	// Kind is the decay: linear, poly, cosine or constant. Empty: linear.
	Kind Decay `yaml:"kind"`
	// Steps is the number of optimiser steps; or Epochs the number of times
	// that training sees all images. One of the two; neither means the paper's
	// 150,000 steps.
	Steps  int64   `yaml:"steps,omitempty"`
	Epochs float64 `yaml:"epochs,omitempty"`
	// WarmupSteps rise linearly to the base rate, base·k/WarmupSteps, before
	// the decay begins. They are part of Steps. Zero: none.
	WarmupSteps int64 `yaml:"warmup_steps,omitempty"`
	// MinLR is the least rate after warm-up: linear and constant stop there,
	// poly and cosine end there.
	MinLR float64 `yaml:"min_lr,omitempty"`
}

// defaultSteps is the length of the official supernet's training.
const defaultSteps = 150_000

// Validate reports the first field that makes no sense.
func (s Schedule) Validate() error {
	switch s.Kind {
	case "", Linear, Poly, Cosine, Constant:
	default:
		return fmt.Errorf("kind: %q is none of linear, poly, cosine, constant", s.Kind)
	}
	switch {
	case s.Steps != 0 && s.Epochs != 0:
		return errors.New("steps, epochs: give one of them (0 takes back what a file says)")
	case s.Steps < 0 || !(s.Epochs >= 0 && s.Epochs <= 1e6):
		return errors.New("steps, epochs: out of range")
	case s.WarmupSteps < 0 || s.Steps > 0 && s.WarmupSteps >= s.Steps:
		return fmt.Errorf("warmup_steps: %d is outside 0 to steps", s.WarmupSteps)
	case !(s.MinLR >= 0 && s.MinLR < math.Inf(1)):
		return fmt.Errorf("min_lr: %v is no learning rate", s.MinLR)
	}
	return nil
}

// Total is the number of steps where an epoch has perEpoch of them, at least
// one.
func (s Schedule) Total(perEpoch int64) int64 {
	switch {
	case s.Steps > 0:
		return s.Steps
	case s.Epochs > 0:
		return max(1, int64(math.Round(s.Epochs*float64(perEpoch))))
	default:
		return defaultSteps
	}
}

// LR is the learning rate of step k out of total, counted from one.
func (s Schedule) LR(base float64, k, total int64) float64 {
	if k <= s.WarmupSteps {
		return base * float64(k) / float64(s.WarmupSteps)
	}
	k, t := k-s.WarmupSteps, float64(total-s.WarmupSteps)
	switch s.Kind {
	case Poly:
		return s.MinLR + (base-s.MinLR)*(1-float64(k-1)/t)
	case Cosine:
		return s.MinLR + (base-s.MinLR)*(1+math.Cos(math.Pi*float64(k-1)/t))/2
	case Constant:
		return max(base, s.MinLR)
	default:
		return max(base*(1-float64(k)/t), s.MinLR)
	}
}
