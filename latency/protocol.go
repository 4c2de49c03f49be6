package latency

import (
	"errors"
	"fmt"
	"time"

	"spos/internal/ort"
)

// Mode says what happens between two timed runs. Modes differ by more than
// most session options do (1.15 to 1.73 times on nets under 2 ms) and order
// nets differently: measure the one that production looks like.
type Mode string

// The modes.
const (
	Hot   Mode = "hot"   // back to back: a loaded server
	Paced Mode = "paced" // idle for Gap before each run: a camera, a quiet server
	Cold  Mode = "cold"  // the processor's caches overwritten before each run
)

// Protocol is how a latency is measured. Take one of the presets and change
// it; the zero value does not validate.
type Protocol struct {
	Mode  Mode          `yaml:"mode" json:"mode"`
	Gap   time.Duration `yaml:"gap,omitempty" json:"gap_ns,omitempty"` // idle time before each run of mode paced
	Batch int           `yaml:"batch" json:"batch"`                    // extent of a free first dimension
	// Dims gives free dimensions by name; those that are left out become 1,
	// with a note.
	Dims map[string]int64 `yaml:"dims,omitempty" json:"dims,omitempty"`

	Threads int  `yaml:"threads" json:"threads"` // in an operator, the timing thread included
	Pin     bool `yaml:"pin" json:"pin"`         // bind each thread to a processor of its own
	// Priority asks for the processor before all ordinary work of the machine,
	// so that neighbours do not enter the times. It changes nothing on a quiet
	// machine, nor where the system does not permit it.
	Priority bool `yaml:"priority" json:"priority"`

	Session ort.Options `yaml:"session,omitempty" json:"session,omitzero"` // as it will serve; threads are above
	// Fallback is which part of the nodes, and of their time, may run elsewhere
	// than on the provider of Session; arithmetic on shapes is not counted. 0,
	// the default, is none, 1 is all: see [ErrFallback].
	Fallback float64 `yaml:"fallback,omitempty" json:"fallback,omitempty"`

	WarmupMin int           `yaml:"warmup_min" json:"warmup_min"` // runs thrown away at least
	WarmupMax int           `yaml:"warmup_max" json:"warmup_max"` // and at most
	Settle    float64       `yaml:"settle" json:"settle"`         // warm once the running median moves less than this fraction
	Runs      int           `yaml:"runs" json:"runs"`             // timed runs of a session, at least
	MinTime   time.Duration `yaml:"min_time" json:"min_time_ns"`  // and their time together, at least
	Sessions  int           `yaml:"sessions" json:"sessions"`     // sessions of a model
	// Redo is how many sessions are added, at most, for those that something
	// slowed.
	Redo int `yaml:"redo,omitempty" json:"redo,omitempty"`
	// Patience is how long a session waits for the machine to be as fast as it
	// has been: see [Reference].
	Patience time.Duration `yaml:"patience,omitempty" json:"patience_ns,omitempty"`
	// Spread is what one session's median is assumed to deviate from the next
	// one's, as a fraction, before the sessions themselves have told: see
	// [Estimate].
	Spread float64 `yaml:"spread" json:"spread"`
}

// MaxRuns bounds the timed runs of one session.
const MaxRuns = 10_000

// Screening is the protocol for the candidates of a search: one session.
func Screening() Protocol {
	return Protocol{
		Mode: Hot, Gap: 10 * time.Millisecond, Batch: 1,
		Threads: 1, Pin: true, Priority: true,
		WarmupMin: 8, WarmupMax: 50, Settle: 0.01,
		Runs: 20, MinTime: 30 * time.Millisecond, Sessions: 1, Spread: DefaultSpread,
		Patience: 100 * time.Millisecond,
	}
}

// Confirmation is the protocol for finalists and for exported models.
func Confirmation() Protocol {
	p := Screening()
	p.Sessions, p.Redo, p.Runs, p.Patience = 6, 6, 40, time.Second
	return p
}

// Validate names every field that cannot be obeyed.
func (p Protocol) Validate() error {
	var errs []error
	refuse := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	switch p.Mode {
	case Hot, Paced, Cold:
	default:
		refuse(true, "mode: %q is not one of hot, paced, cold", p.Mode)
	}
	refuse(p.Mode == Paced && p.Gap <= 0, "gap: mode paced needs an idle time above 0, not %v", p.Gap)
	refuse(p.Gap < 0, "gap: %v is negative", p.Gap)
	refuse(p.Batch < 1, "batch: %d is below 1", p.Batch)
	for name, d := range p.Dims {
		refuse(d < 1, "dims: %s: %d is below 1", name, d)
	}
	refuse(p.Threads < 1, "threads: %d is below 1", p.Threads)
	refuse(p.Session.IntraOp != 0, "session: intra_op: give the number of threads as threads")
	if err := p.Session.Validate(); err != nil {
		errs = append(errs, fmt.Errorf("session: %w", err))
	}
	refuse(!(p.Fallback >= 0 && p.Fallback <= 1), "fallback: %v is not a fraction", p.Fallback)
	refuse(p.WarmupMin < 0 || p.WarmupMax < p.WarmupMin, "warmup_min, warmup_max: %d, %d is not a range", p.WarmupMin, p.WarmupMax)
	refuse(!(p.Settle >= 0 && p.Settle < 1), "settle: %v is not a fraction", p.Settle)
	refuse(p.Runs < 1 || p.Runs > MaxRuns, "runs: %d is not within 1 and %d", p.Runs, MaxRuns)
	refuse(p.MinTime < 0, "min_time: %v is negative", p.MinTime)
	refuse(p.Redo < 0, "redo: %d is negative", p.Redo)
	refuse(p.Patience < 0, "patience: %v is negative", p.Patience)
	refuse(p.Sessions < 1, "sessions: %d is below 1", p.Sessions)
	refuse(!(p.Spread >= 0 && p.Spread < 1), "spread: %v is not a fraction", p.Spread)
	if len(errs) > 0 {
		return fmt.Errorf("latency protocol: %w", errors.Join(errs...))
	}
	return nil
}

// options are the session's, complete.
func (p Protocol) options() ort.Options {
	o := p.Session
	o.IntraOp = p.Threads
	return o
}
