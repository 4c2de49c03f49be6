package supernet

import (
	"fmt"
	"slices"

	"spos/internal/arch"
	"spos/internal/data"
	"spos/supernet/internal/torchx"
)

// bind checks that every tensor of the net is in the bag, with its shape and
// used once, so that nothing fails halfway through a step.
func (s *Supernet) bind(net *arch.Net) error {
	seen := make(map[string]bool, len(net.Ops))
	for v := range net.Views() {
		t := s.tensors[v.Name]
		switch {
		case t == nil:
			return fmt.Errorf("%s: tensor %s is not there: %w", name(net), v.Name, ErrNet)
		case !slices.Equal(t.Shape, v.Shape):
			return fmt.Errorf("%s: tensor %s has shape %v, not %v: %w", name(net), v.Name, t.Shape, v.Shape, ErrNet)
		case seen[v.Name]:
			return fmt.Errorf("%s: tensor %s is used twice: %w", name(net), v.Name, ErrNet)
		}
		seen[v.Name] = true
	}
	return nil
}

func name(net *arch.Net) string { return fmt.Sprintf("net %s of %s", net.Arch, net.Space) }

// check says whether a batch can be fed to the net.
func check(net *arch.Net, b data.Batch) error {
	switch {
	case b.N <= 0:
		return fmt.Errorf("%s: no images: %w", name(net), ErrBatch)
	case b.Shape != net.In:
		return fmt.Errorf("%s: images of %v, not %v: %w", name(net), b.Shape, net.In, ErrBatch)
	case len(b.Images) != b.N*net.In.Numel():
		return fmt.Errorf("%s: %d values for %d images of %v: %w", name(net), len(b.Images), b.N, b.Shape, ErrBatch)
	case len(b.Labels) != b.N:
		return fmt.Errorf("%s: %d labels for %d images: %w", name(net), len(b.Labels), b.N, ErrBatch)
	}
	for i, l := range b.Labels {
		if l < 0 || l >= int64(net.Classes()) {
			return fmt.Errorf("%s: label %d of image %d, with %d classes: %w", name(net), l, i, net.Classes(), ErrBatch)
		}
	}
	return nil
}

func (s *Supernet) images(sc *torchx.Scope, b data.Batch) torchx.Tensor {
	shape := []int64{int64(b.N), int64(b.Shape.C), int64(b.Shape.H), int64(b.Shape.W)}
	return sc.Floats(b.Images, shape, s.place)
}

// part is the view's share of its tensor; v may be nil.
func (s *Supernet) part(sc *torchx.Scope, v *arch.View, leaf bool) torchx.Tensor {
	if v == nil {
		return torchx.Tensor{}
	}
	return sc.Part(s.tensors[v.Name].value, spans(v.Take), leaf)
}

func spans(take []arch.Span) []torchx.Span {
	var out []torchx.Span
	for _, t := range take {
		out = append(out, torchx.Span{Start: int64(t.Start), Len: int64(t.Len)})
	}
	return out
}
