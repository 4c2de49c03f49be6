package search_test

import (
	"math/rand/v2"
	"testing"

	"spos/internal/arch"
	"spos/search"
	"spos/search/searchtest"
)

func evolution(o search.EvolutionOptions) searchtest.Build {
	return func(s *arch.Space, l search.Limits, r *rand.Rand) search.Method {
		return search.NewEvolution(s, l, r, o)
	}
}

func random(s *arch.Space, l search.Limits, r *rand.Rand) search.Method {
	return search.NewRandom(s, l, r, 0)
}

func TestRandomConforms(t *testing.T)    { searchtest.Conform(t, random) }
func TestEvolutionConforms(t *testing.T) { searchtest.Conform(t, evolution(search.EvolutionOptions{})) }
func TestSmallEvolutionConforms(t *testing.T) {
	searchtest.Conform(t, evolution(search.EvolutionOptions{Population: 8, Parents: 3}))
}
