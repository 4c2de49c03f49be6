package search

import (
	"cmp"
	"math/rand/v2"
	"slices"

	"spos/internal/arch"
)

// EvolutionOptions sets an [Evolution]. The zero value is the official search.
type EvolutionOptions struct {
	Population   int     // nets evaluated in a generation; 0 means 50
	Parents      int     // best nets of the whole history that breed; 0 means 10
	Mutants      int     // per generation; 0 means half the population, less than 0 none
	Children     int     // by crossover, per generation; likewise
	MutationProb float64 // that a block is redrawn; 0 means 0.1
	Tries        int     // draws per asked mutant or child; 0 means 10
	RandomTries  int     // random draws in a row that may fail; 0 means 10,000
}

func (o EvolutionOptions) withDefaults() EvolutionOptions {
	o.Population = cmp.Or(o.Population, 50)
	o.Parents = cmp.Or(o.Parents, 10)
	o.Mutants = cmp.Or(o.Mutants, o.Population/2)
	o.Children = cmp.Or(o.Children, o.Population/2)
	o.MutationProb = cmp.Or(o.MutationProb, 0.1)
	o.Tries = cmp.Or(o.Tries, 10)
	o.RandomTries = cmp.Or(o.RandomTries, defaultTries)
	return o
}

// Evolution is the evolutionary search of SPOS as its official code runs
// it. The first generation is random. Each later one breeds
// mutants and then children of the Parents best nets ever seen, parents drawn
// with replacement, and is filled up with random nets where the bounded tries
// fell short. No net is proposed twice.
//
// The official code evaluates while it draws, so a candidate that fails there
// costs a try and is drawn again. Here the failing is told later: an
// infeasible mutant or child reopens its place, within the same bound on
// tries, and the generation goes on until it holds Population evaluated nets.
type Evolution struct {
	EvolutionOptions
	pool *pool
	rand *rand.Rand

	generation int
	alive      []Trial // this generation's feasible ones
	top        []Trial // best of the generations before, at most Parents
	mutants    brood
	children   brood
}

// brood is what a generation still wants of one kind.
type brood struct{ want, tries int }

// NewEvolution returns an evolution at its beginning. It owns r from now on.
func NewEvolution(s *arch.Space, l Limits, r *rand.Rand, o EvolutionOptions) *Evolution {
	return &Evolution{EvolutionOptions: o.withDefaults(), pool: newPool(s, l), rand: r}
}

// Ask implements [Method]. It proposes what the generation still lacks.
func (e *Evolution) Ask(n int) ([]Proposal, error) {
	if len(e.alive) >= e.Population {
		e.next()
	}
	ps, err := e.draw(n)
	if err == nil && len(ps) == 0 && len(e.alive) > 0 {
		// The random fill is spent; the parents of a new generation may still
		// have unseen offspring.
		e.next()
		ps, err = e.draw(n)
	}
	if err == nil && len(ps) == 0 {
		err = e.pool.spent(e.RandomTries)
	}
	return ps, err
}

// next closes a generation and opens the one after it.
func (e *Evolution) next() {
	e.top = append(e.top, e.alive...)
	slices.SortStableFunc(e.top, Compare)
	e.top = e.top[:min(len(e.top), e.Parents)]
	e.alive = nil
	e.generation++
	e.mutants = brood{e.Mutants, e.Mutants * e.Tries}
	e.children = brood{e.Children, e.Children * e.Tries}
}

func (e *Evolution) draw(n int) ([]Proposal, error) {
	n = min(n, e.Population-len(e.alive))
	ps, err := e.breed(nil, n, &e.mutants, func() Proposal {
		p := e.parent()
		return Proposal{
			Arch: e.pool.space.Mutate(e.rand, p, e.MutationProb), Generation: e.generation,
			Origin: Mutation, Parents: []arch.Arch{p},
		}
	})
	if err != nil {
		return nil, err
	}
	ps, err = e.breed(ps, n, &e.children, func() Proposal {
		p, q := e.parent(), e.parent()
		return Proposal{
			Arch: e.pool.space.Crossover(e.rand, p, q), Generation: e.generation,
			Origin: Crossover, Parents: []arch.Arch{p, q},
		}
	})
	if err != nil {
		return nil, err
	}
	return fill(ps, n, e.pool, e.rand, e.RandomTries, e.generation)
}

func (e *Evolution) breed(ps []Proposal, n int, b *brood, draw func() Proposal) ([]Proposal, error) {
	for len(e.top) > 0 && len(ps) < n && b.want > 0 && b.tries > 0 {
		b.tries--
		p := draw()
		ok, err := e.pool.take(p.Arch)
		if err != nil {
			return nil, err
		}
		if ok {
			b.want--
			ps = append(ps, p)
		}
	}
	return ps, nil
}

func (e *Evolution) parent() arch.Arch { return e.top[e.rand.IntN(len(e.top))].Arch }

// Tell implements [Method].
func (e *Evolution) Tell(trials []Trial) {
	for _, t := range trials {
		switch {
		case t.Feasible:
			e.alive = append(e.alive, t)
		case t.Origin == Mutation:
			e.mutants.want++
		case t.Origin == Crossover:
			e.children.want++
		}
	}
}
