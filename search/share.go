package search

import (
	"cmp"
	"math"
	"slices"
)

// z95 is the 97.5 % quantile of the normal distribution.
const z95 = 1.959964

// Share is a part of a whole that was sampled: an estimate with its 95 %
// interval.
type Share struct {
	P    float64 `json:"share"`
	Low  float64 `json:"low"`
	High float64 `json:"high"`
}

// NewShare estimates the share of a population from total independent draws of
// which yes surely belong to it and unknown may. P counts the sure ones; the
// interval reaches from Wilson's lower end, should none of the unknown belong
// to it, to his upper end, should all (E. B. Wilson, J. Am. Stat. Assoc. 22,
// 1927, p. 209).
func NewShare(yes, unknown, total int) Share {
	if total == 0 {
		return Share{High: 1}
	}
	low, _ := wilson(yes, total)
	_, high := wilson(yes+unknown, total)
	return Share{P: float64(yes) / float64(total), Low: low, High: high}
}

func wilson(k, total int) (low, high float64) {
	n := float64(total)
	p := float64(k) / n
	middle := p + z95*z95/(2*n)
	half := z95 * math.Sqrt(p*(1-p)/n+z95*z95/(4*n*n))
	scale := 1 + z95*z95/n
	// Rounding must not leave the ends beside 0 and 1.
	low, high = (middle-half)/scale, (middle+half)/scale
	if k == 0 {
		low = 0
	}
	if k == total {
		high = 1
	}
	return low, high
}

// QuantileInterval is the [Quantile] of a population's sample with its 95 %
// interval between two order statistics, which asks nothing of the
// distribution: the ranks whose binomial tails are at most 2.5 % each. An end
// that the sample is too small for is NaN.
func QuantileInterval(q float64, values []float64) Interval {
	v := slices.Sorted(slices.Values(values))
	i := Interval{P50: Quantile(q, v), Low: math.NaN(), High: math.NaN()}
	n := len(v)
	below := 0.0 // P(fewer than rank+1 of the sample lie below the quantile)
	for rank := range n {
		below += binomial(n, rank, q)
		// The quantile is under order statistic rank+1 (from 1) with
		// probability below.
		if below <= 0.025 {
			i.Low = v[rank]
		}
		if below >= 0.975 {
			i.High = v[rank]
			break
		}
	}
	return i
}

// binomial is the probability of k in n at p each.
func binomial(n, k int, p float64) float64 {
	if p <= 0 || p >= 1 {
		if p <= 0 && k == 0 || p >= 1 && k == n {
			return 1
		}
		return 0
	}
	lg := func(x int) float64 { v, _ := math.Lgamma(float64(x) + 1); return v }
	return math.Exp(lg(n) - lg(k) - lg(n-k) + float64(k)*math.Log(p) + float64(n-k)*math.Log1p(-p))
}

// Tau is Kendall's rank correlation of x and y with ties counted as its form b
// does: 1 where they order alike, NaN where one of them is constant. The time
// is quadratic.
func Tau(x, y []float64) float64 {
	var agree, tiedX, tiedY float64
	pairs := float64(len(x)) * float64(len(x)-1) / 2
	for i := range x {
		for j := range i {
			dx, dy := cmp.Compare(x[i], x[j]), cmp.Compare(y[i], y[j])
			agree += float64(dx * dy)
			if dx == 0 {
				tiedX++
			}
			if dy == 0 {
				tiedY++
			}
		}
	}
	return agree / math.Sqrt((pairs-tiedX)*(pairs-tiedY))
}
