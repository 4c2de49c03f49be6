package latency_test

import (
	"context"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"spos/configs"
	"spos/internal/arch"
	"spos/latency"
)

// machine is a synthetic device of which everything is known: what a block
// costs at its geometry, how much that changes with its place and its
// neighbour, and how its measurements err.
type machine struct {
	space   *arch.Space
	seed    uint64
	place   float64 // deviation of a block's cost with its place, as a fraction
	pair    float64 // and with the block before it
	session float64 // deviation of a session's median
	drift   float64 // amplitude of a wave of 31 sessions
	kink    float64 // nets below this many milliseconds take a quarter longer
	host    latency.Host
	clock   func(call int) time.Time // nil: it does not tell

	calls int
	die   func(call int) error
	seen  map[string]int // sessions by key
}

// normal is a standard normal that follows from its name.
func (m *machine) normal(name string) float64 {
	h := fnv.New64a()
	h.Write([]byte(name))
	return rand.New(rand.NewPCG(m.seed, h.Sum64())).NormFloat64()
}

func describeBlock(ops []arch.Op) string {
	var b strings.Builder
	for _, o := range ops {
		fmt.Fprintf(&b, "%v %v %v %d %d %d;", o.Kind, o.In, o.Out, o.Kernel, o.Stride, o.Groups)
	}
	return b.String()
}

// truth is a net's latency in milliseconds.
func (m *machine) truth(n *arch.Net) float64 {
	sum, before, place := 0.0, "", map[arch.Shape]int{}
	for i := 0; i < len(n.Ops); {
		end, macs := i, 0.0
		for ; end < len(n.Ops) && n.Ops[end].Block == n.Ops[i].Block; end++ {
			macs += float64(n.Ops[end].Cost().MACs) + 30*float64(n.Ops[end].Out.Numel())
		}
		cost := macs / 4e7
		if n.Ops[i].Block >= 0 {
			what, out := describeBlock(n.Ops[i:end]), n.Ops[end-1].Out
			cost *= math.Exp(0.4 * m.normal(what))
			own := cost
			cost += own * m.place * m.normal(fmt.Sprint(what, place[out]))
			cost += own * m.pair * m.normal(what+before)
			before = what
			place[out]++
		}
		sum += cost
		i = end
	}
	if sum+0.05 < m.kink {
		return 1.25 * (sum + 0.05)
	}
	return 0.05 + sum
}

func (m *machine) Fingerprint(_ context.Context, _ []byte, p latency.Protocol) (latency.Fingerprint, error) {
	return latency.Fingerprint{Host: m.host, Session: latency.Setting{Mode: p.Mode, Batch: p.Batch, Threads: p.Threads}}, nil
}

func (m *machine) model(n *arch.Net) (latency.Model, error) {
	return latency.Model{Name: string(n.Arch), Bytes: fmt.Appendf(nil, "%.17g", m.truth(n)), Key: string(n.Arch)}, nil
}

func (m *machine) Time(ctx context.Context, t latency.Task) (latency.Sample, error) {
	m.calls++
	if m.die != nil {
		if err := m.die(m.calls); err != nil {
			return latency.Sample{}, err
		}
	}
	if m.seen != nil && t.Key != "" {
		m.seen[t.Key]++
	}
	var ms float64
	if _, err := fmt.Sscan(string(t.Model), &ms); err != nil {
		return latency.Sample{}, err
	}
	if t.Key != "" { // the sentinel is not named, and steady
		ms *= math.Exp(m.session*m.normal("session"+t.Key) + m.drift*math.Sin(float64(m.calls)/5))
	}
	s := latency.Sample{Settled: true, Pinned: true, Load: -1}
	if m.clock != nil {
		s.Started = m.clock(m.calls)
	}
	s.Fingerprint, _ = m.Fingerprint(ctx, nil, t.Protocol)
	for range t.Protocol.Runs {
		s.Runs = append(s.Runs, time.Duration(ms*1e6))
	}
	return s, nil
}

