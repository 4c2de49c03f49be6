package imaging

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
)

// Augment is the random part of training's preprocessing; the [Recipe] gives
// the rest. The zero value changes nothing: training then sees what
// evaluation sees.
type Augment struct {
	// RandomResizedCrop cuts a random part and resizes it to the recipe's
	// size, in place of the recipe's own resize and crop.
	RandomResizedCrop bool `yaml:"random_resized_crop,omitempty" json:"random_resized_crop,omitempty"`
	// Area and Aspect bound that part: its share of the image, and its width
	// over its height. Zero: 0.08–1 and 3/4–4/3.
	Area   [2]float64 `yaml:"area,omitempty" json:"area,omitzero"`
	Aspect [2]float64 `yaml:"aspect,omitempty" json:"aspect,omitzero"`
	// Interpolation of that resize. Empty: the recipe's. (The official SPOS
	// code trains with Pillow's and evaluates with OpenCV's.)
	Interpolation Interpolation `yaml:"interpolation,omitempty" json:"interpolation,omitempty"`
	// PadCrop pads with this many black pixels on every side and cuts the
	// recipe's size at a random place.
	PadCrop int `yaml:"pad_crop,omitempty" json:"pad_crop,omitempty"`
	// Flip is the probability of a horizontal mirror image.
	Flip float64 `yaml:"flip,omitempty" json:"flip,omitempty"`
	// ColorJitter changes brightness, contrast and saturation in random order.
	ColorJitter ColorJitter `yaml:"color_jitter,omitempty" json:"color_jitter,omitzero"`
	// Cutout sets a square of this side at a random place to the mean.
	Cutout int `yaml:"cutout,omitempty" json:"cutout,omitempty"`
}

// ColorJitter has the reach of each change: the factor is uniform in
// [max(0, 1−v), 1+v]. Zero: no change.
type ColorJitter struct {
	Brightness float64 `yaml:"brightness,omitempty" json:"brightness,omitempty"`
	Contrast   float64 `yaml:"contrast,omitempty" json:"contrast,omitempty"`
	Saturation float64 `yaml:"saturation,omitempty" json:"saturation,omitempty"`
}

// SPOSAugment is the training augmentation of SPOS on ImageNet, as its
// authors and mmrazor have it.
func SPOSAugment() Augment {
	return Augment{
		RandomResizedCrop: true, Flip: 0.5,
		ColorJitter: ColorJitter{Brightness: 0.4, Contrast: 0.4, Saturation: 0.4},
	}
}

// Validate reports the first field that makes no sense.
func (a Augment) Validate() error {
	area, aspect := a.bounds()
	j := a.ColorJitter
	switch {
	case a.RandomResizedCrop && a.PadCrop != 0:
		return errors.New("random_resized_crop, pad_crop: one or the other")
	case !(area[0] > 0 && area[0] <= area[1] && area[1] <= 1):
		return fmt.Errorf("area: %v is no range within 0..1", area)
	case !(aspect[0] > 0 && aspect[0] <= aspect[1] && aspect[1] <= 100):
		return fmt.Errorf("aspect: %v is no range within 0..100", aspect)
	case a.PadCrop < 0 || a.PadCrop > MaxSide:
		return fmt.Errorf("pad_crop: %d is outside 0..%d", a.PadCrop, MaxSide)
	case !(a.Flip >= 0 && a.Flip <= 1):
		return fmt.Errorf("flip: %v is no probability", a.Flip)
	case !inReach(j.Brightness) || !inReach(j.Contrast) || !inReach(j.Saturation):
		return fmt.Errorf("color_jitter: %+v is outside 0..10", j)
	case a.Cutout < 0 || a.Cutout > MaxSide:
		return fmt.Errorf("cutout: %d is outside 0..%d", a.Cutout, MaxSide)
	}
	if err := validInterpolation(a.Interpolation); err != nil {
		return fmt.Errorf("interpolation: %w", err)
	}
	return nil
}

func inReach(v float64) bool { return v >= 0 && v <= 10 } // false for NaN

