package imaging

import (
	"math"
	"math/rand/v2"
)

// dice is what drawing a part needs of a [rand.Rand].
type dice interface {
	Float64() float64
	IntN(n int) int
}

// variant is every random decision about one image, drawn before any pixel is
// touched: the image and its variant determine the result.
type variant struct {
	part   rect // what a random resized crop shows; none without one
	dx, dy int  // where the crop of pad_crop starts
	flip   bool
	jitter [3]change  // in the order in which they apply
	light  [3]float64 // coefficients of the principal components
	cx, cy int        // centre of the cutout
}

// recolors reports whether the variant changes colours.
func (v variant) recolors() bool { return v.jitter != [3]change{} || v.light != [3]float64{} }

// rect is a part of an image, or reaches beyond it.
type rect struct{ x, y, w, h int }

// draw decides for an image of w×h pixels and an input of outW×outH. The order
// of its draws is what a seed means: new ones come after those before them.
func (a Augment) draw(r *rand.Rand, w, h, outW, outH int) variant {
	var v variant
	if a.RandomResizedCrop {
		v.part = a.drawPart(r, w, h)
	}
	if n := a.PadCrop; n > 0 {
		v.dx, v.dy = r.IntN(2*n+1)-n, r.IntN(2*n+1)-n
	}
	v.flip = a.Flip > 0 && r.Float64() < a.Flip
	v.jitter = a.ColorJitter.draw(r)
	if a.Lighting > 0 {
		for i := range v.light {
			v.light[i] = a.Lighting * r.NormFloat64()
		}
	}
	if a.Cutout > 0 {
		v.cx, v.cy = r.IntN(outW), r.IntN(outH)
	}
	return v
}

// drawPart draws a part of a w×h image: ten tries, then the fallback. With
// [Center] it is the rule of torchvision and mmcls, with [Pad] and square
// parts that of AngleNAS.
func (a Augment) drawPart(r dice, w, h int) rect {
	area, aspect := a.bounds()
	lo, hi := math.Log(aspect[0]), math.Log(aspect[1])
	pad := a.Fallback == Pad
	var p rect
	for range 10 {
		target := float64(w*h) * between(r, area[0], area[1])
		ratio := math.Exp(between(r, lo, hi))
		p.w = int(math.RoundToEven(math.Sqrt(target * ratio)))
		p.h = int(math.RoundToEven(math.Sqrt(target / ratio)))
		fits := p.w > 0 && p.w <= w && p.h > 0 && p.h <= h
		if fits || pad {
			p.y = drawOffset(r, h-p.h)
			p.x = drawOffset(r, w-p.w)
		}
		if fits {
			return p
		}
	}
	if pad {
		p.w, p.h = max(p.w, 1), max(p.h, 1)
		return p
	}
	p = rect{w: w, h: h}
	if ratio := float64(w) / float64(h); ratio < aspect[0] {
		p.h = min(h, max(1, int(math.RoundToEven(float64(w)/aspect[0]))))
	} else if ratio > aspect[1] {
		p.w = min(w, max(1, int(math.RoundToEven(float64(h)*aspect[1]))))
	}
	p.x, p.y = (w-p.w)/2, (h-p.h)/2
	return p
}

// drawOffset is uniform in 0..room, or in room..0 where there is none.
func drawOffset(r dice, room int) int {
	if room < 0 {
		return room + r.IntN(1-room)
	}
	return r.IntN(room + 1)
}

// between is uniform in [lo, hi). The product is rounded by itself, so that
// every machine draws the same.
func between(r dice, lo, hi float64) float64 {
	return lo + float64((hi-lo)*r.Float64())
}
