package imaging

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"image/png"
)

// Limits bound what [Decode] accepts. Zero fields take the default.
type Limits struct {
	Bytes  int64 // encoded size. Default: 16 MiB
	Pixels int64 // width × height. Default: 40 million
	Side   int   // width and height each. Default: 16384
}

func (l Limits) withDefaults() Limits {
	if l.Bytes == 0 {
		l.Bytes = 16 << 20
	}
	if l.Pixels == 0 {
		l.Pixels = 40_000_000
	}
	if l.Side == 0 {
		l.Side = 16384
	}
	return l
}

// A format is one decoder. A faster one (libjpeg-turbo, say) takes the place
// of the standard library's here and nowhere else.
type format struct {
	name   string
	magic  string
	config func(data []byte) (image.Config, error)
	decode func(data []byte) (image.Image, error)
	// pixelsPerByte is the most pixels that one byte of this format can
	// stand for. A header that claims more belongs to a truncated or hostile
	// file, and is refused before its pixels are allocated.
	pixelsPerByte int64
	// check refuses what would cost too much, and says how many bytes of
	// memory decoding takes for each pixel.
	check func(data []byte, c image.Config) (perPixel int64, err error)
}

var formats = [...]format{
	{
		name: "jpeg", magic: "\xff\xd8\xff",
		config: func(b []byte) (image.Config, error) { return jpeg.DecodeConfig(bytes.NewReader(b)) },
		decode: func(b []byte) (image.Image, error) { return jpeg.Decode(bytes.NewReader(b)) },
		// A block of 64 pixels takes at least one bit.
		pixelsPerByte: 64 * 8,
		check:         checkJPEG,
	},
	{
		name: "png", magic: "\x89PNG\r\n\x1a\n",
		config: func(b []byte) (image.Config, error) { return png.DecodeConfig(bytes.NewReader(b)) },
		decode: func(b []byte) (image.Image, error) { return png.Decode(bytes.NewReader(b)) },
		// Deflate expands 1032 times at most; a pixel takes at least one bit.
		pixelsPerByte: 1032 * 8,
		check:         checkPNG,
	},
}

// Decode reads one JPEG or PNG: [Probe], and then the pixels.
func Decode(data []byte, limits Limits) (*Image, error) {
	e, err := Probe(data, limits)
	if err != nil {
		return nil, err
	}
	return e.Decode()
}

// Encoded is an image whose header has passed the limits and whose pixels are
// still to be decoded.
type Encoded struct {
	W, H int
	// Memory bounds the bytes that decoding allocates, the result included.
	Memory int64

	data   []byte
	format *format
}

// Probe reads the header of a JPEG or PNG, which takes microseconds. Every
// error wraps [ErrImage]; one about the limits wraps [ErrTooLarge], one about
// a format that is not read wraps [ErrFormat]. Nothing of the claimed size is
// allocated. The data must not change until the image is decoded.
func Probe(data []byte, limits Limits) (Encoded, error) {
	f, c, err := probe(data, limits)
	if err != nil {
		return Encoded{}, err
	}
	perPixel, err := f.check(data, c)
	if err != nil {
		return Encoded{}, err
	}
	const result, tables, block = 3, 256 << 10, 32
	padded := int64((c.Width+block-1)&^(block-1)) * int64((c.Height+block-1)&^(block-1))
	return Encoded{W: c.Width, H: c.Height, Memory: padded*(perPixel+result) + tables, data: data, format: f}, nil
}

// Decode reads the pixels. Every error wraps [ErrImage]. Bytes after the
// image's end are ignored, and of an animated PNG the default image is read.
func (e Encoded) Decode() (*Image, error) {
	m, err := e.format.safely(e.data)
	if err != nil {
		return nil, e.format.fail(err)
	}
	return convert(m), nil
}

func probe(data []byte, limits Limits) (*format, image.Config, error) {
	limits = limits.withDefaults()
	if n := int64(len(data)); n > limits.Bytes {
		return nil, image.Config{}, fmt.Errorf("%w: %d bytes, limit %d", ErrTooLarge, n, limits.Bytes)
	}
	f := sniff(data)
	if f == nil {
		return nil, image.Config{}, fmt.Errorf("%w: %s", ErrFormat, describe(data))
	}
	c, err := f.config(data)
	if err != nil {
		return nil, image.Config{}, f.fail(err)
	}
	pixels := int64(c.Width) * int64(c.Height)
	switch {
	case c.Width < 1 || c.Height < 1:
		err = fmt.Errorf("%w: %s of %d×%d pixels", ErrImage, f.name, c.Width, c.Height)
	case c.Width > limits.Side || c.Height > limits.Side || pixels > limits.Pixels:
		err = fmt.Errorf("%w: %s of %d×%d pixels, limit %d and %d a side",
			ErrTooLarge, f.name, c.Width, c.Height, limits.Pixels, limits.Side)
	case pixels > (int64(len(data))+1)*f.pixelsPerByte:
		err = fmt.Errorf("%w: %d bytes cannot hold a %s of %d×%d pixels: truncated?",
			ErrImage, len(data), f.name, c.Width, c.Height)
	}
	return f, c, err
}

func sniff(data []byte) *format {
	for i := range formats {
		if bytes.HasPrefix(data, []byte(formats[i].magic)) {
			return &formats[i]
		}
	}
	return nil
}

// describe says what a file that is no JPEG or PNG starts with.
func describe(data []byte) string {
	if len(data) == 0 {
		return "no bytes at all"
	}
	return fmt.Sprintf("starts with %q, neither JPEG nor PNG", data[:min(len(data), 8)])
}

// safely decodes, and turns a panic of the decoder into an error: the bytes
// come from anyone.
func (f *format) safely(data []byte) (m image.Image, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("decoder panicked: %v", p)
		}
	}()
	return f.decode(data)
}

func (f *format) fail(err error) error {
	if _, ok := errors.AsType[jpeg.UnsupportedError](err); ok {
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if _, ok := errors.AsType[png.UnsupportedError](err); ok {
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return fmt.Errorf("%w: %s: %w", ErrImage, f.name, err)
}
