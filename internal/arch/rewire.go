package arch

import (
	"errors"
	"fmt"
	"slices"
)

// Order says how a tensor of one net is cut from that of another whose
// channels are wired otherwise: row r and column c of the result are row
// Rows[r] and column Cols[c] of the source. Nil leaves them in place.
type Order struct{ Rows, Cols []int }

// Apply returns data, a tensor of this shape, in the new order. It returns
// data itself where nothing moves, and panics where data does not fill the
// shape or the order is of another one.
func (o Order) Apply(shape []int, data []float32) []float32 {
	if o.Rows == nil && o.Cols == nil {
		return data
	}
	row := numel(shape[1:])
	out := make([]float32, 0, len(data))
	for r := range shape[0] {
		if o.Rows != nil {
			r = o.Rows[r]
		}
		from := data[r*row : (r+1)*row]
		if o.Cols == nil {
			out = append(out, from...)
			continue
		}
		cell := numel(shape[2:])
		for _, c := range o.Cols {
			out = append(out, from[c*cell:(c+1)*cell]...)
		}
	}
	return out
}

func (o Order) equal(p Order) bool {
	return slices.Equal(o.Rows, p.Rows) && slices.Equal(o.Cols, p.Cols)
}

// Rewire finds, for two nets of the same convolutions whose channels are
// wired otherwise (see [ShuffleSpec]), how each tensor of the first becomes
// that of the second, such that both compute the same logits. Tensors that
// stay as they are, are absent. An error names the op where no reordering can
// make the two the same function.
//
// Every channel of a net is made by one convolution and then only moved, until
// other convolutions read it. So the channels of a convolution may be
// reordered freely among those with the same readers: here they are matched in
// order, and a depthwise convolution follows its input.
func Rewire(from, to *Net) (map[string]Order, error) {
	orders, _, err := rewire(from, to)
	return orders, err
}

// RewireSpace is [Rewire] for the supernets of two spaces that differ in their
// wiring: the same orders hold for every path.
func RewireSpace(from, to *Space) (map[string]Order, error) {
	all := map[string]Order{}
	most := 0
	for i := range to.Len() {
		if !slices.Equal(from.Candidates(min(i, from.Len()-1)), to.Candidates(i)) || from.Len() != to.Len() {
			return nil, fmt.Errorf("arch: rewire: space %s has other blocks than %s", from.Name, to.Name)
		}
		most = max(most, len(to.Candidates(i)))
	}
	// Where every candidate of a block leaves its channels in one order, what
	// holds on the paths that take candidate c everywhere holds on any path.
	var boundary [][]int
	seen := map[string]bool{}
	for c := range most {
		a, b, err := uniformPaths(from, to, c)
		if err != nil {
			return nil, err
		}
		if !unseen(b, seen) {
			continue // another width of layers that were looked at
		}
		orders, leaves, err := rewire(a, b)
		if err != nil {
			return nil, err
		}
		for i := range leaves {
			if boundary != nil && !slices.Equal(leaves[i], boundary[i]) {
				return nil, fmt.Errorf("arch: rewire: candidate %s of block %d leaves its channels in an order of its own",
					to.Candidates(i)[min(c, len(to.Candidates(i))-1)], i)
			}
		}
		boundary = leaves
		for name, o := range orders {
			if have, ok := all[name]; ok && !have.equal(o) {
				return nil, fmt.Errorf("arch: rewire: tensor %s would need two orders", name)
			}
			all[name] = o
		}
	}
	return all, nil
}

// uniformPaths are the paths of candidate c in every block that has as many.
func uniformPaths(from, to *Space, c int) (a, b *Net, err error) {
	choices := make([]int, to.Len())
	for i := range choices {
		choices[i] = min(c, len(to.Candidates(i))-1)
	}
	if a, err = from.Path(Make(choices)); err != nil {
		return nil, nil, err
	}
	b, err = to.Path(Make(choices))
	return a, b, err
}

// unseen tells whether a net has an op that is not in seen, and adds all.
func unseen(n *Net, seen map[string]bool) bool {
	before := len(seen)
	for i := range n.Ops {
		seen[n.Ops[i].Name] = true
	}
	return len(seen) > before
}

