package latency

import (
	"errors"
	"math"

	"spos/internal/arch"
)

// Fit is what a table's regression was told about the world, found by which
// choice makes the measurements likeliest. Deviations are standard ones.
type Fit struct {
	Block float64 `json:"block"` // of a candidate from its arithmetic's share, as a fraction
	Place float64 `json:"place"` // of one candidate between places of one geometry, as a fraction of its share
	Pair  float64 `json:"pair"`  // of what two neighbours add or save, likewise; 0: it does not pay
	Model float64 `json:"model"` // of a net from the sum, as a fraction of its latency
	Noise float64 `json:"noise"` // share of the measurements' own variance that is really there
	// Stretch widens intervals where nets left out lie further from what the
	// others say of them than the model admits.
	Stretch float64 `json:"stretch"`
}

func (f Fit) valid() bool {
	in := func(x, low, high float64) bool { return x >= low && x <= high } // false for NaN
	return in(f.Block, 1e-3, 100) && in(f.Place, 0, 100) && in(f.Pair, 0, 100) &&
		in(f.Model, 1e-5, 10) && in(f.Noise, 0, 100) && in(f.Stretch, 1, 100)
}

// row is a net that was measured.
type row struct {
	x     []feature
	y     float64 // milliseconds
	noise float64 // standard deviation of y over y, as its interval says
	drawn bool    // at random, as the nets are that will be asked about
}

// regression is Bayesian linear regression of latencies on terms, in the form
// that needs matrices of as many rows as nets (Rasmussen and Williams, chapter
// 2): a term has a normal prior, of which the mean is its arithmetic's share
// of the latency and the deviation a fraction of it. It is a ridge whose
// penalty is the prior's: where in-situ differences tell what a candidate
// costs, that is the prior with which whole nets meet it.
type regression struct {
	vocabulary *vocabulary
	rows       []row
	unit       float64 // milliseconds of one unit of [proxy]
	typical    float64 // noise of a row in the middle

	grams    [termKinds][]float64 // products of rows over scaled terms of one kind
	residual []float64            // latencies less the prior's mean

	fit    Fit
	factor cholesky
	alpha  []float64 // K⁻¹·residual
	nu     float64   // degrees of freedom that are left to the noise
}

var errNotPositive = errors.New("latency table: its measurements contradict one another beyond what numbers can hold")

func newRegression(v *vocabulary, rows []row) *regression {
	r := &regression{vocabulary: v, rows: rows}
	var sum, share float64
	noises := make([]float64, len(rows))
	for i, row := range rows {
		sum += row.y
		for _, f := range row.x {
			if k := v.terms[f.term].kind; k == fixedTerm || k == blockTerm {
				share += f.count * v.terms[f.term].scale
			}
		}
		noises[i] = row.noise
	}
	r.unit = sum / share
	r.typical = median(noises)
	r.prepare()
	return r
}

// prepare computes what does not depend on the fit.
func (r *regression) prepare() {
	r.residual = make([]float64, len(r.rows))
	for i, row := range r.rows {
		r.residual[i] = row.y - r.mean(row.x)
	}
	for kind := range r.grams {
		r.grams[kind] = r.gram(kind)
	}
}

// mean is what the prior expects of a net.
func (r *regression) mean(x []feature) float64 {
	sum := 0.0
	for _, f := range x {
		if t := r.vocabulary.terms[f.term]; t.kind == fixedTerm || t.kind == blockTerm {
			sum += f.count * t.scale * r.unit
		}
	}
	return sum
}

func (r *regression) gram(kind int) []float64 {
	n := len(r.rows)
	g := make([]float64, n*n)
	for i, row := range r.rows {
		for j, v := range r.products(kind, row.x) {
			g[i*n+j] = v
		}
	}
	return g
}

// products are those of a net with every row, over scaled terms of one kind.
func (r *regression) products(kind int, x []feature) []float64 {
	dense := make([]float64, len(r.vocabulary.terms))
	for _, f := range x {
		if t := r.vocabulary.terms[f.term]; t.kind == kind {
			s := t.scale * r.unit
			dense[f.term] = f.count * s * s
		}
	}
	p := make([]float64, len(r.rows))
	for i, row := range r.rows {
		for _, f := range row.x {
			p[i] += f.count * dense[f.term]
		}
	}
	return p
}

// deviations are the prior's, by kind of term.
func (f Fit) deviations() [termKinds]float64 {
	const fixed = 3 // hardly anything is known of it
	return [termKinds]float64{fixed, f.Block, f.Place, f.Pair}
}

func (r *regression) variance(f Fit, noise float64) float64 {
	return f.Model*f.Model + f.Noise*noise*noise
}

// decompose factors the covariance of the measurements under f.
func (r *regression) decompose(f Fit) (cholesky, bool) {
	n := len(r.rows)
	k := make([]float64, n*n)
	for kind, d := range f.deviations() {
		if d == 0 {
			continue
		}
		for i, g := range r.grams[kind] {
			k[i] += d * d * g
		}
	}
	for i, row := range r.rows {
		k[i*n+i] += row.y * row.y * r.variance(f, row.noise)
	}
	return factor(n, k)
}

