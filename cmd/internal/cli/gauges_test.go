package cli

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"spos/configs"
	"spos/internal/arch"
	"spos/internal/config"
	"spos/latency"
	"spos/search"
)

// board is a device on which a model takes a nanosecond a byte, times factor.
type board struct {
	name   string
	factor float64

	mu       sync.Mutex
	sessions int
}

func (b *board) Fingerprint(_ context.Context, _ []byte, p latency.Protocol) (latency.Fingerprint, error) {
	return latency.Fingerprint{Host: latency.Host{CPU: b.name, SMT: "off"}, Session: latency.Setting{Build: "x", Mode: p.Mode, Batch: p.Batch, Threads: p.Threads}}, nil
}

func (b *board) Time(ctx context.Context, t latency.Task) (latency.Sample, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sessions++
	s := latency.Sample{Settled: true, Pinned: true, Load: -1}
	for range t.Protocol.Runs {
		s.Runs = append(s.Runs, time.Duration(b.factor*float64(len(t.Model))))
	}
	s.Fingerprint, _ = b.Fingerprint(ctx, nil, t.Protocol)
	return s, nil
}

func smallNets(t *testing.T, digits ...string) (*arch.Space, []*arch.Net) {
	t.Helper()
	s, err := configs.Space("shufflenetv2-small")
	if err != nil {
		t.Fatal(err)
	}
	var nets []*arch.Net
	for _, d := range digits {
		n, err := s.Net(arch.Arch(d))
		if err != nil {
			t.Fatal(err)
		}
		nets = append(nets, n)
	}
	return s, nets
}

// A search on two devices: verdicts of both, a journal for each by which a
// second process measures nothing again.
func TestGauges(t *testing.T) {
	s, nets := smallNets(t, "00000000", "33333333")
	small, err := CandidateModel(nets[0], 1)
	if err != nil {
		t.Fatal(err)
	}
	limit := 1.2 * float64(len(small.Bytes)) / 1e6 // ms here; the large net takes more
	dir := t.TempDir()
	search1 := func(fast, slow *board) []search.Verdict {
		limits := []config.DeviceLimit{{Device: ThisDevice, MS: limit}, {Device: "pi 5/a", MS: 12 * limit}}
		gs, err := NewGauges(s, []NamedDevice{{fast, ThisDevice}, {slow, "pi 5/a"}}, limits, config.Latency{}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		forget, err := gs.Remember(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer forget()
		v, err := gs.Constraint().Check(t.Context(), nets)
		if err != nil {
			t.Fatal(err)
		}
		found, err := gs.Confirm(t.Context(), nets[0], 0)
		if err != nil || !gs.Keeps(found) {
			t.Errorf("confirmed %v, %v", found, err)
		}
		return v
	}
	fast, slow := &board{name: "fast", factor: 1}, &board{name: "slow", factor: 10}
	v := search1(fast, slow)
	if !v[0].Met || v[1].Met || len(v[0].Devices) != 2 {
		t.Errorf("verdicts %+v", v)
	}
	if v[0].Devices["pi 5/a"].P50 < 9*v[0].P50 {
		t.Errorf("the slow device is not ten times slower: %+v", v[0])
	}
	fast.sessions, slow.sessions = 0, 0
	search1(fast, slow)
	if fast.sessions+slow.sessions > 0 {
		t.Errorf("%d and %d sessions were measured again", fast.sessions, slow.sessions)
	}
	for _, name := range []string{"latency.jsonl", "latency-pi%205%2Fa.jsonl"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
}

// A limit is not kept where one device of several does not, nor where its
// interval reaches the limit.
func TestGaugesKeep(t *testing.T) {
	gs := Gauges{{Device: "a", Limit: 2}, {Device: "b"}, {Device: "c", Limit: 3}}
	at := func(high float64) search.Interval { return search.Interval{P50: 1, Low: 1, High: high} }
	for name, c := range map[string]struct {
		found []search.Interval
		want  bool
	}{
		"all":        {[]search.Interval{at(1.9), at(99), at(2.9)}, true},
		"first not":  {[]search.Interval{at(2), at(1), at(1)}, false},
		"third not":  {[]search.Interval{at(1), at(1), at(3.1)}, false},
		"no limit 2": {[]search.Interval{at(1), at(1e6), at(1)}, true},
	} {
		if got := gs.Keeps(c.found); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
