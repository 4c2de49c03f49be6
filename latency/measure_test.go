package latency_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"spos/internal/runs"
	"spos/latency"
)

// fake is a machine on which a model takes the microseconds that its bytes
// say, times speed; calls lists what was timed.
type fake struct {
	speed func(call int) float64 // nil: always 1
	host  latency.Host
	calls []string
}

func (f *fake) Fingerprint(_ context.Context, model []byte, p latency.Protocol) (latency.Fingerprint, error) {
	return latency.Fingerprint{
		Host:    f.host,
		Session: latency.Setting{Mode: p.Mode, Batch: p.Batch, Threads: p.Threads},
		Model:   latency.ModelID{SHA256: "sha:" + string(model)},
	}, nil
}

func (f *fake) Time(ctx context.Context, t latency.Task) (latency.Sample, error) {
	model, p := t.Model, t.Protocol
	var us float64
	if _, err := fmt.Sscan(string(model), &us); err != nil {
		return latency.Sample{}, errors.New("not a model")
	}
	if f.speed != nil {
		us *= f.speed(len(f.calls))
	}
	f.calls = append(f.calls, string(model))
	s := latency.Sample{Settled: true, Pinned: true, Load: -1}
	s.Fingerprint, _ = f.Fingerprint(ctx, model, p)
	for range p.Runs {
		s.Runs = append(s.Runs, time.Duration(us*1e3))
	}
	return s, nil
}

func models(us ...string) []latency.Model {
	m := make([]latency.Model, len(us))
	for i, u := range us {
		m[i] = latency.Model{Name: "net" + u, Bytes: []byte(u)}
	}
	return m
}

func TestMeasureAllInterleaves(t *testing.T) {
	f := &fake{}
	p := latency.Screening()
	p.Sessions = 3
	r, err := latency.MeasureAll(t.Context(), f, models("100", "300", "200"), p)
	if err != nil {
		t.Fatal(err)
	}
	want := slices.Repeat([]string{"100", "300", "200"}, 3)
	if d := cmp.Diff(want, f.calls); d != "" {
		t.Errorf("order of sessions (-want +got):\n%s", d)
	}
	for i, us := range []time.Duration{100, 300, 200} {
		if r[i].P50 != us*time.Microsecond || r[i].Runs != 60 || r[i].Sessions != 3 {
			t.Errorf("%s: %+v, want %d µs in 60 runs", r[i].Model, r[i].Estimate, us)
		}
	}
	if _, err := latency.MeasureAll(t.Context(), f, models("100", "x"), p); err == nil || !strings.Contains(err.Error(), "netx") {
		t.Errorf("a broken model: %v, want an error that names it", err)
	}
}

// TestImplausible: what a device sends decides limits, whatever it is.
func TestImplausible(t *testing.T) {
	sent := func(change func(*latency.Sample)) (latency.Result, error) {
		return latency.Measure(t.Context(), runnerFunc(func() latency.Sample {
			s := latency.Sample{Runs: slices.Repeat([]time.Duration{time.Millisecond}, 20), Settled: true, Pinned: true}
			change(&s)
			return s
		}), models("1000")[0], latency.Screening())
	}
	for name, run := range map[string]time.Duration{"nothing": 0, "less": -time.Millisecond, "for ever": 1 << 62} {
		if r, err := sent(func(s *latency.Sample) { s.Runs[3] = run }); err == nil || !strings.Contains(err.Error(), "net1000: the runner says that a run took "+run.String()) {
			t.Errorf("a run took %s: %v, and %+v", name, err, r.Estimate)
		}
	}
	for name, change := range map[string]func(*latency.Sample){
		"a reference that is out of this world": func(s *latency.Sample) { s.Reference = latency.Reference{Quiet: 1, Before: 1 << 62} },
		"less than no work on other processors": func(s *latency.Sample) {
			s.Disturbance = latency.Disturbance{Window: 1, Others: 1, Busy: -1 << 62}
		},
	} {
		r, err := sent(change)
		if err != nil || r.Decide(time.Millisecond+1) != latency.Undecided || !(0 <= r.Low && r.Low <= r.P50 && r.P50 <= r.High) {
			t.Errorf("%s: %+v, %v", name, r.Estimate, err)
		}
	}
}

