package serve

import (
	"encoding/binary"
	"fmt"
	"runtime/debug"
	"slices"
	"time"
)

// run is a batch's life, on a goroutine of its own.
func (bt *batch) run() {
	v := bt.b.v
	defer v.release()
	defer bt.end()
	defer func() {
		if p := recover(); p != nil {
			bt.bug = fmt.Sprintf("%v\n%s", p, debug.Stack())
		}
	}()
	select {
	case <-bt.ready:
	case <-bt.ctx.Done():
	}
	if v.gate.wait(bt.ctx) != nil {
		return // all are gone
	}
	defer v.gate.release()
	if bt.seal() {
		bt.compute()
	}
}

// seal takes no further members, and reports whether there are any.
func (bt *batch) seal() bool {
	bt.b.mu.Lock()
	defer bt.b.mu.Unlock()
	bt.close()
	bt.sealed = true
	met, now := bt.b.v.met, time.Now()
	for _, m := range bt.members {
		met.queued.Dec()
		met.running.Inc()
		m.waited = now.Sub(m.came)
		met.queue.Observe(m.waited.Seconds())
	}
	return len(bt.members) > 0
}

// end lets the members go.
func (bt *batch) end() {
	bt.b.mu.Lock()
	defer bt.b.mu.Unlock()
	if bt.sealed {
		for range bt.members {
			bt.b.v.met.running.Dec()
		}
	}
	bt.cancel()
	if bt.timer != nil {
		bt.timer.Stop()
	}
	if bt.over = true; bt.active == 0 {
		bt.mem.free()
	}
	close(bt.done)
	select {
	case <-bt.lent:
	default:
		close(bt.lent)
	}
}

// compute runs the members together, and one by one where that fails: an error of one is not the others'.
func (bt *batch) compute() {
	v, entered := bt.b.v, time.Now()
	wants := bt.wants()
	in, err := bt.gather()
	if err == nil {
		bt.times.input = time.Since(entered)
		if bt.out, err = v.outputs(in, wants, &bt.mem); err == nil {
			bt.times.infer, err = v.run(bt.ctx, in, bt.out)
		}
	}
	if err == nil {
		err = bt.check(wants)
	}
	switch {
	case err == nil:
		v.stats.execution(bt.items, entered, bt.times.input, bt.times.infer)
	case len(bt.members) == 1:
		bt.members[0].err = err
	case bt.ctx.Err() == nil:
		for _, m := range bt.members {
			bt.single(m, in)
		}
	}
}

// single runs one member of a batch that failed. in are the joint inputs, or nil where those could not be made.
func (bt *batch) single(m *member, in []Tensor) {
	m.alone = true
	if m.err = m.ctx.Err(); m.err != nil {
		return
	}
	own := m.in
	if in != nil {
		own = make([]Tensor, len(in))
		for i, t := range in {
			own[i] = rows(t, m.first, m.items)
		}
	}
	began := time.Now()
	if m.out, m.err = bt.b.v.outputs(own, m.wants, &bt.mem); m.err != nil {
		return
	}
	var took time.Duration
	if took, m.err = bt.b.v.run(m.ctx, own, m.out); m.err == nil {
		bt.times.infer += took
		bt.b.v.stats.execution(m.items, began, 0, took)
	}
}

// wants is every output that a member wants, in the model's order.
func (bt *batch) wants() []wantedOutput {
	var all []wantedOutput
	for _, o := range bt.b.v.info.Outputs {
		if slices.ContainsFunc(bt.members, func(m *member) bool {
			return slices.ContainsFunc(m.wants, func(w wantedOutput) bool { return w.Name == o.Name })
		}) {
			all = append(all, wantedOutput{TensorInfo: o})
		}
	}
	return all
}

// gather makes the joint inputs and lets go of the members' memory. A single member's inputs are used as they are.
func (bt *batch) gather() ([]Tensor, error) {
	if len(bt.members) == 1 {
		return bt.members[0].in, nil
	}
	in := make([]Tensor, len(bt.members[0].in))
	for i, t := range bt.members[0].in {
		size := 0
		for _, m := range bt.members {
			size += len(m.in[i].Data)
		}
		data, err := bt.mem.alloc(size)
		if err != nil {
			return nil, err
		}
		in[i] = Tensor{Name: t.Name, Type: t.Type, Shape: slices.Clone(t.Shape), Data: data[:0]}
		in[i].Shape[0] = bt.items
		for _, m := range bt.members {
			in[i].Data = append(in[i].Data, m.in[i].Data...)
		}
	}
	first := int64(0)
	for _, m := range bt.members {
		m.first = first
		first += m.items
	}
	close(bt.lent)
	return in, nil
}

// check holds the joint outputs to their word, and to having an item for each of the inputs.
func (bt *batch) check(wants []wantedOutput) error {
	for i, t := range bt.out {
		if err := checkOutput(t, wants[i]); err != nil {
			return err
		}
		if len(t.Shape) == 0 || t.Shape[0] != bt.items {
			return fmt.Errorf("the model answered %v for a batch of %d in %q", t.Shape, bt.items, t.Name)
		}
	}
	return nil
}

// take copies a member's outputs into its request's memory.
func (bt *batch) take(m *member, mem *arena, t *spans) ([]Tensor, error) {
	if bt.bug != nil {
		panic(bt.bug)
	}
	t.queue += m.waited
	t.input += bt.times.input
	t.infer = bt.times.infer
	if m.err != nil {
		if m.ctx.Err() != nil {
			return nil, bt.b.v.gate.lost(m.ctx, errRun)
		}
		return nil, m.err
	}
	out := make([]Tensor, len(m.wants))
	for i, w := range m.wants {
		var from Tensor
		if m.alone {
			from = m.out[i]
		} else {
			at := slices.IndexFunc(bt.out, func(o Tensor) bool { return o.Name == w.Name })
			from = rows(bt.out[at], m.first, m.items)
		}
		data, err := mem.alloc(len(from.Data))
		if err != nil {
			return nil, err
		}
		copy(data, from.Data)
		out[i] = Tensor{Name: from.Name, Type: from.Type, Shape: slices.Clone(from.Shape), Data: data}
	}
	return out, nil
}

// rows is n items of a checked tensor from one on, over its own memory.
func rows(t Tensor, first, n int64) Tensor {
	all := t.Shape[0]
	t.Shape = slices.Clone(t.Shape)
	t.Shape[0] = n
	if t.Type != Bytes {
		size := int64(len(t.Data)) / all
		t.Data = t.Data[first*size : (first+n)*size : (first+n)*size]
		return t
	}
	each, _ := elements(t.Shape[1:])
	skip := func(d []byte, n int64) []byte {
		for range n {
			d = d[4+binary.LittleEndian.Uint32(d):]
		}
		return d
	}
	from := skip(t.Data, first*each)
	rest := skip(from, n*each)
	t.Data = from[: len(from)-len(rest) : len(from)-len(rest)]
	return t
}
