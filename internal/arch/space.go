package arch

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
)

// Space is what may vary: a stem, choice blocks with their candidates, a tail
// and a head. It is read-only once made and safe for concurrent use.
type Space struct {
	Name    string
	In      Shape
	Classes int

	spec   Spec
	stem   segment
	blocks []block
	tail   segment
}

// block is one choice block with every candidate built, as the supernet runs
// it and as it stands alone.
type block struct {
	stage             int
	names             []string
	candidates, alone []segment
	keeps             bool // stride one and as many channels out as in
}

// NewSpace checks a specification and builds every candidate of every block.
// Errors wrap [ErrSpec] and name the entry.
func NewSpace(spec Spec) (*Space, error) {
	if err := spec.validate(); err != nil {
		return nil, err
	}
	s := &Space{Name: spec.Name, In: Shape{spec.Input[0], spec.Input[1], spec.Input[2]}, Classes: spec.Classes, spec: spec}
	at := s.In
	var err error
	if s.stem, at, err = s.layers("stem", spec.Stem, at); err != nil {
		return nil, err
	}
	for i, st := range spec.Stages {
		for j := range st.Blocks {
			if at, err = s.addBlock(i, st, j == 0, at); err != nil {
				return nil, fmt.Errorf("space %q: stages[%d], block %d: %w", spec.Name, i, j, err)
			}
		}
	}
	if s.tail, at, err = s.layers("tail", spec.Tail, at); err != nil {
		return nil, err
	}
	s.addHead(at)
	return s, nil
}

// layers builds the stem or the tail.
func (s *Space) layers(part string, ls []LayerSpec, in Shape) (segment, Shape, error) {
	b := &builder{spec: &s.spec, in: in, block: -1}
	v := Input
	for i, l := range ls {
		name, stride := fmt.Sprintf("%s.%d", part, i), max(l.Stride, 1)
		if l.Block != nil {
			var err error
			if v, err = b.build(name, candidate{CandidateSpec: *l.Block}, v, l.Out, stride); err != nil {
				return segment{}, in, fmt.Errorf("space %q: %s[%d]: %w", s.Name, part, i, err)
			}
			continue
		}
		act, _ := parseAct(l.Act) // validated with the spec
		v = b.conv(name, v, convSpec{out: l.Out, kernel: l.Kernel, stride: stride, act: act})
	}
	return segment{b.ops, v}, b.shape(v), nil
}

func (s *Space) addBlock(stage int, st StageSpec, first bool, in Shape) (Shape, error) {
	stride := 1
	if first {
		stride = st.Stride
	}
	bl := block{stage: stage, keeps: stride == 1 && in.C == st.Out}
	out := in
	for _, c := range s.spec.choices(st, first) {
		if slices.Contains(bl.names, c.Name) {
			return in, fmt.Errorf("candidate %q is there twice: %w", c.Name, ErrSpec)
		}
		base, _, _ := strings.Cut(c.Name, "@") // widths of one candidate share tensors
		prefix := fmt.Sprintf("blocks.%d.%s", len(s.blocks), base)
		for _, wide := range []map[int]int{{}, nil} {
			b := &builder{spec: &s.spec, in: in, block: len(s.blocks), wide: wide}
			v, err := b.build(prefix, c, Input, st.Out, stride)
			if err != nil {
				return in, fmt.Errorf("candidate %q: %w", c.Name, err)
			}
			out = b.shape(v)
			if seg := (segment{b.ops, v}); wide == nil {
				bl.alone = append(bl.alone, seg)
			} else {
				bl.candidates = append(bl.candidates, seg)
			}
		}
		bl.names = append(bl.names, c.Name)
	}
	s.blocks = append(s.blocks, bl)
	return out, nil
}

