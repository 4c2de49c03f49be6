package arch

import (
	"fmt"
	"iter"
	"math"
	"slices"
)

// Shape is the extent of one activation: channels, height and width. The
// batch is not part of it.
type Shape struct{ C, H, W int }

// Numel is the number of elements of one activation.
func (s Shape) Numel() int { return s.C * s.H * s.W }

func (s Shape) String() string { return fmt.Sprintf("%d×%d×%d", s.C, s.H, s.W) }

// Kind says what an [Op] computes. An op is what a runtime fuses: a
// convolution, its batch norm and its activation are one Conv.
type Kind uint8

// The kinds. Every reader of a [Net] switches over all of them.
const (
	Conv       Kind = iota // convolution without bias, then Norm, then Act
	Linear                 // product with Weight (out, in), plus Bias if there is one; input is C×1×1
	GlobalPool             // mean over height and width
	Dropout                // training only; the identity in evaluation and export
	Take                   // channels Start, Start+Step, … (Out.C of them)
	Concat                 // inputs joined along the channels, in order
	Shuffle                // channel shuffle: view (Groups, C/Groups), transpose, flatten
	Add                    // sum of two inputs of one shape
)

var kindNames = [...]string{"conv", "linear", "global_pool", "dropout", "take", "concat", "shuffle", "add"}

func (k Kind) String() string { return kindNames[k] }

// Act is the activation at the end of a Conv.
type Act uint8

// The activations.
const (
	None  Act = iota
	ReLU      // max(x, 0)
	ReLU6     // min(max(x, 0), 6)
)

var actNames = [...]string{"none", "relu", "relu6"}

func (a Act) String() string { return actNames[a] }

// Input is the index that stands for the net's own input in [Op.Inputs].
const Input = -1

// Op is one step of a [Net].
type Op struct {
	Name   string // unique in the net, and the prefix of its tensors' names
	Kind   Kind
	Block  int   // choice block it belongs to, or -1: stem, tail and head
	Inputs []int // indices of earlier ops, or Input
	In     Shape // of the first input
	Out    Shape

	Kernel, Stride, Pad, Groups int     // Conv: square kernel, equal strides and padding. Shuffle: Groups
	Start, Step                 int     // Take
	Rate                        float64 // Dropout: probability of a zero
	Act                         Act

	Weight *View // Conv (out, in/groups, k, k) and Linear (out, in)
	Bias   *View // Linear (out); nil where the head has none
	Norm   *Norm // Conv
}

// Norm is the batch norm of a Conv, over Out.C channels.
type Norm struct {
	Gamma, Beta *View // nil where the norm is not affine: one and zero
	Mean, Var   View  // running statistics
	Eps         float64
	Momentum    float64 // weight of the new batch in the running statistics, as PyTorch counts it
}

// Role says what a tensor is for: initialisation and weight decay depend on it.
type Role uint8

// The roles.
const (
	ConvWeight Role = iota
	DepthwiseWeight
	LinearWeight
	LinearBias
	NormGamma
	NormBeta
	RunningMean
	RunningVar
)

// Trainable reports whether the optimiser owns tensors of this role; running
// statistics are buffers.
func (r Role) Trainable() bool { return r < RunningMean }

// Init is how a tensor starts: Mean, plus a normal of this standard deviation,
// plus a uniform in ±Bound. At most one of the two is not zero.
type Init struct{ Mean, Std, Bound float64 }

// Deviation is the standard deviation of the draw.
func (i Init) Deviation() float64 { return math.Sqrt(i.Std*i.Std + i.Bound*i.Bound/3) }

// Param is one tensor of the supernet, float32, row-major.
type Param struct {
	Name  string
	Shape []int
	Role  Role
	Init  Init
}

// Numel is the number of elements.
func (p Param) Numel() int { return numel(p.Shape) }

// Span is a range of rows or columns of a tensor.
type Span struct{ Start, Len int }

// View is the part of a supernet tensor that a net uses. Take has one span
// for each dimension, or is nil for the whole tensor, so channel slicing is
// data and every reader slices the same way.
type View struct {
	Param
	Take []Span
}

// Dims is the shape of the part.
func (v View) Dims() []int {
	if v.Take == nil {
		return v.Shape
	}
	d := make([]int, len(v.Take))
	for i, s := range v.Take {
		d[i] = s.Len
	}
	return d
}

// Numel is the number of elements of the part.
func (v View) Numel() int { return numel(v.Dims()) }

// Slice copies the part out of the whole tensor's elements. It panics when
// whole does not have the tensor's size: the reader that fetched it checks.
func (v View) Slice(whole []float32) []float32 {
	if len(whole) != v.Param.Numel() {
		panic(fmt.Sprintf("arch: %s has %d elements, not %v", v.Name, len(whole), v.Shape))
	}
	if v.Take == nil {
		return slices.Clone(whole)
	}
	return slice(make([]float32, 0, v.Numel()), whole, v.Shape, v.Take)
}

func slice(dst, src []float32, shape []int, take []Span) []float32 {
	if len(shape) == 1 {
		return append(dst, src[take[0].Start:take[0].Start+take[0].Len]...)
	}
	row := numel(shape[1:])
	for i := take[0].Start; i < take[0].Start+take[0].Len; i++ {
		dst = slice(dst, src[i*row:(i+1)*row], shape[1:], take[1:])
	}
	return dst
}

func numel(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}

// Net is an [Arch] spelled out: its ops in execution order, the last one the
// logits. Each op's inputs come before it. A Net is read-only once made.
type Net struct {
	Space string
	Arch  Arch
	In    Shape
	Ops   []Op
}

// Classes is the number of logits.
func (n *Net) Classes() int { return n.Ops[len(n.Ops)-1].Out.C }

// Views yields every tensor part that the net uses, in op order: weight,
// bias, gamma, beta, running mean, running variance.
func (n *Net) Views() iter.Seq[View] {
	return func(yield func(View) bool) {
		for i := range n.Ops {
			for _, v := range n.Ops[i].views() {
				if !yield(v) {
					return
				}
			}
		}
	}
}

func (o *Op) views() []View {
	var vs []View
	add := func(p *View) {
		if p != nil {
			vs = append(vs, *p)
		}
	}
	add(o.Weight)
	add(o.Bias)
	if o.Norm != nil {
		add(o.Norm.Gamma)
		add(o.Norm.Beta)
		vs = append(vs, o.Norm.Mean, o.Norm.Var)
	}
	return vs
}

// LastUse returns, for each op, the index of the last op that reads its
// output; the last op's own output is read by nobody and gets len(Ops). It is
// what a reader needs to free an activation as early as possible.
func (n *Net) LastUse() []int {
	last := make([]int, len(n.Ops))
	for i := range n.Ops {
		for _, in := range n.Ops[i].Inputs {
			if in != Input {
				last[in] = i
			}
		}
	}
	last[len(last)-1] = len(n.Ops)
	return last
}
