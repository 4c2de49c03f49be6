package latency

import (
	"fmt"
	"math"
	"slices"
	"time"

	"spos/internal/arch"
)

// Role is what a net of a table was measured for.
type Role string

// The roles.
const (
	InSitu     Role = "in-situ"    // the base net, or it with one candidate at the places of one geometry
	Correction Role = "correction" // a whole net, drawn at random and chosen for what it tells
	Holdout    Role = "holdout"    // drawn at random; the audit's, and never fitted
)

// Measurement is one whole net of a table.
type Measurement struct {
	Arch           arch.Arch // '-' where a block was left out
	Role           Role
	P50, Low, High time.Duration   // as of [Estimate]
	Sessions       []time.Duration // what each session took when nothing disturbed it, in order
}

// deviation is the standard one of P50, as a fraction, that its interval means.
func (m Measurement) deviation() float64 {
	return math.Log(float64(m.High)/float64(m.Low)) / (2 * 1.96)
}

// Table predicts the latency of the nets of a space under one [Fingerprint]
// from whole nets that were measured: a net's latency is the sum of what its
// candidates cost in their geometry, what does not vary, and, where the
// measurements show it, how much a place or a neighbour changes. It is
// read-only once made and safe for concurrent use.
type Table struct {
	Space        *arch.Space
	Seed         uint64      // of the choice of nets
	Fingerprint  Fingerprint // of the device and its settings; Model is empty
	Protocol     Protocol
	Measurements []Measurement
	Warnings     []string // what the measurements complained of, with how often
	Fit          Fit

	regression *regression
	fitted     []int // the measurements that are its rows
	audits     [2]Audit
}

// Prediction is a latency that was not measured.
type Prediction struct {
	P50  time.Duration
	Low  time.Duration // 95 % interval of what a measurement would say
	High time.Duration
	// Outside is set where the audit does not vouch for nets of this latency.
	Outside bool
}

// Decide compares with a limit as [Estimate.Decide] does.
func (p Prediction) Decide(limit time.Duration) Verdict {
	return Estimate{P50: p.P50, Low: p.Low, High: p.High}.Decide(limit)
}

// maxFitted bounds the nets of a fit, whose cost is the cube of their number.
const maxFitted = 400

// build fits the table, under the given fit or, where that is nil, the one
// that it finds, and audits it.
func (t *Table) build(fit *Fit) error {
	v := newVocabulary()
	var rows []row
	t.fitted = nil
	for i, m := range t.Measurements {
		if m.Role == Holdout {
			continue
		}
		n, err := netOf(t.Space, m.Arch)
		if err != nil {
			return fmt.Errorf("latency table: %w", err)
		}
		r, err := v.row(n, m)
		if err != nil {
			return fmt.Errorf("latency table: %w", err)
		}
		rows, t.fitted = append(rows, r), append(t.fitted, i)
	}
	if len(rows) < 2 || len(rows) > maxFitted {
		return fmt.Errorf("latency table: %d nets to fit, not 2 to %d", len(rows), maxFitted)
	}
	t.regression = newRegression(v, rows)
	if err := t.regression.solve(fit); err != nil {
		return err
	}
	t.Fit = t.regression.fit
	return t.audit()
}

// For reports whether the table answers for a device and its settings, as an
// error that wraps [ErrIncomparable] and says what differs. Ask it before
// Predict.
func (t *Table) For(f Fingerprint) error {
	if err := t.Fingerprint.Comparable(f); err != nil {
		return fmt.Errorf("the table of %s does not answer for this device: %w", t.Space.Name, err)
	}
	return nil
}

// Predict is what a net takes under the table's fingerprint. A net with a
// candidate at a geometry that no measured net had, and one of another input,
// stem or head, is an error that wraps [ErrUnmeasured].
func (t *Table) Predict(n *arch.Net) (Prediction, error) {
	x, unseen, err := t.regression.vocabulary.features(n, false)
	if err != nil {
		return Prediction{}, err
	}
	mean, variance := t.regression.posterior(x, unseen)
	p := prediction(mean, t.regression.interval(mean, variance))
	p.Outside = !t.Audit().Vouches(p.P50)
	return p, nil
}

