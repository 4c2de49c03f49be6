package imaging

import (
	"cmp"
	"errors"
	"fmt"
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
	// Fallback is that part where ten tries gave none within the image. Empty:
	// center.
	Fallback Fallback `yaml:"fallback,omitempty" json:"fallback,omitempty"`
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
	// Lighting adds the principal components of ImageNet's colours, each times
	// a normal coefficient of this deviation (AlexNet has 0.1). Grey inputs
	// have no colours to change.
	Lighting float64 `yaml:"lighting,omitempty" json:"lighting,omitempty"`
	// Cutout sets a square of this side at a random place to the mean.
	Cutout int `yaml:"cutout,omitempty" json:"cutout,omitempty"`
}

// ColorJitter has the reach of each change: the factor is uniform in
// [max(0, 1−v), 1+v]. Zero: no change.
type ColorJitter struct {
	Brightness float64 `yaml:"brightness,omitempty" json:"brightness,omitempty"`
	Contrast   float64 `yaml:"contrast,omitempty" json:"contrast,omitempty"`
	Saturation float64 `yaml:"saturation,omitempty" json:"saturation,omitempty"`
	// Arithmetic of the changes. Empty: pillow.
	Arithmetic Arithmetic `yaml:"arithmetic,omitempty" json:"arithmetic,omitempty"`
}

// Arithmetic is whose greys and roundings colour jitter follows.
type Arithmetic string

// The arithmetics.
const (
	// Pillow is torchvision's on Pillow images. Results equal its own.
	Pillow Arithmetic = "pillow"
	// OpenCV is mmcv's on OpenCV's images. Results equal those of OpenCV 5 on
	// x86.
	OpenCV Arithmetic = "opencv"
)

// Fallback is what a random resized crop shows after ten tries that did not
// fit.
type Fallback string

// The fallbacks.
const (
	Center Fallback = "center" // the largest centred part of an allowed aspect: torchvision, mmcls
	Pad    Fallback = "pad"    // the last try, at a random place, black beyond the image: AngleNAS
)

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
		return fmt.Errorf("color_jitter: %v, %v, %v: one is outside 0..10", j.Brightness, j.Contrast, j.Saturation)
	case cmp.Or(j.Arithmetic, Pillow) != Pillow && j.Arithmetic != OpenCV:
		return fmt.Errorf("color_jitter.arithmetic: %q is none of pillow, opencv", j.Arithmetic)
	case cmp.Or(a.Fallback, Center) != Center && a.Fallback != Pad:
		return fmt.Errorf("fallback: %q is none of center, pad", a.Fallback)
	case !inReach(a.Lighting):
		return fmt.Errorf("lighting: %v is outside 0..10", a.Lighting)
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
	a.render(a.draw(r, img.W, img.H, w, h), img, rec, dst)
	return nil
}

// render writes the variant v of img to dst. It is [Augment.Apply] without
// chance.
func (a Augment) render(v variant, img *Image, rec Recipe, dst []float32) {
	w, h := cmp.Or(rec.Width, img.W), cmp.Or(rec.Height, img.H)
	if rec.color() == Gray {
		img = img.luma()
	}
	var px view
	if a.RandomResizedCrop {
		f := cmp.Or(a.Interpolation, rec.Interpolation, BilinearAntialias)
		px = resize(img.view().part(v.part), w, h, f, 0, 0, w, h)
	} else {
		px = rec.fit(img, w, h)
	}
	p := placement{w: w, h: h, dx: v.dx, dy: v.dy, flip: v.flip}
	if v.recolors() {
		m := place(px, p)
		for _, c := range v.jitter {
			c.apply(m, a.ColorJitter.Arithmetic)
		}
		if v.light != [3]float64{} && rec.Channels() == 3 {
			m = m.rgb()
			lighting(m, v.light)
		}
		px, p.dx, p.dy = m.view(), 0, 0
	}
	rec.store(dst, px, p)
	if a.Cutout > 0 {
		cutout(dst, w, h, a.Cutout, v.cx, v.cy)
	}
}

// part is a part of v, with black where it reaches beyond.
func (v view) part(r rect) view {
	if r.x >= 0 && r.y >= 0 && r.x+r.w <= v.w && r.y+r.h <= v.h {
		return v.cut(r.x, r.y, r.w, r.h)
	}
	return place(v, placement{w: r.w, h: r.h, dx: r.x, dy: r.y}).view()
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

// cutout zeroes a square around a point, cut off at the edges.
func cutout(dst []float32, w, h, side, cx, cy int) {
	x, y := cx-side/2, cy-side/2
	x0, x1, y0, y1 := max(x, 0), min(x+side, w), max(y, 0), min(y+side, h)
	for plane := 0; plane < len(dst); plane += w * h {
		for y := y0; y < y1; y++ {
			clear(dst[plane+y*w+x0 : plane+y*w+x1])
		}
	}
}
