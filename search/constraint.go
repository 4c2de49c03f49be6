package search

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math"

	"spos/internal/arch"
)

// Interval is a measured median with the interval it is known to.
type Interval struct {
	P50  float64 `json:"p50" yaml:"p50"`
	Low  float64 `json:"low" yaml:"low"`
	High float64 `json:"high" yaml:"high"`
}

func (i Interval) String() string { return fmt.Sprintf("%.4g (%.4g–%.4g)", i.P50, i.Low, i.High) }

func (i Interval) valid() bool {
	return i.Low <= i.P50 && i.P50 <= i.High && !math.IsInf(i.Low, 0) && !math.IsInf(i.High, 0)
}

// Verdict is what a [Constraint] says about one net.
type Verdict struct {
	Interval
	Devices map[string]Interval // by device, where there are several
	Met     bool
	Reason  string // why not
}

// Constraint is a limit that has to be measured. It is checked before a net
// is evaluated.
type Constraint interface {
	// Name says what is limited to what: "latency < 4.2 ms".
	Name() string
	// Check gives one verdict a net, in order.
	Check(ctx context.Context, nets []*arch.Net) ([]Verdict, error)
}

// Measure measures nets. Effort counts from 0; each step asks for a markedly
// tighter interval than the one before.
type Measure func(ctx context.Context, nets []*arch.Net, effort int) ([]Interval, error)

// Below is met where the upper end of the measured interval lies below Limit.
// A net whose interval straddles the limit is measured again with more effort;
// if it still does at the last one, it is refused: a limit is a promise.
type Below struct {
	What    string  // "latency"
	Unit    string  // "ms"
	Limit   float64 // 0: measured and never refused
	Efforts int     // 0 means 3
	Measure Measure
}

// Name implements [Constraint].
func (b Below) Name() string {
	if b.Limit == 0 {
		return b.What
	}
	return fmt.Sprintf("%s < %g %s", b.What, b.Limit, b.Unit)
}

// Check implements [Constraint].
func (b Below) Check(ctx context.Context, nets []*arch.Net) ([]Verdict, error) {
	verdicts := make([]Verdict, len(nets))
	open := make([]int, len(nets)) // indices still undecided
	for i := range open {
		open[i] = i
	}
	for effort := 0; effort < b.efforts() && len(open) > 0; effort++ {
		found, err := b.measure(ctx, nets, open, effort)
		if err != nil {
			return nil, err
		}
		var straddle []int
		for i, at := range open {
			verdicts[at] = b.decide(found[i])
			if b.undecided(found[i]) {
				straddle = append(straddle, at)
			}
		}
		open = straddle
	}
	return verdicts, nil
}

func (b Below) efforts() int { return cmp.Or(b.Efforts, 3) }

// measure measures the nets of those indices.
func (b Below) measure(ctx context.Context, nets []*arch.Net, open []int, effort int) ([]Interval, error) {
	ask := make([]*arch.Net, len(open))
	for i, at := range open {
		ask[i] = nets[at]
	}
	found, err := b.Measure(ctx, ask, effort)
	if err != nil {
		return nil, err
	}
	if len(found) != len(ask) {
		return nil, fmt.Errorf("%d measurements of %d nets", len(found), len(ask))
	}
	for i, f := range found {
		if !f.valid() {
			return nil, fmt.Errorf("measurement of %s: %v is no interval", ask[i].Arch, f)
		}
	}
	return found, nil
}

// undecided: the limit is inside the interval.
func (b Below) undecided(i Interval) bool { return i.Low < b.Limit && i.High >= b.Limit }

func (b Below) decide(i Interval) Verdict {
	switch {
	case b.Limit == 0 || i.High < b.Limit:
		return Verdict{Interval: i, Met: true}
	case i.Low < b.Limit:
		return Verdict{Interval: i, Reason: fmt.Sprintf("%s %v %s is not surely below %g", b.What, i, b.Unit, b.Limit)}
	default:
		return Verdict{Interval: i, Reason: fmt.Sprintf("%s %v %s is not below %g", b.What, i, b.Unit, b.Limit)}
	}
}

