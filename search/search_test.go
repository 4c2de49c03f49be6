package search_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"spos/internal/arch"
	"spos/search"
	"spos/search/searchtest"
)

func tinyRun(t *testing.T, seed uint64, o search.Options) ([]search.Trial, error) {
	t.Helper()
	s := searchtest.Tiny()
	if o.Objective == nil {
		o.Objective = searchtest.Synthetic(s).Objective
	}
	o.Budget = 20
	return searchtest.Collect(search.Run(t.Context(), s, search.NewEvolution(s, search.Limits{}, searchtest.Rand(seed), search.EvolutionOptions{Population: 8}), o))
}

func TestForeignJournalIsRefused(t *testing.T) {
	past, err := tinyRun(t, 1, search.Options{Config: "a"})
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		seed   uint64
		config string
		change func([]search.Trial)
		names  string
	}{
		"other seed":     {seed: 2, config: "a", names: "arch"},
		"other config":   {seed: 1, config: "b", names: "configuration is a in the journal and b in this search"},
		"swapped trials": {seed: 1, config: "a", change: func(ts []search.Trial) { ts[3], ts[4] = ts[4], ts[3] }, names: "trial 3"},
		"other network":  {seed: 1, config: "a", change: func(ts []search.Trial) { ts[5].MACs++ }, names: "cost"},
		"other lineage":  {seed: 1, config: "a", change: func(ts []search.Trial) { ts[9].Parents = nil }, names: "lineage"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			ts := slices.Clone(past)
			if c.change != nil {
				c.change(ts)
			}
			var journal searchtest.Memory
			_, err := tinyRun(t, c.seed, search.Options{Config: c.config, Past: ts, Journal: &journal})
			if !errors.Is(err, search.ErrHistory) || !strings.Contains(err.Error(), c.names) {
				t.Errorf("error %v, want ErrHistory that names %q", err, c.names)
			}
			if len(journal) != 0 {
				t.Errorf("%d trials were appended to a foreign journal", len(journal))
			}
		})
	}
}

type failing struct{ after int }

func (f *failing) Append(search.Trial) error {
	if f.after--; f.after < 0 {
		return errors.New("disk full")
	}
	return nil
}

// spy counts what a method is told.
type spy struct {
	search.Method
	told int
}

func (s *spy) Tell(ts []search.Trial) {
	s.told += len(ts)
	s.Method.Tell(ts)
}

// A generation of 8: of what the journal took 11 trials, the method has been
// told one generation, and the consumer has seen every trial on disk.
func TestJournalComesFirst(t *testing.T) {
	s := searchtest.Tiny()
	m := &spy{Method: search.NewEvolution(s, search.Limits{}, searchtest.Rand(1), search.EvolutionOptions{Population: 8})}
	ts, err := searchtest.Collect(search.Run(t.Context(), s, m, search.Options{
		Objective: searchtest.Synthetic(s).Objective, Budget: 20, Journal: &failing{after: 11},
	}))
	if err == nil || !strings.Contains(err.Error(), "journal trial 11: disk full") {
		t.Errorf("error %v, want the journal's, naming trial 11", err)
	}
	if len(ts) != 11 || m.told != 8 {
		t.Errorf("%d trials yielded and %d told, want 11 and 8", len(ts), m.told)
	}
}

func TestBadObjectives(t *testing.T) {
	score := func(v float64) search.Objective {
		return func(_ context.Context, nets []*arch.Net) ([]search.Score, error) {
			return slices.Repeat([]search.Score{{Accuracy: v}}, len(nets)), nil
		}
	}
	cases := map[string]struct {
		objective search.Objective
		names     string
	}{
		"percent": {score(93.1), "93.1, not a fraction"},
		"NaN":     {score(math.NaN()), "NaN, not a fraction"},
		"too few": {func(context.Context, []*arch.Net) ([]search.Score, error) { return nil, nil }, "0 scores for 1 nets"},
		"failing": {func(context.Context, []*arch.Net) ([]search.Score, error) {
			return nil, errors.New("out of memory")
		}, "trials 0 to 0: evaluate: out of memory"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			ts, err := tinyRun(t, 1, search.Options{Objective: c.objective})
			if err == nil || !strings.Contains(err.Error(), c.names) || len(ts) != 0 {
				t.Errorf("%d trials and error %v, want one that says %q", len(ts), err, c.names)
			}
		})
	}
}

// Misses count in a row: a search whose nets fail often, but not always, goes
// on.
func TestMissesInARow(t *testing.T) {
	s := searchtest.Macro()
	l := searchtest.Synthetic(s)
	ts, err := searchtest.Collect(search.Run(t.Context(), s, search.NewRandom(s, search.Limits{}, searchtest.Rand(1), 0), search.Options{
		Objective: l.Objective, Budget: 60, Latency: searchtest.SlowMACs(50), Misses: 20,
	}))
	if err != nil || len(ts) < 60+20 {
		t.Errorf("%d trials, %v; want more than 20 misses among 60 evaluated nets", len(ts), err)
	}
}

