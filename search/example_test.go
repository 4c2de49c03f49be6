package search_test

import (
	"context"
	"fmt"

	"spos/search"
	"spos/search/searchtest"
)

// A search over a landscape that is known: two generations of twenty nets
// that have at most 40 million MACs.
func ExampleRun() {
	space := searchtest.Macro()
	limits := search.Limits{FLOPs: search.Bound{Max: 40e6}}
	method := search.NewEvolution(space, limits, searchtest.Rand(1), search.EvolutionOptions{Population: 20})

	var trials []search.Trial
	for t, err := range search.Run(context.Background(), space, method, search.Options{
		Objective: searchtest.Synthetic(space).Objective,
		Budget:    40,
	}) {
		if err != nil {
			fmt.Println(err)
			return
		}
		trials = append(trials, t)
	}
	best, _ := search.Winner(trials)
	fmt.Println(len(trials), "nets, the best is within the limit:", best.MACs <= 40e6)
	// Output: 40 nets, the best is within the limit: true
}
