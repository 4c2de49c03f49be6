package arch

import (
	"errors"
	"fmt"
	"math"
)

// The library of candidate blocks. A block is built into a segment: ops whose
// input -1 is the block's own input.

const (
	wireDeinterleave = "deinterleave"
	wireShuffle      = "shuffle"
	projectInput     = "input"
	projectHalf      = "half"

	blockShuffle  = "shuffle"
	blockXception = "xception"
	blockMBConv   = "mbconv"
	blockIdentity = "identity"
)

func (c CandidateSpec) validate(hasShuffle bool) error {
	odd := func() error {
		if c.Kernel < 1 || c.Kernel%2 == 0 || c.Kernel > 31 {
			return fmt.Errorf("kernel %d is not an odd number in 1..31", c.Kernel)
		}
		return nil
	}
	switch c.Block {
	case blockShuffle, blockXception:
		if !hasShuffle {
			return errors.New("the space has shuffle blocks and no section `shuffle`")
		}
		if c.Block == blockXception && c.Kernel == 0 {
			return nil
		}
		return odd()
	case blockMBConv:
		if c.Expand < 1 || c.Expand > 64 {
			return fmt.Errorf("expand %d is not in 1..64", c.Expand)
		}
		if _, err := parseAct(c.Act); err != nil {
			return err
		}
		return odd()
	case blockIdentity:
		return nil
	default:
		return fmt.Errorf("block %q is none of %s, %s, %s, %s", c.Block, blockShuffle, blockXception, blockMBConv, blockIdentity)
	}
}

// segment is a piece of a net. Inputs are relative to it: -1 is the value
// that enters. out is the index of the value that leaves, -1 for an identity.
type segment struct {
	ops []Op
	out int
}

type builder struct {
	spec  *Spec
	in    Shape
	block int
	ops   []Op
}

func (b *builder) shape(v int) Shape {
	if v == Input {
		return b.in
	}
	return b.ops[v].Out
}

func (b *builder) push(op Op) int {
	op.Block = b.block
	op.In = b.shape(op.Inputs[0])
	b.ops = append(b.ops, op)
	return len(b.ops) - 1
}

// convSpec is a convolution to be pushed; zero Groups means one.
type convSpec struct {
	out, kernel, stride int
	depthwise           bool
	act                 Act
}

func (b *builder) conv(name string, v int, c convSpec) int {
	in := b.shape(v)
	groups, role := 1, ConvWeight
	if c.depthwise {
		groups, role, c.out = in.C, DepthwiseWeight, in.C
	}
	side := func(n int) int { return (n-1)/c.stride + 1 }
	shape := []int{c.out, in.C / groups, c.kernel, c.kernel}
	weight := View{Param: Param{Name: name + ".weight", Shape: shape, Role: role, Init: b.convInit(name, shape)}}
	return b.push(Op{
		Name: name, Kind: Conv, Inputs: []int{v},
		Out:    Shape{c.out, side(in.H), side(in.W)},
		Kernel: c.kernel, Stride: c.stride, Pad: c.kernel / 2, Groups: groups,
		Act: c.act, Weight: &weight, Norm: b.norm(name, c.out),
	})
}

// firstConv is the name of the convolution that reads the image: the one that
// the official initialisation treats apart.
const firstConv = "stem.0"

func (b *builder) convInit(name string, shape []int) Init {
	switch {
	case b.spec.Init == InitKaiming:
		fanOut := float64(shape[0] * shape[2] * shape[3])
		if shape[1] == 1 { // depthwise: each output channel feeds k×k positions
			fanOut = float64(shape[2] * shape[3])
		}
		return Init{Std: math.Sqrt(2 / fanOut)}
	case name == firstConv:
		return Init{Std: 0.01}
	default:
		return Init{Std: 1 / float64(shape[1])}
	}
}

func (b *builder) norm(name string, c int) *Norm {
	beta := 0.0001
	if b.spec.Init == InitKaiming {
		beta = 0
	}
	p := func(suffix string, role Role, start float64) View {
		return View{Param: Param{Name: name + ".bn." + suffix, Shape: []int{c}, Role: role, Init: Init{Mean: start}}}
	}
	gamma, betaView := p("weight", NormGamma, 1), p("bias", NormBeta, beta)
	return &Norm{
		Gamma: &gamma, Beta: &betaView,
		Mean: p("running_mean", RunningMean, 0), Var: p("running_var", RunningVar, 1),
		Eps: b.spec.Norm.Eps, Momentum: b.spec.Norm.Momentum,
	}
}

func (b *builder) take(name string, v, start, step, count int) int {
	in := b.shape(v)
	return b.push(Op{Name: name, Kind: Take, Inputs: []int{v}, Out: Shape{count, in.H, in.W}, Start: start, Step: step})
}

