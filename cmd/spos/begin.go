package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"spos/internal/ckpt"
	"spos/internal/runs"
)

// begin restores the newest checkpoint, or the weights that training is to
// start from, and returns the step it continues after.
func (t *trainer) begin() (int64, error) {
	c, err := ckpt.Latest(t.run.Path(ckpt.Dir))
	if errors.Is(err, ckpt.ErrNone) {
		if err := t.inherit(); err != nil {
			return 0, err
		}
		return 0, t.run.Rewind(0)
	}
	if err != nil {
		return 0, err
	}
	if was := c.State.Lineage.Data; was != "" && was != t.sets.Fingerprint {
		return 0, fmt.Errorf("data.path: the images of %s are not those that the run in %s began with: restore them, or give another --work-dir", t.cfg.Data.Path, t.run.Dir)
	}
	model, err := c.Model()
	if err != nil {
		return 0, err
	}
	defer model.Close()
	if err := t.model.Load(model); err != nil {
		return 0, fmt.Errorf("resume from %s: %w", c.Path, err)
	}
	optimizer, err := c.Optimizer()
	if err != nil {
		return 0, err
	}
	defer optimizer.Close()
	if err := t.model.LoadOptimizerState(optimizer); err != nil {
		return 0, fmt.Errorf("resume from %s: %w", c.Path, err)
	}
	ms, err := runs.ReadMetrics(t.run.Dir)
	if err != nil {
		return 0, err
	}
	for _, m := range ms {
		if m.Step <= c.State.Step && m.Values["train/seconds"] > 0 {
			t.out.Seconds = m.Values["train/seconds"]
		}
	}
	return c.State.Step, t.run.Rewind(c.State.Step)
}

// inherit takes over from init_from every tensor that is of the same name and
// shape.
func (t *trainer) inherit() error {
	if t.cfg.InitFrom == "" {
		return nil
	}
	c, err := ckpt.Find(t.cfg.InitFrom)
	if err != nil {
		return fmt.Errorf("init_from: %w", err)
	}
	f, err := c.Model()
	if err != nil {
		return fmt.Errorf("init_from: %w", err)
	}
	defer f.Close()
	own, taken := bag(maps.Collect(t.model.Tensors())), 0
	for name, tensor := range own {
		other, err := f.Tensor(name)
		if errors.Is(err, ckpt.ErrMissing) || err == nil && !slices.Equal(other.Shape, tensor.Shape) {
			continue
		}
		if err != nil {
			return fmt.Errorf("init_from: %w", err)
		}
		own[name] = other
		taken++
	}
	if taken == 0 {
		return fmt.Errorf("init_from: %s has none of the %d tensors of this net: it is of another space", c.Path, len(own))
	}
	return t.model.Load(own)
}

// bag is tensors in memory, as a source of weights.
type bag map[string]ckpt.Tensor

// Tensor returns one by its name.
func (b bag) Tensor(name string) (ckpt.Tensor, error) {
	t, ok := b[name]
	if !ok {
		return t, fmt.Errorf("%s: %w", name, ckpt.ErrMissing)
	}
	return t, nil
}

// Names lists them.
func (b bag) Names() []string { return slices.Sorted(maps.Keys(b)) }