func TestDecide(t *testing.T) {
	e := latency.Estimate{P50: 100, Low: 90, High: 110}
	for limit, want := range map[time.Duration]latency.Verdict{
		89: latency.NotMet, 90: latency.NotMet, 91: latency.Undecided, 100: latency.Undecided,
		110: latency.Undecided, 111: latency.Met,
	} {
		if got := e.Decide(limit); got != want {
			t.Errorf("limit %d: %v, want %v", limit, got, want)
		}
	}
}

func TestSettle(t *testing.T) {
	screen, confirm := latency.Screening(), latency.Confirmation()
	for name, c := range map[string]struct {
		limit    time.Duration // µs, of a model that takes 1000 on a quiet machine
		sessions int
		want     latency.Verdict
	}{
		"far above": {2000, 1, latency.Met},
		"far below": {500, 1, latency.NotMet},
		"at":        {1000, 7, latency.Undecided},
		"close":     {1030, 0, latency.Met}, // more than one session, fewer than all
	} {
		t.Run(name, func(t *testing.T) {
			f := &fake{}
			r, v, err := latency.Settle(t.Context(), f, models("1000")[0], c.limit*time.Microsecond, screen, confirm)
			if err != nil || v != c.want {
				t.Fatalf("%v, %v, want %v", v, err, c.want)
			}
			if n := len(f.calls); n != r.Sessions || c.sessions > 0 && n != c.sessions || c.sessions == 0 && (n < 2 || n > 6) {
				t.Errorf("%d sessions run, %d reported, want %d", n, r.Sessions, c.sessions)
			}
		})
	}
}

