package latency

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"time"
)

// Sentinel is a reference model that is measured between candidates: when its
// time changes, the machine has (heat, a neighbour, another clock), and the
// candidates of that stretch are measured again: those of the call of
// [Meter.Measure], not those of earlier calls.
type Sentinel struct {
	Model   Model
	Every   int           // candidates between two looks; 0 means 16
	Drift   float64       // change that counts, as a fraction; 0 means 0.03
	Pause   time.Duration // rest before measuring again; 0 means 5 s
	Retries int           // times a stretch is measured again; 0 means 2
}

// Drift is one look at the sentinel that found a change.
type Drift struct {
	Ratio float64 // the sentinel's time over its time at the start
	Kept  bool    // the stretch's results were kept, with a warning
}

// Meter measures model after model under one protocol, with a sentinel
// against drift and a cache against doing work twice. It must not be used by
// two goroutines at a time.
type Meter struct {
	Runner   Runner
	Protocol Protocol
	Sentinel *Sentinel    // nil: drift is not looked for
	Cache    *Cache       // nil: everything is measured; else Runner must be a Describer
	Log      *slog.Logger // of drift; needed with a Sentinel

	base   time.Duration // the sentinel at the start
	lost   bool          // the machine has changed for good, as far as retrying could tell
	drifts []Drift
}

// Drifts lists what the sentinel has found so far.
func (m *Meter) Drifts() []Drift { return slices.Clone(m.drifts) }

// Measure returns the results of the models in their order, from the cache
// where it has them; a model of which it has too few sessions gets the others.
// New ones are in the cache, on disk, when it returns; on an error those of
// the finished stretches are.
func (m *Meter) Measure(ctx context.Context, models ...Model) ([]Result, error) {
	results := make([]Result, len(models))
	have := make([][]Sample, len(models))
	var missing []int
	for i, model := range models {
		cached, enough, err := m.find(ctx, model)
		if err != nil {
			return nil, err
		}
		if enough {
			results[i] = cached
		} else {
			missing, have[i] = append(missing, i), cached.Samples
		}
	}
	stretch := max(len(missing), 1)
	if m.Sentinel != nil {
		stretch = cmp.Or(m.Sentinel.Every, 16)
	}
	for indices := range slices.Chunk(missing, stretch) {
		batch, known := make([]Model, len(indices)), make([][]Sample, len(indices))
		for i, at := range indices {
			batch[i], known[i] = models[at], have[at]
		}
		measured, err := m.stretch(ctx, batch, known)
		if err != nil {
			return nil, err
		}
		for i, at := range indices {
			results[at] = measured[i]
			if err := m.keep(ctx, models[at], measured[i]); err != nil {
				return nil, err
			}
		}
	}
	return results, nil
}