// TestFewNetsLeft: limits that leave few nets end a search with what it found:
// at the end of the space, or after ten times as many misses in a row as end
// one that found nothing.
func TestFewNetsLeft(t *testing.T) {
	s := searchtest.Macro()
	l := searchtest.Synthetic(s)
	failing := func(from int) search.Below { // fails all nets but the first ones
		b := searchtest.SlowMACs(1000)
		measured, measure := 0, b.Measure
		b.Measure = func(ctx context.Context, nets []*arch.Net, effort int) ([]search.Interval, error) {
			found, err := measure(ctx, nets, effort)
			for i := range found {
				if measured++; measured > from {
					found[i] = search.Interval{P50: 2000, Low: 1990, High: 2010}
				}
			}
			return found, err
		}
		return b
	}
	for name, c := range map[string]struct {
		limit search.Below
		found int
		err   error
		says  string
	}{
		"never":     {failing(0), 0, search.ErrUnsatisfiable, "20 in a row missed latency < 1000 ms, the last one: latency 2000"},
		"no longer": {failing(7), 7, search.ErrExhausted, "after 7 evaluated nets: no new net found: the last 200 in a row missed latency < 1000 ms"},
		"the end":   {searchtest.SlowMACs(1000), 3969, search.ErrExhausted, "3969 nets of the space are known"},
	} {
		t.Run(name, func(t *testing.T) {
			ts, err := searchtest.Collect(search.Run(t.Context(), s, search.NewRandom(s, search.Limits{}, searchtest.Rand(1), 0), search.Options{
				Objective: l.Objective, Budget: 6561, Latency: c.limit, Misses: 20,
			}))
			found := 0
			for _, tr := range ts {
				if tr.Feasible {
					found++
				}
			}
			if !errors.Is(err, c.err) || found != c.found || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%d of %d trials were within, and then %v, want %d and %q", found, len(ts), err, c.found, c.says)
			}
		})
	}
}

func TestCancelledSearchStopsBetweenBatches(t *testing.T) {
	s := searchtest.Tiny()
	l := searchtest.Synthetic(s)
	why := errors.New("the user said so")
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	var got int
	for _, err := range search.Run(ctx, s, search.NewRandom(s, search.Limits{}, searchtest.Rand(1), 0), search.Options{Objective: l.Objective}) {
		if err != nil {
			if !errors.Is(err, why) {
				t.Errorf("error %v, want the cause", err)
			}
			break
		}
		if got++; got == 7 {
			cancel(why)
		}
	}
	if got != 7 {
		t.Errorf("%d trials, want 7", got)
	}
}

func TestSecondsComeFromTheClock(t *testing.T) {
	now := time.Unix(0, 0)
	ts, err := tinyRun(t, 1, search.Options{Batch: 4, Now: func() time.Time { now = now.Add(2 * time.Second); return now }})
	if err != nil {
		t.Fatal(err)
	}
	if ts[0].Seconds != 0.5 {
		t.Errorf("a batch of 4 in 2 s gives %v s a trial", ts[0].Seconds)
	}
}

func TestBelowEscalates(t *testing.T) {
	s := searchtest.Tiny()
	net, err := s.Net(searchtest.All(s)[40])
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		found []search.Interval
		met   bool
		calls int
	}{
		"clearly below":   {[]search.Interval{{P50: 3, Low: 2, High: 3.9}}, true, 1},
		"clearly above":   {[]search.Interval{{P50: 5, Low: 4, High: 6}}, false, 1},
		"upper end on it": {[]search.Interval{{P50: 3, Low: 2, High: 4}, {P50: 3, Low: 2.9, High: 3.1}}, true, 2},
		"turns out above": {[]search.Interval{{P50: 3.9, Low: 3, High: 5}, {P50: 4.2, Low: 4.1, High: 4.3}}, false, 2},
		"never decided":   {[]search.Interval{{P50: 4, Low: 3, High: 5}, {P50: 4, Low: 3.5, High: 4.5}, {P50: 4, Low: 3.9, High: 4.1}}, false, 3},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			calls := 0
			b := search.Below{What: "latency", Unit: "ms", Limit: 4, Measure: func(_ context.Context, nets []*arch.Net, effort int) ([]search.Interval, error) {
				if effort != calls {
					t.Errorf("call %d has effort %d", calls, effort)
				}
				calls++
				return []search.Interval{c.found[effort]}, nil
			}}
			v, err := b.Check(t.Context(), []*arch.Net{net})
			if err != nil {
				t.Fatal(err)
			}
			if v[0].Met != c.met || calls != c.calls || v[0].Met != (v[0].Reason == "") {
				t.Errorf("met %v after %d calls (%q), want %v after %d", v[0].Met, calls, v[0].Reason, c.met, c.calls)
			}
		})
	}
}

