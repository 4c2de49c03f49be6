// Package search finds the architecture of a space that is most accurate
// within limits. It knows archs, their costs and the numbers that others
// measure for it; it must never know a tensor, a runtime or a data set.
//
// A [Method] proposes, [Run] has the proposals measured and evaluated,
// journals every [Trial] and tells the method. Methods draw from a seeded
// generator and from what they were told, nothing else, so that a journal
// replayed through a fresh method continues to the same history.
package search

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"time"

	"spos/internal/arch"
)

// Origin says how a net was proposed.
type Origin string

// The origins.
const (
	Random    Origin = "random"
	Mutation  Origin = "mutation"
	Crossover Origin = "crossover"
)

// Proposal is a net that a method wants to know more about.
type Proposal struct {
	Arch       arch.Arch
	Generation int // counted from 0, the random start
	Origin     Origin
	Parents    []arch.Arch // one of a mutation, two of a crossover
}

// Trial is everything that was found out about one proposal. Field by field
// it is one line of the journal (docs/formats.md).
type Trial struct {
	ID         int         `json:"id"` // 0, 1, …: the order of proposal
	Generation int         `json:"generation"`
	Origin     Origin      `json:"origin"`
	Parents    []arch.Arch `json:"parents,omitempty"`
	Arch       arch.Arch   `json:"arch"`
	MACs       int64       `json:"macs"`
	Params     int64       `json:"params"`
	// Latency in milliseconds, zero where nobody measured it; a prediction where
	// Reason says so.
	Latency Interval `json:"latency_ms,omitzero"`
	// Devices are the latencies by device where there are several; Latency is
	// then the first device's.
	Devices map[string]Interval `json:"devices_ms,omitempty"`
	// Feasible nets met every constraint and have an accuracy; for others
	// Reason says what they missed.
	Feasible bool               `json:"feasible"`
	Reason   string             `json:"reason,omitempty"`
	Accuracy float64            `json:"accuracy"`         // a fraction
	Values   map[string]float64 `json:"values,omitempty"` // whatever else the objective returned
	// Config is [Options.Config] of the run that made the trial.
	Config string `json:"config,omitempty"`
	// Seconds of measuring and evaluating; the one field that differs between
	// two runs of the same history.
	Seconds float64 `json:"seconds"`

	// Replayed trials came out of the journal.
	Replayed bool `json:"-"`
}

// Score is what an [Objective] found out about one net.
type Score struct {
	Accuracy float64            // a fraction, higher is better
	Values   map[string]float64 // kept in the trial, not judged
}

// Objective evaluates nets, one score each, in their order. It returns early
// when the context ends.
type Objective func(ctx context.Context, nets []*arch.Net) ([]Score, error)

// Method is a search algorithm. It is deterministic: its proposals depend on
// its seed and on what it was told, in order. The packages' methods are
// [Evolution] and [RandomSearch]; searchtest holds the rules that each obeys.
type Method interface {
	// Ask proposes between 1 and n nets, none of them proposed before. The
	// caller tells the trials of all before it asks again. The error wraps
	// [ErrExhausted] when bounded tries found no new net.
	Ask(n int) ([]Proposal, error)
	// Tell reports the trials of the last Ask, in its order. Infeasible ones
	// have no accuracy.
	Tell(trials []Trial)
}

// ErrExhausted is wrapped when no unseen net within the limits turned up in
// bounded tries: the space, or what the limits leave of it, is used up.
var ErrExhausted = errors.New("no new net found")

// ErrHistory is wrapped when a journal belongs to another search.
var ErrHistory = errors.New("the journal is of another search")

// Journal keeps trials. Append returns once the trial is on disk; a trial is
// told to the method only after that.
type Journal interface {
	Append(t Trial) error
}

// Options of [Run].
type Options struct {
	Objective Objective  // required
	Latency   Constraint // nil: not measured, not limited
	Budget    int        // nets to evaluate for accuracy; 0 means 1,050 as in the official search
	// Batch is how many nets are measured and then evaluated together before
	// their trials are journalled: what a crash can lose. 0 means one;
	// evaluators that work in parallel want a generation.
	Batch int
	// Misses is how many nets in a row may miss the latency limit before the
	// search gives up with [ErrUnsatisfiable]; 0 means 200. Once a net has met
	// it, the search ends with [ErrExhausted] after ten times as many.
	Misses int

	Journal Journal // nil: the history is not kept
	Past    []Trial // the journal of the search to continue, in its order
	// Config fingerprints whatever decides the history and that Run cannot
	// see: checkpoint, data, latency limit. It is stored in every trial, and a
	// Past with another one is refused. See [Fingerprint].
	Config string

	Now func() time.Time // nil means time.Now
}