// Bound is an inclusive range; a zero end is open.
type Bound struct {
	Min int64 `json:"min,omitempty" yaml:"min,omitempty"`
	Max int64 `json:"max,omitempty" yaml:"max,omitempty"`
}

func (b Bound) holds(v int64) bool { return (b.Min == 0 || v >= b.Min) && (b.Max == 0 || v <= b.Max) }

func (b Bound) String() string {
	switch {
	case b.Min == 0 && b.Max == 0:
		return "any"
	case b.Min == 0:
		return fmt.Sprintf("≤ %s", metric(b.Max))
	case b.Max == 0:
		return fmt.Sprintf("≥ %s", metric(b.Min))
	default:
		return fmt.Sprintf("%s–%s", metric(b.Min), metric(b.Max))
	}
}

// Limits are the limits on what a net costs by arithmetic alone. They are
// checked while a method draws, so that a net outside never becomes a trial.
// The zero value limits nothing.
type Limits struct {
	// FLOPs as Counter counts them; the official limit is 330,000,000 MACs.
	FLOPs Bound `json:"flops,omitzero" yaml:"flops,omitempty"`
	// Counter of FLOPs; empty means [arch.MACs].
	Counter     arch.Counter `json:"counter,omitempty" yaml:"counter,omitempty"`
	Params      Bound        `json:"params,omitzero" yaml:"params,omitempty"`
	Activations Bound        `json:"activation_bytes,omitzero" yaml:"activation_bytes,omitempty"`
}

// Validate names the field that makes no sense.
func (l Limits) Validate() error {
	var errs []error
	for _, q := range quantities {
		if b := q.bound(l); b.Min < 0 || b.Max < 0 || b.Max > 0 && b.Min > b.Max {
			errs = append(errs, fmt.Errorf("%s: %d to %d is no range", q.name(l), b.Min, b.Max))
		}
	}
	switch l.Counter {
	case "", arch.MACs, arch.MMCV, arch.Thop:
	default:
		errs = append(errs, fmt.Errorf("counter: %q is none of %s, %s, %s", l.Counter, arch.MACs, arch.MMCV, arch.Thop))
	}
	return errors.Join(errs...)
}

// Allow reports whether a net of that cost is within every limit.
func (l Limits) Allow(c arch.Cost) bool {
	for _, q := range quantities {
		if !q.bound(l).holds(q.of(l, c)) {
			return false
		}
	}
	return true
}

// quantity is one thing that Limits limits.
type quantity struct {
	name  func(Limits) string
	bound func(Limits) Bound
	of    func(Limits, arch.Cost) int64
	// additive quantities are a sum over the blocks of a net.
	additive bool
}

var quantities = []quantity{
	{
		name:     func(l Limits) string { return string(l.counter()) },
		bound:    func(l Limits) Bound { return l.FLOPs },
		of:       func(l Limits, c arch.Cost) int64 { return c.FLOPs.Of(l.counter()) },
		additive: true,
	},
	{
		name:     func(Limits) string { return "params" },
		bound:    func(l Limits) Bound { return l.Params },
		of:       func(_ Limits, c arch.Cost) int64 { return c.Params },
		additive: true,
	},
	{
		name:  func(Limits) string { return "activation_bytes" },
		bound: func(l Limits) Bound { return l.Activations },
		of:    func(_ Limits, c arch.Cost) int64 { return c.ActivationBytes },
	},
}

func (l Limits) counter() arch.Counter {
	if l.Counter == "" {
		return arch.MACs
	}
	return l.Counter
}

// metric writes a count as 3.14M.
func metric(n int64) string {
	f := float64(n)
	for _, u := range []struct {
		size float64
		name string
	}{{1e9, "G"}, {1e6, "M"}, {1e3, "k"}} {
		if math.Abs(f) >= u.size {
			return fmt.Sprintf("%.4g%s", f/u.size, u.name)
		}
	}
	return fmt.Sprint(n)
}

// Fingerprint is a short hash of v's JSON, for [Options.Config]. It panics on
// a value that JSON cannot hold.
func Fingerprint(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("search: fingerprint of %T: %v", v, err))
	}
	return fmt.Sprintf("%x", sha256.Sum256(text))[:16]
}