func (m *machine) campaign(t testing.TB, nets, holdout, sessions int) *latency.Campaign {
	t.Helper()
	cache, err := latency.OpenCache(filepath.Join(t.TempDir(), "journal.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cache.Close() })
	p := latency.Screening()
	p.Sessions, p.Runs = sessions, 1
	return &latency.Campaign{
		Space: m.space, Seed: 1, Device: m, Protocol: p, Cache: cache, Model: m.model,
		Nets: nets, Holdout: holdout, Log: slog.New(slog.DiscardHandler),
	}
}

func space(t testing.TB, name string) *arch.Space {
	t.Helper()
	s, err := configs.Space(name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func table(t testing.TB, c *latency.Campaign) *latency.Table {
	t.Helper()
	tab, err := c.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

// truly is what an audit of nets without number would find: the mean size of
// the error against the truth, and how often its interval holds a measurement
// that errs by noise.
func truly(t *testing.T, m *machine, tab *latency.Table, noise float64) (mape, covered float64) {
	t.Helper()
	const nets = 300
	rng := rand.New(rand.NewPCG(m.seed, 99))
	for range nets {
		n, err := m.space.Net(leaning(m.space, rng))
		if err != nil {
			t.Fatal(err)
		}
		p, err := tab.Predict(n)
		if err != nil {
			t.Fatal(err)
		}
		is := m.truth(n) * math.Exp(noise*rng.NormFloat64())
		mape += math.Abs(latency.Milliseconds(p.P50)/is-1) / nets
		if d := time.Duration(is * 1e6); p.Low <= d && d <= p.High {
			covered += 1.0 / nets
		}
	}
	return mape, covered
}

// leaning draws as the audit says that it does.
func leaning(s *arch.Space, rng *rand.Rand) arch.Arch {
	lean, choices := 6*rng.Float64()-3, make([]int, s.Len())
	for b := range choices {
		best := math.Inf(-1)
		var low, high int64 = math.MaxInt64, 0
		for c := range s.Candidates(b) {
			low, high = min(low, s.BlockCost(b, c).MACs), max(high, s.BlockCost(b, c).MACs)
		}
		for c := range s.Candidates(b) {
			// The largest of weights with Gumbel noise is a draw by weight.
			share := float64(s.BlockCost(b, c).MACs-low) / float64(max(1, high-low))
			if w := lean*(2*share-1) - math.Log(rng.ExpFloat64()); w > best {
				best, choices[b] = w, c
			}
		}
	}
	return arch.Make(choices)
}

// medianNoise is the deviation of a median of two sessions, one of which
// deviates by one.
const medianNoise = 0.7071

func TestTableOfAKnownMachine(t *testing.T) {
	for name, c := range map[string]struct {
		space       string
		place, pair float64
		session     float64
		mape        float64 // at most, the measurement's own error included
	}{
		"additive, quiet": {"nasbench-macro", 0, 0, 0.005, 0.005},
		"small space":     {"nasbench-macro", 0.05, 0.03, 0.015, 0.02},
		"large space":     {"shufflenetv2-spos", 0.05, 0.03, 0.015, 0.015},
		"strong places":   {"shufflenetv2-spos", 0.2, 0.1, 0.01, 0.03},
	} {
		t.Run(name, func(t *testing.T) {
			const seeds = 4
			var trueMAPE, said, saidLeft, covered float64
			for seed := range uint64(seeds) {
				m := &machine{space: space(t, c.space), seed: seed, place: c.place, pair: c.pair, session: c.session}
				tab := table(t, m.campaign(t, 40, 60, 2))
				mape, cov := truly(t, m, tab, c.session*medianNoise)
				trueMAPE, covered = trueMAPE+mape/seeds, covered+cov/seeds
				said += tab.Audit().MAPE / seeds
				saidLeft += tab.CrossValidation().MAPE / seeds
				t.Logf("seed %d: error %.4f, held-out %.4f, left-out %.4f, covered %.3f, tau %.3f of %.3f, %+v", seed, mape,
					tab.Audit().MAPE, tab.CrossValidation().MAPE, cov, tab.Audit().Tau, tab.Audit().Ruler.Tau, tab.Fit)
			}
			t.Logf("error %.4f, held-out says %.4f, left-out %.4f, covered %.3f", trueMAPE, said, saidLeft, covered)
			if trueMAPE > c.mape {
				t.Errorf("error %.4f, want at most %.4f", trueMAPE, c.mape)
			}
			for kind, audit := range map[string]float64{"held-out": said, "left-out": saidLeft} {
				if r := audit / trueMAPE; r < 2.0/3 || r > 4.0/3 {
					t.Errorf("the audit by %s nets says %.4f, the error is %.4f: not within a third", kind, audit, trueMAPE)
				}
			}
			if covered < 0.9 || covered > 0.995 {
				t.Errorf("intervals hold %.3f of the measurements, want about 0.95", covered)
			}
		})
	}
}