func TestMeterCache(t *testing.T) {
	path := filepath.Join(t.TempDir(), "latency.jsonl")
	meter := func(f *fake) *latency.Meter {
		c, err := latency.OpenCache(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return &latency.Meter{Runner: f, Protocol: latency.Screening(), Cache: c, Log: slog.New(slog.DiscardHandler)}
	}
	first := &fake{}
	ms := models("100", "100.7", "300")
	a := meter(first)
	before, err := a.Measure(t.Context(), ms[:2]...)
	if err != nil {
		t.Fatal(err)
	}
	a.Protocol.Sessions = 3
	more, err := a.Measure(t.Context(), ms[0])
	if err != nil || more[0].Sessions != 3 || len(first.calls) != 4 {
		t.Fatalf("%+v, %v, after %d sessions", more, err, len(first.calls))
	}
	before[0] = more[0]

	// The process is killed in the middle of a write, and starts again.
	whole, _ := os.ReadFile(path)
	if err := os.WriteFile(path, append(whole, []byte(`{"key":"torn","res`)...), 0o600); err != nil {
		t.Fatal(err)
	}
	second := &fake{}
	b := meter(second)
	after, err := b.Measure(t.Context(), ms...)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(before, after[:2], cmpopts.EquateEmpty()); d != "" {
		t.Errorf("resumed results differ (-before +after):\n%s", d)
	}
	if d := cmp.Diff([]string{"300"}, second.calls); d != "" {
		t.Errorf("measured after resuming (-want +got):\n%s", d)
	}
	b.Protocol.Sessions = 3
	if _, err := b.Measure(t.Context(), ms[0]); err != nil || len(second.calls) != 1 {
		t.Errorf("three sessions again: %v, with %d sessions, want none", err, len(second.calls)-1)
	}
	// More sessions are added to those that are known, longer ones are not, and
	// another machine's time says nothing about this one.
	for _, c := range []struct{ sessions, runs, want int }{{3, 20, 2}, {6, 40, 6}, {6, 20, 0}} {
		b.Protocol.Sessions, b.Protocol.Runs = c.sessions, c.runs
		second.calls = nil
		r, err := b.Measure(t.Context(), ms[2])
		if err != nil || len(second.calls) != c.want || r[0].Sessions != c.sessions {
			t.Errorf("%d × %d: %d sessions ran, %v, result of %d, want %d", c.sessions, c.runs, len(second.calls), err, r[0].Sessions, c.want)
		}
	}
	other := &fake{host: latency.Host{CPU: "another"}}
	c := meter(other)
	if _, err := c.Measure(t.Context(), ms[2]); err != nil || len(other.calls) != 1 {
		t.Errorf("another machine ran %d sessions, %v, want 1", len(other.calls), err)
	}
	// A graph's key finds it whatever its weights.
	keyed := latency.Model{Name: "a", Bytes: []byte("400"), Key: "graph"}
	retrained := latency.Model{Name: "b", Bytes: []byte("401"), Key: "graph"}
	if _, err := c.Measure(t.Context(), keyed); err != nil {
		t.Fatal(err)
	}
	r, err := c.Measure(t.Context(), retrained)
	if err != nil || r[0].Model != "b" || r[0].P50 != 400*time.Microsecond {
		t.Errorf("same graph: %+v, %v, want b with the time of a", r, err)
	}
}

func TestCacheErrors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.jsonl")
	if err := os.WriteFile(path, []byte("{\"key\":\"a\",\"result\":{}}\nnonsense\n{\"key\":\"b\",\"result\":{}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := latency.OpenCache(path); !errors.Is(err, runs.ErrCorrupt) || !strings.Contains(err.Error(), "line 2") || !strings.Contains(err.Error(), path) {
		t.Errorf("OpenCache = %v, want an error that names file and line", err)
	}
	c, err := latency.OpenCache(filepath.Join(t.TempDir(), "new.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := c.Put("k", latency.Result{}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Put after Close = %v, want ErrClosed", err)
	}
}

// TestSentinel gives the machine a history, in sessions, and counts the work.
func TestSentinel(t *testing.T) {
	sentinel := latency.Model{Name: "sentinel", Bytes: []byte("50")}
	for name, c := range map[string]struct {
		speed  func(call int) float64
		drifts []bool // kept?
		warned int    // results with a warning
		rested time.Duration
		calls  int
	}{
		// 3 sessions at the start, then twice 2 models and a look.
		"steady": {func(int) float64 { return 1 }, nil, 0, 0, 9},
		// One look is off by chance: two more sessions settle it.
		"blip": {func(n int) float64 { return map[bool]float64{true: 1.2, false: 1}[n == 5] }, nil, 0, 0, 12},
		// A neighbour during the first stretch and its looks: measured again.
		"passing": {func(n int) float64 { return map[bool]float64{true: 1.1, false: 1}[n >= 3 && n < 9] }, []bool{false}, 0, 5 * time.Second, 15},
		// Slower for good: two retries of the first stretch, none of the second.
		"lasting": {func(n int) float64 { return map[bool]float64{true: 1.1, false: 1}[n >= 3] }, []bool{false, false, true, true}, 4, 10 * time.Second, 27},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fake{speed: c.speed}
				m := &latency.Meter{
					Runner: f, Protocol: latency.Screening(), Log: slog.New(slog.DiscardHandler),
					Sentinel: &latency.Sentinel{Model: sentinel, Every: 2},
				}
				start := time.Now()
				r, err := m.Measure(t.Context(), models("100", "200", "300", "400")...)
				if err != nil {
					t.Fatal(err)
				}
				var kept []bool
				for _, d := range m.Drifts() {
					kept = append(kept, d.Kept)
				}
				warned := 0
				for _, r := range r {
					if slices.ContainsFunc(r.Warnings, func(w string) bool { return strings.Contains(w, "+10.0 %") }) {
						warned++
					}
				}
				if !slices.Equal(kept, c.drifts) || warned != c.warned || time.Since(start) != c.rested || len(f.calls) != c.calls {
					t.Errorf("drifts %v, %d warned, rested %v, %d sessions, want %v, %d, %v, %d",
						kept, warned, time.Since(start), len(f.calls), c.drifts, c.warned, c.rested, c.calls)
				}
				if c.warned == 0 && r[0].P50 != 100*time.Microsecond {
					t.Errorf("first model took %v, want 100µs of the quiet machine", r[0].P50)
				}
			})
		})
	}
}

