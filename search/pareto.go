package search

import (
	"cmp"
	"slices"
)

// Axis reads off a trial what is to be low: the abscissa of a front.
type Axis func(Trial) float64

// ByLatency is the measured median in milliseconds.
func ByLatency(t Trial) float64 { return t.Latency.P50 }

// ByMACs is the number of multiply-accumulates.
func ByMACs(t Trial) float64 { return float64(t.MACs) }

// Front is the Pareto front of the feasible trials: those to which no other
// is at least as accurate and at least as cheap, and better in one of the two.
// Of equal points the first trial stays. Sorted by rising cost.
func Front(trials []Trial, cost Axis) []Trial {
	ts := slices.DeleteFunc(slices.Clone(trials), func(t Trial) bool { return !t.Feasible })
	slices.SortStableFunc(ts, func(a, b Trial) int {
		return cmp.Or(cmp.Compare(cost(a), cost(b)), cmp.Compare(b.Accuracy, a.Accuracy))
	})
	var front []Trial
	for _, t := range ts {
		if len(front) == 0 || t.Accuracy > front[len(front)-1].Accuracy {
			front = append(front, t)
		}
	}
	return front
}

// Hypervolume is the area that the trials' front dominates within the corner
// at accuracy and cost: the larger, the better. Volumes are comparable only
// where the corner is the same. Points beyond it count nothing.
func Hypervolume(trials []Trial, axis Axis, accuracy, cost float64) float64 {
	volume, right := 0.0, cost
	for _, t := range slices.Backward(Front(trials, axis)) {
		if x := axis(t); x < right && t.Accuracy > accuracy {
			volume += (right - x) * (t.Accuracy - accuracy)
			right = x
		}
	}
	return volume
}
