package latency

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"spos/internal/arch"
)

// Audit is how far a table's predictions are from nets that were measured and
// that it was not made of. Errors are predicted over measured less one, as
// fractions; they hold the measurement's own error, of which [Ruler] tells the
// size.
type Audit struct {
	Kind string `json:"kind"` // "held-out" nets, or "left-out": each correction net predicted from all other nets
	Nets int    `json:"nets"`
	// MAPE is the mean size of the error, with its 95 % interval.
	MAPE     float64 `json:"mape"`
	MAPELow  float64 `json:"mape_low"`
	MAPEHigh float64 `json:"mape_high"`
	Bias     float64 `json:"bias"` // mean error
	Within5  float64 `json:"within_5"`
	Within10 float64 `json:"within_10"`
	Tau      float64 `json:"tau"` // Kendall's, tau-b
	TauLow   float64 `json:"tau_low"`
	TauHigh  float64 `json:"tau_high"`
	Covered  float64 `json:"covered"` // share of measurements inside the prediction's 95 % interval
	Worst    Case    `json:"worst"`
	Ruler    Ruler   `json:"ruler"`
	// From and To bound the latencies at which the table may be used; both are
	// 0 where it may not.
	From    float64  `json:"from_ms"`
	To      float64  `json:"to_ms"`
	Verdict []string `json:"verdict"`
}

// Case is one net of an audit.
type Case struct {
	Arch      arch.Arch `json:"arch"`
	Predicted float64   `json:"predicted_ms"`
	Measured  float64   `json:"measured_ms"`
	Error     float64   `json:"error"` // Predicted over Measured less one
}

// Ruler is how well the measurement repeats itself, by the spread of its
// sessions. No table can show less.
type Ruler struct {
	Repeat float64 `json:"repeat"` // mean difference of two measurements of one net, as a fraction
	MAPE   float64 `json:"mape"`   // what a perfect table would show
	Tau    float64 `json:"tau"`    // likewise
}

const (
	heldOutKind = "held-out"
	leftOutKind = "left-out"
)

// audited is a net with what was said and what was measured.
type audited struct {
	arch                arch.Arch
	low, said, high, is float64 // milliseconds
}

func (a audited) error() float64 { return a.said/a.is - 1 }

// Audit is the table's by held-out nets or, where too few were measured, by
// nets left out one by one.
func (t *Table) Audit() Audit {
	held, left := t.audits[0], t.audits[1]
	if held.Nets >= groupNets || left.Nets == 0 {
		return held
	}
	return left
}

// CrossValidation is the audit by nets left out one by one: what the table
// knows of its error without any net that was measured for the audit alone.
func (t *Table) CrossValidation() Audit { return t.audits[1] }

func (t *Table) audit() error {
	var held, left []audited
	for _, m := range t.Measurements {
		if m.Role != Holdout {
			continue
		}
		n, err := netOf(t.Space, m.Arch)
		if err != nil {
			return fmt.Errorf("latency table: %w", err)
		}
		x, unseen, err := t.regression.vocabulary.features(n, false)
		if err != nil {
			return fmt.Errorf("latency table: %w", err)
		}
		mean, variance := t.regression.posterior(x, unseen)
		half := t.regression.interval(mean, variance)
		held = append(held, audited{m.Arch, mean - half, mean, mean + half, Milliseconds(m.P50)})
	}
	d := t.regression.factor.inverseDiagonal()
	var ends []audited // what the cheapest and the dearest nets would be said to take
	for i, at := range t.fitted {
		m := t.Measurements[at]
		mean, half := t.regression.leftOut(d, i)
		a := audited{m.Arch, mean - half, mean, mean + half, Milliseconds(m.P50)}
		if m.Role == Correction {
			left = append(left, a)
		}
		if !strings.ContainsRune(string(m.Arch), gone) {
			ends = append(ends, a)
		}
	}
	slices.SortStableFunc(ends, func(a, b audited) int { return cmp.Compare(a.is, b.is) })
	t.audits = [2]Audit{t.auditOf(heldOutKind, held), t.auditOf(leftOutKind, left)}
	for i, list := range [][]audited{held, left} {
		if len(list) > 0 {
			t.audits[i].judge(list, ends)
		}
	}
	return nil
}