func TestFingerprintRules(t *testing.T) {
	base := latency.Fingerprint{
		Host:    latency.Host{CPU: "c", Quota: "2"},
		Session: latency.Setting{Runtime: "1.32.0", GraphLevel: "all", Options: map[string]string{"a": "1"}, Affinity: []int{1}},
		Model:   latency.ModelID{SHA256: "x", Opset: 17, Inputs: "x float32 1"},
	}
	for name, c := range map[string]struct {
		change  func(*latency.Fingerprint)
		field   string // "" where they compare
		repeats bool
	}{
		"same":     {func(*latency.Fingerprint) {}, "", true},
		"empty":    {func(f *latency.Fingerprint) { f.Session.Options = maps.Clone(f.Session.Options) }, "", true},
		"model":    {func(f *latency.Fingerprint) { f.Model.SHA256 = "y" }, "", false},
		"cpu":      {func(f *latency.Fingerprint) { f.Host.CPU = "d" }, "host cpu", false},
		"quota":    {func(f *latency.Fingerprint) { f.Host.Quota = "" }, "host quota", false},
		"runtime":  {func(f *latency.Fingerprint) { f.Session.Runtime = "1.27.0" }, "session runtime", false},
		"level":    {func(f *latency.Fingerprint) { f.Session.GraphLevel = "basic" }, "session graph_level", false},
		"options":  {func(f *latency.Fingerprint) { f.Session.Options = map[string]string{"a": "2"} }, "session options", false},
		"affinity": {func(f *latency.Fingerprint) { f.Session.Affinity = nil }, "session affinity", false},
		"batch":    {func(f *latency.Fingerprint) { f.Session.Batch = 8 }, "session batch", false},
	} {
		other := base
		c.change(&other)
		err := base.Comparable(other)
		if (err == nil) != (c.field == "") || err != nil && (!errors.Is(err, latency.ErrIncomparable) || !strings.Contains(err.Error(), c.field)) {
			t.Errorf("%s: Comparable = %v, want a difference in %q", name, err, c.field)
		}
		if (base.Key() == other.Key()) != (err == nil) {
			t.Errorf("%s: keys %s and %s, but Comparable = %v", name, base.Key(), other.Key(), err)
		}
		if err := base.Repeats(other); (err == nil) != c.repeats {
			t.Errorf("%s: Repeats = %v, want %v", name, err, c.repeats)
		}
		// A fingerprint is compared after a trip through a file.
		b, err := json.Marshal(other)
		if err != nil {
			t.Fatal(err)
		}
		var back latency.Fingerprint
		if err := json.Unmarshal(b, &back); err != nil || back.Repeats(other) != nil || back.Key() != other.Key() {
			t.Errorf("%s: JSON changes it: %v, %v", name, err, back.Repeats(other))
		}
	}
}

func TestWarnings(t *testing.T) {
	quiet := func() latency.Sample {
		return latency.Sample{
			Runs: slices.Repeat([]time.Duration{1e6}, 20), Settled: true, Pinned: true, Load: 0.1,
			Fingerprint: latency.Fingerprint{Host: latency.Host{Cores: 2}},
		}
	}
	for want, change := range map[string]func(*latency.Sample, *latency.Protocol){
		"":                            func(*latency.Sample, *latency.Protocol) {},
		"1.50 processors":             func(s *latency.Sample, _ *latency.Protocol) { s.Fingerprint.Host.Quota = "1.50" },
		"powersave":                   func(s *latency.Sample, _ *latency.Protocol) { s.Fingerprint.Host.Governor = "powersave" },
		"not bound":                   func(s *latency.Sample, _ *latency.Protocol) { s.Pinned = false },
		"load average is about 9":     func(s *latency.Sample, _ *latency.Protocol) { s.Load = 9 },
		"lost its processor 12 times": func(s *latency.Sample, _ *latency.Protocol) { s.Preempted = 12 },
		"vary by":                     func(s *latency.Sample, _ *latency.Protocol) { s.Runs[3] *= 9 },
		"not settled":                 func(s *latency.Sample, _ *latency.Protocol) { s.Settled = false },
		"spin":                        func(_ *latency.Sample, p *latency.Protocol) { p.Threads = 2 },
		"taken as 1":                  func(s *latency.Sample, _ *latency.Protocol) { s.Notes = []string{"dimension n taken as 1"} },
	} {
		s, p := quiet(), latency.Screening()
		change(&s, &p)
		r, err := latency.Measure(t.Context(), runnerFunc(func() latency.Sample { return s }), models("1")[0], p)
		if err != nil {
			t.Fatal(err)
		}
		if want == "" && len(r.Warnings) == 0 {
			continue
		}
		if len(r.Warnings) != 1 || want == "" || !strings.Contains(r.Warnings[0], want) {
			t.Errorf("warnings %q, want one with %q", r.Warnings, want)
		}
	}
}