// addHead appends global pool, dropout and linear to the tail.
func (s *Space) addHead(in Shape) {
	ops, v := s.tail.ops, s.tail.out
	push := func(op Op) {
		op.Block, op.Inputs, op.In = -1, []int{v}, in
		ops, v, in = append(ops, op), len(ops), op.Out
	}
	push(Op{Name: "pool", Kind: GlobalPool, Out: Shape{in.C, 1, 1}})
	if p := s.dropout(); p[0] > 0 || p[1] > 0 {
		push(Op{Name: "dropout", Kind: Dropout, Out: in, Rate: p[0]})
	}
	weight, bias := Init{Std: 0.01}, Init{}
	if s.spec.Init == InitTorch {
		weight = Init{Bound: 1 / math.Sqrt(float64(in.C))}
		bias = weight
	}
	head := Op{
		Name: "head", Kind: Linear, Out: Shape{s.Classes, 1, 1},
		Weight: &View{Param: Param{Name: "head.weight", Shape: []int{s.Classes, in.C}, Role: LinearWeight, Init: weight}},
	}
	if s.spec.Head.Bias {
		head.Bias = &View{Param: Param{Name: "head.bias", Shape: []int{s.Classes}, Role: LinearBias, Init: bias}}
	}
	push(head)
	s.tail = segment{ops, v}
}

// dropout is the rate of the stand-alone net and that of the supernet.
func (s *Space) dropout() [2]float64 {
	h := s.spec.Head
	if h.SupernetDropout != nil {
		return [2]float64{h.Dropout, *h.SupernetDropout}
	}
	return [2]float64{h.Dropout, h.Dropout}
}

// Spec is the specification that the space was made from.
func (s *Space) Spec() Spec { return s.spec }

// With is the same space for other images or another number of classes.
func (s *Space) With(in Shape, classes int) (*Space, error) {
	spec := s.spec
	spec.Input, spec.Classes = [3]int{in.C, in.H, in.W}, classes
	return NewSpace(spec)
}

// Len is the number of choice blocks.
func (s *Space) Len() int { return len(s.blocks) }

// Candidates names the candidates of block i, in the order of their indices.
// The caller must not change it.
func (s *Space) Candidates(i int) []string { return s.blocks[i].names }

// Stage is the stage of block i, counted from zero.
func (s *Space) Stage(i int) int { return s.blocks[i].stage }

// Size is the number of architectures, as a float: 4^20 and beyond.
func (s *Space) Size() float64 {
	n := 1.0
	for _, b := range s.blocks {
		n *= float64(len(b.candidates))
	}
	return n
}

// Parse reads an [Arch] from its digits. Errors wrap [ErrNotInSpace] and name
// the block and its candidates.
func (s *Space) Parse(text string) (Arch, error) {
	a := Arch(text)
	_, err := s.choose(a)
	return a, err
}

// choose decodes an arch into the index of each block's candidate.
func (s *Space) choose(a Arch) ([]int, error) {
	if len(a) != len(s.blocks) {
		return nil, fmt.Errorf("arch %q has %d digits, space %s has %d choice blocks: %w", a, len(a), s.Name, len(s.blocks), ErrNotInSpace)
	}
	choices := make([]int, len(a))
	for i := range choices {
		c, err := a.Choice(i)
		if err != nil {
			return nil, fmt.Errorf("arch %q: %w", a, err)
		}
		if c >= len(s.blocks[i].candidates) {
			return nil, fmt.Errorf("arch %q: block %d: choice %d of space %s is none of %s: %w", a, i, c, s.Name, s.listChoices(i), ErrNotInSpace)
		}
		choices[i] = c
	}
	return choices, nil
}

func (s *Space) listChoices(i int) string {
	var list []string
	for j, name := range s.blocks[i].names {
		list = append(list, fmt.Sprintf("%c %s", digits[j], name))
	}
	return strings.Join(list, ", ")
}

// Net spells a out as a stand-alone net: all norms affine, every tensor as wide
// as the net uses it. Errors wrap [ErrNotInSpace] and name the choice.
func (s *Space) Net(a Arch) (*Net, error) {
	return s.assemble(a, func(b *block) []segment { return b.alone })
}

