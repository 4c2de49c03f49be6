package search

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"text/tabwriter"

	"spos/internal/arch"
)

// ErrUnsatisfiable is wrapped when no net of the space meets the limits, by
// proof or by the sampling that the message states.
var ErrUnsatisfiable = errors.New("no net of the space meets the limits")

// Range is the exact span of FLOPs over a space, in the given convention: each
// block's cheapest and dearest candidate, since FLOPs add up over blocks.
func Range(s *arch.Space, c arch.Counter) (lowest, highest int64) {
	return extent(s, func(cost arch.Cost) int64 { return cost.FLOPs.Of(c) })
}

func extent(s *arch.Space, of func(arch.Cost) int64) (lowest, highest int64) {
	lowest = of(s.FixedCost())
	highest = lowest
	for b := range s.Len() {
		lo, hi := int64(math.MaxInt64), int64(math.MinInt64)
		for c := range s.Candidates(b) {
			v := of(s.BlockCost(b, c))
			lo, hi = min(lo, v), max(hi, v)
		}
		lowest += lo
		highest += hi
	}
	return lowest, highest
}

// Cheapest is the arch of the fewest FLOPs; ties go to the first candidate.
func Cheapest(s *arch.Space, c arch.Counter) arch.Arch {
	choices := make([]int, s.Len())
	for b := range choices {
		for i := range s.Candidates(b) {
			if s.BlockCost(b, i).FLOPs.Of(c) < s.BlockCost(b, choices[b]).FLOPs.Of(c) {
				choices[b] = i
			}
		}
	}
	return arch.Make(choices)
}

// Survey says how the nets of a space lie to its limits.
type Survey struct {
	Space   string
	Samples int
	Passed  int // met all limits at once
	Rows    []SurveyRow
}

// SurveyRow is one limited quantity.
type SurveyRow struct {
	Name     string
	Bound    Bound
	Min, Max int64
	Exact    bool // Min and Max hold for the space, else for the samples
	Passed   int
}

// Share of the samples that met all limits.
func (s Survey) Share() float64 { return float64(s.Passed) / float64(max(s.Samples, 1)) }

// String is an aligned table.
func (s Survey) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "quantity\trange of %s\tlimit\tsamples within\n", s.Space)
	for _, r := range s.Rows {
		how := ""
		if !r.Exact {
			how = " (sampled)"
		}
		fmt.Fprintf(w, "%s\t%s–%s%s\t%v\t%s\n", r.Name, metric(r.Min), metric(r.Max), how, r.Bound, percent(r.Passed, s.Samples))
	}
	fmt.Fprintf(w, "all\t\t\t%s of %d\n", percent(s.Passed, s.Samples), s.Samples)
	_ = w.Flush() // a Builder takes everything
	return b.String()
}

func percent(part, whole int) string {
	return fmt.Sprintf("%.4g%%", 100*float64(part)/float64(max(whole, 1)))
}

// Feasible draws samples nets and compares them with the limits, to say
// before a search what it will meet. The error wraps [ErrUnsatisfiable] where
// the exact range of a quantity lies outside its limit, and where no sample
// is inside, since a search that starts at random would not find one either.
// The survey is complete in both cases. samples 0 means 10,000.
func Feasible(ctx context.Context, s *arch.Space, l Limits, r *rand.Rand, samples int) (Survey, error) {
	if err := l.Validate(); err != nil {
		return Survey{}, fmt.Errorf("limits: %w", err)
	}
	if samples == 0 {
		samples = defaultTries
	}
	sv := Survey{Space: s.Name, Samples: samples}
	for _, q := range quantities {
		row := SurveyRow{Name: q.name(l), Bound: q.bound(l), Min: math.MaxInt64, Exact: q.additive}
		if q.additive {
			row.Min, row.Max = extent(s, func(c arch.Cost) int64 { return q.of(l, c) })
		}
		sv.Rows = append(sv.Rows, row)
	}
	cost := coster(s, l)
	for range samples {
		if ctx.Err() != nil {
			return Survey{}, context.Cause(ctx)
		}
		c, err := cost(s.Sample(r))
		if err != nil {
			return Survey{}, err
		}
		sv.count(l, c)
	}
	sv.Rows = slices.DeleteFunc(sv.Rows, func(row SurveyRow) bool { return !row.Exact && row.Bound == Bound{} })
	return sv, sv.verdict()
}

