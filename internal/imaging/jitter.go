package imaging

import (
	"math"
	"math/rand/v2"
)

// change is one step of colour jitter.
type change struct {
	kind   changeKind
	factor float64
}

type changeKind uint8

const (
	keep changeKind = iota
	brightness
	contrast
	saturation
)

// draw decides on the order of the changes and on their factors.
func (j ColorJitter) draw(r *rand.Rand) (changes [3]change) {
	if j.Brightness == 0 && j.Contrast == 0 && j.Saturation == 0 {
		return changes
	}
	order := [3]changeKind{brightness, contrast, saturation}
	r.Shuffle(3, func(i, k int) { order[i], order[k] = order[k], order[i] })
	reach := [...]float64{brightness: j.Brightness, contrast: j.Contrast, saturation: j.Saturation}
	for i, kind := range order {
		if v := reach[kind]; v > 0 {
			changes[i] = change{kind, between(r, max(0, 1-v), 1+v)}
		}
	}
	return changes
}

// apply changes the image in place. Every change is cut to 8 bits.
func (c change) apply(m *Image, a Arithmetic) {
	opencv := a == OpenCV
	switch c.kind {
	case brightness: // moves every value away from black
		c.moveFrom(m, 0, opencv)
	case contrast: // moves every value away from the mean grey
		c.moveFrom(m, meanGray(m, opencv), opencv)
	case saturation: // moves every pixel away from its own grey
		switch {
		case m.C == 1:
		case opencv:
			c.saturateOpenCV(m)
		default:
			c.saturatePillow(m)
		}
	}
}

// meanGray rounds halves up in Pillow (ImageEnhance.Contrast) and to even in
// mmcv (adjust_contrast).
func meanGray(m *Image, opencv bool) uint8 {
	sum, n := sumGray(m, opencv)
	if opencv {
		return uint8(math.RoundToEven(float64(sum) / float64(n)))
	}
	return uint8((2*sum + n) / (2 * n))
}

func sumGray(m *Image, opencv bool) (sum, n uint64) {
	if m.C == 1 {
		for _, p := range m.Pix {
			sum += uint64(p)
		}
		return sum, uint64(len(m.Pix))
	}
	for i := 0; i+2 < len(m.Pix); i += 3 {
		p := m.Pix[i : i+3 : i+3]
		if opencv {
			sum += uint64(lumaOpenCV(p[0], p[1], p[2]))
		} else {
			sum += uint64(luma(p[0], p[1], p[2]))
		}
	}
	return sum, uint64(len(m.Pix) / 3)
}

// lumaOpenCV is ITU-R 601 in 32768ths, as OpenCV's cvtColor has it.
func lumaOpenCV(r, g, b uint8) uint8 {
	return uint8((9798*uint32(r) + 19235*uint32(g) + 3735*uint32(b) + 1<<14) >> 15)
}

func (c change) moveFrom(m *Image, from uint8, opencv bool) {
	var lut [256]uint8
	for i := range lut {
		if opencv {
			lut[i] = uint8(min(max(c.weigh(uint8(i), from), 0), 255))
		} else {
			lut[i] = blend(from, uint8(i), float32(c.factor))
		}
	}
	for i, p := range m.Pix {
		m.Pix[i] = lut[p]
	}
}

// blend is from + f·(to−from), rounded down to 8 bits (Pillow's Blend.c).
func blend(from, to uint8, f float32) uint8 {
	return clamp(int32(float32(from) + float32(f*float32(int32(to)-int32(from)))))
}

// weigh is p·f + from·(1−f) in OpenCV's addWeighted, whose multiply-add
// rounds the first product with the sum. (float64 holds both exactly.) mmcv
// rounds it down where it blends with black or the mean grey, so that a pixel
// that equals the grey may come out a level below, and OpenCV to the nearest
// where mmcv blends bytes with their own grey.
func (c change) weigh(p, from uint8) float32 {
	return float32(float64(p)*float64(float32(c.factor)) + c.rest(from))
}

func (c change) rest(from uint8) float64 {
	return float64(float32(float32(from) * float32(1-c.factor)))
}

func (c change) saturatePillow(m *Image) {
	f := float32(c.factor)
	for i := 0; i+2 < len(m.Pix); i += 3 {
		p := m.Pix[i : i+3 : i+3]
		g := luma(p[0], p[1], p[2])
		p[0], p[1], p[2] = blend(g, p[0], f), blend(g, p[1], f), blend(g, p[2], f)
	}
}

func (c change) saturateOpenCV(m *Image) {
	var product, rest [256]float64
	for i := range product {
		product[i], rest[i] = float64(i)*float64(float32(c.factor)), c.rest(uint8(i))
	}
	// Adding and taking away 1.5·2²³ rounds a float32 to a whole number.
	const whole = 3 << 22
	for i := 0; i+2 < len(m.Pix); i += 3 {
		p := m.Pix[i : i+3 : i+3]
		g := rest[lumaOpenCV(p[0], p[1], p[2])]
		for k, v := range p {
			p[k] = clamp(int32(float32(float32(product[v]+g)+whole) - whole))
		}
	}
}
