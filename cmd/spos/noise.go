package main

import (
	"iter"
	"math/rand/v2"

	"spos/configs"
	"spos/internal/arch"
	"spos/internal/ckpt"
	"spos/internal/config"
	"spos/internal/data"
	"spos/internal/imaging"
)

// restoreAlone is [restore] of a single net without any data set: what an
// imported checkpoint is until somebody names images.
func restoreAlone(c *ckpt.Checkpoint) (*restored, error) {
	cfg, err := configOf(c, func(t *config.Train) { t.Device = "cpu" })
	if err != nil {
		return nil, err
	}
	s := &setup{cfg: cfg}
	if s.space, err = configs.ParseSpace([]byte(c.State.Space.Text), c.Path+": space"); err != nil {
		return nil, err
	}
	if s.net, err = s.space.Net(arch.Arch(c.State.Arch)); err != nil {
		return nil, err
	}
	return &restored{s, c}, nil
}

// noise is n images of random pixels, preprocessed as the net wants them, at
// most size of them in a batch.
func noise(r imaging.Recipe, in arch.Shape, n, size int, seed uint64) iter.Seq2[data.Batch, error] {
	return func(yield func(data.Batch, error) bool) {
		pixels := rand.New(rand.NewPCG(seed, 0))
		for n > 0 {
			b := data.Batch{N: min(n, size), Shape: in}
			b.Images, b.Labels = make([]float32, b.N*in.Numel()), make([]int64, b.N)
			for i := range b.N {
				m := imaging.NewImage(in.W, in.H, in.C)
				for p := range m.Pix {
					m.Pix[p] = uint8(pixels.IntN(256))
				}
				if err := r.Apply(m, b.Images[i*in.Numel():(i+1)*in.Numel()]); err != nil {
					yield(data.Batch{}, err)
					return
				}
			}
			n -= b.N
			if !yield(b, nil) {
				return
			}
		}
	}
}
