// Package refnet executes a net in plain Go, from the definitions of its ops
// and in float64: the referee between runtimes in tests. It is meant to be
// obviously right; speed is not its business.
package refnet

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"

	"spos/internal/arch"
	"spos/internal/ckpt"
)

// Weights is where tensors come from.
type Weights interface {
	Tensor(name string) (ckpt.Tensor, error)
}

// Stats replaces a batch norm's running statistics, by the op's name; ok is
// false where those of the weights hold.
type Stats interface {
	Moments(op string) (mean, variance []float32, ok bool)
}

// Run computes the logits (batch, classes) of images (batch, C, H, W), both
// row-major, as the net gives them in evaluation mode. A nil s takes all
// statistics from w.
func Run(n *arch.Net, w Weights, s Stats, images []float32, batch int) ([]float32, error) {
	if len(images) != batch*n.In.Numel() {
		return nil, fmt.Errorf("refnet: %d values for %d images of %v", len(images), batch, n.In)
	}
	layers := make([]layer, len(n.Ops))
	for i := range n.Ops {
		var err error
		if layers[i], err = fetch(&n.Ops[i], w, s); err != nil {
			return nil, fmt.Errorf("refnet: op %s: %w", n.Ops[i].Name, err)
		}
	}
	logits := make([]float32, 0, batch*n.Classes())
	for b := range batch {
		x := floats64(images[b*n.In.Numel() : (b+1)*n.In.Numel()])
		for _, y := range forward(n, layers, x) {
			logits = append(logits, float32(y))
		}
	}
	return logits, nil
}

// forward runs the ops on one image and frees each value after its last use.
func forward(n *arch.Net, layers []layer, x []float64) []float64 {
	values, last := make([][]float64, len(n.Ops)), n.LastUse()
	for i := range n.Ops {
		o := &n.Ops[i]
		in := make([][]float64, len(o.Inputs))
		for k, j := range o.Inputs {
			in[k] = x
			if j != arch.Input {
				in[k] = values[j]
			}
		}
		values[i] = layers[i].run(in)
		for _, j := range o.Inputs {
			if j != arch.Input && last[j] == i {
				values[j] = nil
			}
		}
	}
	return values[len(values)-1]
}

// layer is an op with its numbers.
type layer struct {
	*arch.Op
	weight, bias                []float64
	gamma, beta, mean, variance []float64
}

func fetch(o *arch.Op, w Weights, s Stats) (l layer, err error) {
	l.Op = o
	if l.weight, err = part(w, o.Weight); err != nil {
		return l, err
	}
	if l.bias, err = part(w, o.Bias); err != nil || o.Norm == nil {
		return l, err
	}
	if l.gamma, err = part(w, o.Norm.Gamma); err != nil {
		return l, err
	}
	if l.beta, err = part(w, o.Norm.Beta); err != nil {
		return l, err
	}
	if s != nil {
		if mean, variance, ok := s.Moments(o.Name); ok {
			l.mean, l.variance = floats64(mean), floats64(variance)
			return l, nil
		}
	}
	if l.mean, err = part(w, &o.Norm.Mean); err != nil {
		return l, err
	}
	l.variance, err = part(w, &o.Norm.Var)
	return l, err
}

// part is the viewed part of a tensor, nil for no view.
func part(w Weights, v *arch.View) ([]float64, error) {
	if v == nil {
		return nil, nil
	}
	t, err := w.Tensor(v.Name)
	if err != nil {
		return nil, err
	}
	if !slices.Equal(t.Shape, v.Shape) {
		return nil, fmt.Errorf("tensor %s has shape %v, not %v", v.Name, t.Shape, v.Shape)
	}
	return floats64(v.Slice(t.Data)), nil
}

func floats64(xs []float32) []float64 {
	ys := make([]float64, len(xs))
	for i, x := range xs {
		ys[i] = float64(x)
	}
	return ys
}

