// Package searchtest holds the rules that every search method obeys, as
// tests, and landscapes to search in.
package searchtest

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"spos/internal/arch"
	"spos/search"
)

// Build makes a fresh method. It must use r and nothing else for chance, and
// give up after at most ten thousand fruitless draws.
type Build func(s *arch.Space, l search.Limits, r *rand.Rand) search.Method

// Rand is the generator of a seed, as the suite uses it.
func Rand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }

// Memory is a journal in memory.
type Memory []search.Trial

// Append implements [search.Journal].
func (m *Memory) Append(t search.Trial) error { *m = append(*m, t); return nil }

// Collect drains a search.
func Collect(seq iter.Seq2[search.Trial, error]) ([]search.Trial, error) {
	var ts []search.Trial
	for t, err := range seq {
		if err != nil {
			return ts, err
		}
		ts = append(ts, t)
	}
	return ts, nil
}

// Diff compares two histories but for wall-clock time.
func Diff(want, got []search.Trial) string {
	return cmp.Diff(want, got, cmpopts.IgnoreFields(search.Trial{}, "Seconds", "Replayed"))
}

// SlowMACs is a constraint for tests: a net takes a nanosecond for each MAC,
// known to two per cent, and may take at most limit milliseconds.
func SlowMACs(limit float64) search.Below {
	return search.Below{
		What: "latency", Unit: "ms", Limit: limit,
		Measure: func(_ context.Context, nets []*arch.Net, effort int) ([]search.Interval, error) {
			out := make([]search.Interval, len(nets))
			for i, n := range nets {
				ms := float64(n.Cost().MACs) / 1e6
				wide := 0.02 / float64(int(1)<<effort)
				out[i] = search.Interval{P50: ms, Low: ms * (1 - wide), High: ms * (1 + wide)}
			}
			return out, nil
		},
	}
}

// Conform runs the suite.
func Conform(t *testing.T, build Build) {
	t.Run("finds everything there is", func(t *testing.T) { findsAll(t, build) })
	t.Run("spends the budget exactly", func(t *testing.T) { spendsBudget(t, build) })
	t.Run("stays within limits", func(t *testing.T) { staysWithin(t, build) })
	t.Run("is deterministic", func(t *testing.T) { isDeterministic(t, build) })
	t.Run("asks at most n", func(t *testing.T) { asksAtMost(t, build) })
	t.Run("gives up on impossible limits", func(t *testing.T) { givesUp(t, build) })
	t.Run("resumes at every cut", func(t *testing.T) { resumes(t, build) })
	t.Run("can be extended", func(t *testing.T) { extends(t, build) })
}

func findsAll(t *testing.T, build Build) {
	s := Tiny()
	l := Synthetic(s)
	distinct := map[arch.Arch]bool{}
	for a := range l {
		distinct[s.Canonical(a)] = true
	}
	ts, err := Collect(search.Run(t.Context(), s, build(s, search.Limits{}, Rand(1)), search.Options{Objective: l.Objective}))
	if !errors.Is(err, search.ErrExhausted) {
		t.Fatalf("a search with a budget above the space ends with %v, want ErrExhausted", err)
	}
	if errors.Is(err, search.ErrUnsatisfiable) {
		t.Errorf("%v: the space was used up, it was not empty", err)
	}
	if len(ts) != len(distinct) {
		t.Errorf("%d trials in a space of %d distinct nets", len(ts), len(distinct))
	}
	noTwice(t, s, ts)
	if w, ok := search.Winner(ts); !ok || w.Accuracy != l.Best(nil) {
		t.Errorf("winner %v has accuracy %v, brute force finds %v", w.Arch, w.Accuracy, l.Best(nil))
	}
}

func noTwice(t *testing.T, s *arch.Space, ts []search.Trial) {
	t.Helper()
	seen := map[arch.Arch]int{}
	for i, tr := range ts {
		if tr.ID != i {
			t.Fatalf("trial %d has number %d", i, tr.ID)
		}
		key := s.Canonical(tr.Arch)
		if first, twice := seen[key]; twice {
			t.Fatalf("trials %d and %d are the same net %s", first, i, key)
		}
		seen[key] = i
	}
}

func spendsBudget(t *testing.T, build Build) {
	s := Macro()
	l := Synthetic(s)
	for _, batch := range []int{0, 7, 1000} {
		calls := 0
		count := func(ctx context.Context, nets []*arch.Net) ([]search.Score, error) {
			calls += len(nets)
			if len(nets) > max(batch, 1) {
				return nil, fmt.Errorf("%d nets in a batch of %d", len(nets), batch)
			}
			return l.Objective(ctx, nets)
		}
		ts, err := Collect(search.Run(t.Context(), s, build(s, search.Limits{}, Rand(2)), search.Options{
			Objective: count, Budget: 130, Batch: batch, Latency: SlowMACs(60),
		}))
		if err != nil {
			t.Fatal(err)
		}
		feasible := 0
		for _, tr := range ts {
			if tr.Feasible {
				feasible++
			} else if tr.Accuracy != 0 || tr.Reason == "" {
				t.Errorf("infeasible trial has accuracy %v and reason %q", tr.Accuracy, tr.Reason)
			}
			if tr.Feasible != (tr.Latency.High < 60) {
				t.Errorf("trial at %v ms is feasible: %v", tr.Latency, tr.Feasible)
			}
		}
		if feasible != 130 || calls != 130 {
			t.Errorf("batch %d: budget 130, %d feasible trials, %d evaluated", batch, feasible, calls)
		}
		noTwice(t, s, ts)
	}
}