func TestBelowRefusesNonsense(t *testing.T) {
	s := searchtest.Tiny()
	net, _ := s.Net(searchtest.All(s)[0])
	for _, i := range []search.Interval{{P50: 1, Low: 2, High: 3}, {P50: math.NaN()}, {P50: 1, High: math.Inf(1)}} {
		b := search.Below{What: "latency", Measure: func(context.Context, []*arch.Net, int) ([]search.Interval, error) { return []search.Interval{i}, nil }}
		if _, err := b.Check(t.Context(), []*arch.Net{net}); err == nil {
			t.Errorf("%v passes as a measurement", i)
		}
	}
}

// fileJournal is the least that survives a kill: a line a trial.
type fileJournal struct{ f *os.File }

func (j fileJournal) Append(t search.Trial) error {
	line, err := json.Marshal(t)
	if err != nil {
		return err
	}
	_, err = j.f.Write(append(line, '\n'))
	return err
}

func readJournal(t *testing.T, path string) []search.Trial {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	var ts []search.Trial
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		var tr search.Trial
		if err := json.Unmarshal(lines.Bytes(), &tr); err != nil {
			t.Fatal(err)
		}
		ts = append(ts, tr)
	}
	return ts
}

// TestKilled runs a search in a child process that kills itself in the middle
// of an evaluation, again and again, and compares the journal with that of a
// search that nobody disturbed.
func TestKilled(t *testing.T) {
	s := searchtest.Macro()
	l := searchtest.Synthetic(s)
	run := func(path string, dieAfter int) error {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		defer f.Close()
		calls := 0
		deadly := func(ctx context.Context, nets []*arch.Net) ([]search.Score, error) {
			if calls++; calls == dieAfter {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {}
			}
			return l.Objective(ctx, nets)
		}
		_, err = searchtest.Collect(search.Run(t.Context(), s, search.NewEvolution(s, search.Limits{}, searchtest.Rand(1), search.EvolutionOptions{}), search.Options{
			Objective: deadly, Budget: 120, Batch: 5, Latency: searchtest.SlowMACs(60),
			Journal: fileJournal{f}, Past: readJournal(t, path),
		}))
		return err
	}
	if path := os.Getenv("SPOS_KILLED_JOURNAL"); path != "" {
		if err := run(path, 11); err != nil {
			t.Fatal(err)
		}
		return
	}
	dir := t.TempDir()
	whole, broken := filepath.Join(dir, "whole.jsonl"), filepath.Join(dir, "broken.jsonl")
	if err := run(whole, -1); err != nil {
		t.Fatal(err)
	}
	for kills := 0; ; kills++ {
		child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilled$")
		child.Env = append(os.Environ(), "SPOS_KILLED_JOURNAL="+broken)
		out, err := child.CombinedOutput()
		if err == nil {
			if kills < 2 {
				t.Errorf("the child was killed %d times only", kills)
			}
			break
		}
		if state, ok := errors.AsType[*exec.ExitError](err); !ok || state.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL || kills > 20 {
			t.Fatalf("child: %v\n%s", err, out)
		}
	}
	if d := searchtest.Diff(readJournal(t, whole), readJournal(t, broken)); d != "" {
		t.Errorf("the killed search has another history:\n%s", d)
	}
}

func TestTrialIsOneJournalLine(t *testing.T) {
	tr := search.Trial{
		ID: 7, Generation: 1, Origin: search.Crossover, Parents: []arch.Arch{"0120", "0121"}, Arch: "0121",
		MACs: 5, Params: 6, Latency: search.Interval{P50: 2, Low: 1, High: 3}, Feasible: true, Accuracy: 0.5,
		Values: map[string]float64{"top5": 0.9, "loss": 1.5}, Config: "c0ffee", Seconds: 0.25,
	}
	got, err := json.Marshal(tr)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"id":7,"generation":1,"origin":"crossover","parents":["0120","0121"],"arch":"0121","macs":5,"params":6,` +
		`"latency_ms":{"p50":2,"low":1,"high":3},"feasible":true,"accuracy":0.5,"values":{"loss":1.5,"top5":0.9},"config":"c0ffee","seconds":0.25}`
	if string(got) != want {
		t.Errorf("journal line\n%s\nwant\n%s", got, want)
	}
}

func TestCompare(t *testing.T) {
	want := []search.Trial{
		{Arch: "9", Feasible: true, Accuracy: 0.9, MACs: 5},
		{Arch: "1", Feasible: true, Accuracy: 0.9, MACs: 6},
		{Arch: "2", Feasible: true, Accuracy: 0.9, MACs: 6},
		{Arch: "0", Feasible: true, Accuracy: 0.8, MACs: 1},
		{Arch: "3", Accuracy: 0, MACs: 1},
	}
	got := slices.Clone(want)
	slices.Reverse(got)
	slices.SortFunc(got, search.Compare)
	if d := searchtest.Diff(want, got); d != "" {
		t.Error(d)
	}
	if _, ok := search.Winner(want[4:]); ok {
		t.Error("an infeasible trial wins")
	}
}