func (s *Space) assemble(a Arch, candidates func(*block) []segment) (*Net, error) {
	choices, err := s.choose(a)
	if err != nil {
		return nil, err
	}
	n := &Net{Space: s.Name, Arch: a, In: s.In}
	v := n.join(s.stem, Input)
	for i, c := range choices {
		v = n.join(candidates(&s.blocks[i])[c], v)
	}
	n.join(s.tail, v)
	return n, nil
}

// join appends a segment that reads value v and returns the value that leaves.
func (n *Net) join(seg segment, v int) int {
	at := len(n.Ops)
	move := func(in int) int {
		if in == Input {
			return v
		}
		return in + at
	}
	for _, op := range seg.ops {
		ins := make([]int, len(op.Inputs))
		for i, in := range op.Inputs {
			ins[i] = move(in)
		}
		op.Inputs = ins
		n.Ops = append(n.Ops, op)
	}
	return move(seg.out)
}

// Path is a as the supernet runs it: parts of the supernet's tensors, without
// gamma and beta and with another dropout where the space's supernet has it so.
func (s *Space) Path(a Arch) (*Net, error) {
	n, err := s.assemble(a, func(b *block) []segment { return b.candidates })
	if err != nil {
		return nil, err
	}
	for i := range n.Ops {
		if !s.spec.Norm.SupernetAffine {
			n.Ops[i].Norm = n.Ops[i].Norm.plain()
		}
		if n.Ops[i].Kind == Dropout {
			n.Ops[i].Rate = s.dropout()[1]
		}
	}
	return n, nil
}

func (n *Norm) plain() *Norm {
	if n == nil {
		return nil
	}
	p := *n
	p.Gamma, p.Beta = nil, nil
	return &p
}

// Params lists every tensor of the supernet once: stem, the candidates of each
// block in turn, tail and head.
func (s *Space) Params() []Param {
	var ps []Param
	seen := map[string]bool{}
	add := func(seg segment) {
		for _, op := range seg.ops {
			if !s.spec.Norm.SupernetAffine {
				op.Norm = op.Norm.plain()
			}
			for _, v := range op.views() {
				if !seen[v.Name] {
					seen[v.Name] = true
					ps = append(ps, v.Param)
				}
			}
		}
	}
	add(s.stem)
	for _, b := range s.blocks {
		for _, c := range b.candidates {
			add(c)
		}
	}
	add(s.tail)
	return ps
}

// Sample draws an arch uniformly.
func (s *Space) Sample(r *rand.Rand) Arch {
	choices := make([]int, len(s.blocks))
	for i := range choices {
		choices[i] = r.IntN(len(s.blocks[i].candidates))
	}
	return Make(choices)
}

// Mutate redraws each block of a with probability p, uniformly over all its
// candidates, the present one included as the official search does.
func (s *Space) Mutate(r *rand.Rand, a Arch, p float64) Arch {
	child := []byte(a)
	for i := range child {
		if r.Float64() < p {
			child[i] = digits[r.IntN(len(s.blocks[i].candidates))]
		}
	}
	return Arch(child)
}

// Crossover takes each block from either parent with probability one half.
func (s *Space) Crossover(r *rand.Rand, a, b Arch) Arch {
	child := []byte(a)
	for i := range child {
		if r.IntN(2) == 1 {
			child[i] = b[i]
		}
	}
	return Arch(child)
}

// Canonical maps archs that are the same stand-alone net to one of them: the
// blocks of a stage that keep their shape can change places with a block that
// does nothing, so those go last.
func (s *Space) Canonical(a Arch) Arch {
	c := []byte(a)
	for from := 0; from < len(c); {
		first, end := s.run(from)
		slices.SortStableFunc(c[first:end], func(x, y byte) int { return s.idle(first, x) - s.idle(first, y) })
		from = end
	}
	return Arch(c)
}

// idle is one where the digit chooses a candidate without ops, else zero.
func (s *Space) idle(block int, digit byte) int {
	c := strings.IndexByte(digits, digit)
	if c >= 0 && c < len(s.blocks[block].candidates) && len(s.blocks[block].candidates[c].ops) == 0 {
		return 1
	}
	return 0
}