func (a Augment) bounds() (area, aspect [2]float64) {
	area, aspect = a.Area, a.Aspect
	if area == [2]float64{} {
		area = [2]float64{0.08, 1}
	}
	if aspect == [2]float64{} {
		aspect = [2]float64{3. / 4, 4. / 3}
	}
	return area, aspect
}

// Apply writes a random variant of img to dst, as [Recipe.Apply] would the
// plain one. What it draws from r depends only on the augmentation and the
// image's size, so a seed gives the same variant on every machine. It panics
// on an invalid augmentation or recipe.
func (a Augment) Apply(r *rand.Rand, img *Image, rec Recipe, dst []float32) error {
	w, h, err := rec.target(img, dst)
	if err != nil {
		return err
	}
	if rec.color() == Gray {
		img = img.luma()
	}
	var v view
	p := placement{w: w, h: h}
	if a.RandomResizedCrop {
		x, y, cw, ch := a.part(r, img.W, img.H)
		f := or(a.Interpolation, or(rec.Interpolation, BilinearAntialias))
		v = resize(img.view().cut(x, y, cw, ch), w, h, f, 0, 0, w, h)
	} else {
		v = rec.fit(img, w, h)
	}
	if n := a.PadCrop; n > 0 {
		p.dx, p.dy = r.IntN(2*n+1)-n, r.IntN(2*n+1)-n
	}
	p.flip = a.Flip > 0 && r.Float64() < a.Flip
	if a.ColorJitter != (ColorJitter{}) {
		m := place(v, p)
		a.ColorJitter.apply(r, m)
		v, p.dx, p.dy = m.view(), 0, 0
	}
	rec.store(dst, v, p)
	if n := a.Cutout; n > 0 {
		cutout(r, dst, w, h, n)
	}
	return nil
}

// part draws the rectangle of a random resized crop: ten tries, then the
// largest centred one whose aspect is within bounds (torchvision's rule).
func (a Augment) part(r *rand.Rand, w, h int) (x, y, cw, ch int) {
	area, aspect := a.bounds()
	lo, hi := math.Log(aspect[0]), math.Log(aspect[1])
	for range 10 {
		target := float64(w*h) * (area[0] + (area[1]-area[0])*r.Float64())
		ratio := math.Exp(lo + (hi-lo)*r.Float64())
		cw = int(math.RoundToEven(math.Sqrt(target * ratio)))
		ch = int(math.RoundToEven(math.Sqrt(target / ratio)))
		if cw > 0 && cw <= w && ch > 0 && ch <= h {
			y = r.IntN(h - ch + 1)
			x = r.IntN(w - cw + 1)
			return x, y, cw, ch
		}
	}
	cw, ch = w, h
	if ratio := float64(w) / float64(h); ratio < aspect[0] {
		ch = min(h, max(1, int(math.RoundToEven(float64(w)/aspect[0]))))
	} else if ratio > aspect[1] {
		cw = min(w, max(1, int(math.RoundToEven(float64(h)*aspect[1]))))
	}
	return (w - cw) / 2, (h - ch) / 2, cw, ch
}

// place copies the pixels that p shows, not mirrored.
func place(v view, p placement) *Image {
	m := NewImage(p.w, p.h, v.c)
	x0, x1 := max(0, -p.dx), min(p.w, v.w-p.dx)
	for y := range p.h {
		if sy := y + p.dy; sy >= 0 && sy < v.h && x0 < x1 {
			copy(m.Pix[(y*p.w+x0)*v.c:(y*p.w+x1)*v.c], v.pix[sy*v.stride+(x0+p.dx)*v.c:])
		}
	}
	return m
}

// cutout zeroes a square around a random point, cut off at the edges.
func cutout(r *rand.Rand, dst []float32, w, h, side int) {
	x, y := r.IntN(w)-side/2, r.IntN(h)-side/2
	x0, x1, y0, y1 := max(x, 0), min(x+side, w), max(y, 0), min(y+side, h)
	for plane := 0; plane < len(dst); plane += w * h {
		for y := y0; y < y1; y++ {
			clear(dst[plane+y*w+x0 : plane+y*w+x1])
		}
	}
}
