package latency

import (
	"math"
	"slices"
	"time"
)

// levelled takes out of the results what the machine did to all of them at a
// time: a session is set against the median of its model's sessions, and what
// its neighbours in time, other models, were slow or fast by is the machine's
// level then. How many neighbours, and how much of the level is believed, is
// what makes sessions of one model agree best; nothing where that is hardly
// better than none, or where the runner does not tell when a session began, or
// tells it by a clock that was set back meanwhile, which the results then warn
// of.
// The level of the whole is left as it is. Sessions beside a neighbour are left
// out first, or they would be taken for the machine's level. All results are estimated together,
// whichever were measured together.
func levelled(results []Result, p Protocol) []Result {
	models, samples := make([]Model, len(results)), make([][]Sample, len(results))
	var list []instant
	timed, back := true, make([]bool, len(results))
	for i, r := range results {
		models[i].Name, samples[i] = r.Model, slices.Clone(levelling(r.Samples))
		for k, s := range samples[i] {
			back[i] = back[i] || k > 0 && s.Started.Before(samples[i][k-1].Started)
			timed = timed && !s.Started.IsZero() && !back[i]
			list = append(list, instant{at: s.Started, model: i, session: k, log: math.Log(steady(s.Runs))})
		}
	}
	if len(list) == 0 {
		return results
	}
	if timed {
		slices.SortStableFunc(list, func(a, b instant) int { return a.at.Compare(b.at) })
		for i, level := range levelsOf(list, len(results)) {
			s := &samples[list[i].model][list[i].session]
			s.Runs = scaled(s.Runs, math.Exp(-level))
		}
	}
	out := newResults(models, samples, p)
	for i := range out {
		out[i].Warnings = slices.Clone(results[i].Warnings)
		if back[i] {
			out[i].Warnings = append(out[i].Warnings, "the device's clock was set back between its sessions: how slow the machine was at each is not taken out")
		}
	}
	return out
}

// instant is a session: when it began and the logarithm of what it took.
type instant struct {
	at             time.Time
	model, session int
	log            float64
}

// levelsOf is the level at each of the sessions, which are in the order of
// time; nil where none is worth taking out.
func levelsOf(list []instant, models int) []float64 {
	const worth = 0.95 // of the variance at most must be left
	zero := make([]float64, len(list))
	best := worth * spreadAfter(list, models, zero)
	var found []float64
	for _, reach := range []int{4, 8, 16, 32} {
		for _, trust := range []float64{0.5, 0.75, 1} {
			levels := slices.Clone(zero)
			for range 2 { // the second time from models' medians without the level
				levels = neighbours(list, models, levels, reach, trust)
			}
			if v := spreadAfter(list, models, levels); v < best {
				best, found = v, levels
			}
		}
	}
	return found
}

// neighbours is the median of what up to reach sessions on either side lie
// above their models' medians, times trust, less the median of all.
func neighbours(list []instant, models int, levels []float64, reach int, trust float64) []float64 {
	byModel := make([][]float64, models)
	for i, x := range list {
		byModel[x.model] = append(byModel[x.model], x.log-levels[i])
	}
	middle := make([]float64, models)
	for m, x := range byModel {
		if len(x) > 0 {
			middle[m] = median(x)
		}
	}
	found := make([]float64, len(list))
	var around []float64
	for i, x := range list {
		around = around[:0]
		for j := max(0, i-reach); j <= min(len(list)-1, i+reach); j++ {
			if y := list[j]; y.model != x.model {
				around = append(around, y.log-middle[y.model])
			}
		}
		if len(around) > 0 {
			found[i] = trust * median(around)
		}
	}
	whole := median(slices.Clone(found))
	for i := range found {
		found[i] -= whole
	}
	return found
}

// spreadAfter is the variance between sessions of one model once levels are
// taken out.
func spreadAfter(list []instant, models int, levels []float64) float64 {
	byModel := make([][]float64, models)
	for i, x := range list {
		byModel[x.model] = append(byModel[x.model], x.log-levels[i])
	}
	var squares, freedom float64
	for _, x := range byModel {
		squares += sumSquares(x)
		freedom += float64(max(0, len(x)-1))
	}
	return squares / max(1, freedom)
}
