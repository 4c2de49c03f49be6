package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"time"

	"spos/cmd/internal/cli"
	"spos/internal/arch"
	"spos/internal/archfile"
	"spos/latency"
	"spos/search"
)

// connect opens the devices of the configuration. The caller releases them.
func (s *searcher) connect(ctx context.Context, flags cli.DeviceFlags, campaign string) (release func() error, err error) {
	limits := s.cfg.MeasuredOn()
	flags.Names = nil
	for _, l := range limits {
		flags.Names = append(flags.Names, l.Device)
	}
	devices, release, err := flags.Open(ctx, campaign, s.p.Log)
	if err != nil {
		return nil, err
	}
	devices = cli.Watch(devices, s.p.Log, s.awaiting.changed)
	s.gauges, err = cli.NewGauges(s.from.space, devices, limits, s.cfg.Latency, s.p.Log)
	if err != nil {
		return nil, errors.Join(err, release())
	}
	s.constraint = s.gauges.Constraint()
	if s.table != nil {
		if s.constraint, err = s.gauges.Foresee(ctx, s.table, s.constraint); err != nil {
			return nil, errors.Join(fmt.Errorf("latency.table: %w", err), release())
		}
	}
	return release, nil
}

// openTable reads the configuration's table, if it names one, and returns
// what tells its bytes from others.
func (s *searcher) openTable() (digest string, err error) {
	if s.cfg.Latency.Table == "" {
		return "", nil
	}
	text, err := os.ReadFile(s.cfg.Latency.Table)
	if err != nil {
		return "", fmt.Errorf("latency.table: %w", err)
	}
	if s.table, err = latency.ParseTable(text); err != nil {
		return "", fmt.Errorf("latency.table: %s: %w", s.cfg.Latency.Table, err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(text))[:16], nil
}

// awaiting shows beside the progress of a search which devices it waits for.
type awaiting struct {
	mu     sync.Mutex
	task   *cli.Task // nil: none is shown
	done   int
	status string
	names  []string
}

// watch has a task show it until the returned function is called.
func (a *awaiting) watch(t *cli.Task) (end func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.task, a.done, a.status = t, 0, ""
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.task = nil
	}
}

// set is the task's progress; see [cli.Task.Set].
func (a *awaiting) set(done int, status string, attrs ...any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.done, a.status = done, status
	a.show(attrs...)
}

// changed is told by [cli.Watch].
func (a *awaiting) changed(names []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.names = names
	a.show()
}

func (a *awaiting) show(attrs ...any) {
	if a.task == nil {
		return
	}
	status := a.status
	if len(a.names) > 0 {
		status = strings.TrimPrefix(status+", waiting for "+strings.Join(a.names, ", "), ", ")
		attrs = append(attrs, "waiting_for", strings.Join(a.names, ","))
	}
	a.task.Set(a.done, status, attrs...)
}

// surveySize is how many nets are measured before a search with a latency
// limit begins.
const surveySize = 16

// satisfiable fails early where no net of the space meets the limits: of each
// device by itself, and of all together.
func (s *searcher) satisfiable(ctx context.Context) error {
	draw := func() *rand.Rand { return rand.New(rand.NewPCG(s.cfg.Seed, 1)) }
	if _, err := search.Feasible(ctx, s.from.space, s.limits, draw(), 2000); err != nil {
		return err
	}
	if !s.gauges.Limited() {
		return nil
	}
	surveys := make([]search.Measured, len(s.gauges))
	err := s.gauges.Each(ctx, func(ctx context.Context, i int, g cli.Gauge) (err error) {
		if g.Limit == 0 {
			return nil
		}
		if surveys[i], err = search.MeasureSome(ctx, s.from.space, s.limits, draw(), surveySize, g.Nets); err != nil {
			return err
		}
		return surveys[i].Satisfiable("latency", g.Limit, "ms")
	})
	if err != nil {
		return err
	}
	for n := range surveySize + 1 {
		if s.passes(surveys, n) {
			return nil
		}
	}
	return fmt.Errorf("%s: %w: each limit is met by some of %d measured nets, all of them by none",
		s.gauges.Constraint().Name(), search.ErrUnsatisfiable, len(surveys[0].Values)+1)
}

// passes tells whether the nth net of the surveys, after the last the cheapest
// one, is below every limit.
func (s *searcher) passes(surveys []search.Measured, n int) bool {
	for i, g := range s.gauges {
		if g.Limit == 0 {
			continue
		}
		v := surveys[i].Cheapest
		if n < len(surveys[i].Values) {
			v = surveys[i].Values[n]
		}
		if v.High >= g.Limit {
			return false
		}
	}
	return true
}

// A machine that something else slows down for a while refuses every
// finalist: the best few are confirmed again after a pause, a few times.
const (
	finalists      = 5
	confirmRounds  = 4
	betweenSlowing = 10 * time.Second
)

// winner is the best trial whose latency holds at the big budget on every
// device: screening intervals of many nets include some that were lucky.
func (s *searcher) winner(ctx context.Context, trials []search.Trial) (search.Trial, error) {
	for round := range confirmRounds {
		left := trials
		for range finalists {
			t, ok := search.Winner(left)
			if !ok {
				break
			}
			net, err := s.from.space.Net(t.Arch)
			if err != nil {
				return t, err
			}
			found, err := s.gauges.Confirm(ctx, net, round)
			if err != nil {
				return t, err
			}
			s.confirmed(&t, found)
			if s.gauges.Keeps(found) {
				return t, nil
			}
			s.p.Log.Info("a finalist did not keep to the limit", "arch", t.Arch, "latency_ms", s.gauges.Tell(t))
			left = without(left, t.Arch)
		}
		if round+1 == confirmRounds {
			break
		}
		if err := pause(ctx, betweenSlowing); err != nil {
			return search.Trial{}, err
		}
	}
	return search.Trial{}, fmt.Errorf("none of the %d best nets keeps to %s when it is measured again: raise the limit, or quieten the machine",
		finalists, s.gauges.Constraint().Name())
}

// confirmed puts the latencies, one a device, into a trial.
func (s *searcher) confirmed(t *search.Trial, found []search.Interval) {
	t.Latency = found[0]
	if len(found) == 1 {
		return
	}
	t.Devices = make(map[string]search.Interval, len(found))
	for i, g := range s.gauges {
		t.Devices[g.Device] = found[i]
	}
}

// pause waits, or ends with the context.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func without(trials []search.Trial, a arch.Arch) []search.Trial {
	var rest []search.Trial
	for _, t := range trials {
		if t.Arch != a {
			rest = append(rest, t)
		}
	}
	return rest
}

// promised says in best.yaml what the net was to stay below, where and how.
func (s *searcher) promised(f *archfile.File, best search.Trial) {
	f.LatencyLimit = s.gauges[0].Limit
	if len(s.gauges) > 1 || s.gauges[0].Device != cli.ThisDevice {
		for _, g := range s.gauges {
			found, ok := best.Devices[g.Device]
			if !ok {
				found = best.Latency
			}
			f.Devices = append(f.Devices, archfile.OnDevice{Device: g.Device, Latency: archfile.Interval(found), Limit: g.Limit})
		}
	}
	l := s.cfg.Latency
	if m := (archfile.Measured{Mode: l.Mode, Batch: l.Batch, Threads: l.Threads}); m != (archfile.Measured{}) {
		f.Measured = &m
	}
}