// prediction is never below a nanosecond, whatever a sum comes to.
func prediction(mean, half float64) Prediction {
	at := func(ms float64) time.Duration { return max(1, fromMilliseconds(ms)) }
	return Prediction{P50: at(mean), Low: at(mean - half), High: at(mean + half)}
}

// Entry is what one candidate costs where its input and output have one shape.
type Entry struct {
	Candidate string `json:"candidate"`
	Blocks    []int  `json:"blocks"` // where it may stand
	In        string `json:"in"`
	Out       string `json:"out"`
	// What it adds to a net. What stands first in a stage is in every net: how
	// much of it is the candidate and how much the stem and head is not to be
	// told from whole nets, and the interval is wide.
	Milliseconds float64 `json:"ms"`
	Low          float64 `json:"low_ms"`
	High         float64 `json:"high_ms"`
	// What it adds more than the first candidate of its geometry.
	Over     float64 `json:"over_first_ms"`
	OverLow  float64 `json:"over_first_low_ms"`
	OverHigh float64 `json:"over_first_high_ms"`
}

// Entries lists the candidates, block by block, those of one geometry once.
// A candidate that does nothing costs nothing and is not in it.
func (t *Table) Entries() ([]Entry, error) {
	var entries []Entry
	at := map[string]int{}
	firsts := map[int][]feature{} // of each block
	v := t.regression.vocabulary
	for b := range t.Space.Len() {
		for c, name := range t.Space.Candidates(b) {
			p, n, err := blockOf(t.Space, b, c)
			if err != nil {
				return nil, err
			}
			var x []feature
			if n != nil {
				if i, ok := v.at[blockKey(p)]; ok {
					x = []feature{{i, 1}}
				}
			}
			if c == 0 {
				firsts[b] = x
			}
			if x == nil {
				continue
			}
			if i, ok := at[p.signature]; ok {
				if !slices.Contains(entries[i].Blocks, b) {
					entries[i].Blocks = append(entries[i].Blocks, b)
				}
				continue
			}
			at[p.signature] = len(entries)
			e := Entry{Candidate: name, Blocks: []int{b}, In: n.Ops[p.first].In.String(), Out: lastOf(n, p).Out.String()}
			e.Milliseconds, e.Low, e.High = t.contrast(x, nil)
			e.Over, e.OverLow, e.OverHigh = t.contrast(x, firsts[b])
			entries = append(entries, e)
		}
	}
	return entries, nil
}

// contrast is the difference of two sums of terms and its interval.
func (t *Table) contrast(a, b []feature) (mean, low, high float64) {
	x := slices.Clone(a)
	for _, f := range b {
		if i := slices.IndexFunc(x, func(g feature) bool { return g.term == f.term }); i >= 0 {
			x[i].count -= f.count
		} else {
			x = append(x, feature{f.term, -f.count})
		}
	}
	mean, variance := t.regression.posterior(x, [termKinds]float64{})
	half := student975(max(4, t.regression.nu)) * t.regression.fit.Stretch * math.Sqrt(variance)
	return mean, mean - half, mean + half
}

// blockOf is one candidate of one block, and a net that has it; nil where the
// candidate does nothing.
func blockOf(s *arch.Space, block, candidate int) (part, *arch.Net, error) {
	choices := make([]int, s.Len())
	choices[block] = candidate
	n, err := s.Net(arch.Make(choices))
	if err != nil {
		return part{}, nil, err
	}
	_, _, parts := split(n)
	for _, p := range parts {
		if p.block == block {
			return p, n, nil
		}
	}
	return part{}, nil, nil
}

func logs(d []time.Duration) []float64 {
	x := make([]float64, len(d))
	for i, v := range d {
		x[i] = math.Log(float64(v))
	}
	return x
}
