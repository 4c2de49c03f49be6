package latency

import (
	"cmp"
	"math"
	"slices"
)

// What nothing within one measurement can show, relative: how far a quiet
// machine is from itself at another time, how far a model's time moves while
// others keep the other processors busy throughout, and how far that of a model
// which feels the memory, beyond what a pass over it tells.
const (
	driftAtRest = 0.005
	driftBusy   = 0.01
	driftMemory = 0.007
)

// drift is the standard deviation between two times to reckon with: what is
// assumed, what the level of all that were measured together was seen to move
// by meanwhile, and what taking out the memory's speed leaves open.
func drift(samples []Sample, busy, unsure float64, seen movement) float64 {
	feels := 0.0
	if slices.ContainsFunc(samples, func(s Sample) bool { return s.Memory.looked() }) {
		feels = driftMemory
	}
	sum := 0.0
	for _, d := range []float64{driftAtRest, max(driftBusy*busy, feels), unsure, float64(seen), loudness(samples)} {
		sum += d * d
	}
	return math.Sqrt(sum)
}

// movement is of what is common to all sessions of a time: its standard
// deviation between parts of a measurement, relative.
type movement float64

// moved compares sessions of several models, each with its model's others, by
// when they ran. It is 0 of too few sessions to tell.
func moved(models [][]Sample) movement {
	const most, least, each = 8, 3, 16 // parts, and sessions in one
	type session struct{ at, off float64 }
	var all []session
	for _, samples := range models {
		n := float64(len(samples))
		if n < 2 || slices.ContainsFunc(samples, func(s Sample) bool { return s.Started.IsZero() }) {
			continue
		}
		logs := steadies(samples)
		for i := range logs {
			logs[i] = math.Log(logs[i])
		}
		center(logs)
		for i, s := range samples {
			begin, _ := s.span()
			all = append(all, session{begin, logs[i] * math.Sqrt(n/(n-1))})
		}
	}
	parts := min(most, len(all)/each)
	if parts < least {
		return 0
	}
	slices.SortFunc(all, func(a, b session) int { return cmp.Compare(a.at, b.at) })
	levels, within := make([]float64, parts), 0.0
	for j := range levels {
		part := all[j*len(all)/parts : (j+1)*len(all)/parts]
		off := make([]float64, len(part))
		for i, s := range part {
			off[i] = s.off
		}
		levels[j] = mean(off)
		within += sumSquares(off)
	}
	noise := within / float64(len(all)-parts) * float64(parts) / float64(len(all)) // in a part's mean
	return movement(math.Sqrt(max(0, sumSquares(levels)/float64(parts-1)-noise)))
}
