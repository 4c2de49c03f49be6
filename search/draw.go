package search

import (
	"fmt"

	"spos/internal/arch"
)

// pool remembers what was proposed and knows what may still be.
type pool struct {
	space  *arch.Space
	limits Limits
	cost   func(arch.Arch) (arch.Cost, error)
	seen   map[arch.Arch]bool // canonical archs
	drawn  int                // draws so far, accepted or not
	inside int                // of them within the limits
}

func newPool(s *arch.Space, l Limits) *pool {
	return &pool{space: s, limits: l, cost: coster(s, l), seen: map[arch.Arch]bool{}}
}

// take reports whether a is within the limits and new, and if so remembers it.
// A net that is over a limit is not remembered, as in the official search.
func (p *pool) take(a arch.Arch) (bool, error) {
	p.drawn++
	key := p.space.Canonical(a)
	if p.seen[key] {
		p.inside++
		return false, nil
	}
	c, err := p.cost(a)
	if err != nil || !p.limits.Allow(c) {
		return false, err
	}
	p.inside++
	p.seen[key] = true
	return true, nil
}

// spent is the error of a pool in which tries draws in a row found nothing.
func (p *pool) spent(tries int) error {
	if len(p.seen) == 0 {
		return fmt.Errorf("%w: none of %d drawn nets is within the limits: %w", ErrUnsatisfiable, p.drawn, ErrExhausted)
	}
	return fmt.Errorf("%w: %d draws in a row gave nothing new; %d nets of the space are known, and %s of %d draws were within the limits",
		ErrExhausted, tries, len(p.seen), percent(p.inside, p.drawn), p.drawn)
}

// coster returns a function that costs an arch as far as the limits ask. It
// sums the blocks' shares where that is enough, a hundred times faster than
// spelling the net out.
func coster(s *arch.Space, l Limits) func(arch.Arch) (arch.Cost, error) {
	if l.Activations != (Bound{}) {
		return func(a arch.Arch) (arch.Cost, error) {
			net, err := s.Net(a)
			if err != nil {
				return arch.Cost{}, err
			}
			return net.Cost(), nil
		}
	}
	fixed := s.FixedCost()
	shares := make([][]arch.Cost, s.Len())
	for b := range shares {
		for c := range s.Candidates(b) {
			shares[b] = append(shares[b], s.BlockCost(b, c))
		}
	}
	return func(a arch.Arch) (arch.Cost, error) {
		sum := fixed
		for b := range shares {
			c, err := a.Choice(b)
			if err != nil {
				return sum, err
			}
			sum = plus(sum, shares[b][c])
		}
		return sum, nil
	}
}

func plus(a, b arch.Cost) arch.Cost {
	a.Params += b.Params
	a.MACs += b.MACs
	a.FLOPs.MACs += b.FLOPs.MACs
	a.FLOPs.MMCV += b.FLOPs.MMCV
	a.FLOPs.Thop += b.FLOPs.Thop
	return a
}