// rewire also returns, for each choice block, where the channels that leave it
// come from.
func rewire(from, to *Net) (map[string]Order, [][]int, error) {
	a, err := trace(from)
	if err != nil {
		return nil, nil, err
	}
	b, err := trace(to)
	if err != nil {
		return nil, nil, err
	}
	m, err := match(a, b)
	if err != nil {
		return nil, nil, err
	}
	orders := map[string]Order{}
	for i := range to.Ops {
		o := &to.Ops[i]
		if b.reads[o.Name] == nil {
			continue
		}
		if err := m.order(o, orders); err != nil {
			return nil, nil, fmt.Errorf("arch: rewire: op %s: %w", o.Name, err)
		}
	}
	leaves, err := m.leaves()
	return orders, leaves, err
}

// channel is one channel of a value: which channel of which full convolution
// it is (maker "" is the net's input), and what it went through since.
type channel struct {
	maker string
	index int
	via   string
}

// made is a channel as its maker counts it.
type made struct {
	maker string
	index int
}

// flow is where the channels of a net come from and go to.
type flow struct {
	net    *Net
	ops    map[string]*Op
	values [][]channel            // of each op's output
	reads  map[string][][]channel // of each op that computes, its inputs
	trails map[made]string        // what each channel is read by, in order
}

func trace(n *Net) (*flow, error) {
	f := &flow{n, map[string]*Op{}, make([][]channel, len(n.Ops)), map[string][][]channel{}, map[made]string{}}
	for i := range n.Ops {
		o := &n.Ops[i]
		f.ops[o.Name] = o
		in := make([][]channel, len(o.Inputs))
		for k, v := range o.Inputs {
			in[k] = f.value(v)
		}
		out, err := f.step(o, in)
		if err != nil {
			return nil, fmt.Errorf("arch: rewire: op %s: %w", o.Name, err)
		}
		f.values[i] = out
	}
	return f, nil
}

func (f *flow) value(v int) []channel {
	if v == Input {
		return fresh("", f.net.In.C)
	}
	return f.values[v]
}

func fresh(maker string, n int) []channel {
	cs := make([]channel, n)
	for i := range cs {
		cs[i] = channel{maker: maker, index: i}
	}
	return cs
}

// step is the channels that leave an op.
func (f *flow) step(o *Op, in [][]channel) ([]channel, error) {
	switch o.Kind {
	case Conv, Linear, Add:
		f.read(o, in)
		switch {
		case o.Kind == Add || o.depthwise():
			out := slices.Clone(in[0])
			for i := range out {
				out[i].via += o.Name + " "
			}
			return out, nil
		case o.Kind == Conv && o.Groups > 1:
			return nil, fmt.Errorf("%d groups are neither one nor one a channel", o.Groups)
		}
		return fresh(o.Name, o.Out.C), nil
	case Take:
		out := make([]channel, o.Out.C)
		for i := range out {
			out[i] = in[0][o.Start+i*o.Step]
		}
		return out, nil
	case Concat:
		return slices.Concat(in...), nil
	case Shuffle:
		out, per := make([]channel, 0, o.Out.C), o.Out.C/o.Groups
		for i := range per {
			for g := range o.Groups {
				out = append(out, in[0][g*per+i])
			}
		}
		return out, nil
	case GlobalPool, Dropout:
		return in[0], nil
	}
	panic("arch: rewire: kind " + o.Kind.String())
}

func (o *Op) depthwise() bool {
	return o.Kind == Conv && o.Groups > 1 && o.Groups == o.In.C && o.In.C == o.Out.C
}

func (f *flow) read(o *Op, in [][]channel) {
	f.reads[o.Name] = in
	for _, cs := range in {
		for _, c := range cs {
			f.trails[made{c.maker, c.index}] += c.via + o.Name + "; "
		}
	}
}

// matching pairs the channels of two flows.
type matching struct {
	from, to *flow
	source   map[string][]int // of each full convolution: channel of to → channel of from
}

