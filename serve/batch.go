package serve

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"time"
)

// batcher puts requests to one version that wait for cores together into one run. A request waits for company no longer
// than the model's options say, and joins what waits for cores in any case, so that batches grow with the load.
//
// Members only share the run: each keeps its own deadline, leaves when its client does, and gets an error of the run
// only when it fails by itself, too.
type batcher struct {
	v         *version
	mem       *memory
	most      int64 // items of a run
	preferred []int64
	delay     time.Duration

	mu   sync.Mutex
	open map[string]*batch // that take members, by what their members' shapes share
}

// batch is a run that is made ready, or under way, or over. The batcher's mu guards it until it is sealed, and its
// count of members to its end.
type batch struct {
	b       *batcher
	key     string
	items   int64
	members []*member
	active  int // members that neither left nor took their outputs
	sealed  bool
	over    bool

	ctx    context.Context //nolint:containedctx // of the run, which is nobody's call: done when no member is left
	cancel context.CancelFunc
	until  time.Time   // when the wait for company ends
	timer  *time.Timer // runs to until; nil when nobody waits for company
	ready  chan struct{}
	start  func()        // closes ready
	lent   chan struct{} // closed when the members' memory is not read any more
	done   chan struct{} // closed when over

	mem   arena // of the joint inputs and outputs
	out   []Tensor
	times spans
	bug   any // what the model panicked with
}

// member is one request in a batch.
type member struct {
	ctx    context.Context //nolint:containedctx // of the request, which its member does not outlive
	in     []Tensor
	wants  []wantedOutput
	items  int64
	came   time.Time
	waited time.Duration
	first  int64    // its first item in the batch
	out    []Tensor // its own outputs, where it had to be run alone
	alone  bool
	err    error
}

// newBatcher is nil for a model that is not to be batched.
func newBatcher(v *version, mem *memory) *batcher {
	o := v.info.Options.Batching
	if o.Max < 2 {
		return nil
	}
	b := &batcher{v: v, mem: mem, most: int64(o.Max), preferred: []int64{}, delay: o.Delay, open: map[string]*batch{}}
	for _, n := range o.Preferred {
		b.preferred = append(b.preferred, int64(n))
	}
	return b
}

// checkBatching holds the model against being asked to batch.
func (info *ModelInfo) checkBatching() error {
	if info.Options.Batching.Max > 1 && !info.batched() {
		return errors.New("batching: not every input and output of the model begins with a variable dimension")
	}
	return nil
}

// joint is what requests must have in common to share a run, and how many items one has. It reports false for inputs
// that do not agree in their first dimension.
func joint(in []Tensor) (key string, items int64, ok bool) {
	var b []byte
	for i, t := range in {
		if len(t.Shape) == 0 || i > 0 && t.Shape[0] != items {
			return "", 0, false
		}
		items = t.Shape[0]
		for _, d := range t.Shape[1:] {
			b = append(strconv.AppendInt(b, d, 10), ',')
		}
		b = append(b, ';')
	}
	return string(b), items, true
}

// compute is version.alone for a request that may have company. Pictures are decoded before they meet.
func (b *batcher) compute(ctx context.Context, req *inferRequest, mem *arena, t *spans) ([]Tensor, error) {
	in, err := b.develop(ctx, req, mem, t)
	if err != nil {
		return nil, err
	}
	key, items, ok := joint(in)
	if !ok || items > b.most {
		return b.v.alone(ctx, &inferRequest{inputs: in, outputs: req.outputs}, mem, t)
	}
	m := &member{ctx: ctx, in: in, wants: req.outputs, items: items, came: time.Now()}
	b.v.met.queued.Inc()
	bt := b.join(key, m)
	select {
	case <-bt.done:
		defer bt.release()
		return bt.take(m, mem, t)
	case <-ctx.Done():
		return nil, b.v.gate.lost(ctx, bt.leave(m))
	}
}

// develop is version.develop behind the gate.
func (b *batcher) develop(ctx context.Context, req *inferRequest, mem *arena, t *spans) ([]Tensor, error) {
	if req.pictures == nil {
		return req.inputs, nil
	}
	waited, err := b.v.gate.enter(ctx)
	t.queue += waited
	if err != nil {
		return nil, err
	}
	defer b.v.gate.exit()
	start := time.Now()
	defer func() { t.input += time.Since(start) }()
	return b.v.develop(ctx, req, mem)
}

// join puts a member into a batch that has room, or begins one.
func (b *batcher) join(key string, m *member) *batch {
	b.mu.Lock()
	defer b.mu.Unlock()
	bt := b.open[key]
	if bt != nil && bt.items+m.items > b.most {
		bt.close()
		bt = nil
	}
	if bt == nil {
		bt = b.begin(key, m.came)
	}
	bt.members = append(bt.members, m)
	bt.active++
	bt.items += m.items
	if deadline, ok := m.ctx.Deadline(); ok {
		// What is left of its time beyond a run is for both waits, this one and that for cores.
		bt.hurry(m.came.Add((deadline.Sub(m.came) - b.v.gate.pace.mean()) / 2))
	}
	if slices.Contains(b.preferred, bt.items) {
		bt.start()
	}
	if bt.items == b.most {
		bt.close()
	}
	return bt
}

// begin makes an open batch. It holds the version, which its members might leave.
func (b *batcher) begin(key string, now time.Time) *batch {
	bt := &batch{b: b, key: key, mem: arena{m: b.mem}, ready: make(chan struct{}), lent: make(chan struct{}), done: make(chan struct{})}
	bt.ctx, bt.cancel = context.WithCancel(context.Background())
	bt.start = sync.OnceFunc(func() { close(bt.ready) })
	if b.delay > 0 {
		bt.until = now.Add(b.delay)
		bt.timer = time.AfterFunc(b.delay, bt.start)
	} else {
		bt.start()
	}
	b.open[key] = bt
	b.v.acquire() // a member has it, so that it is there
	go bt.run()
	return bt
}

// hurry ends the wait for company at a member's last chance, if that comes first.
func (bt *batch) hurry(at time.Time) {
	if bt.timer != nil && at.Before(bt.until) && bt.timer.Stop() {
		bt.until = at
		bt.timer.Reset(time.Until(at))
	}
}

// close takes no further members and waits for none.
func (bt *batch) close() {
	if bt.b.open[bt.key] == bt {
		delete(bt.b.open, bt.key)
	}
	bt.start()
}

// leave takes a member out whose client or time is gone, and returns what to say when it was its time. Its memory is
// free afterwards.
func (bt *batch) leave(m *member) error {
	b := bt.b
	b.mu.Lock()
	queued := !bt.sealed
	if queued {
		bt.items -= m.items
		bt.members = slices.DeleteFunc(bt.members, func(o *member) bool { return o == m })
		b.v.met.queued.Dec()
		b.v.met.queue.Observe(time.Since(m.came).Seconds())
	}
	bt.releaseLocked()
	b.mu.Unlock()
	if queued {
		return errQueued
	}
	<-bt.lent
	return errRun
}

// release counts a member that has what it came for.
func (bt *batch) release() {
	bt.b.mu.Lock()
	defer bt.b.mu.Unlock()
	bt.releaseLocked()
}

func (bt *batch) releaseLocked() {
	if bt.active--; bt.active > 0 {
		return
	}
	if bt.over {
		bt.mem.free()
		return
	}
	bt.cancel()
	bt.close() // a new member would find a run that is cancelled
}
