// Package supernet holds the weights of a single-path supernet, or of one of
// its nets, and everything that needs libtorch: training steps, batch-norm
// statistics, evaluation. It executes an [arch.Net] that is passed to each
// call and keeps no notion of a current one. It knows no schedule, file or
// search.
package supernet

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"

	"spos/internal/arch"
	"spos/supernet/internal/torchx"
)

// ErrNet is wrapped by errors about a net that these tensors cannot run: of
// another space, or affine norms asked of a supernet that has none.
var ErrNet = errors.New("net does not fit the supernet's tensors")

// ErrBatch is wrapped by errors about a batch that the net cannot take.
var ErrBatch = errors.New("batch does not fit the net")

// Layout is the order of an activation's elements in memory. It changes speed,
// and results by rounding.
type Layout uint8

// The layouts.
const (
	AutoLayout   Layout = iota // ChannelsLast on the CPU, RowMajor on a GPU
	ChannelsLast               // N, H, W, C
	RowMajor                   // N, C, H, W
)

// Decay says which tensors get weight decay.
type Decay uint8

// The rules.
const (
	DecayWeights Decay = iota // convolution and linear weights, depthwise ones too: the official code, mmrazor 0.x
	DecayDense                // the same without depthwise weights: mmrazor 1.x
	DecayKernels              // convolution weights alone: AngleNAS from scratch
	DecayHead                 // convolution weights, and weight and bias of the linear layer: AngleNAS's supernets
	DecayAll                  // norms too: torch.optim.SGD over all parameters, as NAS-Bench-Macro has it
)

// Options of a [Supernet]. The zero value is the paper's recipe on the CPU.
type Options struct {
	Device  Device
	Layout  Layout
	Threads int    // of the CPU; 0: as many as Go may use at once
	Seed    uint64 // of the initial weights and of dropout

	Momentum       *float64 // nil: 0.9
	Nesterov       bool
	WeightDecay    *float64 // nil: 4e-5
	Decay          Decay
	LabelSmoothing *float64 // nil: 0.1
	ClipNorm       float64  // bound of the norm of all gradients of a step; 0: none
	ClipValue      float64  // bound of every gradient element; 0: none
}

func (o Options) validate() error {
	switch {
	case o.Threads < 0:
		return fmt.Errorf("supernet: %d threads", o.Threads)
	case !(o.momentum() >= 0 && o.momentum() < 1):
		return fmt.Errorf("supernet: momentum %v: want 0 ≤ momentum < 1", o.momentum())
	case !(o.weightDecay() >= 0):
		return fmt.Errorf("supernet: weight decay %v is negative", o.weightDecay())
	case !(o.labelSmoothing() >= 0 && o.labelSmoothing() < 1):
		return fmt.Errorf("supernet: label smoothing %v: want 0 ≤ smoothing < 1", o.labelSmoothing())
	case !(o.ClipNorm >= 0) || !(o.ClipValue >= 0):
		return fmt.Errorf("supernet: gradient bounds %v, %v: want 0 (none) or more", o.ClipNorm, o.ClipValue)
	}
	return nil
}

func (o Options) momentum() float64       { return or(o.Momentum, 0.9) }
func (o Options) weightDecay() float64    { return or(o.WeightDecay, 4e-5) }
func (o Options) labelSmoothing() float64 { return or(o.LabelSmoothing, 0.1) }

func or(p *float64, otherwise float64) float64 {
	if p == nil {
		return otherwise
	}
	return *p
}

func (o Options) place() torchx.Place {
	last := o.Layout == ChannelsLast || o.Layout == AutoLayout && !o.Device.CUDA()
	return torchx.Place{CUDA: o.Device.cuda - 1, ChannelsLast: last}
}

// decay is the weight decay of tensors of a role.
func (o Options) decay(r arch.Role) float64 {
	decays := false
	switch r {
	case arch.ConvWeight:
		decays = true
	case arch.DepthwiseWeight:
		decays = o.Decay != DecayDense
	case arch.LinearWeight:
		decays = o.Decay != DecayKernels
	case arch.LinearBias:
		decays = o.Decay == DecayHead || o.Decay == DecayAll
	case arch.NormGamma, arch.NormBeta:
		decays = o.Decay == DecayAll
	case arch.RunningMean, arch.RunningVar:
	}
	if !decays {
		return 0
	}
	return o.weightDecay()
}

// Supernet is a bag of named tensors on one device. Its methods may be called
// from several goroutines and run one after the other.
type Supernet struct {
	options Options
	place   torchx.Place
	worker  *torchx.Worker
	home    torchx.Scope // owns every tensor below
	tensors map[string]*tensor
	order   []string // of Tensors
	steps   uint64   // taken since the beginning of training
}

// tensor is one entry of the bag. Only the worker's thread touches the native
// side.
type tensor struct {
	arch.Param
	value    torchx.Tensor
	velocity torchx.Tensor // absent, as good as zero, until the first step that trains it
	decay    float64
}

// New makes the tensors and fills them with random weights that depend on
// [Options.Seed] and their names alone. params is [arch.Space.Params] for a
// supernet, or the parameters of one net to train it alone. Close frees them.
func New(params []arch.Param, o Options) (*Supernet, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	s := &Supernet{
		options: o,
		place:   o.place(),
		worker:  torchx.NewWorker(o.Threads),
		tensors: make(map[string]*tensor, len(params)),
	}
	err := s.worker.Do(func(sc *torchx.Scope) error {
		for _, p := range params {
			if s.tensors[p.Name] != nil {
				return fmt.Errorf("supernet: two tensors are called %s", p.Name)
			}
			value := sc.Floats(initial(p, o.Seed), wide(p.Shape), s.place)
			s.tensors[p.Name] = &tensor{Param: p, value: sc.Move(value, &s.home), decay: o.decay(p.Role)}
			s.order = append(s.order, p.Name)
		}
		return nil
	})
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// initial draws a tensor's first elements from a stream of its own.
func initial(p arch.Param, seed uint64) []float32 {
	h := fnv.New64a()
	h.Write([]byte(p.Name))
	r := rand.New(rand.NewPCG(seed, h.Sum64()))
	data := make([]float32, p.Numel())
	for i := range data {
		v := p.Init.Mean
		if p.Init.Std != 0 {
			v += p.Init.Std * r.NormFloat64()
		}
		if p.Init.Bound != 0 {
			v += p.Init.Bound * (2*r.Float64() - 1)
		}
		data[i] = float32(v)
	}
	return data
}

func wide(shape []int) []int64 {
	w := make([]int64, len(shape))
	for i, d := range shape {
		w[i] = int64(d)
	}
	return w
}

// Close frees the tensors and returns the process's idle tensor memory to the
// system. Other methods fail afterwards, with an error that
// wraps [ErrClosed]. It may be called twice.
func (s *Supernet) Close() {
	// A closed worker has freed them already.
	_ = s.worker.Do(func(*torchx.Scope) error {
		s.home.Close()
		torchx.ReleaseHostMemory()
		return nil
	})
	s.worker.Close()
}

// ErrClosed is wrapped by the errors of a closed [Supernet].
var ErrClosed = torchx.ErrClosed

// Steps is the number of training steps that these weights have taken.
func (s *Supernet) Steps() uint64 {
	var n uint64
	_ = s.worker.Do(func(*torchx.Scope) error {
		n = s.steps
		return nil
	})
	return n
}
