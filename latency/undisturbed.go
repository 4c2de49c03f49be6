package latency

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// slowed is what a session lies above its fellows', as a fraction,
// where something that the machine does not show was at work. Sessions of one
// model that nothing disturbs differ by 1 to 2 % (docs/lab.md).
const slowed = 0.04

// undisturbed are the samples that an estimate is made of: those that nothing
// slowed. Where these are not a third, the machine has no say which of its
// speeds is its own, and all are returned, as are fewer than three.
func undisturbed(samples []Sample) []Sample {
	if len(samples) < 3 {
		return samples
	}
	return orAll(calm(samples), samples)
}

// orAll is what was kept, unless that is less than a third.
func orAll(kept, all []Sample) []Sample {
	if 3*len(kept) < len(all) {
		return all
	}
	return kept
}

// calm are the samples that nothing slowed: of those around which the
// [Reference] was as fast as ever, the ones up to slowed above the lower
// quartile of all of these.
func calm(samples []Sample) []Sample {
	quiet := alone(samples)
	if len(quiet) == 0 {
		return nil
	}
	each := steadies(quiet)
	most := slices.Sorted(slices.Values(each))[(len(each)-1)/4] * (1 + slowed)
	var kept []Sample
	for i, s := range quiet {
		if each[i] <= most {
			kept = append(kept, s)
		}
	}
	return kept
}

// levelling are what tells the machine's level: a session beside a neighbour
// would be taken for it, one that is slow with all the others is it.
func levelling(samples []Sample) []Sample { return orAll(alone(samples), samples) }

// alone are the samples around which the reference was as fast as ever.
func alone(samples []Sample) []Sample {
	quiet := quietest(samples)
	return slices.DeleteFunc(slices.Clone(samples), func(s Sample) bool { return s.Reference.slowdown(quiet) > loud })
}

func steadies(samples []Sample) []float64 {
	m := make([]float64, len(samples))
	for i, s := range samples {
		m[i] = steady(s.Runs)
	}
	return m
}

// quietest is the reference's quiet time as the last of the samples knew it.
func quietest(samples []Sample) time.Duration {
	var quiet time.Duration
	for _, s := range samples {
		if q := s.Reference.Quiet; q > 0 && (quiet == 0 || q < quiet) {
			quiet = q
		}
	}
	return quiet
}

// loudness is how far, relative, the machine was from its quiet speed in the
// median sample, beyond what does not count.
func loudness(samples []Sample) float64 {
	quiet := quietest(samples)
	slow := make([]float64, len(samples))
	for i, s := range samples {
		slow[i] = s.Reference.slowdown(quiet)
	}
	if m := median(slow); m > loud {
		return math.Log(m)
	}
	return 0
}

// aside says in words what was left out, and what should have been.
func aside(samples []Sample) []string {
	n, kept := len(samples), undisturbed(samples)
	var w []string
	if out := n - len(kept); out > 0 {
		w = append(w, fmt.Sprintf("%d of %d sessions were slower than the others, or ran while the machine was, and are set aside: something that it does not show was at work", out, n))
	}
	if x := loudness(kept); x > 0 {
		w = append(w, fmt.Sprintf("the machine is about %d %% slower than it has been, and does not show why: measure again at another time; the interval is wider for it", tens(math.Expm1(x))))
	}
	return w
}
