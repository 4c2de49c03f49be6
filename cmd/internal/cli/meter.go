package cli

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"spos/internal/arch"
	"spos/internal/config"
	"spos/latency"
	"spos/search"
)

// Meter measures candidates on one device: each on its own exported graph,
// batch 1 unless configured, with random weights, for speed does not depend
// on them. The cheapest net of the space is the sentinel against drift. It
// must not be used by two goroutines at a time.
type Meter struct {
	lm       latency.Meter
	sentinel *latency.Sentinel
	unseen   int // nets measured since the sentinel was looked at
	drifted  bool
	base     latency.Protocol
}

// LookEvery is how many nets are measured between two looks at the sentinel:
// a search measures one at a time, and a look costs as much. Of those that a
// search has measured one by one, the last alone is measured again where the
// look finds that the machine has drifted: the others have decided already how
// the search went on. They are kept, and the log says how many.
const LookEvery = 8

// NewMeter makes a meter of the space's nets on a device.
func NewMeter(s *arch.Space, r latency.Runner, c config.Latency, log *slog.Logger) (*Meter, error) {
	p := latency.Screening()
	if c.Mode != "" {
		p.Mode = latency.Mode(c.Mode)
	}
	p.Batch = max(c.Batch, 1)
	p.Threads = max(c.Threads, 1)
	if c.Warmup > 0 {
		p.WarmupMin, p.WarmupMax = c.Warmup, max(p.WarmupMax, c.Warmup)
	}
	if c.Runs > 0 {
		p.Runs = c.Runs
	}
	if c.Sessions > 0 {
		p.Sessions = c.Sessions
	}
	p.Session.Provider, p.Session.ProviderConfig, p.Fallback = c.Provider, c.ProviderOptions, c.Fallback
	if err := p.Validate(); err != nil {
		return nil, err
	}
	n, err := s.Net(search.Cheapest(s, arch.MACs))
	if err != nil {
		return nil, err
	}
	sentinel, err := CandidateModel(n, p.Batch)
	if err != nil {
		return nil, err
	}
	return &Meter{
		base: p,
		// A long rest would stall a search for what is mostly a neighbour's doing.
		sentinel: &latency.Sentinel{Model: sentinel, Drift: 0.05, Pause: 100 * time.Millisecond, Retries: 1},
		lm:       latency.Meter{Runner: r, Log: log},
	}, nil
}

// Remember has the meter find again what is in the cache.
func (m *Meter) Remember(c *latency.Cache) { m.lm.Cache = c }

// Runner is where it measures.
func (m *Meter) Runner() latency.Runner { return m.lm.Runner }

// Drifts lists what the sentinel has found so far.
func (m *Meter) Drifts() []latency.Drift { return m.lm.Drifts() }

// efforts are the sessions of one measurement as it becomes more careful: a
// search screens and looks again where a limit is undecided, finalists and
// exported files are confirmed.
var efforts = [...]int{1, 3, 6}

// The efforts of a search for one net, and the last effort there is.
const (
	SearchEfforts = 2
	Confirmation  = len(efforts) - 1
)

// Protocol is that of an effort, 0 to [Confirmation].
func (m *Meter) Protocol(effort int) latency.Protocol {
	p := m.base
	p.Sessions *= efforts[min(effort, Confirmation)]
	if effort >= Confirmation {
		c := latency.Confirmation()
		p.Runs, p.Redo, p.Patience = max(p.Runs, c.Runs), p.Sessions, c.Patience
	}
	return p
}

// Nets is a [search.Measure].
func (m *Meter) Nets(ctx context.Context, nets []*arch.Net, effort int) ([]search.Interval, error) {
	results, err := m.Results(ctx, nets, effort)
	intervals := make([]search.Interval, len(results))
	for i, r := range results {
		intervals[i] = Interval(r.Estimate)
	}
	return intervals, err
}

// Results is [Meter.Nets] with all that was found.
func (m *Meter) Results(ctx context.Context, nets []*arch.Net, effort int) ([]latency.Result, error) {
	models := make([]latency.Model, len(nets))
	for i, n := range nets {
		var err error
		if models[i], err = CandidateModel(n, m.base.Batch); err != nil {
			return nil, err
		}
	}
	return m.measure(ctx, models, effort)
}

// Confirm measures a finalist at the big budget, apart from what the search
// remembers of it: a search that goes on must find what it found before. Each
// round is remembered by itself.
func (m *Meter) Confirm(ctx context.Context, n *arch.Net, round int) (search.Interval, error) {
	model, err := CandidateModel(n, m.base.Batch)
	if err != nil {
		return search.Interval{}, err
	}
	model.Key = fmt.Sprintf("confirmed%d/%s", round, model.Key)
	found, err := m.measure(ctx, []latency.Model{model}, Confirmation)
	if err != nil {
		return search.Interval{}, err
	}
	return Interval(found[0].Estimate), nil
}

func (m *Meter) measure(ctx context.Context, models []latency.Model, effort int) ([]latency.Result, error) {
	m.lm.Protocol, m.lm.Sentinel = m.Protocol(effort), nil
	before := m.unseen
	if m.unseen += len(models); m.unseen < LookEvery {
		return m.lm.Measure(ctx, models...)
	}
	m.lm.Sentinel, m.unseen = m.sentinel, 0
	known := len(m.lm.Drifts())
	results, err := m.lm.Measure(ctx, models...)
	if drifts := m.lm.Drifts()[known:]; len(drifts) > 0 {
		if before > 0 && !m.drifted { // or it was said before
			m.lm.Log.Warn("the machine has drifted since the last look: nets that were measured before this one are kept as they are",
				"nets", before, "ratio", drifts[0].Ratio)
		}
		m.drifted = drifts[len(drifts)-1].Kept
	} else {
		m.drifted = false
	}
	return results, err
}

// Interval is an estimate in milliseconds.
func Interval(e latency.Estimate) search.Interval {
	ms := latency.Milliseconds
	return search.Interval{P50: ms(e.P50), Low: ms(e.Low), High: ms(e.High)}
}
