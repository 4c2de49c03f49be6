package supernet

import (
	"slices"

	"spos/internal/arch"
)

// step is one thing that a forward pass does: run an op that computes, or
// bring channels together.
type step struct {
	op    int // index of the op, or -1 for a regrouping
	sum   *regrouping
	spent []int // values that nothing reads afterwards
}

// regrouping makes each value of out from channels of the values in: lists
// numbers the channels of all of in through.
type regrouping struct {
	in    []int
	out   []int
	lists [][]int32
}

// channel is one channel of a value that exists as a tensor.
type channel struct{ value, at int }

// planner turns a net into steps. Take, Concat and Shuffle move channels and
// compute nothing, so a Concat or Shuffle stays a list of channels until
// somebody reads it. All Takes of one value are made in one regrouping, whose
// gradient then is one regrouping too.
type planner struct {
	net     *arch.Net
	readers [][]int           // op indices, per value
	lists   map[int][]channel // values that are not tensors yet
	made    map[int]bool      // values that are tensors
	steps   []step
}

func plan(net *arch.Net) []step {
	p := planner{
		net:     net,
		readers: make([][]int, len(net.Ops)),
		lists:   make(map[int][]channel),
		made:    map[int]bool{arch.Input: true},
	}
	var inputReaders []int
	for i := range net.Ops {
		for _, in := range net.Ops[i].Inputs {
			if in == arch.Input {
				inputReaders = append(inputReaders, i)
			} else {
				p.readers[in] = append(p.readers[in], i)
			}
		}
	}
	for i := range net.Ops {
		switch op := &net.Ops[i]; op.Kind {
		case arch.Concat, arch.Shuffle:
			p.lists[i] = p.rearranged(op)
		case arch.Take:
			if !p.made[i] {
				readers := inputReaders
				if in := op.Inputs[0]; in != arch.Input {
					readers = p.readers[in]
				}
				p.takes(op.Inputs[0], readers)
			}
		default:
			for _, in := range op.Inputs {
				p.need(in)
			}
			p.steps = append(p.steps, step{op: i})
			p.made[i] = true
		}
	}
	p.need(len(net.Ops) - 1)
	p.findSpent()
	return p.steps
}

// channels lists a value's channels as those of tensors.
func (p *planner) channels(v int) []channel {
	if !p.made[v] {
		return p.lists[v]
	}
	c := p.net.In.C
	if v != arch.Input {
		c = p.net.Ops[v].Out.C
	}
	list := make([]channel, c)
	for i := range list {
		list[i] = channel{v, i}
	}
	return list
}

// rearranged lists the channels of a Concat or Shuffle.
func (p *planner) rearranged(op *arch.Op) []channel {
	var all []channel
	for _, in := range op.Inputs {
		all = append(all, p.channels(in)...)
	}
	if op.Kind == arch.Concat {
		return all
	}
	out := make([]channel, 0, len(all))
	for j := range len(all) / op.Groups {
		for g := range op.Groups {
			out = append(out, all[g*len(all)/op.Groups+j])
		}
	}
	return out
}

// need makes a tensor of value v if it is none.
func (p *planner) need(v int) {
	if !p.made[v] {
		p.regroup([]int{v}, [][]channel{p.lists[v]})
	}
}

// takes makes every Take of value v.
func (p *planner) takes(v int, readers []int) {
	if slices.ContainsFunc(readers, func(r int) bool { return p.net.Ops[r].Kind != arch.Take }) {
		p.need(v)
	}
	from := p.channels(v)
	var out []int
	var lists [][]channel
	for _, r := range readers {
		op := &p.net.Ops[r]
		if op.Kind != arch.Take {
			continue
		}
		var list []channel
		for i := range op.Out.C {
			list = append(list, from[op.Start+i*op.Step])
		}
		out, lists = append(out, r), append(lists, list)
	}
	p.regroup(out, lists)
}

func (p *planner) regroup(out []int, lists [][]channel) {
	g := &regrouping{out: out}
	first := make(map[int]int) // where a source's numbers begin
	width := 0
	for _, l := range lists {
		numbers := make([]int32, len(l))
		for i, c := range l {
			at, ok := first[c.value]
			if !ok {
				at = width
				first[c.value] = at
				g.in = append(g.in, c.value)
				width += len(p.channels(c.value))
			}
			numbers[i] = int32(at + c.at)
		}
		g.lists = append(g.lists, numbers)
	}
	for _, v := range out {
		p.made[v] = true
		delete(p.lists, v)
	}
	p.steps = append(p.steps, step{op: -1, sum: g})
}

// findSpent notes each value at the last step that reads it. The input and
// the logits are the caller's.
func (p *planner) findSpent() {
	seen := map[int]bool{arch.Input: true, len(p.net.Ops) - 1: true}
	for i := range slices.Backward(p.steps) {
		s := &p.steps[i]
		var reads []int
		if s.sum != nil {
			reads = append(slices.Clone(s.sum.in), s.sum.out...) // a Take that nobody reads dies at once
		} else {
			reads = append(slices.Clone(p.net.Ops[s.op].Inputs), s.op)
		}
		for _, v := range reads {
			if !seen[v] {
				seen[v] = true
				s.spent = append(s.spent, v)
			}
		}
	}
}
