package imaging

// The principal components of ImageNet's colours (Krizhevsky, Sutskever and
// Hinton 2012, section 4.1), as the usual training codes have them: variances
// of pixels in 0..1, and for red, green and blue its part in each component.
var (
	pcaValues  = [3]float32{0.2175, 0.0188, 0.0045}
	pcaVectors = [3][3]float32{
		{-0.5675, 0.7192, 0.4009},
		{-0.5808, -0.0045, -0.8140},
		{-0.5836, -0.6948, 0.4203},
	}
)

// lighting adds each principal component times its coefficient to every
// pixel. The arithmetic is AngleNAS's (utils/imagenet.py, LighteningJitter):
// in 0..1, cut to 8 bits by rounding down, which takes a level from some
// pixels even where nothing is added.
func lighting(m *Image, coefficients [3]float64) {
	for c, vector := range pcaVectors {
		var shift float64
		for k, v := range vector {
			shift += float64(float64(v) * float64(float64(pcaValues[k])*coefficients[k]))
		}
		var lut [256]uint8
		for i := range lut {
			v := float32(float64(float32(i)/255) + shift)
			lut[i] = uint8(min(max(float32(v*255), 0), 255))
		}
		for i := c; i < len(m.Pix); i += 3 {
			m.Pix[i] = lut[m.Pix[i]]
		}
	}
}
