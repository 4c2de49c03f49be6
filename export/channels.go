package export

import "spos/internal/arch"

// selection is a value under a choice and order of its channels: what a chain
// of Take and Shuffle ops makes of it. Nothing is emitted until an op that
// computes needs it, and then one node. That is the fewest nodes, and in ONNX
// Runtime on a CPU no slower than strided slices or reshape and transpose,
// which differ by a few percent (numbers in docs/lab.md).
type selection struct {
	from     int   // op that made the value, or arch.Input
	channels []int // nil: all, in order
}

// choose returns the selection that Take or Shuffle op o makes of its input.
func (g *graph) choose(o *arch.Op) selection {
	s := selection{from: o.Inputs[0]}
	if s.from != arch.Input && g.selected[s.from].channels != nil {
		s = g.selected[s.from]
	}
	chosen := make([]int, o.Out.C)
	for j := range chosen {
		c := j
		switch o.Kind {
		case arch.Take:
			c = o.Start + j*o.Step
		case arch.Shuffle: // out[j·G+i] = in[i·C/G+j]
			c = j%o.Groups*(o.In.C/o.Groups) + j/o.Groups
		default: // the others keep their channels
		}
		if s.channels != nil {
			c = s.channels[c]
		}
		chosen[j] = c
	}
	return selection{s.from, chosen}
}

// materialize emits the node that makes a selection's value, once.
func (g *graph) materialize(i int) error {
	if i == arch.Input || g.value[i] != "" {
		return nil
	}
	o, s := &g.net.Ops[i], g.selected[i]
	x, start, end := g.valueOf(s.from), s.channels[0], s.channels[len(s.channels)-1]+1
	for j, c := range s.channels {
		if c != start+j { // not one range
			channels := make([]int64, len(s.channels))
			for k, c := range s.channels {
				channels[k] = int64(c)
			}
			name := o.Name + ".channels"
			if err := g.ints(name, channels); err != nil {
				return err
			}
			return g.emit(i, "Gather", attrs{attrInt("axis", 1)}, x, name)
		}
	}
	return g.emit(i, "Slice", nil, x, g.constInts(int64(start)), g.constInts(int64(end)), g.constInts(1))
}