func staysWithin(t *testing.T, build Build) {
	s := Macro()
	l := Synthetic(s)
	limits := search.Limits{FLOPs: search.Bound{Max: 40e6}, Params: search.Bound{Min: 500_000}, Activations: search.Bound{Max: 500_000}}
	ts, err := Collect(search.Run(t.Context(), s, build(s, limits, Rand(3)), search.Options{Objective: l.Objective, Budget: 100}))
	if err != nil {
		t.Fatal(err)
	}
	for _, tr := range ts {
		n, err := s.Net(tr.Arch)
		if err != nil {
			t.Fatal(err)
		}
		if c := n.Cost(); !limits.Allow(c) || c.MACs != tr.MACs || c.Params != tr.Params {
			t.Errorf("trial %+v costs %+v under limits %+v", tr, c, limits)
		}
	}
}

func isDeterministic(t *testing.T, build Build) {
	s := Macro()
	l := Synthetic(s)
	run := func(seed uint64) []search.Trial {
		ts, err := Collect(search.Run(t.Context(), s, build(s, search.Limits{}, Rand(seed)), search.Options{Objective: l.Objective, Budget: 120}))
		if err != nil {
			t.Fatal(err)
		}
		return ts
	}
	a := run(4)
	if d := Diff(a, run(4)); d != "" {
		t.Errorf("two runs of one seed differ:\n%s", d)
	}
	if Diff(a, run(5)) == "" {
		t.Error("two seeds give one history")
	}
}

func asksAtMost(t *testing.T, build Build) {
	s := Macro()
	m := build(s, search.Limits{}, Rand(6))
	for i := range 150 {
		n := 1 + i%4
		ps, err := m.Ask(n)
		if err != nil {
			t.Fatal(err)
		}
		if len(ps) < 1 || len(ps) > n {
			t.Fatalf("Ask(%d) gave %d proposals", n, len(ps))
		}
		var told []search.Trial
		for j, p := range ps {
			if _, err := s.Net(p.Arch); err != nil {
				t.Fatal(err)
			}
			told = append(told, search.Trial{Arch: p.Arch, Generation: p.Generation, Origin: p.Origin, Feasible: j%2 == 0, Accuracy: 0.5})
		}
		m.Tell(told)
	}
}

func givesUp(t *testing.T, build Build) {
	s := Macro()
	l := Synthetic(s)
	limits := search.Limits{FLOPs: search.Bound{Max: 1}}
	_, err := Collect(search.Run(t.Context(), s, build(s, limits, Rand(7)), search.Options{Objective: l.Objective}))
	if !errors.Is(err, search.ErrUnsatisfiable) {
		t.Errorf("limit of one MAC: %v, want ErrUnsatisfiable", err)
	}
	ts, err := Collect(search.Run(t.Context(), s, build(s, search.Limits{}, Rand(7)), search.Options{
		Objective: l.Objective, Latency: SlowMACs(1), Misses: 60,
	}))
	if !errors.Is(err, search.ErrUnsatisfiable) || len(ts) != 60 {
		t.Errorf("latency limit that no net meets: %d trials, then %v; want 60 and ErrUnsatisfiable", len(ts), err)
	}
}

func resumes(t *testing.T, build Build) {
	s := Tiny()
	l := Synthetic(s)
	run := func(past []search.Trial, batch int) (Memory, []search.Trial) {
		journal := Memory(slices.Clone(past))
		evaluated := 0
		count := func(ctx context.Context, nets []*arch.Net) ([]search.Score, error) {
			evaluated += len(nets)
			return l.Objective(ctx, nets)
		}
		ts, err := Collect(search.Run(t.Context(), s, build(s, search.Limits{}, Rand(8)), search.Options{
			Objective: count, Budget: 30, Batch: batch, Latency: SlowMACs(2.2),
			Journal: &journal, Past: past, Config: "c",
		}))
		if err != nil {
			t.Fatal(err)
		}
		for i, tr := range ts {
			if tr.Replayed != (i < len(past)) {
				t.Errorf("trial %d of a search resumed after %d is replayed: %v", i, len(past), tr.Replayed)
			}
			if tr.Replayed && tr.Feasible {
				evaluated++
			}
		}
		if evaluated != 30 {
			t.Errorf("resumed after %d trials: %d evaluations in both runs, want 30", len(past), evaluated)
		}
		return journal, ts
	}
	whole, _ := run(nil, 1)
	if i := slices.IndexFunc(whole, func(t search.Trial) bool { return !t.Feasible }); i < 0 {
		t.Fatal("no trial of the history is infeasible, the test tests too little")
	}
	for cut := range len(whole) + 1 {
		journal, ts := run(whole[:cut], 1+cut%9)
		if d := Diff(whole, journal); d != "" {
			t.Fatalf("journal cut after %d trials goes on differently:\n%s", cut, d)
		}
		if d := Diff(whole, ts); d != "" {
			t.Fatalf("search resumed after %d trials yields another history:\n%s", cut, d)
		}
	}
}

func extends(t *testing.T, build Build) {
	s := Macro()
	l := Synthetic(s)
	run := func(past []search.Trial, budget int) []search.Trial {
		ts, err := Collect(search.Run(t.Context(), s, build(s, search.Limits{}, Rand(9)), search.Options{Objective: l.Objective, Budget: budget, Past: past}))
		if err != nil {
			t.Fatal(err)
		}
		return ts
	}
	whole := run(nil, 140)
	if d := Diff(whole, run(run(nil, 75), 140)); d != "" {
		t.Errorf("a finished search with a larger budget goes on differently:\n%s", d)
	}
}
