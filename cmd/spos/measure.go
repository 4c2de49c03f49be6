package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"spos/cmd/internal/cli"
	"spos/internal/arch"
	"spos/internal/config"
	"spos/latency"
	"spos/search"
)

// meter measures candidates: each on its own exported graph, batch 1 unless
// configured, with random weights, for speed does not depend on them. The
// cheapest net of the space is the sentinel against drift.
type meter struct {
	lm       latency.Meter
	sentinel *latency.Sentinel
	unseen   int // nets measured since the sentinel was looked at
	batch    int
	base     latency.Protocol
}

// lookEvery is how many nets are measured between two looks at the sentinel:
// a search measures one at a time, and a look costs as much.
const lookEvery = 8

func newMeter(s *arch.Space, r latency.Runner, cache *latency.Cache, c config.Latency, log *slog.Logger) (*meter, error) {
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
	if err := p.Validate(); err != nil {
		return nil, err
	}
	m := &meter{batch: p.Batch, base: p}
	n, err := s.Net(search.Cheapest(s, arch.MACs))
	if err != nil {
		return nil, err
	}
	sentinel, err := cli.CandidateModel(n, m.batch)
	if err != nil {
		return nil, err
	}
	// A long rest would stall a search for what is mostly a neighbour's doing.
	m.sentinel = &latency.Sentinel{Model: sentinel, Drift: 0.05, Pause: 100 * time.Millisecond, Retries: 1}
	m.lm = latency.Meter{Runner: r, Cache: cache, Log: log}
	return m, nil
}

// efforts are the sessions of one measurement as it becomes more careful: a
// search screens and looks again where a limit is undecided, finalists and
// exported files are confirmed.
var efforts = [...]int{1, 3, 6}

const (
	searchEfforts = 2
	confirmation  = len(efforts) - 1
)

func (m *meter) protocol(effort int) latency.Protocol {
	p := m.base
	p.Sessions *= efforts[min(effort, confirmation)]
	if effort >= confirmation {
		p.Runs = max(p.Runs, latency.Confirmation().Runs)
	}
	return p
}

// nets is a [search.Measure].
func (m *meter) nets(ctx context.Context, nets []*arch.Net, effort int) ([]search.Interval, error) {
	models := make([]latency.Model, len(nets))
	for i, n := range nets {
		var err error
		if models[i], err = cli.CandidateModel(n, m.batch); err != nil {
			return nil, err
		}
	}
	return m.measure(ctx, models, effort)
}

// confirm measures a finalist at the big budget, apart from what the search
// remembers of it: a search that goes on must find what it found before. Each
// round is remembered by itself.
func (m *meter) confirm(ctx context.Context, n *arch.Net, round int) (search.Interval, error) {
	model, err := cli.CandidateModel(n, m.batch)
	if err != nil {
		return search.Interval{}, err
	}
	model.Key = fmt.Sprintf("confirmed%d/%s", round, model.Key)
	found, err := m.measure(ctx, []latency.Model{model}, confirmation)
	if err != nil {
		return search.Interval{}, err
	}
	return found[0], nil
}

func (m *meter) measure(ctx context.Context, models []latency.Model, effort int) ([]search.Interval, error) {
	m.lm.Protocol, m.lm.Sentinel = m.protocol(effort), nil
	if m.unseen += len(models); m.unseen >= lookEvery {
		m.lm.Sentinel, m.unseen = m.sentinel, 0
	}
	results, err := m.lm.Measure(ctx, models...)
	if err != nil {
		return nil, err
	}
	intervals := make([]search.Interval, len(results))
	for i, r := range results {
		intervals[i] = interval(r.Estimate)
	}
	return intervals, nil
}

func interval(e latency.Estimate) search.Interval {
	ms := func(d time.Duration) float64 { return latency.Milliseconds(d) }
	return search.Interval{P50: ms(e.P50), Low: ms(e.Low), High: ms(e.High)}
}
