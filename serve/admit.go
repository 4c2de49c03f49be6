package serve

import (
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
	inside atomic.Int64
	met    *modelMetrics
}

// refuse answers at once for what enter would refuse, so that a body need not be read first.
func (g *gate) refuse() error {
	if g.inside.Load() < g.limit {
		return nil
	}
	g.met.rejected("queue_full")
	return errBusy
}

// enter waits for cores until ctx is done and returns the function that gives them back. It refuses at once when
// the queue is full.
func (g *gate) enter(ctx context.Context) (leave func(), err error) {
	if g.inside.Add(1) > g.limit {
		g.inside.Add(-1)
		g.met.rejected("queue_full")
		return nil, errBusy
	}
	g.met.queued.Inc()
	start := time.Now()
	err = g.cores.Acquire(ctx, g.weight)
	g.met.queued.Dec()
	g.met.queue.Observe(time.Since(start).Seconds())
	if err != nil {
		g.inside.Add(-1)
		return nil, g.lost(ctx, errQueued)
	}
	g.met.running.Inc()
	return func() {
		g.met.running.Dec()
		g.cores.Release(g.weight)
		g.inside.Add(-1)
	}, nil
}

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

// run is one Run inside the gate. It notes its time.
func (v *version) run(ctx context.Context, in, out []Tensor, t *spans) error {
	start := time.Now()
	err := v.model.Run(ctx, in, out)
	t.infer = time.Since(start)
	v.met.compute.Observe(t.infer.Seconds())
	if err != nil && ctx.Err() != nil {
		return v.gate.lost(ctx, errRun)
	}
	return err
}
