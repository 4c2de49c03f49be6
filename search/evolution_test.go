package search_test

import (
	"maps"
	"slices"
	"testing"

	"spos/internal/arch"
	"spos/search"
	"spos/search/searchtest"
)

// The generations of the official search: 50 random nets, then 25 mutants, 25
// children, the rest random, all parents among the ten best before.
func TestEvolutionIsTheOfficialOne(t *testing.T) {
	s := searchtest.Macro()
	ts, err := searchtest.Collect(search.Run(t.Context(), s, evolution(search.EvolutionOptions{})(s, search.Limits{}, searchtest.Rand(1)), search.Options{
		Objective: searchtest.Synthetic(s).Objective, Budget: 250,
	}))
	if err != nil {
		t.Fatal(err)
	}
	for g, gen := range slices.Collect(slices.Chunk(ts, 50)) {
		best := slices.SortedFunc(slices.Values(ts[:50*g]), search.Compare)
		checkGeneration(t, g, gen, best[:min(10, len(best))])
	}
}

func checkGeneration(t *testing.T, g int, gen, parents []search.Trial) {
	t.Helper()
	count := map[search.Origin]int{}
	rank := map[search.Origin]int{search.Mutation: 0, search.Crossover: 1, search.Random: 2}
	for i, tr := range gen {
		count[tr.Origin]++
		if tr.Generation != g {
			t.Errorf("trial %d is of generation %d, want %d", tr.ID, tr.Generation, g)
		}
		if i > 0 && rank[tr.Origin] < rank[gen[i-1].Origin] {
			t.Errorf("trial %d: %s after %s", tr.ID, tr.Origin, gen[i-1].Origin)
		}
		for _, p := range tr.Parents {
			if !slices.ContainsFunc(parents, func(b search.Trial) bool { return b.Arch == p }) {
				t.Errorf("trial %d: parent %s is none of the ten best", tr.ID, p)
			}
		}
		if want := map[search.Origin]int{search.Mutation: 1, search.Crossover: 2}[tr.Origin]; len(tr.Parents) != want {
			t.Errorf("trial %d: a %s with %d parents", tr.ID, tr.Origin, len(tr.Parents))
		}
		if tr.Origin == search.Crossover && !between(tr.Arch, tr.Parents) {
			t.Errorf("trial %d: %s is no child of %v", tr.ID, tr.Arch, tr.Parents)
		}
	}
	// Bounded tries may leave a brood short, never long.
	if g == 0 && count[search.Random] != 50 || count[search.Mutation] > 25 || count[search.Crossover] > 25 ||
		g == 1 && count[search.Mutation] != 25 {
		t.Errorf("generation %d has %v", g, count)
	}
}

func between(a arch.Arch, ps []arch.Arch) bool {
	for i := range len(a) {
		if a[i] != ps[0][i] && a[i] != ps[1][i] {
			return false
		}
	}
	return true
}

// A net that fails its latency limit costs its brood a try and is replaced in
// the same generation: each has as many evaluated nets as the population.
func TestEvolutionReplacesInfeasibleNets(t *testing.T) {
	s := searchtest.Macro()
	ts, err := searchtest.Collect(search.Run(t.Context(), s, evolution(search.EvolutionOptions{Population: 20})(s, search.Limits{}, searchtest.Rand(1)), search.Options{
		Objective: searchtest.Synthetic(s).Objective, Budget: 100, Latency: searchtest.SlowMACs(45),
	}))
	if err != nil {
		t.Fatal(err)
	}
	alive, mutants := make([]int, 5), make([]int, 5)
	for _, tr := range ts {
		if tr.Feasible {
			alive[tr.Generation]++
			if tr.Origin == search.Mutation {
				mutants[tr.Generation]++
			}
		}
	}
	if mutants[1] != 10 {
		t.Errorf("%v feasible mutants, want 10 in generation 1: their places reopen", mutants)
	}
	if !slices.Equal(alive, []int{20, 20, 20, 20, 20}) || len(ts) == 100 {
		t.Errorf("evaluated per generation %v of %d trials, want 20 each and some infeasible", alive, len(ts))
	}
}

// TestEvolutionWithoutAKind: less than 0 of a kind is none of it, and random
// nets fill what is missing.
func TestEvolutionWithoutAKind(t *testing.T) {
	s := searchtest.Macro()
	for _, c := range []struct {
		options search.EvolutionOptions
		bred    map[search.Origin]int // in generation 1
	}{
		{search.EvolutionOptions{Population: 20, Mutants: -1, Children: 12}, map[search.Origin]int{search.Crossover: 12, search.Random: 8}},
		{search.EvolutionOptions{Population: 20, Mutants: 15, Children: -1}, map[search.Origin]int{search.Mutation: 15, search.Random: 5}},
		{search.EvolutionOptions{Population: 20}, map[search.Origin]int{search.Mutation: 10, search.Crossover: 10}},
	} {
		ts, err := searchtest.Collect(search.Run(t.Context(), s, search.NewEvolution(s, search.Limits{}, searchtest.Rand(1), c.options), search.Options{
			Objective: searchtest.Synthetic(s).Objective, Budget: 40,
		}))
		if err != nil {
			t.Fatal(err)
		}
		bred := map[search.Origin]int{}
		for _, tr := range ts[20:] {
			bred[tr.Origin]++
		}
		if !maps.Equal(bred, c.bred) {
			t.Errorf("%+v bred %v, want %v", c.options, bred, c.bred)
		}
	}
}
