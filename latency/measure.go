package latency

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Model is a serialised ONNX model to measure.
type Model struct {
	Name  string // in results and errors
	Bytes []byte
	// Key identifies the graph without its weights, where the caller knows
	// such a thing: a [Cache] then finds a net again however it is trained.
	// "" means the hash of Bytes.
	Key string
}

// session is the [Task.Key] of the model's nth session at a try.
func (m Model) session(n, try int) string {
	return fmt.Sprintf("%s#%d.%d", m.graph(), n, try)
}

func (m Model) graph() string {
	if m.Key != "" {
		return m.Key
	}
	return identify(m.Bytes).SHA256
}

// Planner is a [Runner] that wants to know how many sessions are to come: more
// than were asked for where some have to be made up for.
type Planner interface {
	Planned(sessions int)
}

// MeasureAll times p.Sessions sessions of each model, a session of every model
// before the next of any, so that drift of the machine hits all alike. For
// each session that something slowed there is another, up to p.Redo. Results
// are in the order of the models. An error names its model.
func MeasureAll(ctx context.Context, r Runner, models []Model, p Protocol) ([]Result, error) {
	return measureMore(ctx, r, models, make([][]Sample, len(models)), p, 0)
}

// measureMore is [MeasureAll] where some sessions have run already; try counts
// how often that has been done over.
func measureMore(ctx context.Context, r Runner, models []Model, have [][]Sample, p Protocol, try int) ([]Result, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	type place struct{ session, model int }
	var todo []place
	samples := make([][]Sample, len(models))
	for i := range samples {
		samples[i] = append(slices.Clone(have[i]), make([]Sample, max(0, p.Sessions-len(have[i])))...)
	}
	for session := range p.Sessions {
		for i := range models {
			if session >= len(have[i]) {
				todo = append(todo, place{session, i})
			}
		}
	}
	for {
		if len(todo) == 0 {
			for i := range models {
				if !p.enough(samples[i]) {
					todo = append(todo, place{len(samples[i]), i})
					samples[i] = append(samples[i], Sample{})
				}
			}
		}
		if len(todo) == 0 {
			return newResults(models, samples, p), nil
		}
		if told, ok := r.(Planner); ok {
			told.Planned(len(todo))
		}
		err := inOrder(ctx, Width(r), len(todo), func(ctx context.Context, n int) (err error) {
			at := todo[n]
			m := models[at.model]
			samples[at.model][at.session], err = sample(ctx, r, m, p, m.session(at.session, try))
			return err
		})
		if err != nil {
			return nil, err
		}
		todo = todo[:0]
	}
}

// enough reports that no further session is wanted.
func (p Protocol) enough(samples []Sample) bool {
	n := len(samples)
	return n >= p.Sessions && (n >= p.Sessions+p.Redo || len(calm(samples)) >= p.Sessions)
}

// Measure is [MeasureAll] of one model.
func Measure(ctx context.Context, r Runner, m Model, p Protocol) (Result, error) {
	results, err := MeasureAll(ctx, r, []Model{m}, p)
	if err != nil {
		return Result{}, err
	}
	return results[0], nil
}

func sample(ctx context.Context, r Runner, m Model, p Protocol, key string) (Sample, error) {
	s, err := r.Time(ctx, Task{Model: m.Bytes, Protocol: p, Key: key})
	if err == nil {
		err = s.plausible()
	}
	if err == nil {
		err = p.placed(s.Placement)
	}
	if err != nil {
		return Sample{}, fmt.Errorf("measure %s: %w", m.Name, err)
	}
	return s, nil
}

// maxRun is more than any run takes.
const maxRun = 24 * time.Hour

// plausible reports times that no device can have measured: whoever sent them,
// they would decide limits.
func (s Sample) plausible() error {
	if len(s.Runs) == 0 {
		return errors.New("the runner timed nothing")
	}
	for _, d := range s.Runs {
		if d <= 0 || d > maxRun {
			return fmt.Errorf("the runner says that a run took %v: its clock is broken, or it is not what it says", d)
		}
	}
	return nil
}

// Verdict says whether a latency is below a limit, as far as is known.
type Verdict uint8

// The verdicts.
const (
	Undecided Verdict = iota // the limit is inside the interval
	Met                      // the whole interval is below the limit
	NotMet                   // none of the interval is
)

var verdictNames = [...]string{"undecided", "met", "not met"}

func (v Verdict) String() string { return verdictNames[v] }

// Decide compares with a limit, which is met only where the upper end of the
// interval is below it.
func (e Estimate) Decide(limit time.Duration) Verdict {
	switch {
	case e.High < limit:
		return Met
	case e.Low >= limit:
		return NotMet
	default:
		return Undecided
	}
}

// Settle measures m until it is decided whether it is below limit: first as
// screen says, then, where that leaves it open, a session of confirm at a
// time until confirm.Sessions more have run. What is then still undecided is
// returned so. Looking again after each session makes a wrong verdict more
// likely than one look does: of nets exactly at the limit it calls .2 % met
// where sessions differ as much as the protocol assumes, and 1.3 % where they
// differ 1.6 times as much (simulated, TestLimit); of nets 3 % above it, none.
func Settle(ctx context.Context, r Runner, m Model, limit time.Duration, screen, confirm Protocol) (Result, Verdict, error) {
	res, err := Measure(ctx, r, m, screen)
	if err != nil {
		return Result{}, Undecided, err
	}
	return proceed(ctx, r, m, limit, res, confirm)
}

// GoOn is [Settle] from a result that there is.
func GoOn(ctx context.Context, r Runner, m Model, limit time.Duration, known Result, confirm Protocol) (Result, Verdict, error) {
	return proceed(ctx, r, m, limit, known, confirm)
}

// proceed adds sessions to what is known until it decides.
func proceed(ctx context.Context, r Runner, m Model, limit time.Duration, res Result, confirm Protocol) (Result, Verdict, error) {
	if err := confirm.Validate(); err != nil {
		return res, Undecided, err
	}
	for range confirm.Sessions {
		if v := res.Decide(limit); v != Undecided {
			return res, v, nil
		}
		s, err := sample(ctx, r, m, confirm, m.session(len(res.Samples), 0))
		if err != nil {
			return res, Undecided, err
		}
		if err := s.Fingerprint.Comparable(res.Fingerprint); err != nil {
			return res, Undecided, fmt.Errorf("measure %s again: %w", m.Name, err)
		}
		res = newResult(m, append(slices.Clone(res.Samples), s), confirm)
	}
	return res, res.Decide(limit), nil
}
