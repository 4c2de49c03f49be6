package imaging

import (
	"errors"
	"fmt"
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