// Run searches until the budget is spent and yields every trial after it was
// journalled, those of Past first. An error comes last, with a zero trial.
// Stopping early is safe; what was yielded is in the journal. The sequence
// can be ranged over once, since the method keeps its state.
func Run(ctx context.Context, s *arch.Space, m Method, o Options) iter.Seq2[Trial, error] {
	r := runner{space: s, method: m, Options: o}
	r.Budget = cmp.Or(o.Budget, 1050)
	r.Batch = cmp.Or(o.Batch, 1)
	r.Misses = cmp.Or(o.Misses, 200)
	if r.Now == nil {
		r.Now = time.Now
	}
	return func(yield func(Trial, error) bool) {
		if err := r.run(ctx, yield); err != nil && !errors.Is(err, errStopped) {
			yield(Trial{}, err)
		}
	}
}

// errStopped says that the consumer wants no more.
var errStopped = errors.New("stopped")

type runner struct {
	space  *arch.Space
	method Method
	Options

	id        int // of the next trial
	evaluated int
	missed    int    // in a row
	reason    string // of the last one
}

func (r *runner) run(ctx context.Context, yield func(Trial, error) bool) error {
	if r.Objective == nil {
		return errors.New("search: no objective")
	}
	for r.evaluated < r.Budget {
		proposals, err := r.method.Ask(r.Budget - r.evaluated)
		if err != nil {
			return fmt.Errorf("search: after %d evaluated nets: %w", r.evaluated, err)
		}
		var told []Trial
		for part := range slices.Chunk(proposals, r.Batch) {
			trials, err := r.try(ctx, part)
			if err != nil {
				return err
			}
			for _, t := range trials {
				if err := r.keep(t); err != nil {
					return err
				}
				if !yield(t, nil) {
					return errStopped
				}
			}
			told = append(told, trials...)
			if err := r.enough(); err != nil {
				return err
			}
		}
		r.method.Tell(told)
	}
	return nil
}

// try turns proposals into trials: from the journal as far as it reaches,
// measured and evaluated from there on.
func (r *runner) try(ctx context.Context, ps []Proposal) ([]Trial, error) {
	trials := make([]Trial, len(ps))
	nets := make([]*arch.Net, len(ps))
	fresh := len(ps)
	for i, p := range ps {
		net, err := r.space.Net(p.Arch)
		if err != nil {
			return nil, fmt.Errorf("search: the method proposed: %w", err)
		}
		cost := net.Cost()
		nets[i] = net
		trials[i] = Trial{
			ID: r.id + i, Generation: p.Generation, Origin: p.Origin, Parents: p.Parents, Arch: p.Arch,
			MACs: cost.MACs, Params: cost.Params, Config: r.Config,
		}
		if trials[i].ID < len(r.Past) {
			if trials[i], err = replay(r.Past[trials[i].ID], trials[i]); err != nil {
				return nil, err
			}
		} else {
			fresh = min(fresh, i)
		}
	}
	r.id += len(ps)
	if fresh == len(ps) {
		return trials, nil
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("search: before trial %d: %w", trials[fresh].ID, context.Cause(ctx))
	}
	start := r.Now()
	if err := r.judge(ctx, trials[fresh:], nets[fresh:]); err != nil {
		return nil, fmt.Errorf("search: trials %d to %d: %w", trials[fresh].ID, r.id-1, err)
	}
	each := r.Now().Sub(start).Seconds() / float64(len(ps)-fresh)
	for i := fresh; i < len(trials); i++ {
		trials[i].Seconds = each
	}
	return trials, nil
}