func (s *Survey) count(l Limits, c arch.Cost) {
	for i, q := range quantities {
		row, v := &s.Rows[i], q.of(l, c)
		if !row.Exact {
			row.Min, row.Max = min(row.Min, v), max(row.Max, v)
		}
		if row.Bound.holds(v) {
			row.Passed++
		}
	}
	if l.Allow(c) {
		s.Passed++
	}
}

func (s Survey) verdict() error {
	for _, r := range s.Rows {
		if r.Exact && (r.Bound.Max != 0 && r.Min > r.Bound.Max || r.Bound.Min != 0 && r.Max < r.Bound.Min) {
			return fmt.Errorf("%s %v: %w: %s has %s–%s; %s of %d sampled nets pass",
				r.Name, r.Bound, ErrUnsatisfiable, s.Space, metric(r.Min), metric(r.Max), percent(r.Passed, s.Samples), s.Samples)
		}
	}
	if s.Passed > 0 {
		return nil
	}
	var rows []string
	for _, r := range s.Rows {
		if r.Bound != (Bound{}) {
			rows = append(rows, fmt.Sprintf("%s %v: the space has %s–%s, %s pass", r.Name, r.Bound, metric(r.Min), metric(r.Max), percent(r.Passed, s.Samples)))
		}
	}
	return fmt.Errorf("%w: 0%% of %d sampled nets of %s pass (%s)", ErrUnsatisfiable, s.Samples, s.Space, strings.Join(rows, "; "))
}

// Measured is a survey of a quantity that has to be measured.
type Measured struct {
	Archs    []arch.Arch // distinct, drawn uniformly within the limits
	Values   []Interval
	Cheapest Interval // of the arch with the fewest FLOPs: near the lowest there is
}

// MeasureSome draws n nets within the limits and measures them and the
// cheapest net of the space, all in one call of measure.
func MeasureSome(ctx context.Context, s *arch.Space, l Limits, r *rand.Rand, n int, measure Measure) (Measured, error) {
	m := Measured{}
	ps, err := NewRandom(s, l, r, 0).Ask(n)
	if err != nil {
		return m, err
	}
	for _, p := range ps {
		m.Archs = append(m.Archs, p.Arch)
	}
	var nets []*arch.Net
	for _, a := range append(slices.Clone(m.Archs), Cheapest(s, l.counter())) {
		net, err := s.Net(a)
		if err != nil {
			return m, err
		}
		nets = append(nets, net)
	}
	found, err := measure(ctx, nets, 0)
	if err != nil {
		return m, fmt.Errorf("measure %d nets of %s: %w", len(nets), s.Name, err)
	}
	if len(found) != len(nets) {
		return m, fmt.Errorf("measure %d nets of %s: %d measurements", len(nets), s.Name, len(found))
	}
	last := len(found) - 1
	m.Values, m.Cheapest = found[:last], found[last]
	return m, nil
}

// Quantile is the q-quantile of the sampled medians: the limit that about a
// share q of the space meets.
func (m Measured) Quantile(q float64) float64 {
	p50 := make([]float64, len(m.Values))
	for i, v := range m.Values {
		p50[i] = v.P50
	}
	return Quantile(q, p50)
}

// Satisfiable returns nil if a sampled net, or the cheapest one, lies surely
// below limit; else an error that wraps [ErrUnsatisfiable] and states the
// range. what and unit are for its text.
func (m Measured) Satisfiable(what string, limit float64, unit string) error {
	passed, lo, hi := 0, m.Cheapest.P50, m.Cheapest.P50
	for _, v := range m.Values {
		if v.High < limit {
			passed++
		}
		lo, hi = min(lo, v.P50), max(hi, v.P50)
	}
	if passed > 0 || m.Cheapest.High < limit {
		return nil
	}
	return fmt.Errorf("%s < %g %s: %w: measured nets range from %.4g to %.4g %s, the net of the fewest FLOPs takes %v, %s of %d sampled nets pass",
		what, limit, unit, ErrUnsatisfiable, lo, hi, unit, m.Cheapest, percent(passed, len(m.Values)), len(m.Values))
}

// Quantile is the q-quantile of values, 0 ≤ q ≤ 1, linear between order
// statistics: position q·(n−1). It is NaN for no values.
func Quantile(q float64, values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	v := slices.Sorted(slices.Values(values))
	at := q * float64(len(v)-1)
	i := min(int(at), len(v)-2)
	if i < 0 {
		return v[0]
	}
	return v[i] + (at-float64(i))*(v[i+1]-v[i])
}
