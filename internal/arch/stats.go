package arch

import (
	"fmt"
	"iter"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"sort"
)

// Quantity names one number of a [Cost].
type Quantity string

// The quantities. Those of the counters bear their names.
const (
	ParamCount       Quantity = "params"
	MACCount                  = Quantity(MACs)
	MMCVCount                 = Quantity(MMCV)
	ThopCount                 = Quantity(Thop)
	ActivationMemory Quantity = "activation_bytes"
)

// Quantities lists all of them.
func Quantities() []Quantity {
	return []Quantity{ParamCount, MACCount, MMCVCount, ThopCount, ActivationMemory}
}

// Of is the number that q names.
func (c Cost) Of(q Quantity) int64 {
	switch q {
	case ParamCount:
		return c.Params
	case ActivationMemory:
		return c.ActivationBytes
	default:
		return c.FLOPs.Of(Counter(q))
	}
}

// Distribution is how a quantity of the stand-alone nets is spread over a
// space when every arch is as likely as any other. It is read-only and safe
// for concurrent use.
type Distribution struct {
	Quantity Quantity
	Min, Max int64
	// Mean and Std, the deviation over all archs, are exact up to rounding.
	Mean, Std float64
	// Samples is how many archs quantiles and probabilities were taken from;
	// zero where they are exact.
	Samples int

	values []int64   // ascending
	upTo   []float64 // probability of at most that value
}

// Probability is a chance and how sure it is.
type Probability struct {
	P float64
	// StdErr is the standard error of P; zero where it is exact. Samples is how
	// many archs it was estimated from; zero where it is exact.
	StdErr  float64
	Samples int
}

// Draws is how many archs one expects to draw until one is accepted.
func (p Probability) Draws() float64 { return 1 / p.P }

func estimate(p float64, samples int) Probability {
	if samples == 0 {
		return Probability{P: p}
	}
	return Probability{p, math.Sqrt(p * (1 - p) / float64(samples)), samples}
}

// below is the probability of at most limit.
func (d *Distribution) below(limit int64) float64 {
	switch i := sort.Search(len(d.values), func(i int) bool { return d.values[i] > limit }); i {
	case 0:
		return 0
	case len(d.values):
		return 1 // not a sum of a million roundings
	default:
		return d.upTo[i-1]
	}
}

// AtMost is the probability that a uniform draw meets a limit.
func (d *Distribution) AtMost(limit int64) Probability { return estimate(d.below(limit), d.Samples) }

// Within is the probability of above < x <= to.
func (d *Distribution) Within(above, to int64) Probability {
	return estimate(max(d.below(to)-d.below(above), 0), d.Samples)
}

// Quantile is the least value that at least the fraction p of all archs does
// not exceed.
func (d *Distribution) Quantile(p float64) int64 {
	i := sort.SearchFloat64s(d.upTo, p*(1-1e-12)) // 1e-12: a sum of roundings
	return d.values[min(i, len(d.values)-1)]
}

// All yields each value that occurs with its probability, ascending.
func (d *Distribution) All() iter.Seq2[int64, float64] {
	return func(yield func(int64, float64) bool) {
		below := 0.0
		for i, v := range d.values {
			if i+1 < len(d.values) && d.values[i+1] == v {
				continue // samples repeat
			}
			if !yield(v, d.upTo[i]-below) {
				return
			}
			below = d.upTo[i]
		}
	}
}

// Distribution computes how q is spread. Sums over the blocks are convolved
// and activation memory, which is the greatest of the blocks', is multiplied
// out, so both are exact. Where the sums have too many possible values to tell
// apart, which takes a space unlike any published one, quantiles and
// probabilities come from that many samples drawn with r.
func (s *Space) Distribution(q Quantity, samples int, r *rand.Rand) *Distribution {
	t := s.terms(q)
	if q == ActivationMemory {
		return t.greatest()
	}
	d := t.moments()
	d.Quantity = q
	if values, upTo, ok := t.convolve(); ok {
		d.values, d.upTo = values, upTo
		return d
	}
	samples = max(samples, 1)
	d.Samples = samples
	d.values = make([]int64, samples)
	d.upTo = make([]float64, samples)
	for i := range d.values {
		d.values[i] = t.draw(r)
		d.upTo[i] = float64(i+1) / float64(samples)
	}
	slices.Sort(d.values)
	return d
}

// terms is what a quantity is made of: a fixed part and one choice a block.
type terms struct {
	fixed  int64
	blocks [][]int64
}

func (s *Space) terms(q Quantity) terms {
	t := terms{fixed: s.FixedCost().Of(q), blocks: make([][]int64, s.Len())}
	if q == ActivationMemory {
		t.fixed = max(s.stem.activationBytes(), s.tail.activationBytes())
	}
	for i, b := range s.blocks {
		for _, c := range b.alone {
			v := c.cost().Of(q)
			if q == ActivationMemory {
				v = c.activationBytes()
			}
			t.blocks[i] = append(t.blocks[i], v)
		}
	}
	return t
}

