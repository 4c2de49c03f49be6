package train

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"

	"spos/internal/arch"
)

// PathSampler says which net a step trains. The answer depends on the step
// alone, so a resumed run and every rank of a parallel one agree without
// talking.
type PathSampler interface {
	Path(step int64) (*arch.Net, error)
}

// Fixed trains one net at every step.
type Fixed struct{ Net *arch.Net }

// Path implements [PathSampler].
func (f Fixed) Path(int64) (*arch.Net, error) { return f.Net, nil }

// Uniform draws each block's candidate uniformly: the paper's sampling.
type Uniform struct {
	Space *arch.Space
	Seed  uint64
}

// Path implements [PathSampler].
func (u Uniform) Path(step int64) (*arch.Net, error) {
	return u.Space.Path(u.Space.Sample(source(u.Seed, step)))
}

// pathStream keeps the draws of paths apart from others made from the same
// seed, such as the order of images.
const pathStream = 0x70617468 // "path"

func source(seed uint64, step int64) *rand.Rand {
	return rand.New(rand.NewPCG(seed^pathStream, uint64(step)))
}

// Sampling chooses the sampler of a supernet.
type Sampling struct {
	// Kind is uniform, or uniform-constrained: uniform within a bin of FLOPs
	// that is drawn first. Empty: uniform.
	Kind string `yaml:"kind"`
	// The rest is for uniform-constrained: Bins bins of Width FLOPs from Min.
	// Zero: 7 bins of 10,000,000 from 290,000,000, as in the official code.
	Min   int64 `yaml:"min,omitempty"`
	Width int64 `yaml:"width,omitempty"`
	Bins  int   `yaml:"bins,omitempty"`
	// Counter of the FLOPs: macs, mmcv or thop. Empty: macs.
	Counter arch.Counter `yaml:"counter,omitempty"`
	// Tries bounds the draws for one bin; then any path is taken. Zero: 500.
	Tries int `yaml:"tries,omitempty"`
}

// Validate reports the first field that makes no sense.
func (s Sampling) Validate() error {
	switch s.Kind {
	case "", "uniform", "uniform-constrained":
	default:
		return fmt.Errorf("kind: %q is none of uniform, uniform-constrained", s.Kind)
	}
	switch s.Counter {
	case "", arch.MACs, arch.MMCV, arch.Thop:
	default:
		return fmt.Errorf("counter: %q is none of macs, mmcv, thop", s.Counter)
	}
	if s.Min < 0 || s.Width < 0 || s.Bins < 0 || s.Tries < 0 {
		return errors.New("min, width, bins, tries: none may be negative")
	}
	return nil
}

// Sampler makes the sampler for a space.
func (s Sampling) Sampler(space *arch.Space, seed uint64) (PathSampler, error) {
	if s.Kind != "uniform-constrained" {
		return Uniform{space, seed}, nil
	}
	return NewConstrained(space, seed, s)
}

// Constrained is the official code's uniform-constrained sampling:
// a bin of FLOPs is drawn uniformly, then uniform paths until one
// falls into it, or any path after bounded tries.
type Constrained struct {
	space      *arch.Space
	seed       uint64
	min, width int64
	bins       int
	tries      int

	base  int64     // FLOPs of the net of all zeros
	delta [][]int64 // what candidate j of block i adds to it
}

// NewConstrained reads the bins of s.
func NewConstrained(space *arch.Space, seed uint64, s Sampling) (*Constrained, error) {
	c := &Constrained{
		space: space, seed: seed,
		min: cmp.Or(s.Min, 290_000_000), width: cmp.Or(s.Width, 10_000_000), bins: cmp.Or(s.Bins, 7),
		tries: cmp.Or(s.Tries, 500),
	}
	// A block's output shape does not depend on its candidate, so FLOPs add up.
	flops := func(choices []int) (int64, error) {
		n, err := space.Net(arch.Make(choices))
		if err != nil {
			return 0, fmt.Errorf("count FLOPs: %w", err)
		}
		return n.Cost().FLOPs.Of(s.Counter), nil
	}
	choices := make([]int, space.Len())
	var err error
	if c.base, err = flops(choices); err != nil {
		return nil, err
	}
	low, high := c.base, c.base
	for i := range choices {
		row := make([]int64, len(space.Candidates(i)))
		for choices[i] = range row {
			f, err := flops(choices)
			if err != nil {
				return nil, err
			}
			row[choices[i]] = f - c.base
		}
		choices[i] = 0
		low, high = low+slices.Min(row), high+slices.Max(row)
		c.delta = append(c.delta, row)
	}
	if end := c.min + int64(c.bins)*c.width; high < c.min || low > end {
		return nil, fmt.Errorf("sampler: no net of space %s lies in the bins from %d to %d: its FLOPs are %d to %d; set sampler.min and sampler.width", space.Name, c.min, end, low, high)
	}
	return c, nil
}

// Path implements [PathSampler].
func (c *Constrained) Path(step int64) (*arch.Net, error) {
	a, _, _ := c.draw(source(c.seed, step))
	return c.space.Path(a)
}

// draw also returns the bin and the number of draws that were tried for it:
// more than c.tries where none fell into it.
func (c *Constrained) draw(r *rand.Rand) (a arch.Arch, bin, tries int) {
	bin = r.IntN(c.bins)
	low := c.min + int64(bin)*c.width
	for tries = 1; tries <= c.tries; tries++ {
		a = c.space.Sample(r)
		if f := c.flops(a); low <= f && f <= low+c.width {
			return a, bin, tries
		}
	}
	return c.space.Sample(r), bin, tries
}

func (c *Constrained) flops(a arch.Arch) int64 {
	f := c.base
	for i := range c.delta {
		j, _ := a.Choice(i) // drawn from the space
		f += c.delta[i][j]
	}
	return f
}