// run computes the output of one image from the inputs.
func (l *layer) run(in [][]float64) []float64 {
	x, plane := in[0], l.Out.H*l.Out.W
	y := make([]float64, l.Out.Numel())
	switch l.Kind {
	case arch.Conv:
		parallel(l.Out.C, func(c int) { l.conv(c, x, y[c*plane:(c+1)*plane]) })
	case arch.Linear:
		for o := range y {
			for i, w := range l.weight[o*len(x) : (o+1)*len(x)] {
				y[o] += w * x[i]
			}
			if l.bias != nil {
				y[o] += l.bias[o]
			}
		}
	case arch.GlobalPool:
		per := l.In.H * l.In.W
		for c := range y {
			for _, v := range x[c*per : (c+1)*per] {
				y[c] += v / float64(per)
			}
		}
	case arch.Dropout:
		copy(y, x)
	case arch.Take:
		for j := range l.Out.C {
			from := l.Start + j*l.Step
			copy(y[j*plane:(j+1)*plane], x[from*plane:])
		}
	case arch.Concat:
		y = slices.Concat(in...)
	case arch.Shuffle:
		per := l.In.C / l.Groups
		for g := range l.Groups {
			for j := range per {
				to := j*l.Groups + g
				copy(y[to*plane:(to+1)*plane], x[(g*per+j)*plane:])
			}
		}
	case arch.Add:
		for i := range y {
			y[i] = x[i] + in[1][i]
		}
	default:
		panic(fmt.Sprintf("refnet: op %s of unknown kind %d", l.Name, l.Kind))
	}
	return y
}

// conv computes output channel c of a convolution, its norm and its activation.
func (l *layer) conv(c int, x, y []float64) {
	inputs := l.In.C / l.Groups
	first := c / (l.Out.C / l.Groups) * inputs
	for i := range inputs {
		plane := x[(first+i)*l.In.H*l.In.W:][:l.In.H*l.In.W]
		kernel := l.weight[(c*inputs+i)*l.Kernel*l.Kernel:][:l.Kernel*l.Kernel]
		l.correlate(plane, kernel, y)
	}
	for i := range y {
		y[i] = l.activate(l.normalize(c, y[i]))
	}
}

// correlate adds the zero-padded cross-correlation of one plane to y.
func (l *layer) correlate(plane, kernel, y []float64) {
	for oy := range l.Out.H {
		row := y[oy*l.Out.W:][:l.Out.W]
		for ky := range l.Kernel {
			iy := oy*l.Stride + ky - l.Pad
			if iy < 0 || iy >= l.In.H {
				continue
			}
			in := plane[iy*l.In.W:][:l.In.W]
			for kx := range l.Kernel {
				w, ox := kernel[ky*l.Kernel+kx], 0
				ix := kx - l.Pad
				for ; ix < 0; ix += l.Stride {
					ox++
				}
				for ; ox < len(row) && ix < len(in); ix += l.Stride {
					row[ox] += w * in[ix]
					ox++
				}
			}
		}
	}
}

func (l *layer) normalize(c int, v float64) float64 {
	v = (v - l.mean[c]) / math.Sqrt(l.variance[c]+l.Norm.Eps)
	if l.gamma != nil {
		v *= l.gamma[c]
	}
	if l.beta != nil {
		v += l.beta[c]
	}
	return v
}

func (l *layer) activate(v float64) float64 {
	switch l.Act {
	case arch.ReLU:
		return max(v, 0)
	case arch.ReLU6:
		return min(max(v, 0), 6)
	default:
		return v
	}
}

// parallel calls f once for each of 0..n-1, on all processors.
func parallel(n int, f func(int)) {
	var wg sync.WaitGroup
	workers := min(n, runtime.GOMAXPROCS(0))
	for w := range workers {
		wg.Go(func() {
			for i := w; i < n; i += workers {
				f(i)
			}
		})
	}
	wg.Wait()
}
