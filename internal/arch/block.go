package arch

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// The library of candidate blocks. A block is built into a segment: ops whose
// input -1 is the block's own input.

const (
	wireDeinterleave = "deinterleave"
	wireShuffle      = "shuffle"
	wireMainFirst    = "main_first"
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
	if len(c.WidthScales) > 0 && c.Block != blockShuffle && c.Block != blockXception {
		return fmt.Errorf("width_scales: only %s and %s blocks have them", blockShuffle, blockXception)
	}
	for _, w := range c.WidthScales {
		if !(w > 0 && w <= maxWidthScale) {
			return fmt.Errorf("width_scales: %v is not in (0, %d]", w, maxWidthScale)
		}
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
	// wide is the width that a value has in the supernet, where this candidate
	// takes the leading channels of it. Nil builds the stand-alone net.
	wide map[int]int
}

// width is how many channels the supernet has of value v.
func (b *builder) width(v int) int { return max(b.shape(v).C, b.wide[v]) }

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

// convSpec is a convolution to be pushed. wide is the width of its output in
// the supernet where that is more than out.
type convSpec struct {
	out, wide, kernel, stride int
	depthwise                 bool
	act                       Act
}

func (b *builder) conv(name string, v int, c convSpec) int {
	in := b.shape(v)
	inputs, wideInputs, groups, role := in.C, b.width(v), 1, ConvWeight
	if c.depthwise {
		c.out, c.wide = in.C, b.width(v)
		inputs, wideInputs, groups, role = 1, 1, in.C, DepthwiseWeight
	}
	if b.wide == nil {
		c.wide = 0
	}
	side := func(n int) int { return (n-1)/c.stride + 1 }
	shape := []int{max(c.out, c.wide), wideInputs, c.kernel, c.kernel}
	weight := leading(Param{Name: name + ".weight", Shape: shape, Role: role, Init: b.convInit(name, shape)}, c.out, inputs)
	op := b.push(Op{
		Name: name, Kind: Conv, Inputs: []int{v},
		Out:    Shape{c.out, side(in.H), side(in.W)},
		Kernel: c.kernel, Stride: c.stride, Pad: c.kernel / 2, Groups: groups,
		Act: c.act, Weight: &weight, Norm: b.norm(name, shape[0], c.out),
	})
	if c.wide > c.out {
		b.wide[op] = c.wide
	}
	return op
}

// leading is the view of the first elements along the first dimensions.
func leading(p Param, take ...int) View {
	if slices.Equal(p.Shape[:len(take)], take) {
		return View{Param: p}
	}
	v := View{Param: p}
	for _, n := range p.Shape {
		v.Take = append(v.Take, Span{Len: n})
	}
	for d, n := range take {
		v.Take[d].Len = n
	}
	return v
}

// firstConv is the name of the convolution that reads the image: the one that
// the official initialisation treats apart.
const firstConv = "stem.0"

func (b *builder) convInit(name string, shape []int) Init {
	area := shape[2] * shape[3]
	switch {
	case b.spec.Init == InitKaiming && shape[1] == 1: // depthwise: each output channel feeds k×k positions
		return Init{Std: math.Sqrt(2 / float64(area))}
	case b.spec.Init == InitKaiming, b.spec.Init == InitMMCV:
		return Init{Std: math.Sqrt(2 / float64(shape[0]*area))}
	case b.spec.Init == InitTorch:
		return Init{Bound: 1 / math.Sqrt(float64(shape[1]*area))}
	case name == firstConv:
		return Init{Std: 0.01}
	default:
		return Init{Std: 1 / float64(shape[1])}
	}
}

func (b *builder) norm(name string, wide, c int) *Norm {
	beta := 0.0
	if b.spec.Init == InitSPOS {
		beta = 0.0001
	}
	p := func(suffix string, role Role, start float64) View {
		return leading(Param{Name: name + ".bn." + suffix, Shape: []int{wide}, Role: role, Init: Init{Mean: start}}, c)
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
func (b *builder) build(prefix string, c candidate, v, out, stride int) (int, error) {
	switch c.Block {
	case blockShuffle, blockXception:
		return b.shuffleBlock(prefix, c, v, out, stride)
	case blockMBConv:
		return b.mbconv(prefix, c.CandidateSpec, v, out, stride), nil
	default:
		if stride == 1 && b.shape(v).C == out {
			return v, nil
		}
		return b.conv(prefix+".0", v, convSpec{out: out, kernel: 1, stride: stride}), nil
	}
}

// shuffleBlock is a ShuffleNetV2 block as SPOS and mmrazor build it: a main
// branch beside an identity (stride 1) or a projection (stride 2), joined along
// the channels.
func (b *builder) shuffleBlock(prefix string, c candidate, v, out, stride int) (int, error) {
	in := b.shape(v)
	if out%2 != 0 || stride == 1 && in.C%4 != 0 {
		return 0, fmt.Errorf("a shuffle block needs an even width and a stride-1 one a multiple of four: %d in, %d out: %w", in.C, out, ErrSpec)
	}
	if c.Block == blockXception && c.Kernel == 0 {
		c.Kernel = 3
	}
	var kept, main int
	if stride == 1 {
		kept, main = b.split(prefix, v)
	} else {
		width := in.C
		if b.spec.Shuffle.Projection == projectHalf {
			width = out / 2
		}
		kept = b.conv(prefix+".proj.0", v, convSpec{depthwise: true, kernel: c.Kernel, stride: stride})
		kept = b.conv(prefix+".proj.1", kept, convSpec{out: width, kernel: 1, stride: 1, act: ReLU})
		main = v
	}
	mainOut := out - b.shape(kept).C
	if mainOut < 1 {
		return 0, fmt.Errorf("the other branch's %d channels leave none of %d to the main branch: %w", b.shape(kept).C, out, ErrSpec)
	}
	main = b.mainBranch(prefix, c, main, out/2, mainOut, stride)
	switch b.spec.Shuffle.Wiring {
	case wireMainFirst:
		return b.concat(prefix+".concat", main, kept), nil
	case wireShuffle:
		joined := b.concat(prefix+".concat", kept, main)
		return b.push(Op{Name: prefix + ".shuffle", Kind: Shuffle, Inputs: []int{joined}, Out: b.shape(joined), Groups: 2}), nil
	default:
		return b.concat(prefix+".concat", kept, main), nil
	}
}

// split halves the input of a stride-1 block: what is kept and what the main
// branch reads.
func (b *builder) split(prefix string, v int) (kept, main int) {
	half := b.shape(v).C / 2
	keep, read, step := 0, 1, 2
	switch b.spec.Shuffle.Wiring {
	case wireShuffle:
		keep, read, step = 0, half, 1
	case wireMainFirst:
		keep, read = 1, 0
	}
	return b.take(prefix+".keep", v, keep, step, half), b.take(prefix+".split", v, read, step, half)
}

// mainBranch computes out channels from value v through layers of a middle
// width: half, times the candidate's scale, rounded down.
func (b *builder) mainBranch(prefix string, c candidate, v, half, out, stride int) int {
	mid, wide := half, half
	if n := len(c.WidthScales); n > 0 {
		mid = scaled(half, c.scale)
		wide = scaled(half, slices.Max(c.WidthScales))
	}
	i := 0
	name := func() string { i++; return fmt.Sprintf("%s.main.%d", prefix, i-1) }
	pointwise := func(out, wide int) {
		v = b.conv(name(), v, convSpec{out: out, wide: wide, kernel: 1, stride: 1, act: ReLU})
	}
	depthwise := func(stride int) {
		v = b.conv(name(), v, convSpec{depthwise: true, kernel: c.Kernel, stride: stride})
	}
	if c.Block == blockXception {
		depthwise(stride)
		pointwise(mid, wide)
		depthwise(1)
		pointwise(mid, wide)
		depthwise(1)
	} else {
		pointwise(mid, wide)
		depthwise(stride)
	}
	pointwise(out, out)
	return v
}

// scaled is the middle width that the released networks have: truncated.
func scaled(half int, scale float64) int { return max(1, int(float64(half)*scale)) }

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
