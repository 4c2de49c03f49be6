package imaging

import (
	"cmp"
	"fmt"
	"math"
)

// Apply writes the network's input for img to dst: Channels×Height×Width
// values, row-major. The recipe must be valid; img is not changed.
func (r Recipe) Apply(img *Image, dst []float32) error {
	w, h, err := r.target(img, dst)
	if err != nil {
		return err
	}
	if r.color() == Gray {
		img = img.luma()
	}
	r.store(dst, r.fit(img, w, h), placement{w: w, h: h})
	return nil
}

// target is the input's size for img, checked against dst.
func (r Recipe) target(img *Image, dst []float32) (w, h int, err error) {
	if err := img.check(); err != nil {
		return 0, 0, err
	}
	w, h = r.Width, r.Height
	if h == 0 {
		w, h = img.W, img.H
	}
	if want := r.Channels() * w * h; len(dst) != want {
		return 0, 0, fmt.Errorf("imaging: %d×%d×%d input needs %d values, not %d", r.Channels(), h, w, want, len(dst))
	}
	return w, h, nil
}

// fit resizes and crops as evaluation does.
func (r Recipe) fit(img *Image, w, h int) view {
	f := cmp.Or(r.Interpolation, BilinearAntialias)
	if r.ShortSide == 0 {
		return resize(img.view(), w, h, f, 0, 0, w, h)
	}
	fw, fh := r.scaled(img.W, img.H)
	// Python's round, which the reference crops use, rounds halves to even.
	x := int(math.RoundToEven(float64(fw-w) / 2))
	y := int(math.RoundToEven(float64(fh-h) / 2))
	return resize(img.view(), fw, fh, f, x, y, w, h)
}

// scaled is the size of a w×h image after its shorter side became ShortSide.
func (r Recipe) scaled(w, h int) (int, int) {
	if w <= h {
		return r.ShortSide, r.longer(h, w)
	}
	return r.longer(w, h), r.ShortSide
}

func (r Recipe) longer(long, short int) int {
	if r.LongSide == Nearest {
		return int(float64(float64(r.ShortSide)/float64(short)*float64(long)) + 0.5)
	}
	return r.ShortSide * long / short
}

// placement says where the pixels of a view go: output (x, y) shows pixel
// (x+dx, y+dy) of the view, or black where there is none, and is then
// mirrored.
type placement struct {
	w, h, dx, dy int
	flip         bool
}

// affine is the factor and the offset of normalisation for channel c.
func (r Recipe) affine(c int) (scale, shift float32) {
	mean, std := at(r.Mean, c, 0), at(r.Std, c, 1)
	s := 1 / 255.
	if r.Range == Bytes {
		s = 1
	}
	return float32(s / std), float32(-mean / std)
}

func at(v []float32, c int, def float64) float64 {
	switch len(v) {
	case 0:
		return def
	case 1:
		return float64(v[0])
	default:
		return float64(v[c])
	}
}

// store normalises the pixels of v into the planes of dst.
func (r Recipe) store(dst []float32, v view, p placement) {
	plane := p.w * p.h
	x0, x1 := max(0, -p.dx), min(p.w, v.w-p.dx) // columns that show a pixel
	for k := range r.Channels() {
		c := k
		switch {
		case v.c == 1:
			c = 0
		case r.color() == BGR:
			c = 2 - k
		}
		scale, shift := r.affine(k)
		for y := range p.h {
			row := dst[k*plane+y*p.w:][:p.w]
			sy := y + p.dy
			if sy < 0 || sy >= v.h || x0 >= x1 {
				fill(row, shift)
				continue
			}
			fill(row[:x0], shift)
			fill(row[x1:], shift)
			storeRow(row[x0:x1], v.pix[sy*v.stride+(x0+p.dx)*v.c+c:], v.c, scale, shift)
			if p.flip {
				mirror(row)
			}
		}
	}
}

// storeRow normalises one channel. The product is rounded by itself, so that
// no machine fuses it and every machine trains on the same numbers.
func storeRow(out []float32, src []uint8, c int, scale, shift float32) {
	if c == 1 {
		for i, b := range src[:len(out)] {
			out[i] = float32(float32(b)*scale) + shift
		}
		return
	}
	for i := range out {
		out[i] = float32(float32(src[3*i])*scale) + shift
	}
}

func fill(row []float32, v float32) {
	for i := range row {
		row[i] = v
	}
}

func mirror(row []float32) {
	for i, j := 0, len(row)-1; i < j; i, j = i+1, j-1 {
		row[i], row[j] = row[j], row[i]
	}
}
