package latency

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
)

// Comparison says which of two models is the faster.
type Comparison struct {
	A, B   Result
	Paired bool // measured in turns, so that what the machine did is in both
	// Ratio is A's time over B's: below 1, A is faster. Low and High are its
	// 95 % interval.
	Ratio, Low, High float64
	// Confidence that A is the faster, from 0 to 1; of a B that is, 1 less it.
	Confidence float64
	Verdict    Faster
}

// Faster is the verdict of a comparison.
type Faster uint8

// The verdicts. Alike: whichever is faster, the whole interval of the ratio is
// within [AlikeWithin] of 1.
const (
	Unknown Faster = iota
	AFaster
	BFaster
	Alike
)

var fasterNames = [...]string{"undecided", "a", "b", "alike"}

func (f Faster) String() string { return fasterNames[f] }

// What decides a comparison. The confidence is higher than an interval's, since
// it is looked at after each round.
const (
	Sure        = 0.99
	AlikeWithin = 0.01
	minRounds   = 3
)

// Compare times sessions of a and b in turns, b first in every other round,
// until it is decided which is faster or that they are alike, p.Sessions
// rounds and three at least, or until limit rounds have run. A round's two
// sessions follow one another, so that a machine which changes more slowly
// cancels out of their ratio. told hears of each round; nil is nobody.
func Compare(ctx context.Context, r Runner, a, b Model, p Protocol, limit int, told func(Comparison)) (Comparison, error) {
	if err := p.Validate(); err != nil {
		return Comparison{}, err
	}
	models := [2]Model{a, b}
	var samples [2][]Sample
	var c Comparison
	for round := range max(limit, minRounds) {
		for i := range models {
			at := (i + round) % 2
			s, err := sample(ctx, r, models[at], p, "")
			if err != nil {
				return c, err
			}
			samples[at] = append(samples[at], s)
		}
		if err := samples[0][round].Fingerprint.Comparable(samples[1][round].Fingerprint); err != nil {
			return c, fmt.Errorf("compare %s with %s: %w", a.Name, b.Name, err)
		}
		results := newResults(models[:], [][]Sample{samples[0], samples[1]}, p)
		c = Comparison{A: results[0], B: results[1], Paired: true}
		c.pairs(p.Spread)
		if told != nil {
			told(c)
		}
		if round+1 >= max(min(p.Sessions, limit), minRounds) && c.Verdict != Unknown {
			break
		}
	}
	return c, nil
}

// CompareResults compares what was measured before, maybe apart from one
// another. Both need their samples, and fingerprints that [Fingerprint.Comparable]
// finds no difference in.
func CompareResults(a, b Result) (Comparison, error) {
	if err := a.Fingerprint.Comparable(b.Fingerprint); err != nil {
		return Comparison{}, fmt.Errorf("compare %s with %s: %w", a.Model, b.Model, err)
	}
	c := Comparison{A: a, B: b}
	rng := rand.New(rand.NewPCG(bootSeed, uint64(a.Runs+b.Runs)))
	var of [2]*bootstrap
	drift := driftAtRest * driftAtRest
	for i, r := range []Result{a, b} {
		if len(r.Samples) == 0 {
			return c, fmt.Errorf("latency: %s: %w", r.Model, errNoSamples)
		}
		if slices.ContainsFunc(r.Samples, func(s Sample) bool { return len(s.Runs) == 0 }) {
			return c, fmt.Errorf("latency: %s: a session without runs: the file is damaged, measure again", r.Model)
		}
		busy := contention(r.Samples)
		drift += driftBusy * driftBusy * busy * busy
		of[i] = newBootstrap(quartile, logSteady(undisturbed(r.Samples)), math.Hypot(DefaultSpread, driftBusy*busy), 0)
	}
	c.draw(of[0].center-of[1].center, func() float64 {
		return of[0].deviation(rng, of[0].stretch(rng)) - of[1].deviation(rng, of[1].stretch(rng)) + math.Sqrt(drift)*rng.NormFloat64()
	})
	return c, nil
}

var errNoSamples = errors.New("no samples in it: save it with measure --json --samples")

// pairs compares round by round.
func (c *Comparison) pairs(spread float64) {
	logs := logSteady(c.A.Samples)
	for i, x := range logSteady(c.B.Samples) {
		logs[i] -= x
	}
	b := newBootstrap(median[float64], logs, math.Sqrt2*spread, 0)
	rng := rand.New(rand.NewPCG(bootSeed, uint64(len(logs))))
	c.draw(b.center, func() float64 { return b.deviation(rng, b.stretch(rng)) })
}

// draw fills in the ratio from its logarithm and draws of its deviation.
func (c *Comparison) draw(center float64, deviation func() float64) {
	draws := make([]float64, 2*replicates)
	less := 0.0
	for i := range draws {
		draws[i] = center + deviation()
		switch {
		case draws[i] < 0:
			less++
		case draws[i] == 0:
			less += 0.5
		}
	}
	slices.Sort(draws)
	tail := (1 - confidence) / 2
	c.Ratio = math.Exp(center)
	c.Low = min(c.Ratio, math.Exp(draws[quantileIndex(len(draws), tail)]))
	c.High = max(c.Ratio, math.Exp(draws[quantileIndex(len(draws), 1-tail)]))
	c.Confidence = less / float64(len(draws))
	switch {
	case c.Low >= 1-AlikeWithin && c.High <= 1+AlikeWithin:
		c.Verdict = Alike
	case c.Confidence >= Sure:
		c.Verdict = AFaster
	case c.Confidence <= 1-Sure:
		c.Verdict = BFaster
	}
}

func logSteady(samples []Sample) []float64 {
	logs := make([]float64, len(samples))
	for i, s := range samples {
		logs[i] = math.Log(max(1, steady(s.Runs)))
	}
	return logs
}

// Write says it in words, above the table of both.
func (c Comparison) Write(w io.Writer) error {
	first, second, ratio, low, high, sure := c.A.Model, c.B.Model, c.Ratio, c.Low, c.High, c.Confidence
	if c.Ratio > 1 {
		first, second, ratio, low, high, sure = second, first, 1/ratio, 1/c.High, 1/c.Low, 1-sure
	}
	var err error
	switch c.Verdict {
	case AFaster, BFaster:
		_, err = fmt.Fprintf(w, "%s is faster: it takes %.3f of %s's time (95 %%: %.3f – %.3f), confidence %s\n\n", first, ratio, second, low, high, percent(sure))
	case Alike:
		_, err = fmt.Fprintf(w, "%s and %s are as fast within %.0f %%: the ratio is %.3f (95 %%: %.3f – %.3f)\n\n", first, second, 100*AlikeWithin, ratio, low, high)
	default:
		_, err = fmt.Fprintf(w, "undecided: %s takes %.3f of %s's time (95 %%: %.3f – %.3f), confidence that it is faster %s, %s is asked for\n\n",
			first, ratio, second, low, high, percent(sure), percent(Sure))
	}
	if err != nil {
		return err
	}
	return Write(w, []Result{c.A, c.B})
}

// percent does not claim more than a few thousand draws can show.
func percent(p float64) string {
	if p > 0.999 {
		return "above 99.9 %"
	}
	return fmt.Sprintf("%.1f %%", 100*p)
}

// Rounds is how many sessions of each were compared.
func (c Comparison) Rounds() int { return min(len(c.A.Samples), len(c.B.Samples)) }
