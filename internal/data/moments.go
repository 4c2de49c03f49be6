package data

import (
	"context"
	"math"

	"spos/internal/imaging"
)

// Moments is the mean and the standard deviation of each channel over all
// pixels of d, in the units and channel order of the recipe, whose own Mean
// and Std are left out of account: they are what this is for.
func Moments(ctx context.Context, d Dataset, r imaging.Recipe) (mean, std []float32, err error) {
	r.Mean, r.Std = nil, nil
	c := r.Channels()
	sum, squares := make([]float64, c), make([]float64, c)
	l := Loader{Data: d, Recipe: r, Size: min(64, max(1, d.Len()))}
	pixels := 0
	for b, err := range l.Batches(ctx, Position{}) {
		if err != nil {
			return nil, nil, err
		}
		plane := b.Shape.H * b.Shape.W
		for i := range b.N * c {
			var s, q float64
			for _, v := range b.Images[i*plane : (i+1)*plane] {
				x := float64(v)
				s += x
				q += x * x
			}
			sum[i%c] += s
			squares[i%c] += q
		}
		pixels += b.N * plane
	}
	mean, std = make([]float32, c), make([]float32, c)
	for k := range c {
		m := sum[k] / float64(pixels)
		mean[k] = float32(m)
		std[k] = float32(math.Sqrt(max(0, squares[k]/float64(pixels)-m*m)))
	}
	return mean, std, nil
}