// stretch measures a batch, and again while the sentinel says that the
// machine changed under it.
func (m *Meter) stretch(ctx context.Context, batch []Model, have [][]Sample) ([]Result, error) {
	s, first := m.Sentinel, 0
	if m.Cache != nil { // a device elsewhere still has what was measured in vain
		first = m.Cache.tries()
	}
	if s == nil {
		return measureMore(ctx, m.Runner, batch, have, m.Protocol, first)
	}
	if m.base == 0 {
		look, err := m.glance(ctx, 3)
		if err != nil {
			return nil, err
		}
		m.base = look.P50
		if err := m.note(look); err != nil {
			return nil, err
		}
	}
	retries := cmp.Or(s.Retries, 2)
	if m.lost {
		retries = 0
	}
	for try := 0; ; try++ {
		results, err := measureMore(ctx, m.Runner, batch, have, m.Protocol, first+try)
		if err != nil {
			return nil, err
		}
		look, err := m.look(ctx)
		if err != nil {
			return nil, err
		}
		ratio := look.Ratio
		drifted := math.Abs(ratio-1) > look.Allowed
		kept := drifted && try >= retries
		look.Again, look.Kept = drifted && !kept, kept
		if err := m.note(look); err != nil {
			return nil, err
		}
		if !drifted {
			m.lost = false
			return results, nil
		}
		m.drifts = append(m.drifts, Drift{Ratio: ratio, Kept: kept})
		level := slog.LevelDebug
		if kept && !m.lost { // neither a try that is repeated nor what was said before
			level = slog.LevelWarn
		}
		m.Log.Log(ctx, level, "the machine has drifted", "sentinel", s.Model.Name, "ratio", ratio, "models", len(batch), "kept", kept)
		if kept {
			m.lost = true
			remark(results, have, fmt.Sprintf("the machine has drifted by %+.1f %% since the first measurement", 100*(ratio-1)))
			return results, nil
		}
		select {
		case <-time.After(cmp.Or(s.Pause, 5*time.Second)):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// remark adds a warning to results, and to their samples, for sessions may be
// added to these later; not to those that there were before.
func remark(results []Result, before [][]Sample, text string) {
	for i := range results {
		r := &results[i]
		r.Warnings = append(r.Warnings, text)
		for k := len(before[i]); k < len(r.Samples); k++ {
			s := &r.Samples[k]
			s.Notes = append(slices.Clip(s.Notes), text)
		}
	}
}

// look compares the sentinel's time with its first. One session that deviates
// may be chance, so it is asked twice more.
func (m *Meter) look(ctx context.Context) (Look, error) {
	var l Look
	for _, sessions := range []int{1, 3} {
		var err error
		if l, err = m.glance(ctx, sessions); err != nil {
			return Look{}, err
		}
		l.Ratio = float64(l.P50) / float64(m.base)
		if math.Abs(l.Ratio-1) <= l.Allowed {
			break
		}
	}
	return l, nil
}

// glance times the sentinel. A neighbour that the [Reference] tells of is no
// drift: it comes and goes, and each sample says so itself.
func (m *Meter) glance(ctx context.Context, sessions int) (Look, error) {
	l := Look{Sentinel: m.Sentinel.Model.Name, Ratio: 1, Allowed: cmp.Or(m.Sentinel.Drift, 0.03)}
	p := m.Protocol
	p.Patience = max(p.Patience, Confirmation().Patience)
	samples := make([]Sample, sessions)
	for i := range samples {
		s, err := sample(ctx, m.Runner, m.Sentinel.Model, p, "") // what it was is of no use
		if err != nil {
			return Look{}, fmt.Errorf("sentinel: %w", err)
		}
		samples[i] = s
		l.At, l.Environment = s.Started, s.Fingerprint.Key()
	}
	samples = undisturbed(samples)
	l.P50 = time.Duration(median(steadies(samples)) * math.Exp(-loudness(samples)))
	return l, nil
}

// note keeps a look, where there is a place for it.
func (m *Meter) note(l Look) error {
	if m.Cache == nil {
		return nil
	}
	return m.Cache.Note(l)
}

// find is what the cache knows of a model, less the sessions with fewer runs
// than the protocol asks for, and whether that is enough.
func (m *Meter) find(ctx context.Context, model Model) (r Result, enough bool, err error) {
	if m.Cache == nil {
		return Result{}, false, nil
	}
	key, err := m.key(ctx, model)
	if err != nil {
		return Result{}, false, err
	}
	r, ok := m.Cache.Get(key)
	if !ok {
		return Result{}, false, nil
	}
	if err := m.Protocol.placed(r.Placement); err != nil {
		return Result{}, false, fmt.Errorf("measured before: %s: %w", model.Name, err)
	}
	r.Model = model.Name
	short := func(s Sample) bool { return len(s.Runs) < m.Protocol.Runs }
	if !slices.ContainsFunc(r.Samples, short) {
		return r, m.Protocol.enough(r.Samples), nil
	}
	r.Samples = slices.DeleteFunc(slices.Clone(r.Samples), short)
	return r, false, nil
}

func (m *Meter) keep(ctx context.Context, model Model, r Result) error {
	if m.Cache == nil {
		return nil
	}
	key, err := m.key(ctx, model)
	if err != nil {
		return err
	}
	return m.Cache.Put(key, r)
}

// key is what the cache files a model's latency under.
func (m *Meter) key(ctx context.Context, model Model) (string, error) {
	d, ok := m.Runner.(Describer)
	if !ok {
		return "", errors.New("latency: a cache needs a runner that tells its fingerprint")
	}
	fp, err := d.Fingerprint(ctx, model.Bytes, m.Protocol)
	if err != nil {
		return "", err
	}
	return model.graph() + "@" + fp.Key(), nil
}
