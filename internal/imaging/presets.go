package imaging

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// presets are the published pipelines, in the order in which they are listed.
var presets = []struct {
	name    string
	recipe  func() Recipe
	augment func() Augment
}{
	{"official", OfficialSPOS, OfficialSPOSAugment},
	{"mmrazor", MMRazor, MMRazorAugment},
	{"anglenas", AngleNAS, AngleNASAugment},
}

// Presets names the published pipelines that [Preset] knows.
func Presets() []string {
	names := make([]string, len(presets))
	for i, p := range presets {
		names[i] = p.name
	}
	return names
}

// Preset is a published pipeline by its name, for inputs of 3×224×224: what
// evaluation does, and what training adds. See [Recipe.Sized] for inputs of
// another size.
func Preset(name string) (Recipe, Augment, error) {
	for _, p := range presets {
		if p.name == name {
			return p.recipe(), p.augment(), nil
		}
	}
	return Recipe{}, Augment{}, fmt.Errorf("%q is none of %s", name, strings.Join(Presets(), ", "))
}

// OfficialSPOS is the evaluation of the authors' SinglePathOneShot code
// (src/Supernet/train.py: OpencvResize, CenterCrop, ToBGRTensor): short side
// 256 by OpenCV, centre 224×224, BGR in 0..255, not normalised.
func OfficialSPOS() Recipe {
	return Recipe{
		Color: BGR, Height: 224, Width: 224, ShortSide: 256, LongSide: Nearest,
		Interpolation: Bilinear, Range: Bytes,
	}
}

// OfficialSPOSAugment is the training of the same code: torchvision's
// RandomResizedCrop, ColorJitter and flip, all of them on Pillow images. That
// is, it resizes with antialiasing and evaluates without.
func OfficialSPOSAugment() Augment {
	a := SPOSAugment()
	a.Interpolation = BilinearAntialias
	return a
}

// SPOSAugment is what the authors' and mmrazor's training have in common: the
// part, the flip and the reach of the jitter, with the recipe's interpolation
// and Pillow's arithmetic.
func SPOSAugment() Augment {
	return Augment{
		RandomResizedCrop: true, Flip: 0.5,
		ColorJitter: ColorJitter{Brightness: 0.4, Contrast: 0.4, Saturation: 0.4},
	}
}

// MMRazor is the evaluation of mmrazor, in its 0.x branch (configs/_base_/
// datasets/mmcls/imagenet_bs128_colorjittor.py: Resize, CenterCrop, Normalize
// of mmcls 0.x) and in 1.x (configs/_base_/settings/imagenet_bs1024_spos.py:
// ResizeEdge, CenterCrop and the preprocessor of mmcls 1.x): short side 256 by
// OpenCV, centre 224×224, RGB with the ImageNet mean and deviation. Both
// round the longer side down; only the last bits of normalisation differ.
//
// The branch's check of AngleNAS's weights (configs/nas/spos/
// spos_mobilenet_for_check_ckpt_from_anglenas.py) is this recipe with Color
// BGR and without Mean and Std: AngleNAS's own but for the rounding.
func MMRazor() Recipe {
	return Recipe{
		Color: RGB, Height: 224, Width: 224, ShortSide: 256, LongSide: Floor,
		Interpolation: Bilinear, Range: Bytes,
		Mean: []float32{123.675, 116.28, 103.53}, Std: []float32{58.395, 57.12, 57.375},
	}
}

// MMRazorAugment is the training of both branches: RandomResizedCrop,
// ColorJitter and RandomFlip of mmcls on OpenCV's images. (mmpretrain, which
// mmcls became, has had Pillow's arithmetic as its default since.) mmcls
// obeys the EXIF orientation of a photograph, which [Decode] ignores.
func MMRazorAugment() Augment {
	a := SPOSAugment()
	a.Interpolation, a.ColorJitter.Arithmetic = Bilinear, OpenCV
	return a
}

// AngleNAS is the evaluation of AngleNAS (utils/imagenet.py), a copy of the
// official one.
func AngleNAS() Recipe { return OfficialSPOS() }

// AngleNASAugment is the training of AngleNAS in its ImageNet code
// (utils/imagenet.py: RandomResizedCrop, LighteningJitter): a square part,
// black where it reaches beyond the image, PCA lighting and no jitter.
func AngleNASAugment() Augment {
	return Augment{
		RandomResizedCrop: true, Aspect: [2]float64{1, 1}, Fallback: Pad,
		Interpolation: Bilinear, Lighting: 0.1, Flip: 0.5,
	}
}

// Sized is the recipe for an input of another size. ShortSide grows or
// shrinks with it, so that evaluation shows the same share of an image. A
// recipe without a size gets this one.
func (r Recipe) Sized(height, width int) Recipe {
	if r.ShortSide > 0 {
		share := float64(r.ShortSide) / float64(max(r.Height, r.Width))
		r.ShortSide = int(math.Round(share * float64(max(height, width))))
	}
	r.Height, r.Width = height, width
	r.Mean, r.Std = slices.Clone(r.Mean), slices.Clone(r.Std)
	return r
}
