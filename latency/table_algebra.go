package latency

import "math"

// cholesky is the lower factor L of a symmetric positive definite matrix
// K = L·Lᵀ, row by row.
type cholesky struct {
	n int
	l []float64
}

// factor returns false where k, n rows of n, is not positive definite.
func factor(n int, k []float64) (c cholesky, ok bool) {
	l := make([]float64, n*n)
	for i := range n {
		for j := range i + 1 {
			sum := k[i*n+j]
			a, b := l[i*n:i*n+j], l[j*n:j*n+j]
			for x := range a {
				sum -= a[x] * b[x]
			}
			switch {
			case i != j:
				l[i*n+j] = sum / l[j*n+j]
			case sum > 0:
				l[i*n+i] = math.Sqrt(sum)
			default:
				return cholesky{}, false
			}
		}
	}
	return cholesky{n, l}, true
}

// forward solves L·x = b.
func (c cholesky) forward(b []float64) []float64 {
	x := make([]float64, c.n)
	for i := range x {
		sum := b[i]
		for j, v := range c.l[i*c.n : i*c.n+i] {
			sum -= v * x[j]
		}
		x[i] = sum / c.l[i*c.n+i]
	}
	return x
}

// solve solves K·x = b.
func (c cholesky) solve(b []float64) []float64 {
	x := c.forward(b)
	for i := c.n - 1; i >= 0; i-- {
		sum := x[i]
		for j := i + 1; j < c.n; j++ {
			sum -= c.l[j*c.n+i] * x[j]
		}
		x[i] = sum / c.l[i*c.n+i]
	}
	return x
}

// logDeterminant is that of K.
func (c cholesky) logDeterminant() float64 {
	sum := 0.0
	for i := range c.n {
		sum += 2 * math.Log(c.l[i*c.n+i])
	}
	return sum
}

// inverseDiagonal is the diagonal of K⁻¹.
func (c cholesky) inverseDiagonal() []float64 {
	d := make([]float64, c.n)
	e := make([]float64, c.n)
	for i := range d {
		clear(e)
		e[i] = 1
		for _, v := range c.forward(e)[i:] { // L⁻¹'s column; K⁻¹ = L⁻ᵀ·L⁻¹
			d[i] += v * v
		}
	}
	return d
}

func dot(a, b []float64) float64 {
	sum := 0.0
	for i, v := range a {
		sum += v * b[i]
	}
	return sum
}

// student975 is the 0.975 quantile of Student's distribution, by the expansion
// around the normal's in 1/ν (Abramowitz and Stegun 26.7.5): within 1 % from
// ν = 3.
func student975(nu float64) float64 {
	const z = 1.959963984540054
	z2 := z * z
	g1 := (z2 + 1) * z / 4
	g2 := ((5*z2+16)*z2 + 3) * z / 96
	g3 := (((3*z2+19)*z2+17)*z2 - 15) * z / 384
	g4 := ((((79*z2+776)*z2+1482)*z2-1920)*z2 - 945) * z / 92160
	return z + (g1+(g2+(g3+g4/nu)/nu)/nu)/nu
}
