package export

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"spos/internal/arch"
)

// errNotFinite is about weights that diverged: an exported NaN would be found
// only in production.
var errNotFinite = errors.New("not a finite number")

// view fetches the part of a tensor that a net uses.
func view(w Weights, v *arch.View) ([]float32, error) {
	t, err := w.Tensor(v.Name)
	if err != nil {
		return nil, err
	}
	if !slices.Equal(t.Shape, v.Shape) || len(t.Data) != v.Param.Numel() {
		return nil, fmt.Errorf("tensor %s has shape %v (%d elements); the space says %v", v.Name, t.Shape, len(t.Data), v.Shape)
	}
	part := v.Slice(t.Data)
	for i, x := range part {
		if d := float64(x); math.IsNaN(d) || math.IsInf(d, 0) {
			return nil, fmt.Errorf("tensor %s, element %d: %v is %w", v.Name, i, x, errNotFinite)
		}
	}
	return part, nil
}

// norm is the four vectors of a batch norm in evaluation mode.
type norm struct {
	gamma, beta, mean, variance []float32
	eps                         float64
}

// fetchNorm reads a convolution's norm; gamma and beta are one and zero where
// it is not affine.
func fetchNorm(w Weights, s Stats, o *arch.Op) (norm, error) {
	n := norm{eps: o.Norm.Eps}
	var err error
	if n.gamma, err = viewOr(w, o.Norm.Gamma, 1, o.Out.C); err != nil {
		return n, err
	}
	if n.beta, err = viewOr(w, o.Norm.Beta, 0, o.Out.C); err != nil {
		return n, err
	}
	if n.mean, n.variance, err = moments(w, s, o); err != nil {
		return n, err
	}
	for c, v := range n.variance {
		if float64(v)+n.eps <= 0 {
			return n, fmt.Errorf("op %s, channel %d: variance %v is not positive", o.Name, c, v)
		}
	}
	return n, nil
}

func viewOr(w Weights, v *arch.View, fill float32, c int) ([]float32, error) {
	if v != nil {
		return view(w, v)
	}
	return slices.Repeat([]float32{fill}, c), nil
}

func moments(w Weights, s Stats, o *arch.Op) (mean, variance []float32, err error) {
	if s != nil {
		mean, variance, ok := s.Moments(o.Name)
		if ok && (len(mean) != o.Out.C || len(variance) != o.Out.C) {
			return nil, nil, fmt.Errorf("op %s: statistics of %d and %d channels for %d", o.Name, len(mean), len(variance), o.Out.C)
		}
		if ok {
			return mean, variance, nil
		}
	}
	if mean, err = view(w, &o.Norm.Mean); err != nil {
		return nil, nil, err
	}
	if variance, err = view(w, &o.Norm.Var); err != nil {
		return nil, nil, err
	}
	return mean, variance, nil
}

// fold multiplies the norm into the weights of its convolution, in place, and
// returns the bias that is left: w·γ/√(σ²+ε) and β − μ·γ/√(σ²+ε), in float64.
// The product is rounded before the difference on every processor.
func (n norm) fold(weight []float32) []float32 {
	bias := make([]float32, len(n.gamma))
	per := len(weight) / len(n.gamma)
	for c := range bias {
		s := float64(n.gamma[c]) / math.Sqrt(float64(n.variance[c])+n.eps)
		row := weight[c*per : (c+1)*per]
		for i, x := range row {
			row[i] = float32(float64(x) * s)
		}
		bias[c] = float32(float64(n.beta[c]) - float64(float64(n.mean[c])*s))
	}
	return bias
}

// rawFloats is the little-endian raw_data of a float tensor.
func rawFloats(xs []float32) []byte {
	b := make([]byte, 0, 4*len(xs))
	for _, x := range xs {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return b
}

func rawInts(xs []int64) []byte {
	b := make([]byte, 0, 8*len(xs))
	for _, x := range xs {
		b = binary.LittleEndian.AppendUint64(b, uint64(x))
	}
	return b
}
