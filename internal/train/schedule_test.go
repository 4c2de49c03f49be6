package train_test

import (
	"math"
	"strings"
	"testing"

	"spos/internal/train"
)

func TestLR(t *testing.T) {
	for name, c := range map[string]struct {
		s        train.Schedule
		k, total int64
		want     float64
	}{
		// 0.5·(1−k/T), k = 1…T, in the official code.
		"linear first":  {train.Schedule{}, 1, 150_000, 0.5 * (1 - 1.0/150_000)},
		"linear middle": {train.Schedule{Kind: train.Linear}, 75_000, 150_000, 0.25},
		"linear last":   {train.Schedule{Kind: train.Linear}, 150_000, 150_000, 0},
		// 0.5·(1−i/T), i = 0…, in mmrazor.
		"poly first": {train.Schedule{Kind: train.Poly}, 1, 150_000, 0.5},
		"poly last":  {train.Schedule{Kind: train.Poly}, 150_000, 150_000, 0.5 / 150_000},
		"poly min":   {train.Schedule{Kind: train.Poly, MinLR: 0.1}, 6, 10, 0.1 + 0.4*0.5},
		// The floor of AngleNAS's linear schedule.
		"linear floor":        {train.Schedule{MinLR: 5e-4}, 250, 250, 5e-4},
		"cosine first":        {train.Schedule{Kind: train.Cosine}, 1, 100, 0.5},
		"cosine middle":       {train.Schedule{Kind: train.Cosine}, 51, 100, 0.25},
		"cosine third":        {train.Schedule{Kind: train.Cosine, MinLR: 0.1}, 61, 90, 0.1 + 0.4*0.25},
		"constant":            {train.Schedule{Kind: train.Constant}, 99, 100, 0.5},
		"warm-up first":       {train.Schedule{WarmupSteps: 5}, 1, 105, 0.1},
		"warm-up last":        {train.Schedule{WarmupSteps: 5}, 5, 105, 0.5},
		"after warm-up":       {train.Schedule{WarmupSteps: 5}, 6, 105, 0.5 * 0.99},
		"end after warm-up":   {train.Schedule{WarmupSteps: 5}, 105, 105, 0},
		"cosine from warm-up": {train.Schedule{Kind: train.Cosine, WarmupSteps: 5}, 6, 105, 0.5},
	} {
		if got := c.s.LR(0.5, c.k, c.total); math.Abs(got-c.want) > 1e-15 {
			t.Errorf("%s: LR(0.5, %d, %d) = %v, want %v", name, c.k, c.total, got, c.want)
		}
	}
}

func TestScheduleTotal(t *testing.T) {
	for _, c := range []struct {
		s    train.Schedule
		want int64
	}{
		{train.Schedule{Steps: 7}, 7},
		{train.Schedule{Epochs: 3}, 300},
		{train.Schedule{Epochs: 0.505}, 51},
		{train.Schedule{Epochs: 1e-9}, 1},
		{train.Schedule{}, 150_000},
	} {
		if got := c.s.Total(100); got != c.want {
			t.Errorf("%+v: total %d, want %d", c.s, got, c.want)
		}
	}
}

func TestScheduleValidate(t *testing.T) {
	for want, s := range map[string]train.Schedule{
		"kind: \"sine\"": {Kind: "sine", Steps: 1},
		"give one":       {Steps: 1, Epochs: 1},
		"out of range":   {Steps: -1},
		"out of":         {Epochs: math.NaN()},
		"warmup_steps":   {Steps: 5, WarmupSteps: 5},
		"min_lr":         {Steps: 5, MinLR: math.NaN()},
	} {
		if err := s.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", s, err, want)
		}
	}
	if err := (train.Schedule{Epochs: 3, WarmupSteps: 10}).Validate(); err != nil {
		t.Error(err)
	}
}