// TestContentionWidens: the same runs say less where others were at work.
func TestContentionWidens(t *testing.T) {
	width := func(busy time.Duration) (float64, []string) {
		s := latency.Sample{
			Runs: slices.Repeat([]time.Duration{1e6}, 20), Settled: true, Pinned: true,
			Disturbance: latency.Disturbance{Window: time.Second, Others: 1, Busy: busy},
		}
		p := latency.Confirmation()
		r, err := latency.Measure(t.Context(), runnerFunc(func() latency.Sample { return s }), models("1")[0], p)
		if err != nil {
			t.Fatal(err)
		}
		return float64(r.High-r.Low) / float64(r.P50), r.Warnings
	}
	quiet, none := width(0)
	loud, said := width(time.Second)
	if loud < 1.5*quiet || len(none) != 0 || len(said) != 1 || !strings.Contains(said[0], "100 % busy") {
		t.Errorf("intervals of %.3f %q and of %.3f %q, want the second wider, and said why", quiet, none, loud, said)
	}
}

type runnerFunc func() latency.Sample

func (f runnerFunc) Time(context.Context, latency.Task) (latency.Sample, error) {
	return f(), nil
}

func TestResultForms(t *testing.T) {
	f := &fake{host: latency.Host{Governor: "powersave"}}
	results, err := latency.MeasureAll(t.Context(), f, models("123.456", "98765.4"), latency.Screening())
	if err != nil {
		t.Fatal(err)
	}
	results[1].Warnings = append(results[1].Warnings, "it is large")
	b, err := json.Marshal(results[0])
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(b, &fields); err != nil {
		t.Fatal(err)
	}
	for _, k := range []string{"model", "p50_ms", "p90_ms", "min_ms", "low_ms", "high_ms", "runs", "mode", "fingerprint", "warnings"} {
		if _, ok := fields[k]; !ok {
			t.Errorf("JSON lacks %q: %s", k, b)
		}
	}
	if fields["p50_ms"] != 0.123456 {
		t.Errorf("p50_ms = %v, want 0.123456", fields["p50_ms"])
	}
	var back latency.Result
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(results[0], back, cmpopts.EquateEmpty()); d != "" {
		t.Errorf("JSON changes it (-before +after):\n%s", d)
	}
	var out bytes.Buffer
	if err := latency.Write(&out, results); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"net123.456", " 0.123 ", " 98.77 ", "1 × 20", "hot",
		"\nwarning: the frequency governor", "\nwarning: net98765.4: it is large\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("table lacks %q:\n%s", want, &out)
		}
	}
}

// TestRedo: for a session that a neighbour slowed there is another, and it
// does not count; a machine that does not come back is not measured for ever.
func TestRedo(t *testing.T) {
	for name, c := range map[string]struct {
		slow     func(call int) bool
		sessions int
		p50      time.Duration
	}{
		"none":                  {func(int) bool { return false }, 6, 100 * time.Microsecond},
		"two":                   {func(call int) bool { return call == 1 || call == 4 }, 8, 100 * time.Microsecond},
		"one of the added, too": {func(call int) bool { return call == 1 || call == 6 }, 8, 100 * time.Microsecond},
		"all but one":           {func(call int) bool { return call > 0 }, 6, 120 * time.Microsecond}, // it may be chance
		"half":                  {func(call int) bool { return call%2 > 0 }, 11, 100 * time.Microsecond},
	} {
		f := &fake{speed: func(call int) float64 {
			if c.slow(call) {
				return 1.2
			}
			return 1
		}}
		p := latency.Confirmation()
		r, err := latency.Measure(t.Context(), f, models("100")[0], p)
		if err != nil {
			t.Fatal(err)
		}
		if r.Sessions != c.sessions || r.P50 != c.p50 {
			t.Errorf("%s: %v in %d sessions, want %v in %d", name, r.P50, r.Sessions, c.p50, c.sessions)
		}
		if said := strings.Contains(strings.Join(r.Warnings, "\n"), "set aside"); said != (c.sessions > 6) {
			t.Errorf("%s: %q", name, r.Warnings)
		}
	}
}