func match(from, to *flow) (*matching, error) {
	m := &matching{from, to, map[string][]int{}}
	for i := range to.net.Ops {
		o := &to.net.Ops[i]
		if o.Kind != Conv || o.depthwise() {
			continue
		}
		byTrail := map[string][]int{}
		for c := range o.Out.C {
			t := from.trails[made{o.Name, c}]
			byTrail[t] = append(byTrail[t], c)
		}
		source := make([]int, o.Out.C)
		for c := range source {
			t := to.trails[made{o.Name, c}]
			if len(byTrail[t]) == 0 {
				return nil, fmt.Errorf("arch: rewire: op %s: channel %d is read by %q, and by no such list in the other net: they are not the same function", o.Name, c, t)
			}
			source[c], byTrail[t] = byTrail[t][0], byTrail[t][1:]
		}
		m.source[o.Name] = source
	}
	return m, nil
}

// order finds the orders of one op's tensors.
func (m *matching) order(o *Op, orders map[string]Order) error {
	p := m.from.ops[o.Name]
	if p == nil {
		return errors.New("the other net has none")
	}
	if o.Kind != p.Kind || len(o.Inputs) != len(p.Inputs) || o.Weight != nil && !slices.Equal(o.Weight.Dims(), p.Weight.Dims()) {
		return fmt.Errorf("the other net has one of another shape")
	}
	var w Order
	for k, cs := range m.to.reads[o.Name] {
		cols, err := m.sources(m.from.reads[o.Name][k], cs)
		if err != nil {
			return err
		}
		if k > 0 && !slices.Equal(cols, w.Cols) {
			return errors.New("its inputs would need two orders")
		}
		w.Cols = cols
	}
	switch {
	case o.Kind == Add:
		return nil
	case o.depthwise():
		w = Order{Rows: w.Cols}
	case o.Kind == Conv:
		w.Rows = moves(m.source[o.Name])
	}
	for _, v := range o.views() {
		cut := Order{Rows: w.Rows}
		if v.Role == ConvWeight || v.Role == LinearWeight {
			cut.Cols = w.Cols
		}
		if cut.Rows == nil && cut.Cols == nil {
			continue
		}
		if cut.Rows != nil && v.Dims()[0] != v.Shape[0] || cut.Cols != nil && v.Dims()[1] != v.Shape[1] {
			return fmt.Errorf("tensor %s is used in part, and its channels would move", v.Name)
		}
		orders[v.Name] = cut
	}
	return nil
}

// sources says where in a value of one net the channels of the same value of
// the other are; nil where all are in place.
func (m *matching) sources(from, to []channel) ([]int, error) {
	at := make(map[channel]int, len(from))
	for i, c := range from {
		if _, twice := at[c]; twice {
			return nil, fmt.Errorf("it reads channel %d of %s twice", c.index, c.maker)
		}
		at[c] = i
	}
	list := make([]int, len(to))
	for i, c := range to {
		if s := m.source[c.maker]; s != nil {
			c.index = s[c.index]
		}
		j, ok := at[c]
		if !ok || len(from) != len(to) {
			return nil, fmt.Errorf("it reads channel %d of %q, and not so in the other net: they are not the same function", c.index, c.maker)
		}
		list[i] = j
	}
	return moves(list), nil
}

// moves is a permutation, or nil where it moves nothing.
func moves(p []int) []int {
	for i, v := range p {
		if v != i {
			return p
		}
	}
	return nil
}

// leaves is the order of the channels that leave each choice block.
func (m *matching) leaves() ([][]int, error) {
	a, b := m.from.exits(), m.to.exits()
	list := make([][]int, len(b))
	for i := range b {
		var err error
		if list[i], err = m.sources(m.from.value(a[i]), m.to.value(b[i])); err != nil {
			return nil, fmt.Errorf("arch: rewire: block %d: %w", i, err)
		}
	}
	return list, nil
}

// exits is the value that leaves each choice block, which is the one that
// enters it where the block is an identity.
func (f *flow) exits() []int {
	list := make([]int, len(f.net.Arch))
	v, block := Input, 0
	for i := range f.net.Ops {
		at := f.net.Ops[i].Block
		if at < 0 && block > 0 {
			break // the tail
		}
		for ; block < at; block++ {
			list[block] = v
		}
		if v = i; at >= 0 {
			list[at], block = v, at+1
		}
	}
	for ; block < len(list); block++ {
		list[block] = v
	}
	return list
}
