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

import "errors"

// Errors that callers branch on. ErrTooLarge and ErrFormat wrap ErrImage: a
// caller that asks only whether the image is to blame asks for ErrImage.
var (
	ErrImage    = errors.New("bad image")
	ErrTooLarge = wrapped("image too large")
	ErrFormat   = wrapped("unsupported image format")
)

type kind struct{ msg string }

func wrapped(msg string) error    { return &kind{msg} }
func (k *kind) Error() string     { return k.msg }
func (k *kind) Is(err error) bool { return err == ErrImage } //nolint:errorlint // Is compares identities

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
