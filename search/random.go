package search

import (
	"cmp"
	"math/rand/v2"

	"spos/internal/arch"
)

// defaultTries is how many random draws in a row may fail before a method
// gives up. One in a thousand nets inside the limits is then still found
// with certainty, for the price of a few milliseconds.
const defaultTries = 10_000

// RandomSearch draws uniformly without replacement within the limits: the
// null hypothesis for every other method at equal budget.
type RandomSearch struct {
	pool  *pool
	rand  *rand.Rand
	tries int
}

// NewRandom returns a random search. tries bounds the draws in a row that may
// fail; 0 means 10,000.
func NewRandom(s *arch.Space, l Limits, r *rand.Rand, tries int) *RandomSearch {
	return &RandomSearch{pool: newPool(s, l), rand: r, tries: cmp.Or(tries, defaultTries)}
}

// Ask implements [Method].
func (m *RandomSearch) Ask(n int) ([]Proposal, error) {
	ps, err := fill(nil, n, m.pool, m.rand, m.tries, 0)
	if err == nil && len(ps) == 0 {
		err = m.pool.spent(m.tries)
	}
	return ps, err
}

// Tell implements [Method]: there is nothing to learn.
func (m *RandomSearch) Tell([]Trial) {}

// fill appends random proposals until there are n, or tries draws in a row
// failed.
func fill(ps []Proposal, n int, p *pool, r *rand.Rand, tries, generation int) ([]Proposal, error) {
	for misses := 0; len(ps) < n && misses < tries; {
		a := p.space.Sample(r)
		ok, err := p.take(a)
		if err != nil {
			return nil, err
		}
		if !ok {
			misses++
			continue
		}
		misses = 0
		ps = append(ps, Proposal{Arch: a, Generation: generation, Origin: Random})
	}
	return ps, nil
}