func (t *Table) auditOf(kind string, list []audited) Audit {
	a := Audit{Kind: kind, Nets: len(list)}
	if len(list) == 0 {
		return a
	}
	n := float64(len(list))
	sizes := make([]float64, len(list))
	said, is := make([]float64, len(list)), make([]float64, len(list))
	for i, c := range list {
		e := c.error()
		sizes[i], said[i], is[i] = math.Abs(e), c.said, c.is
		a.MAPE += sizes[i] / n
		a.Bias += e / n
		a.Within5 += share(sizes[i] <= 0.05) / n
		a.Within10 += share(sizes[i] <= 0.10) / n
		a.Covered += share(c.low <= c.is && c.is <= c.high) / n
		if i == 0 || sizes[i] > math.Abs(a.Worst.Error) {
			a.Worst = Case{c.arch, c.said, c.is, e}
		}
	}
	half := student975(max(4, n-1)) * math.Sqrt(sumSquares(sizes)/max(1, n-1)/n)
	a.MAPELow, a.MAPEHigh = max(0, a.MAPE-half), a.MAPE+half
	a.Tau = kendall(said, is)
	a.TauLow, a.TauHigh = resampledTau(said, is)
	a.Ruler = t.ruler(said)
	return a
}

func share(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// kendall is tau-b: the share of pairs in one order less that of pairs in the
// other, pairs that are tied in either list set aside.
func kendall(x, y []float64) float64 {
	var sum, nx, ny float64
	for i := range x {
		for j := range i {
			a, b := cmp.Compare(x[i], x[j]), cmp.Compare(y[i], y[j])
			sum += float64(a * b)
			nx += float64(a * a)
			ny += float64(b * b)
		}
	}
	if nx == 0 || ny == 0 {
		return 0
	}
	return sum / math.Sqrt(nx*ny)
}

// resampledTau is the 95 % interval of tau by nets drawn with replacement.
func resampledTau(x, y []float64) (low, high float64) {
	const draws = 100
	rng := rand.New(rand.NewPCG(bootSeed, uint64(len(x))))
	taus := make([]float64, draws)
	a, b := make([]float64, len(x)), make([]float64, len(x))
	for d := range taus {
		for i := range a {
			k := rng.IntN(len(x))
			a[i], b[i] = x[k], y[k]
		}
		taus[d] = kendall(a, b)
	}
	slices.Sort(taus)
	return taus[quantileIndex(draws, 0.025)], taus[quantileIndex(draws, 0.975)]
}

// ruler estimates the measurement's own error from how the sessions of each
// net differ; latencies are those of the audit, to say what tau such an error
// leaves.
func (t *Table) ruler(latencies []float64) Ruler {
	var squares, freedom, variance float64
	for _, m := range t.Measurements {
		squares += sumSquares(logs(m.Sessions))
		freedom += float64(len(m.Sessions) - 1)
	}
	session := DefaultSpread * DefaultSpread
	if freedom > 0 {
		session = squares / freedom
	}
	for _, m := range t.Measurements {
		// The variance of a lower quartile of k from a normal distribution,
		// p(1−p)/φ², exact for one and in the limit.
		const c = 1.857
		variance += session * c / (float64(len(m.Sessions)) - 1 + c) / float64(len(t.Measurements))
	}
	d := math.Sqrt(variance)
	r := Ruler{MAPE: d * math.Sqrt(2/math.Pi)}
	r.Repeat = r.MAPE * math.Sqrt2
	rng := rand.New(rand.NewPCG(bootSeed, 1))
	noisy := make([]float64, len(latencies))
	const draws = 10
	for range draws {
		for i, l := range latencies {
			noisy[i] = l * math.Exp(d*rng.NormFloat64())
		}
		r.Tau += kendall(latencies, noisy) / draws
	}
	return r
}
