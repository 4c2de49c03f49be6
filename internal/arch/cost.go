package arch

// Counter is one published way to count FLOPs.
type Counter string

// The counters.
const (
	MACs Counter = "macs" // multiply-accumulates of convolutions and the linear layer; official SPOS and the paper
	MMCV Counter = "mmcv" // MACs, plus norm, activation and pool; mmcv, ptflops and mmrazor
	Thop Counter = "thop" // as MACs, the linear layer as (2·in−1)·out; AngleNAS
)

// Cost is what a net costs, for one image.
type Cost struct {
	Params int64 `json:"params"` // trainable elements
	MACs   int64 `json:"macs"`
	FLOPs  FLOPs `json:"flops"`
	// ActivationBytes is the largest sum of live float32 activations while the
	// ops run one after another and each value is freed after its last use.
	ActivationBytes int64 `json:"activation_bytes"`
}

// FLOPs holds the number of each [Counter].
type FLOPs struct {
	MACs int64 `json:"macs"`
	MMCV int64 `json:"mmcv"`
	Thop int64 `json:"thop"`
}

// Of is the number under one counter.
func (f FLOPs) Of(c Counter) int64 {
	switch c {
	case MMCV:
		return f.MMCV
	case Thop:
		return f.Thop
	default:
		return f.MACs
	}
}

// Cost walks the net once.
func (n *Net) Cost() Cost {
	var c Cost
	for i := range n.Ops {
		c.add(n.Ops[i].Cost())
	}
	c.ActivationBytes = n.activationBytes()
	return c
}

func (c *Cost) add(o Cost) {
	c.Params += o.Params
	c.MACs += o.MACs
	c.FLOPs.MACs += o.FLOPs.MACs
	c.FLOPs.MMCV += o.FLOPs.MMCV
	c.FLOPs.Thop += o.FLOPs.Thop
}

// Cost is one op's share; it has no ActivationBytes, which is no sum.
func (o *Op) Cost() Cost {
	var c Cost
	for _, v := range o.views() {
		if v.Role.Trainable() {
			c.Params += int64(v.Numel())
		}
	}
	out := int64(o.Out.Numel())
	switch o.Kind {
	case Conv:
		c.MACs = int64(o.Kernel*o.Kernel*o.In.C/o.Groups) * out
		c.FLOPs = FLOPs{c.MACs, c.MACs + out, c.MACs}
		if o.Norm.Gamma != nil {
			c.FLOPs.MMCV += out
		}
		if o.Act != None {
			c.FLOPs.MMCV += out
		}
	case Linear:
		c.MACs = int64(o.In.C) * out
		c.FLOPs = FLOPs{c.MACs, c.MACs, (2*int64(o.In.C) - 1) * out}
	case GlobalPool:
		c.FLOPs.MMCV = int64(o.In.Numel())
	case Dropout, Take, Concat, Shuffle, Add: // counted by none of the three
	}
	return c
}

func (n *Net) activationBytes() int64 {
	const float32Bytes = 4
	last := n.LastUse()
	inputUse := 0
	for i := range n.Ops {
		for _, in := range n.Ops[i].Inputs {
			if in == Input {
				inputUse = i
			}
		}
	}
	live, peak := int64(n.In.Numel()), int64(0)
	for i := range n.Ops {
		live += int64(n.Ops[i].Out.Numel())
		peak = max(peak, live)
		if i == inputUse {
			live -= int64(n.In.Numel())
		}
		for j := range i + 1 {
			if last[j] == i {
				live -= int64(n.Ops[j].Out.Numel())
			}
		}
	}
	return peak * float32Bytes
}

// FixedCost is what stem, tail and head cost in every net of the space.
func (s *Space) FixedCost() Cost { c := s.stem.cost(); c.add(s.tail.cost()); return c }

// BlockCost is what candidate choice of a block adds to a net. Every field but
// ActivationBytes, which stays zero, is additive: a net's cost is the fixed
// cost plus one term a block.
func (s *Space) BlockCost(block, choice int) Cost { return s.blocks[block].alone[choice].cost() }

func (seg segment) cost() Cost {
	var c Cost
	for i := range seg.ops {
		c.add(seg.ops[i].Cost())
	}
	return c
}
