package imaging

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"

	"spos/internal/arch"
)

// Color is the order of the channels that a network reads.
type Color string

// The colours. Gray is the ITU-R 601 luma in Pillow's integer arithmetic.
const (
	RGB  Color = "rgb"
	BGR  Color = "bgr"
	Gray Color = "gray"
)

// Interpolation is how an image is resized.
type Interpolation string

// The interpolations. They differ only when an image shrinks, and there by
// much: a network should be served with the one it was trained with.
const (
	// BilinearAntialias widens the triangle with the scale, as Pillow does.
	// Results equal Pillow's.
	BilinearAntialias Interpolation = "bilinear_antialias"
	// Bilinear reads the four nearest pixels whatever the scale, as OpenCV's
	// INTER_LINEAR does. Results equal those of OpenCV 5 on x86.
	Bilinear Interpolation = "bilinear"
)

// Rounding says how the longer side follows from the shorter one.
type Rounding string

// The roundings.
const (
	Floor   Rounding = "floor"   // int(short·long/shorter): torchvision, mmrazor 1.x
	Nearest Rounding = "nearest" // int(short/shorter·long + ½): the official SPOS code
)

// Range is the scale of a pixel before Mean and Std apply.
type Range string

// The ranges.
const (
	Unit  Range = "0-1"
	Bytes Range = "0-255"
)

// MaxSide bounds the sides that a [Recipe] may ask for.
const MaxSide = 8192

// Recipe is a network's preprocessing as data: how a decoded image becomes
// its input. It is written in configurations, stored in exported models and
// obeyed by the server. The zero value keeps the image's size and scales RGB
// to 0..1.
type Recipe struct {
	// Color is the channel order of the input. Empty: rgb.
	Color Color `yaml:"color,omitempty" json:"color,omitempty"`
	// Height and Width are the input's size. Both zero: the image's own size.
	Height int `yaml:"height,omitempty" json:"height,omitempty"`
	Width  int `yaml:"width,omitempty" json:"width,omitempty"`
	// ShortSide resizes the shorter side to this many pixels, keeping the
	// aspect ratio, and then cuts Height×Width from the centre. Zero: the
	// image is resized to Height×Width, whatever its aspect.
	ShortSide int `yaml:"short_side,omitempty" json:"short_side,omitempty"`
	// LongSide rounds the other side after ShortSide. Empty: floor.
	LongSide Rounding `yaml:"long_side,omitempty" json:"long_side,omitempty"`
	// Interpolation is used by every resize. Empty: bilinear_antialias.
	Interpolation Interpolation `yaml:"interpolation,omitempty" json:"interpolation,omitempty"`
	// Range scales pixels before Mean and Std. Empty: 0-1.
	Range Range `yaml:"range,omitempty" json:"range,omitempty"`
	// Mean and Std normalise to (x−mean)/std, in Range's units and in the
	// order of Color: one value a channel, or one for all. Empty: 0 and 1.
	Mean []float32 `yaml:"mean,omitempty" json:"mean,omitempty"`
	Std  []float32 `yaml:"std,omitempty" json:"std,omitempty"`
}

// ParseRecipe decodes and validates the JSON form. An unknown field is an
// error: a recipe that is obeyed in part gives wrong answers in silence.
func ParseRecipe(data []byte) (Recipe, error) {
	var r Recipe
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return Recipe{}, fmt.Errorf("preprocessing recipe: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Recipe{}, errors.New("preprocessing recipe: more after the JSON object")
	}
	if err := r.Validate(); err != nil {
		return Recipe{}, fmt.Errorf("preprocessing recipe: %w", err)
	}
	return r, nil
}

// Explicit is the recipe with its defaults written out: what a model file
// stores, so that it means the same whatever the defaults become.
func (r Recipe) Explicit() Recipe {
	r.Color = r.color()
	r.Interpolation = cmp.Or(r.Interpolation, BilinearAntialias)
	r.LongSide = cmp.Or(r.LongSide, Floor)
	r.Range = cmp.Or(r.Range, Unit)
	c := r.Channels()
	r.Mean, r.Std = spread(r.Mean, c, 0), spread(r.Std, c, 1)
	return r
}

// Channels is the number of channels of the input: 1 or 3.
func (r Recipe) Channels() int {
	if r.color() == Gray {
		return 1
	}
	return 3
}

// Shape is the input's shape. Height and width are zero where the recipe
// leaves them to the image.
func (r Recipe) Shape() arch.Shape {
	return arch.Shape{C: r.Channels(), H: r.Height, W: r.Width}
}

// Validate reports the first field that makes no sense.
func (r Recipe) Validate() error {
	switch {
	case r.color() != RGB && r.color() != BGR && r.color() != Gray:
		return fmt.Errorf("color: %q is none of rgb, bgr, gray", r.Color)
	case r.Height < 0 || r.Width < 0 || r.Height > MaxSide || r.Width > MaxSide:
		return fmt.Errorf("height, width: %d×%d is outside 1..%d", r.Height, r.Width, MaxSide)
	case (r.Height == 0) != (r.Width == 0):
		return fmt.Errorf("height, width: %d×%d: give both or neither", r.Height, r.Width)
	case r.ShortSide < 0 || r.ShortSide > MaxSide:
		return fmt.Errorf("short_side: %d is outside 0..%d", r.ShortSide, MaxSide)
	case r.ShortSide > 0 && r.Height == 0:
		return errors.New("short_side: needs height and width, the crop taken after it")
	case r.ShortSide > 0 && r.ShortSide < max(r.Height, r.Width):
		return fmt.Errorf("short_side: %d is smaller than the crop %d×%d", r.ShortSide, r.Height, r.Width)
	}
	if v := cmp.Or(r.LongSide, Floor); v != Floor && v != Nearest {
		return fmt.Errorf("long_side: %q is none of floor, nearest", v)
	}
	if err := validInterpolation(r.Interpolation); err != nil {
		return fmt.Errorf("interpolation: %w", err)
	}
	if v := cmp.Or(r.Range, Unit); v != Unit && v != Bytes {
		return fmt.Errorf("range: %q is none of 0-1, 0-255", v)
	}
	return r.validMoments()
}

func (r Recipe) validMoments() error {
	c := r.Channels()
	if err := validMoment(r.Mean, c); err != nil {
		return fmt.Errorf("mean: %w", err)
	}
	if err := validMoment(r.Std, c); err != nil {
		return fmt.Errorf("std: %w", err)
	}
	for _, x := range r.Std {
		if x <= 0 {
			return fmt.Errorf("std: %v is not positive", x)
		}
	}
	return nil
}

func validMoment(v []float32, c int) error {
	if n := len(v); n != 0 && n != 1 && n != c {
		return fmt.Errorf("%d values for %d channels", n, c)
	}
	for _, x := range v {
		if math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) {
			return fmt.Errorf("%v is no finite number", x)
		}
	}
	return nil
}

func validInterpolation(v Interpolation) error {
	if v = cmp.Or(v, BilinearAntialias); v != Bilinear && v != BilinearAntialias {
		return fmt.Errorf("%q is none of bilinear, bilinear_antialias", v)
	}
	return nil
}

func (r Recipe) color() Color { return cmp.Or(r.Color, RGB) }

// spread gives a value to each of c channels.
func spread(v []float32, c int, def float32) []float32 {
	out := make([]float32, c)
	for i := range out {
		switch len(v) {
		case 0:
			out[i] = def
		case 1:
			out[i] = v[0]
		default:
			out[i] = v[i]
		}
	}
	return out
}
