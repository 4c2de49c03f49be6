package supernet

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"spos/internal/arch"
	"spos/internal/ckpt"
	"spos/supernet/internal/torchx"
)

// Weights is where tensors are read from; a [*ckpt.File] is one.
type Weights interface {
	Names() []string
	Tensor(name string) (ckpt.Tensor, error)
}

// ErrTensors is wrapped when tensors to load are not those of the supernet.
var ErrTensors = errors.New("tensors do not fit")

// Tensors yields copies of all weights and buffers. The supernet is not locked
// between two of them: do not train meanwhile. It ends early on a closed
// supernet.
func (s *Supernet) Tensors() iter.Seq2[string, ckpt.Tensor] {
	return func(yield func(string, ckpt.Tensor) bool) {
		for _, n := range s.order {
			t, err := s.read(n, func(t *tensor) torchx.Tensor { return t.value })
			if err != nil || !yield(n, t) {
				return
			}
		}
	}
}

func (s *Supernet) read(name string, which func(*tensor) torchx.Tensor) (ckpt.Tensor, error) {
	t := s.tensors[name]
	out := ckpt.Tensor{Shape: slices.Clone(t.Shape), Data: make([]float32, t.Numel())}
	err := s.worker.Do(func(*torchx.Scope) error {
		torchx.Read(which(t), out.Data)
		return nil
	})
	return out, err
}

// Load replaces all weights and buffers. Before anything changes it checks
// that w has exactly the supernet's tensors; the error wraps [ErrTensors] and
// lists every one that is missing, unknown or of another shape.
func (s *Supernet) Load(w Weights) error {
	found, err := s.collect(w, s.order)
	if err != nil {
		return fmt.Errorf("load weights: %w", err)
	}
	return s.worker.Do(func(*torchx.Scope) error {
		for n, t := range found {
			torchx.Write(s.tensors[n].value, t.Data)
		}
		return nil
	})
}

// collect reads tensors and compares them with the bag. All of want must be
// there, and nothing that the bag does not know.
func (s *Supernet) collect(w Weights, want []string) (map[string]ckpt.Tensor, error) {
	found := make(map[string]ckpt.Tensor)
	var wrong []string
	for _, n := range w.Names() {
		own := s.tensors[n]
		if own == nil {
			wrong = append(wrong, n+" is unknown")
			continue
		}
		t, err := w.Tensor(n)
		if err != nil {
			return nil, err
		}
		if !slices.Equal(t.Shape, own.Shape) {
			wrong = append(wrong, fmt.Sprintf("%s has shape %v, not %v", n, t.Shape, own.Shape))
		}
		found[n] = t
	}
	for _, n := range want {
		if _, ok := found[n]; !ok {
			wrong = append(wrong, n+" is missing")
		}
	}
	if len(wrong) > 0 {
		return nil, fmt.Errorf("%w: %s", ErrTensors, strings.Join(wrong, "; "))
	}
	return found, nil
}

// stepsName is the tensor of the optimiser's state that holds the number of
// steps, as digits of base 2²⁴, the low one first: float32 is exact there.
const (
	stepsName = "steps"
	stepsBase = 1 << 24
)

// OptimizerState yields what, besides the weights, a resumed run needs to go
// on bit for bit: the number of steps and the velocity of every tensor trained
// so far, under its name. The rule of [Supernet.Tensors] holds.
func (s *Supernet) OptimizerState() iter.Seq2[string, ckpt.Tensor] {
	return func(yield func(string, ckpt.Tensor) bool) {
		n := s.Steps()
		steps := []float32{float32(n % stepsBase), float32(n / stepsBase)}
		if !yield(stepsName, ckpt.Tensor{Shape: []int{2}, Data: steps}) {
			return
		}
		for _, n := range s.order {
			if s.tensors[n].velocity.T == nil {
				continue
			}
			t, err := s.read(n, func(t *tensor) torchx.Tensor { return t.velocity })
			if err != nil || !yield(n, t) {
				return
			}
		}
	}
}

// LoadOptimizerState is the inverse of [Supernet.OptimizerState]. It checks
// everything before it changes anything; the error wraps [ErrTensors].
func (s *Supernet) LoadOptimizerState(w Weights) error {
	steps, err := w.Tensor(stepsName)
	if err != nil {
		return fmt.Errorf("load optimizer state: %w", err)
	}
	if !slices.Equal(steps.Shape, []int{2}) {
		return fmt.Errorf("load optimizer state: %w: %s has shape %v, not [2]", ErrTensors, stepsName, steps.Shape)
	}
	found, err := s.collect(without{w, stepsName}, nil)
	if err != nil {
		return fmt.Errorf("load optimizer state: %w", err)
	}
	return s.worker.Do(func(sc *torchx.Scope) error {
		for n, t := range s.tensors {
			v, ok := found[n]
			switch {
			case ok && t.velocity.T == nil:
				t.velocity = sc.Move(sc.ZerosLike(t.value), &s.home)
				torchx.Write(t.velocity, v.Data)
			case ok:
				torchx.Write(t.velocity, v.Data)
			case t.velocity.T != nil:
				s.home.Free(t.velocity)
				t.velocity = torchx.Tensor{}
			}
		}
		s.steps = uint64(steps.Data[0]) + stepsBase*uint64(steps.Data[1])
		return nil
	})
}

// without hides one tensor.
type without struct {
	Weights
	name string
}

func (w without) Names() []string {
	return slices.DeleteFunc(slices.Clone(w.Weights.Names()), func(n string) bool { return n == w.name })
}

// Extract copies the tensors that one net uses, sliced as it uses them: what
// an export needs, or a net that starts from supernet weights. With stats its
// running statistics are those.
func (s *Supernet) Extract(net *arch.Net, stats Stats) (map[string]ckpt.Tensor, error) {
	out := make(map[string]ckpt.Tensor)
	err := s.worker.Do(func(*torchx.Scope) error {
		if err := s.bind(net); err != nil {
			return err
		}
		for v := range net.Views() {
			whole := make([]float32, v.Param.Numel())
			torchx.Read(s.tensors[v.Name].value, whole)
			out[v.Name] = ckpt.Tensor{Shape: slices.Clone(v.Dims()), Data: v.Slice(whole)}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("extract: %w", err)
	}
	for i := range net.Ops {
		op := &net.Ops[i]
		if stats == nil || op.Norm == nil {
			continue
		}
		m, ok := stats[op.Name]
		if !ok || len(m.Mean) != op.Out.C || len(m.Var) != op.Out.C {
			return nil, fmt.Errorf("extract %s: the statistics have no %d channels for %s: they are of another net: %w", name(net), op.Out.C, op.Name, ErrNet)
		}
		out[op.Norm.Mean.Name] = ckpt.Tensor{Shape: []int{op.Out.C}, Data: slices.Clone(m.Mean)}
		out[op.Norm.Var.Name] = ckpt.Tensor{Shape: []int{op.Out.C}, Data: slices.Clone(m.Var)}
	}
	return out, nil
}