// judge measures, and then evaluates what met the limit.
func (r *runner) judge(ctx context.Context, trials []Trial, nets []*arch.Net) error {
	verdicts := make([]Verdict, len(nets))
	for i := range verdicts {
		verdicts[i].Met = true
	}
	if r.Latency != nil {
		var err error
		if verdicts, err = r.Latency.Check(ctx, nets); err != nil {
			return fmt.Errorf("check %s: %w", r.Latency.Name(), err)
		}
		if len(verdicts) != len(nets) {
			return fmt.Errorf("check %s: %d verdicts on %d nets", r.Latency.Name(), len(verdicts), len(nets))
		}
	}
	var good []*arch.Net
	for i, v := range verdicts {
		trials[i].Latency, trials[i].Devices, trials[i].Feasible, trials[i].Reason = v.Interval, v.Devices, v.Met, v.Reason
		if v.Met {
			good = append(good, nets[i])
		}
	}
	if len(good) == 0 {
		return nil
	}
	scores, err := r.Objective(ctx, good)
	if err != nil {
		return fmt.Errorf("evaluate: %w", err)
	}
	if len(scores) != len(good) {
		return fmt.Errorf("evaluate: %d scores for %d nets", len(scores), len(good))
	}
	for i := range trials {
		if !trials[i].Feasible {
			continue
		}
		score := scores[0]
		scores = scores[1:]
		if math.IsNaN(score.Accuracy) || score.Accuracy < 0 || score.Accuracy > 1 {
			return fmt.Errorf("evaluate: accuracy of %s is %v, not a fraction", trials[i].Arch, score.Accuracy)
		}
		trials[i].Accuracy, trials[i].Values = score.Accuracy, score.Values
	}
	return nil
}

// keep makes a trial part of the history.
func (r *runner) keep(t Trial) error {
	if r.Journal != nil && !t.Replayed {
		if err := r.Journal.Append(t); err != nil {
			return fmt.Errorf("search: journal trial %d: %w", t.ID, err)
		}
	}
	if t.Feasible {
		r.evaluated++
		r.missed = 0
		return nil
	}
	r.missed++
	r.reason = t.Reason
	return nil
}

// enough is an error when so many nets in a row missed the limits that looking
// on is no use.
func (r *runner) enough() error {
	switch {
	case r.evaluated == 0 && r.missed >= r.Misses:
		return fmt.Errorf("search: %w: %d in a row missed %s, the last one: %s", ErrUnsatisfiable, r.missed, r.Latency.Name(), r.reason)
	case r.missed >= 10*r.Misses:
		return fmt.Errorf("search: after %d evaluated nets: %w: the last %d in a row missed %s, the last one: %s",
			r.evaluated, ErrExhausted, r.missed, r.Latency.Name(), r.reason)
	}
	return nil
}

// replay is the journalled trial, if it is the one that was to be made.
func replay(past, want Trial) (Trial, error) {
	differ := func(what string, p, w any) (Trial, error) {
		return Trial{}, fmt.Errorf("search: trial %d: %s is %v in the journal and %v in this search: %w; "+
			"give it the configuration, space, limits and seed it began with, or begin in another directory",
			want.ID, what, p, w, ErrHistory)
	}
	switch {
	case past.Config != want.Config:
		return differ("the configuration", past.Config, want.Config)
	case past.ID != want.ID:
		return differ("the number", past.ID, want.ID)
	case past.Arch != want.Arch:
		return differ("the arch", past.Arch, want.Arch)
	case past.MACs != want.MACs || past.Params != want.Params:
		return differ("the cost", fmt.Sprint(past.MACs, " MACs ", past.Params, " params"), fmt.Sprint(want.MACs, " MACs ", want.Params, " params"))
	case past.Generation != want.Generation || past.Origin != want.Origin || !slices.Equal(past.Parents, want.Parents):
		return differ("the lineage", fmt.Sprint(past.Generation, past.Origin, past.Parents), fmt.Sprint(want.Generation, want.Origin, want.Parents))
	}
	past.Replayed = true
	return past, nil
}

// Compare orders trials best first: feasible before infeasible, then higher
// accuracy, then fewer MACs, then by arch. It never calls two archs equal.
func Compare(a, b Trial) int {
	feasible := func(t Trial) int {
		if t.Feasible {
			return 0
		}
		return 1
	}
	return cmp.Or(
		cmp.Compare(feasible(a), feasible(b)),
		cmp.Compare(b.Accuracy, a.Accuracy),
		cmp.Compare(a.MACs, b.MACs),
		cmp.Compare(a.Arch, b.Arch),
	)
}

// Winner is the best feasible trial under [Compare], or false where there is
// none. It looks at all trials, the last generation included.
func Winner(trials []Trial) (Trial, bool) {
	if len(trials) == 0 {
		return Trial{}, false
	}
	w := slices.MinFunc(trials, Compare)
	return w, w.Feasible
}
