package serve

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// maxBatchSizes bounds the sizes that batch_stats tells apart: clients choose them.
const maxBatchSizes = 256

// spans are the parts of one request's time.
type spans struct {
	start, end                  time.Time // its last byte, and when its answer was made; zero: not yet
	queue, input, infer, output time.Duration
	items                       int64 // of its batch; 0 until it was computed
}

// stats count for one version of a model. Its zero value is ready; all of it may be used at once by many.
type stats struct {
	last                                       atomic.Int64 // ms since 1970
	inferences, executions                     atomic.Uint64
	success, fail, queue, input, infer, output spent
	batches                                    sync.Map // of *batchStats by int64
	sizes                                      atomic.Int64
}

type batchStats struct{ input, infer, output spent }

type spent struct{ count, ns atomic.Uint64 }

func (s *spent) add(d time.Duration) {
	s.ns.Add(uint64(max(d, 0)))
	s.count.Add(1)
}

func (s *spent) load() Spent { return Spent{s.count.Load(), s.ns.Load()} }

// request counts a request to the version that is over.
func (s *stats) request(t *spans, err error) {
	took := time.Duration(0)
	if !t.start.IsZero() {
		took = time.Since(t.start)
	}
	if !t.end.IsZero() {
		took = t.end.Sub(t.start)
	}
	if err != nil {
		s.fail.add(took)
		return
	}
	s.inferences.Add(uint64(t.items))
	s.queue.add(t.queue)
	s.input.add(t.input)
	s.infer.add(t.infer)
	s.output.add(t.output)
	s.success.add(took)
}

// execution counts a run of the model that succeeded.
func (s *stats) execution(batch int64, began time.Time, input, infer, output time.Duration) {
	s.executions.Add(1)
	s.last.Store(began.UnixMilli())
	b, ok := s.batches.Load(batch)
	if !ok {
		if s.sizes.Load() >= maxBatchSizes {
			return
		}
		if b, ok = s.batches.LoadOrStore(batch, new(batchStats)); !ok {
			s.sizes.Add(1)
		}
	}
	bs := b.(*batchStats)
	bs.input.add(input)
	bs.infer.add(infer)
	bs.output.add(output)
}

// read is the values of now, without names.
func (s *stats) read() ModelStats {
	m := ModelStats{
		LastInference: uint64(s.last.Load()), Inferences: s.inferences.Load(), Executions: s.executions.Load(),
		Requests: InferenceStats{
			Success: s.success.load(), Fail: s.fail.load(), Queue: s.queue.load(),
			Input: s.input.load(), Infer: s.infer.load(), Output: s.output.load(),
		},
		Batches: []BatchStats{}, Memory: []MemoryUsage{},
	}
	s.batches.Range(func(size, b any) bool {
		bs := b.(*batchStats)
		m.Batches = append(m.Batches, BatchStats{uint64(size.(int64)), bs.input.load(), bs.infer.load(), bs.output.load()})
		return true
	})
	slices.SortFunc(m.Batches, func(a, b BatchStats) int { return int(a.Size) - int(b.Size) })
	return m
}
