package latency_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"spos/latency"
)

// noisy is a device on which a model takes the nanoseconds that its bytes say,
// times what differs from session to session and from run to run, both
// lognormal, and one run in 20 half as long again.
type noisy struct {
	between, within float64
	rng             *rand.Rand
	sessions        int
}

func (d *noisy) Fingerprint(_ context.Context, _ []byte, p latency.Protocol) (latency.Fingerprint, error) {
	return latency.Fingerprint{Session: latency.Setting{Mode: p.Mode, Batch: p.Batch, Threads: p.Threads}}, nil
}

func (d *noisy) Time(ctx context.Context, t latency.Task) (latency.Sample, error) {
	d.sessions++
	s := latency.Sample{Settled: true, Pinned: true, Load: -1}
	s.Fingerprint, _ = d.Fingerprint(ctx, t.Model, t.Protocol)
	median := float64(binary.LittleEndian.Uint64(t.Model)) * math.Exp(d.between*d.rng.NormFloat64())
	for range t.Protocol.Runs {
		run := median * math.Exp(d.within*d.rng.NormFloat64())
		if d.rng.IntN(20) == 0 {
			run *= 1.5
		}
		s.Runs = append(s.Runs, time.Duration(run))
	}
	return s, nil
}

// net takes d; the number tells it from others.
func net(d time.Duration, n int) latency.Model {
	return latency.Model{Name: fmt.Sprint(n), Key: fmt.Sprint(n), Bytes: binary.LittleEndian.AppendUint64(nil, uint64(d))}
}

const simulatedLimit = 2 * time.Millisecond

// deciders are the ways in which a limit is decided: a search looks after one
// session and, where that leaves it open, after three; Settle looks after each
// session up to seven; a finalist is confirmed by six sessions of its own.
func deciders(t *testing.T) map[string]func(*noisy, latency.Model) latency.Result {
	t.Helper()
	measure := func(m *latency.Meter, model latency.Model, sessions int) latency.Result {
		m.Protocol = latency.Screening()
		m.Protocol.Sessions = sessions
		r, err := m.Measure(t.Context(), model)
		if err != nil {
			t.Fatal(err)
		}
		return r[0]
	}
	cache, err := latency.OpenCache(filepath.Join(t.TempDir(), "latency.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cache.Close() })
	return map[string]func(*noisy, latency.Model) latency.Result{
		"search": func(d *noisy, model latency.Model) latency.Result {
			m := &latency.Meter{Runner: d, Cache: cache}
			r := measure(m, model, 1)
			if r.Decide(simulatedLimit) == latency.Undecided {
				r = measure(m, model, 3)
			}
			return r
		},
		"settle": func(d *noisy, model latency.Model) latency.Result {
			r, _, err := latency.Settle(t.Context(), d, model, simulatedLimit, latency.Screening(), latency.Confirmation())
			if err != nil {
				t.Fatal(err)
			}
			return r
		},
		"confirm": func(d *noisy, model latency.Model) latency.Result {
			return measure(&latency.Meter{Runner: d}, model, 6)
		},
	}
}

// atLimit is a net of which a measurement without end would say that it takes
// exactly the limit.
func atLimit(t *testing.T, d *noisy) time.Duration {
	t.Helper()
	p := latency.Screening()
	p.Sessions = 4000
	r, err := latency.Measure(t.Context(), d, net(simulatedLimit, 0), p)
	if err != nil {
		t.Fatal(err)
	}
	d.sessions = 0
	return time.Duration(float64(simulatedLimit) * float64(simulatedLimit) / float64(r.P50))
}

// TestLimit: nets that take exactly the limit are called met in at most 5 of
// 100 cases, whichever way it is decided, with sessions that differ as much
// as [latency.DefaultSpread] assumes; their P50 alone would let about half of
// them pass. A net well below is met, mostly without the whole budget.
//
// Simulated with 1,000 nets a case: of nets at the limit a search lets none
// pass, Settle, which looks up to seven times, .2 %, a confirmation .1 %. Where
// sessions differ 1.6 times as much as is assumed it is .5, 1.3 and .4 %; of
// nets 3 % above the limit none pass.
func TestLimit(t *testing.T) {
	const nets = 120
	key := 0
	for name, decide := range deciders(t) {
		t.Run(name, func(t *testing.T) {
			d := &noisy{between: latency.DefaultSpread, within: 0.03, rng: rand.New(rand.NewPCG(1, 2))}
			met, coin, exactly := 0, 0, atLimit(t, d)
			for range nets {
				key++
				r := decide(d, net(exactly, key))
				if r.Decide(simulatedLimit) == latency.Met {
					met++
				}
				if r.P50 < simulatedLimit {
					coin++
				}
			}
			if share := float64(met) / nets; share > 0.05 {
				t.Errorf("%.1f %% of the nets at the limit are called met", 100*share)
			}
			if share := float64(coin) / nets; share < 0.25 {
				t.Errorf("P50s are below the limit in %.1f %% of cases: the test could not fail", 100*share)
			}
			met, d.sessions = 0, 0
			for range nets / 4 {
				key++
				if r := decide(d, net(exactly*9/10, key)); r.Decide(simulatedLimit) == latency.Met {
					met++
				}
			}
			if share := float64(met) / (nets / 4); share < 0.9 {
				t.Errorf("%.1f %% of the nets 10 %% below the limit are called met", 100*share)
			}
			if mean := float64(d.sessions) / (nets / 4); name != "confirm" && mean > 2.5 {
				t.Errorf("%.1f sessions for nets 10 %% below the limit", mean)
			}
		})
	}
}

// slowing is a device whose every session takes longer than the one before.
type slowing struct {
	noisy
	by float64 // in all, over so many sessions
	of int
}

func (d *slowing) Time(ctx context.Context, t latency.Task) (latency.Sample, error) {
	factor := 1 + d.by*float64(d.sessions)/float64(d.of)
	s, err := d.noisy.Time(ctx, t)
	for i := range s.Runs {
		s.Runs[i] = time.Duration(factor * float64(s.Runs[i]))
	}
	return s, err
}

// TestOrderDoesNotDecide: of equal nets the last is not slower than the first
// because the machine slowed down meanwhile: by 12 % over all sessions, of
// which it would get eleven if the nets were measured one after the other.
func TestOrderDoesNotDecide(t *testing.T) {
	const nets = 12
	p := latency.Confirmation()
	d := &slowing{noisy: noisy{rng: rand.New(rand.NewPCG(1, 2))}, by: 0.12, of: nets * p.Sessions}
	var models []latency.Model
	for n := range nets {
		models = append(models, net(simulatedLimit, n))
	}
	r, err := latency.MeasureAll(t.Context(), d, models, p)
	if err != nil {
		t.Fatal(err)
	}
	if ratio := float64(r[nets-1].P50) / float64(r[0].P50); ratio > 1.025 {
		t.Errorf("the last net takes %.3f of the first one's time", ratio)
	}
}
