package serve

import (
	"net/http"
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
	failures                                   [numFailures]atomic.Uint64

	requests, runs window       // of successes; of runs, those of one batch size
	watched        atomic.Int64 // that size; 0 means 1
}

// failure is what kept a request from its answer, as far as dashboards tell it apart.
type failure int

const (
	failRejected failure = iota // the queue was full, or its wait too long
	failCanceled                // the client went away
	failBackend                 // while the model computed
	failOther                   // such as a request that is wrong

	numFailures = 4
)

func failureOf(err error) failure {
	switch e := answer(err, ""); {
	case e == errRun:
		return failBackend
	case e.code == statusClientGone:
		return failCanceled
	case e.code == http.StatusServiceUnavailable:
		return failRejected
	case e.code >= 500:
		return failBackend
	}
	return failOther
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
	took, end := time.Duration(0), t.end
	if end.IsZero() {
		end = time.Now()
	}
	if !t.start.IsZero() {
		took = end.Sub(t.start)
	}
	if err != nil {
		s.fail.add(took)
		s.failures[failureOf(err)].Add(1)
		return
	}
	s.requests.add(end, took)
	s.inferences.Add(uint64(t.items))
	s.queue.add(t.queue)
	s.input.add(t.input)
	s.infer.add(t.infer)
	s.output.add(t.output)
	s.success.add(took)
}

// execution counts a run of the model that succeeded.
func (s *stats) execution(batch int64, began time.Time, input, infer time.Duration) {
	s.executions.Add(1)
	s.last.Store(began.UnixMilli())
	if batch == max(s.watched.Load(), 1) {
		s.runs.add(began.Add(input+infer), infer)
	}
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
	bs.output.add(0) // answers are written apart
}

// watch begins to tell how long a version takes that has taken another's place.
func (s *stats) watch(info *ModelInfo) {
	s.requests.reset()
	s.runs.reset()
	s.watched.Store(1)
	if info.Promise != nil {
		s.watched.Store(info.Promise.Batch)
	}
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
