package latency

import (
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/mat"
	"gonum.org/v1/gonum/stat/distuv"
)

// chance is a regression of n random rows on terms of all kinds.
func chance(seed uint64, n int) *regression {
	rng := rand.New(rand.NewPCG(seed, 0))
	v := newVocabulary()
	v.terms = []term{{fixedTerm, 3}, {blockTerm, 1}, {blockTerm, 2}, {blockTerm, 0.5}, {placeTerm, 1}, {placeTerm, 2}, {pairTerm, 1}}
	rows := make([]row, n)
	for i := range rows {
		x := []feature{{0, 1}}
		for t := 1; t < len(v.terms); t++ {
			if c := rng.IntN(4); c > 0 {
				x = append(x, feature{t, float64(c)})
			}
		}
		rows[i] = row{x: x, y: 5 + 5*rng.Float64(), noise: 0.01 + 0.02*rng.Float64(), drawn: true}
	}
	return newRegression(v, rows)
}

var someFit = Fit{Block: 0.7, Place: 0.2, Pair: 0.1, Model: 0.01, Noise: 0.5, Stretch: 1}

// TestRegressionIsRidge holds predictions and their variance against ridge
// regression as least squares knows it: a row for each net over its noise and
// one for each term over its prior, solved by another's QR decomposition.
func TestRegressionIsRidge(t *testing.T) {
	r := chance(1, 12)
	if err := r.solve(&someFit); err != nil {
		t.Fatal(err)
	}
	terms, n := len(r.vocabulary.terms), len(r.rows)
	a, b := mat.NewDense(n+terms, terms, nil), mat.NewVecDense(n+terms, nil)
	for i, row := range r.rows {
		sd := row.y * math.Sqrt(r.variance(someFit, row.noise))
		for _, f := range row.x {
			a.Set(i, f.term, f.count/sd)
		}
		b.SetVec(i, row.y/sd)
	}
	for j, tm := range r.vocabulary.terms {
		sd := someFit.deviations()[tm.kind] * tm.scale * r.unit
		a.Set(n+j, j, 1/sd)
		if tm.kind <= blockTerm {
			b.SetVec(n+j, tm.scale*r.unit/sd)
		}
	}
	var w mat.VecDense
	if err := w.SolveVec(a, b); err != nil {
		t.Fatal(err)
	}
	var normal, covariance mat.Dense
	normal.Mul(a.T(), a)
	if err := covariance.Inverse(&normal); err != nil {
		t.Fatal(err)
	}
	for _, row := range chance(2, 5).rows {
		x := mat.NewVecDense(terms, nil)
		for _, f := range row.x {
			x.SetVec(f.term, f.count)
		}
		mean, variance := r.posterior(row.x, [termKinds]float64{})
		if want := mat.Dot(x, &w); math.Abs(mean-want) > 1e-9*want {
			t.Errorf("predicted %v, least squares says %v", mean, want)
		}
		var cx mat.VecDense
		cx.MulVec(&covariance, x)
		if want := mat.Dot(x, &cx); math.Abs(variance-want) > 1e-7*want {
			t.Errorf("variance %v, least squares says %v", variance, want)
		}
	}
}

// TestLeftOut holds the closed form against fits without the row.
func TestLeftOut(t *testing.T) {
	r := chance(3, 10)
	if err := r.solve(&someFit); err != nil {
		t.Fatal(err)
	}
	d := r.factor.inverseDiagonal()
	for i, row := range r.rows {
		rest := &regression{vocabulary: r.vocabulary, unit: r.unit, typical: r.typical}
		rest.rows = append(append(rest.rows, r.rows[:i]...), r.rows[i+1:]...)
		rest.prepare()
		if err := rest.solve(&someFit); err != nil {
			t.Fatal(err)
		}
		want, variance := rest.posterior(row.x, [termKinds]float64{})
		variance += row.y * row.y * r.variance(someFit, row.noise)
		mean, half := r.leftOut(d, i)
		if math.Abs(mean-want) > 1e-9*row.y {
			t.Errorf("row %d: %v, a fit without it says %v", i, mean, want)
		}
		if wantHalf := student975(max(4, r.nu)) * math.Sqrt(variance); math.Abs(half-wantHalf) > 1e-7*wantHalf {
			t.Errorf("row %d: half width %v, a fit without it says %v", i, half, wantHalf)
		}
	}
}

func TestEvidenceIsTheNormalDensity(t *testing.T) {
	r := chance(4, 6)
	n := len(r.rows)
	density := func(f Fit) float64 {
		k := mat.NewSymDense(n, nil)
		for i, a := range r.rows {
			for j, b := range r.rows[:i+1] {
				sum := 0.0
				for _, x := range a.x {
					for _, y := range b.x {
						if x.term == y.term {
							tm := r.vocabulary.terms[x.term]
							s := f.deviations()[tm.kind] * tm.scale * r.unit
							sum += x.count * y.count * s * s
						}
					}
				}
				if i == j {
					sum += a.y * a.y * r.variance(f, a.noise)
				}
				k.SetSym(i, j, sum)
			}
		}
		var c mat.Cholesky
		c.Factorize(k)
		var z mat.VecDense
		y := mat.NewVecDense(n, r.residual)
		if err := c.SolveVecTo(&z, y); err != nil {
			t.Fatal(err)
		}
		return -0.5*mat.Dot(y, &z) - 0.5*c.LogDet()
	}
	other := someFit
	other.Block = 3
	got, want := r.evidence(someFit)-r.evidence(other), density(someFit)-density(other)
	if math.Abs(got-want) > 1e-7*math.Abs(want) {
		t.Errorf("evidence differs by %v, the density by %v", got, want)
	}
}

func TestStudent(t *testing.T) {
	for _, nu := range []float64{4, 5, 8, 20, 100, 1e6} {
		want := distuv.StudentsT{Sigma: 1, Nu: nu}.Quantile(0.975)
		if got := student975(nu); math.Abs(got/want-1) > 0.005 {
			t.Errorf("ν = %v: %v, want %v", nu, got, want)
		}
	}
}

func TestKendall(t *testing.T) {
	for name, c := range map[string]struct {
		x, y []float64
		want float64
	}{
		"equal":    {[]float64{1, 2, 3}, []float64{10, 20, 30}, 1},
		"reversed": {[]float64{1, 2, 3}, []float64{3, 2, 1}, -1},
		"one swap": {[]float64{1, 2, 3, 4}, []float64{1, 3, 2, 4}, 4.0 / 6},
		"ties":     {[]float64{1, 1, 2}, []float64{1, 2, 3}, 2 / math.Sqrt(6)},
		"all tied": {[]float64{1, 1}, []float64{1, 2}, 0},
	} {
		if got := kendall(c.x, c.y); math.Abs(got-c.want) > 1e-12 {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
