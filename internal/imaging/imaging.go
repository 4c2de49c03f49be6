// Package imaging turns encoded images into network input: decoding, resizing,
// cropping, augmentation and normalisation. Training and serving use this one
// implementation, so a served network sees the pixels it was trained on. It
// knows no data set, file or network.
//
// What it promises about pixels:
//   - JPEG and PNG only, told apart by their first bytes, never by a name.
//   - Alpha is composited on black, 16 bits are cut to their high byte, CMYK
//     and YCCK become RGB, EXIF orientation and colour profiles are ignored,
//     as the usual training stacks ignore them.
//   - A truncated image is an error, not a half-grey picture.
//   - Size limits are checked on the header, before pixels are allocated.
package imaging

import (
	"errors"
	"fmt"
	"image"
	"image/png"
	"io"
)

// Errors that callers branch on. ErrTooLarge and ErrFormat wrap ErrImage: a
// caller that asks only whether the image is to blame asks for ErrImage.
var (
	ErrImage    = errors.New("bad image")
	ErrTooLarge = fmt.Errorf("%w: too large", ErrImage)
	ErrFormat   = fmt.Errorf("%w: unsupported format", ErrImage)
)

// Image is a decoded image: 8 bits a channel, interleaved, rows from the top.
// C is 1 (grey) or 3 (RGB); len(Pix) is W·H·C.
type Image struct {
	W, H, C int
	Pix     []uint8
}

// NewImage returns a black image.
func NewImage(w, h, c int) *Image {
	return &Image{W: w, H: h, C: c, Pix: make([]uint8, w*h*c)}
}

// EncodePNG writes the image as a PNG, from which [Decode] reads the same
// pixels.
func (m *Image) EncodePNG(w io.Writer) error {
	if err := m.check(); err != nil {
		return err
	}
	box := image.Rect(0, 0, m.W, m.H)
	if m.C == 1 {
		return png.Encode(w, &image.Gray{Pix: m.Pix, Stride: m.W, Rect: box})
	}
	out := image.NewRGBA(box)
	for i := range m.W * m.H {
		copy(out.Pix[4*i:], m.Pix[3*i:3*i+3])
		out.Pix[4*i+3] = 255
	}
	return png.Encode(w, out)
}

// check reports an image that breaks the promises of its type.
func (m *Image) check() error {
	if m.W < 1 || m.H < 1 || (m.C != 1 && m.C != 3) || len(m.Pix) != m.W*m.H*m.C {
		return fmt.Errorf("%w: %d bytes for %d×%d pixels of %d channels", ErrImage, len(m.Pix), m.W, m.H, m.C)
	}
	return nil
}

// rgb is the image with a channel for each colour, or the image itself if it
// has them.
func (m *Image) rgb() *Image {
	if m.C == 3 {
		return m
	}
	out := NewImage(m.W, m.H, 3)
	for i, p := range m.Pix {
		out.Pix[3*i], out.Pix[3*i+1], out.Pix[3*i+2] = p, p, p
	}
	return out
}

// luma is the grey version of an image, or the image itself if it is grey.
func (m *Image) luma() *Image {
	if m.C == 1 {
		return m
	}
	g := NewImage(m.W, m.H, 1)
	for i := range g.Pix {
		g.Pix[i] = luma(m.Pix[3*i], m.Pix[3*i+1], m.Pix[3*i+2])
	}
	return g
}

// luma is ITU-R 601 in 65536ths, rounded as Pillow's convert("L") does.
func luma(r, g, b uint8) uint8 {
	return uint8((19595*uint32(r) + 38470*uint32(g) + 7471*uint32(b) + 1<<15) >> 16)
}
