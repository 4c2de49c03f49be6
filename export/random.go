package export

import (
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"

	"spos/internal/arch"
	"spos/internal/ckpt"
)

// Random is weights for measuring a net that nobody has trained: drawn from
// each tensor's Init, with running statistics under which every normalised
// activation has about unit variance, so that no run meets denormals or
// overflow, whose speed is not that of a trained net. A tensor depends on the
// seed, its name and the net alone.
func Random(n *arch.Net, seed uint64) Weights {
	r := random{seed: seed, params: map[string]arch.Param{}, scale: map[string]float64{}}
	for v := range n.Views() {
		r.params[v.Name] = v.Param
	}
	square := make([]float64, len(n.Ops)) // mean square of each op's output
	for i := range n.Ops {
		o := &n.Ops[i]
		square[i] = meanSquare(n, o, square)
		if o.Norm == nil {
			continue
		}
		w := o.Weight.Init
		fanIn := float64(o.Kernel * o.Kernel * o.In.C / o.Groups)
		v := fanIn * (float64(w.Mean*w.Mean) + float64(w.Deviation()*w.Deviation())) * inputSquare(o.Inputs[0], square)
		if v == 0 {
			v = 1
		}
		r.scale[o.Norm.Mean.Name] = math.Sqrt(v)
		r.scale[o.Norm.Var.Name] = v
	}
	return r
}

// meanSquare estimates the mean square of an op's output: one after a norm,
// halved by a rectifier.
func meanSquare(n *arch.Net, o *arch.Op, square []float64) float64 {
	in := func(k int) float64 { return inputSquare(o.Inputs[k], square) }
	switch o.Kind {
	case arch.Conv:
		if o.Act == arch.None {
			return 1
		}
		return 0.5
	case arch.Concat:
		sum := 0.0
		for k, j := range o.Inputs {
			c := n.In.C
			if j != arch.Input {
				c = n.Ops[j].Out.C
			}
			sum += float64(float64(c) * in(k))
		}
		return sum / float64(o.Out.C)
	case arch.Add:
		return in(0) + in(1)
	case arch.Linear, arch.GlobalPool, arch.Dropout, arch.Take, arch.Shuffle:
		return in(0)
	}
	panic(fmt.Sprintf("export: op %s of unknown kind %d", o.Name, o.Kind))
}

func inputSquare(i int, square []float64) float64 {
	if i == arch.Input {
		return 1
	}
	return square[i]
}

type random struct {
	seed   uint64
	params map[string]arch.Param
	scale  map[string]float64 // of running statistics
}

func (r random) Tensor(name string) (ckpt.Tensor, error) {
	p, ok := r.params[name]
	if !ok {
		return ckpt.Tensor{}, fmt.Errorf("tensor %s: %w", name, ckpt.ErrMissing)
	}
	h := fnv.New64a()
	h.Write([]byte(name))
	rng := rand.New(rand.NewPCG(r.seed, h.Sum64()))
	t := ckpt.Tensor{Shape: p.Shape, Data: make([]float32, p.Numel())}
	for i := range t.Data {
		t.Data[i] = float32(r.draw(p, rng.NormFloat64()))
	}
	return t, nil
}

// spread is how far norms stray from their initial values, in standard
// deviations: a little, so that no two channels are alike.
const spread = 0.1

// draw turns a standard normal number into an element. The conversions keep
// processors that fuse a product and a sum from rounding otherwise than those
// that do not: equal seeds give equal files everywhere.
func (r random) draw(p arch.Param, z float64) float64 {
	stray := float64(spread * z)
	switch p.Role {
	case arch.ConvWeight, arch.DepthwiseWeight, arch.LinearWeight:
		return p.Init.Mean + float64(p.Init.Deviation()*z)
	case arch.NormGamma:
		return p.Init.Mean * (1 + stray)
	case arch.NormBeta, arch.LinearBias:
		return p.Init.Mean + stray
	case arch.RunningMean:
		return r.scale[p.Name] * stray
	case arch.RunningVar:
		return r.scale[p.Name] * (1 + stray) * (1 + stray)
	}
	panic(fmt.Sprintf("export: tensor %s of unknown role %d", p.Name, p.Role))
}
