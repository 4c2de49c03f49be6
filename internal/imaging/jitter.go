package imaging

import "math/rand/v2"

// apply changes the image in place, in Pillow's arithmetic (ImageEnhance,
// ImageChops.blend): every change rounds down to 8 bits.
func (j ColorJitter) apply(r *rand.Rand, m *Image) {
	order := [3]int{0, 1, 2}
	r.Shuffle(3, func(i, k int) { order[i], order[k] = order[k], order[i] })
	for _, change := range order {
		switch change {
		case 0:
			if j.Brightness > 0 {
				brightness(m, factor(r, j.Brightness))
			}
		case 1:
			if j.Contrast > 0 {
				contrast(m, factor(r, j.Contrast))
			}
		case 2:
			if j.Saturation > 0 {
				saturation(m, factor(r, j.Saturation))
			}
		}
	}
}

// factor is uniform in [max(0, 1−reach), 1+reach].
func factor(r *rand.Rand, reach float64) float32 {
	lo := max(0, 1-reach)
	return float32(lo + (1+reach-lo)*r.Float64())
}

// brightness moves every value away from black.
func brightness(m *Image, f float32) { moveFrom(m, 0, f) }

// contrast moves every value away from the image's mean grey.
func contrast(m *Image, f float32) {
	var sum, n uint64
	if m.C == 1 {
		for _, p := range m.Pix {
			sum += uint64(p)
		}
		n = uint64(len(m.Pix))
	} else {
		for i := 0; i+2 < len(m.Pix); i += 3 {
			sum += uint64(luma(m.Pix[i], m.Pix[i+1], m.Pix[i+2]))
		}
		n = uint64(len(m.Pix) / 3)
	}
	moveFrom(m, uint8((2*sum+n)/(2*n)), f)
}

func moveFrom(m *Image, from uint8, f float32) {
	var lut [256]uint8
	for i := range lut {
		lut[i] = blend(from, uint8(i), f)
	}
	for i, p := range m.Pix {
		m.Pix[i] = lut[p]
	}
}

// saturation moves every pixel away from its own grey.
func saturation(m *Image, f float32) {
	if m.C == 1 {
		return
	}
	for i := 0; i+2 < len(m.Pix); i += 3 {
		p := m.Pix[i : i+3 : i+3]
		g := luma(p[0], p[1], p[2])
		p[0], p[1], p[2] = blend(g, p[0], f), blend(g, p[1], f), blend(g, p[2], f)
	}
}

// blend is from + f·(to−from), cut to 8 bits.
func blend(from, to uint8, f float32) uint8 {
	return clamp(int32(float32(from) + float32(f*float32(int32(to)-int32(from)))))
}
