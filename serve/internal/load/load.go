// Package load offers requests to a server and notes how it answers: closed loops of clients that wait for each
// answer, and open loops in which requests are due at random times whether or not earlier ones were answered. It
// measures servers from outside, as their clients do, and must never know what computes behind them.
package load

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Outcome is what became of a request.
type Outcome uint8

// The outcomes.
const (
	Answered Outcome = iota
	Refused          // told at once to come again later
	Failed           // anything else, a lost connection among it
	outcomes
)

// Client sends one request at a time and waits for its answer. An error of Do is a Failed request, after which the
// client is closed and not used again.
type Client interface {
	Do() (Outcome, error)
	Close() error
}

// Dial makes a client, with its own connection.
type Dial func() (Client, error)

// Result is how a server did under one load.
type Result struct {
	Seconds float64 `json:"seconds"`
	// Count is of the requests whose answer came, or was given up, in the time measured.
	Count map[string]int `json:"count"`
	// Rate is answered requests a second.
	Rate float64 `json:"rate"`
	// Latency and Refusal are of answered and of refused requests: from when they were due, which in a closed loop is
	// when they were sent, to the last byte of the answer.
	Latency Quantiles `json:"latency"`
	Refusal Quantiles `json:"refusal"`
	// Late is how far behind its schedule an open loop sent.
	Late Quantiles `json:"late"`
	// Err is the first failure; empty: none.
	Err string `json:"err,omitempty"`
}

// samples gathers latencies. It is not safe for concurrent use.
type samples struct {
	times [outcomes][]time.Duration
	late  []time.Duration
	err   error
}

func (s *samples) add(o Outcome, took time.Duration, err error) {
	s.times[o] = append(s.times[o], took)
	if s.err == nil {
		s.err = err
	}
}

func (s *samples) merge(o *samples) {
	for i := range s.times {
		s.times[i] = append(s.times[i], o.times[i]...)
	}
	s.late = append(s.late, o.late...)
	if s.err == nil {
		s.err = o.err
	}
}

func (s *samples) result(took time.Duration) Result {
	r := Result{
		Seconds: took.Seconds(),
		Count: map[string]int{
			"answered": len(s.times[Answered]), "refused": len(s.times[Refused]), "failed": len(s.times[Failed]),
		},
		Rate:    float64(len(s.times[Answered])) / took.Seconds(),
		Latency: quantiles(s.times[Answered]), Refusal: quantiles(s.times[Refused]), Late: quantiles(s.late),
	}
	if s.err != nil {
		r.Err = s.err.Error()
	}
	return r
}

// Closed lets a number of clients send one request after the other for some time.
func Closed(ctx context.Context, dial Dial, clients int, length time.Duration) Result {
	all := make([]samples, clients)
	ctx, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	var group sync.WaitGroup
	start := time.Now()
	for i := range all {
		group.Go(func() {
			c := &redialed{dial: dial}
			defer c.close()
			for ctx.Err() == nil {
				sent := time.Now()
				o, err := c.do()
				all[i].add(o, time.Since(sent), err)
			}
		})
	}
	group.Wait()
	took := time.Since(start)
	var sum samples
	for i := range all {
		sum.merge(&all[i])
	}
	return sum.result(took)
}

// redialed is a client that is replaced when it fails.
type redialed struct {
	dial Dial
	c    Client
}

func (r *redialed) do() (o Outcome, err error) {
	if r.c == nil {
		if r.c, err = r.dial(); err != nil {
			time.Sleep(time.Millisecond) // a server that is not there must not be asked a million times a second
			return Failed, err
		}
	}
	if o, err = r.c.Do(); err != nil {
		r.close()
		return Failed, err
	}
	return o, nil
}

func (r *redialed) close() {
	if r.c != nil {
		_ = r.c.Close() // nothing more is expected of it
		r.c = nil
	}
}

// Open makes requests due at the times of a Poisson process of so many a second, which rng draws. A request that no
// client is free for, of at most so many, waits, and its wait counts: a server that stalls is not asked less often for
// it. Open returns when all that were due are answered.
func Open(ctx context.Context, dial Dial, rate float64, length time.Duration, most int, rng *rand.Rand) Result {
	due := make(chan time.Time, int(2*rate*length.Seconds())+100)
	all := make([]samples, 0, most)
	var free atomic.Int64 // clients without a request, less requests without a client
	var group sync.WaitGroup
	start := time.Now()
	for at := start; ; {
		at = at.Add(time.Duration(rng.ExpFloat64() / rate * float64(time.Second)))
		if at.Sub(start) > length || ctx.Err() != nil {
			break
		}
		time.Sleep(time.Until(at))
		due <- at
		if free.Add(-1) < 0 && len(all) < most {
			free.Add(1)
			all = append(all, samples{})
			s := &all[len(all)-1]
			group.Go(func() { s.work(dial, due, &free) })
		}
	}
	close(due)
	group.Wait()
	took := max(time.Since(start), length)
	var sum samples
	for i := range all {
		sum.merge(&all[i])
	}
	return sum.result(took)
}

// work is one client of an open loop.
func (s *samples) work(dial Dial, due <-chan time.Time, free *atomic.Int64) {
	c := &redialed{dial: dial}
	defer c.close()
	for at := range due {
		s.late = append(s.late, time.Since(at))
		o, err := c.do()
		s.add(o, time.Since(at), err)
		free.Add(1)
	}
}