// activationBytes is the segment's largest sum of live activations. Between
// two segments a single value is alive, which each counts as its input, so a
// net's memory is the greatest of its segments'.
func (seg segment) activationBytes() int64 {
	if len(seg.ops) == 0 {
		return 0
	}
	n := Net{In: seg.ops[0].In, Ops: seg.ops}
	return n.activationBytes()
}

func (t terms) draw(r *rand.Rand) int64 {
	v := t.fixed
	for _, b := range t.blocks {
		v += b[r.IntN(len(b))]
	}
	return v
}

// moments fills in what follows from each block alone: the ends, the mean and
// the deviation, for variances of independent terms add up.
func (t terms) moments() *Distribution {
	d := &Distribution{Min: t.fixed, Max: t.fixed}
	mean, variance := new(big.Rat).SetInt64(t.fixed), new(big.Rat)
	for _, b := range t.blocks {
		d.Min += slices.Min(b)
		d.Max += slices.Max(b)
		n := int64(len(b))
		sum, squares := new(big.Int), new(big.Int)
		for _, v := range b {
			x := big.NewInt(v)
			sum.Add(sum, x)
			squares.Add(squares, x.Mul(x, x))
		}
		m := new(big.Rat).SetFrac(sum, big.NewInt(n))
		mean.Add(mean, m)
		variance.Add(variance, new(big.Rat).SetFrac(squares, big.NewInt(n)))
		variance.Sub(variance, m.Mul(m, m))
	}
	d.Mean, _ = mean.Float64()
	v, _ := variance.Float64()
	d.Std = math.Sqrt(v)
	return d
}

// greatest is the distribution of the greatest term instead of their sum: the
// chance that all of them are at most v is a product.
func (t terms) greatest() *Distribution {
	d := &Distribution{Quantity: ActivationMemory}
	support := []int64{t.fixed}
	for _, b := range t.blocks {
		support = append(support, b...)
	}
	slices.Sort(support)
	last := 0.0
	for _, v := range slices.Compact(support) {
		p := 1.0
		if v < t.fixed {
			p = 0
		}
		for _, b := range t.blocks {
			met := 0
			for _, x := range b {
				if x <= v {
					met++
				}
			}
			p *= float64(met) / float64(len(b))
		}
		if p > last {
			d.values, d.upTo = append(d.values, v), append(d.upTo, p)
			last = p
		}
	}
	d.Min, d.Max = d.values[0], d.values[len(d.values)-1]
	last = 0
	for i, v := range d.values {
		d.Mean += float64(v) * (d.upTo[i] - last)
		last = d.upTo[i]
	}
	variance := 0.0
	last = 0
	for i, v := range d.values {
		x := float64(v) - d.Mean
		variance += x * x * (d.upTo[i] - last)
		last = d.upTo[i]
	}
	d.Std = math.Sqrt(variance)
	return d
}

// Limit is an upper end of one quantity.
type Limit struct {
	Quantity Quantity
	Max      int64
}

// Acceptance is the probability that a uniform draw meets all limits at once.
// A space of at most as many archs as samples is counted out; a larger one is
// sampled with r.
func (s *Space) Acceptance(limits []Limit, samples int, r *rand.Rand) (Probability, error) {
	if samples < 1 {
		return Probability{}, fmt.Errorf("arch: %d samples estimate nothing", samples)
	}
	ts := make([]terms, len(limits))
	for i, l := range limits {
		ts[i] = s.terms(l.Quantity)
	}
	choices := make([]int, s.Len())
	if n := s.Count(); n.IsInt64() && n.Int64() <= int64(samples) {
		met := 0
		for more := true; more; more = s.next(choices) {
			if meets(ts, limits, choices) {
				met++
			}
		}
		return Probability{P: float64(met) / float64(n.Int64())}, nil
	}
	met := 0
	for range samples {
		for i, b := range s.blocks {
			choices[i] = r.IntN(len(b.candidates))
		}
		if meets(ts, limits, choices) {
			met++
		}
	}
	return estimate(float64(met)/float64(samples), samples), nil
}

// next counts choices up as an odometer does, and reports false at its end.
func (s *Space) next(choices []int) bool {
	for i := range choices {
		if choices[i]++; choices[i] < len(s.blocks[i].candidates) {
			return true
		}
		choices[i] = 0
	}
	return false
}

func meets(ts []terms, limits []Limit, choices []int) bool {
	for i, l := range limits {
		t, v := ts[i], ts[i].fixed
		for b, c := range choices {
			if l.Quantity == ActivationMemory {
				v = max(v, t.blocks[b][c])
			} else {
				v += t.blocks[b][c]
			}
		}
		if v > l.Max {
			return false
		}
	}
	return true
}