// evidence is the logarithm of how likely the measurements are under f, up to
// a constant, less what f has to make good: pairs and places must pay for
// themselves, and a noise far from a hundredth is unlikely.
func (r *regression) evidence(f Fit) float64 {
	c, ok := r.decompose(f)
	if !ok {
		return math.Inf(-1)
	}
	z := c.forward(r.residual)
	e := -0.5*dot(z, z) - 0.5*c.logDeterminant()
	const toll = 2
	if f.Place > 0 {
		e -= toll
	}
	if f.Pair > 0 {
		e -= toll
	}
	odd := math.Log(f.Model / 0.01)
	return e - odd*odd/8
}

// What search chooses from.
var (
	modelGrid = []float64{0.001, 0.0015, 0.002, 0.003, 0.004, 0.006, 0.008, 0.01, 0.0125, 0.015, 0.02, 0.025, 0.03, 0.04, 0.06, 0.1}
	noiseGrid = []float64{0, 0.1, 0.3, 1}
	blockGrid = []float64{0.3, 0.6, 1, 2, 4}
	extraGrid = []float64{0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8} // place, pair
)

// search finds the fit of the greatest evidence, one parameter after another
// until none moves; what is left to chance is then averaged, for the likeliest
// chance is less than the expected one.
func (r *regression) search() Fit {
	f := Fit{Block: 1, Model: 0.015, Noise: 0.3, Stretch: 1}
	axes := []struct {
		at     *float64
		values []float64
	}{{&f.Model, modelGrid}, {&f.Block, blockGrid}, {&f.Place, extraGrid}, {&f.Pair, extraGrid}, {&f.Noise, noiseGrid}}
	best := r.evidence(f)
	for range 5 {
		moved := false
		for _, a := range axes {
			keep := *a.at
			for _, v := range a.values {
				if *a.at = v; v == keep {
					continue
				}
				if e := r.evidence(f); e > best+1e-9 {
					best, keep, moved = e, v, true
				}
			}
			*a.at = keep
		}
		if !moved {
			break
		}
	}
	return r.average(f, best)
}

// average is f with the mean variance of a net over all that the grids allow,
// weighted by evidence, of which best is the greatest.
func (r *regression) average(f Fit, best float64) Fit {
	var weights, model, noise float64
	for _, m := range modelGrid {
		for _, n := range noiseGrid {
			g := f
			g.Model, g.Noise = m, n
			w := math.Exp(r.evidence(g) - best)
			weights, model, noise = weights+w, model+w*m*m, noise+w*n
		}
	}
	f.Model, f.Noise = math.Sqrt(model/weights), noise/weights
	return f
}

// solve takes f, or searches where it is nil.
func (r *regression) solve(f *Fit) error {
	searched := f == nil
	if searched {
		f = new(r.search())
	}
	c, ok := r.decompose(*f)
	if !ok {
		return errNotPositive
	}
	r.fit, r.factor, r.alpha = *f, c, c.solve(r.residual)
	d := c.inverseDiagonal()
	r.nu = 0
	for i, row := range r.rows {
		r.nu += row.y * row.y * r.variance(*f, row.noise) * d[i]
	}
	if searched {
		r.fit.Stretch = r.stretch(d)
	}
	return nil
}

// stretch is how much further random nets that are left out lie from what the
// others say than the model admits, never less than one.
func (r *regression) stretch(inverseDiagonal []float64) float64 {
	const weight = 4 // how many nets the model's word counts for
	squares, n := float64(weight), float64(weight)
	for i, row := range r.rows {
		if row.drawn {
			squares += r.alpha[i] * r.alpha[i] / inverseDiagonal[i]
			n++
		}
	}
	return math.Sqrt(max(1, squares/n))
}

// posterior is a net's latency by the sum of its terms and the variance of
// that, both in milliseconds; unseen is what [vocabulary.features] returns.
func (r *regression) posterior(x []feature, unseen [termKinds]float64) (mean, variance float64) {
	k := make([]float64, len(r.rows))
	for kind, d := range r.fit.deviations() {
		if d == 0 {
			continue
		}
		for i, p := range r.products(kind, x) {
			k[i] += d * d * p
		}
		own := unseen[kind]
		for _, f := range x {
			if t := r.vocabulary.terms[f.term]; t.kind == kind {
				own += f.count * f.count * t.scale * t.scale
			}
		}
		variance += d * d * own * r.unit * r.unit
	}
	z := r.factor.forward(k)
	return r.mean(x) + dot(k, r.alpha), max(0, variance-dot(z, z))
}

// interval is the half width of the interval that holds, in 95 of 100 cases,
// what a measurement of the net would say.
func (r *regression) interval(mean, variance float64) float64 {
	v := variance + mean*mean*r.variance(r.fit, r.typical)
	return student975(max(4, r.nu)) * r.fit.Stretch * math.Sqrt(v)
}

// leftOut is, for row i, what the other rows say of it and the half width of
// its interval (Rasmussen and Williams, 5.4.2).
func (r *regression) leftOut(inverseDiagonal []float64, i int) (mean, half float64) {
	mean = r.rows[i].y - r.alpha[i]/inverseDiagonal[i]
	return mean, student975(max(4, r.nu)) * r.fit.Stretch * math.Sqrt(1/inverseDiagonal[i])
}

// row is a net with its measurement; its terms join the vocabulary.
func (v *vocabulary) row(n *arch.Net, m Measurement) (row, error) {
	x, _, err := v.features(n, true)
	return row{x, Milliseconds(m.P50), m.deviation(), m.Role == Correction}, err
}