func (b *builder) concat(name string, vs ...int) int {
	out := b.shape(vs[0])
	for _, v := range vs[1:] {
		out.C += b.shape(v).C
	}
	return b.push(Op{Name: name, Kind: Concat, Inputs: vs, Out: out})
}

// build appends one candidate block that turns the builder's input into out
// channels at the given stride, and returns the value that leaves.
func (b *builder) build(prefix string, c CandidateSpec, v, out, stride int) (int, error) {
	switch c.Block {
	case blockShuffle, blockXception:
		return b.shuffleBlock(prefix, c, v, out, stride)
	case blockMBConv:
		return b.mbconv(prefix, c, v, out, stride), nil
	default:
		if stride == 1 && b.shape(v).C == out {
			return v, nil
		}
		return b.conv(prefix+".0", v, convSpec{out: out, kernel: 1, stride: stride}), nil
	}
}

// shuffleBlock is a ShuffleNetV2 block as SPOS and mmrazor build it: a main branch beside an identity
// (stride 1) or a projection (stride 2), joined along the channels.
func (b *builder) shuffleBlock(prefix string, c CandidateSpec, v, out, stride int) (int, error) {
	in := b.shape(v)
	wire := b.spec.Shuffle
	if out%2 != 0 || stride == 1 && in.C%4 != 0 {
		return 0, fmt.Errorf("a shuffle block needs an even width and a stride-1 one a multiple of four: %d in, %d out: %w", in.C, out, ErrSpec)
	}
	mid, kernel := out/2, c.Kernel
	if c.Block == blockXception && kernel == 0 {
		kernel = 3
	}
	var kept, main, mainOut int
	switch {
	case stride == 1 && in.C == out:
		half := in.C / 2
		if wire.Wiring == wireDeinterleave {
			kept, main = b.take(prefix+".keep", v, 0, 2, half), b.take(prefix+".split", v, 1, 2, half)
		} else {
			kept, main = b.take(prefix+".keep", v, 0, 1, half), b.take(prefix+".split", v, half, 1, half)
		}
		mainOut = out - half
	default:
		width := in.C
		if wire.Projection == projectHalf {
			width = out / 2
		}
		if width >= out {
			return 0, fmt.Errorf("a projection of %d channels leaves none of %d to the main branch: %w", width, out, ErrSpec)
		}
		kept = b.conv(prefix+".proj.0", v, convSpec{depthwise: true, kernel: kernel, stride: stride})
		kept = b.conv(prefix+".proj.1", kept, convSpec{out: width, kernel: 1, stride: 1, act: ReLU})
		main, mainOut = v, out-width
	}
	if c.Block == blockXception {
		main = b.xceptionBranch(prefix, main, mid, mainOut, kernel, stride)
	} else {
		main = b.conv(prefix+".main.0", main, convSpec{out: mid, kernel: 1, stride: 1, act: ReLU})
		main = b.conv(prefix+".main.1", main, convSpec{depthwise: true, kernel: kernel, stride: stride})
		main = b.conv(prefix+".main.2", main, convSpec{out: mainOut, kernel: 1, stride: 1, act: ReLU})
	}
	joined := b.concat(prefix+".concat", kept, main)
	if wire.Wiring == wireShuffle {
		joined = b.push(Op{Name: prefix + ".shuffle", Kind: Shuffle, Inputs: []int{joined}, Out: b.shape(joined), Groups: 2})
	}
	return joined, nil
}

func (b *builder) xceptionBranch(prefix string, v, mid, out, kernel, stride int) int {
	for i := range 3 {
		width := mid
		if i == 2 {
			width = out
		}
		v = b.conv(fmt.Sprintf("%s.main.%d", prefix, 2*i), v, convSpec{depthwise: true, kernel: kernel, stride: stride})
		v = b.conv(fmt.Sprintf("%s.main.%d", prefix, 2*i+1), v, convSpec{out: width, kernel: 1, stride: 1, act: ReLU})
		stride = 1
	}
	return v
}

// mbconv is MobileNetV2's inverted residual: expand, depthwise, project.
func (b *builder) mbconv(prefix string, c CandidateSpec, v, out, stride int) int {
	act, _ := parseAct(c.Act) // validated with the spec
	in, x, i := b.shape(v), v, 0
	name := func() string { i++; return fmt.Sprintf("%s.main.%d", prefix, i-1) }
	if c.Expand > 1 {
		x = b.conv(name(), x, convSpec{out: in.C * c.Expand, kernel: 1, stride: 1, act: act})
	}
	x = b.conv(name(), x, convSpec{depthwise: true, kernel: c.Kernel, stride: stride, act: act})
	x = b.conv(name(), x, convSpec{out: out, kernel: 1, stride: 1})
	if stride == 1 && in.C == out {
		x = b.push(Op{Name: prefix + ".add", Kind: Add, Inputs: []int{v, x}, Out: b.shape(x)})
	}
	return x
}
