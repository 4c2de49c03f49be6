package serve

import (
	"cmp"
	"context"
	"errors"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

// gate admits requests to one model: a bounded number of them, and no more at work than there are cores. All gates of
// a server share the cores, so a second model does not oversubscribe them; their queue is first come, first served.
//
// One thread a Run and as many Runs as cores gives the most images a second and the best tail (467/s with p99 6 ms on
// two cores, where unbounded concurrency gave the same rate with p99 207 ms and the runtime's own threads 183/s).
type gate struct {
	cores  *semaphore.Weighted
	weight int64 // cores that one Run keeps busy
	limit  int64 // waiting and running
	atWork int64 // of those, the most that run at once
	inside atomic.Int64
	pace   pace
	met    *modelMetrics
	on     *runners
	apart  *spread
}

// queueUp gives a version its gate, and its batcher where it is to have one.
func (s *Server) queueUp(v *version) {
	o := v.info.Options
	v.gate = gate{cores: s.cores, weight: int64(v.info.Threads), met: v.met, on: s.runners, apart: &s.apart}
	v.gate.atWork = int64(s.opt.Cores) / v.gate.weight * int64(max(o.Batching.Max, 1))
	v.gate.limit = int64(cmp.Or(o.Queue, s.opt.Queue)) + v.gate.atWork
	v.batcher = newBatcher(v, &s.memory)
}

// refuse answers at once for what admit would refuse, so that a body need not be read first.
func (g *gate) refuse() error {
	if g.inside.Load() < g.limit {
		return nil
	}
	return g.busy()
}

// full refuses a request of which nothing is known but that it is one: every queue is full, so the one that it is for
// is. Of a call, grpc then throws away what comes of the message, instead of keeping a tensor for each until a handler
// has seen the name of the model in it. The refusal is no model's: the call may have been for one that is not there.
func (s *Server) full() error {
	served := false
	for _, e := range *s.catalog.Load() {
		for _, sl := range e.slots {
			v := sl.live.Load()
			if v == nil {
				if state, _ := sl.status(); state == StateUnknown || state == StateLoading {
					return nil // a request may load it
				}
				continue
			}
			if v.gate.inside.Load() < v.gate.limit {
				return nil
			}
			served = true
		}
	}
	if !served {
		return nil
	}
	s.met.rejects.WithLabelValues("", "", "queue_full").Inc()
	return errFull
}

// busy is the refusal, and when to come again: by then, what is inside now will be done.
func (g *gate) busy() error {
	g.met.rejected("queue_full")
	e := *errBusy
	e.retry = g.pace.mean() * time.Duration(g.limit) / time.Duration(g.atWork)
	return &e
}

// admit takes a place for a request, until leave. It refuses at once when the queue is full.
func (g *gate) admit() error {
	if g.inside.Add(1) > g.limit {
		g.leave()
		return g.busy()
	}
	return nil
}

func (g *gate) leave() { g.inside.Add(-1) }

// wait takes the cores of one Run, until release. It returns ctx's error when that is done before.
func (g *gate) wait(ctx context.Context) error { return g.cores.Acquire(ctx, g.weight) }

func (g *gate) release() { g.cores.Release(g.weight) }

// enter is wait for a request that is run by itself, and notes what it waited.
func (g *gate) enter(ctx context.Context) (waited time.Duration, err error) {
	g.met.queued.Inc()
	start := time.Now()
	err = g.wait(ctx)
	waited = time.Since(start)
	g.met.queued.Dec()
	g.met.queue.Observe(waited.Seconds())
	if err != nil {
		return waited, g.lost(ctx, errQueued)
	}
	g.met.running.Inc()
	return waited, nil
}

// exit is the end of enter.
func (g *gate) exit() {
	g.met.running.Dec()
	g.release()
}

// pace is how long the latest Runs took, in the mean.
type pace struct{ ns atomic.Int64 }

// add counts a Run. Two at once may count as one.
func (p *pace) add(took time.Duration) {
	const of = 8 // the weight of all before
	old := p.ns.Load()
	if old == 0 {
		old = int64(took)
	}
	p.ns.Store(old + (int64(took)-old)/of)
}

func (p *pace) mean() time.Duration { return time.Duration(p.ns.Load()) }

// lost says why ctx is done: late is the answer when its deadline passed.
func (g *gate) lost(ctx context.Context, late error) error {
	switch {
	case errors.Is(context.Cause(ctx), errStop):
		g.met.rejected("stopped")
		return errStop
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		if errors.Is(late, errQueued) {
			g.met.rejected("queue_timeout")
		} else {
			g.met.rejected("run_timeout")
		}
		return late
	default:
		g.met.rejected("client_gone")
		return errGone
	}
}
