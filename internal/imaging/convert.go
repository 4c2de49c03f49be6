package imaging

import (
	"image"
	"image/color"
)

// convert turns what a decoder returned into grey or RGB bytes.
func convert(m image.Image) *Image {
	b := m.Bounds()
	w, h := b.Dx(), b.Dy()
	switch m := m.(type) {
	case *image.Gray:
		return fromGray(m, w, h)
	case *image.YCbCr:
		return fromYCbCr(m, w, h)
	case *image.RGBA: // of PNG: opaque; of JPEG: stored as RGB
		return fromRGBA(m, w, h)
	case *image.NRGBA:
		return fromNRGBA(m, w, h)
	case *image.Paletted:
		return fromPaletted(m, w, h)
	case *image.Gray16:
		return fromBytes(m.Pix, m.Stride, 2, w, h, 1, func(d, s []uint8) { d[0] = s[0] })
	case *image.RGBA64: // of PNG: opaque
		return fromBytes(m.Pix, m.Stride, 8, w, h, 3, func(d, s []uint8) { d[0], d[1], d[2] = s[0], s[2], s[4] })
	case *image.NRGBA64:
		return fromBytes(m.Pix, m.Stride, 8, w, h, 3, func(d, s []uint8) {
			a := uint32(s[6])<<8 | uint32(s[7])
			for c := range 3 {
				d[c] = uint8((uint32(s[2*c])<<8 | uint32(s[2*c+1])) * a / 0xffff >> 8)
			}
		})
	case *image.CMYK:
		return fromBytes(m.Pix, m.Stride, 4, w, h, 3, func(d, s []uint8) {
			d[0], d[1], d[2] = color.CMYKToRGB(s[0], s[1], s[2], s[3])
		})
	}
	return fromAny(m, b)
}

// fromBytes converts pixels of size bytes to c channels, one by one.
func fromBytes(pix []uint8, stride, size, w, h, c int, pixel func(dst, src []uint8)) *Image {
	dst := NewImage(w, h, c)
	for y := range h {
		for x := range w {
			pixel(dst.Pix[(y*w+x)*c:][:c], pix[y*stride+x*size:][:size])
		}
	}
	return dst
}

// fromAny is for what a future decoder may return. RGBA is premultiplied by
// alpha, which is what compositing on black means.
func fromAny(m image.Image, b image.Rectangle) *Image {
	dst := NewImage(b.Dx(), b.Dy(), 3)
	i := 0
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			r, g, bl, _ := m.At(x, y).RGBA()
			dst.Pix[i], dst.Pix[i+1], dst.Pix[i+2] = uint8(r>>8), uint8(g>>8), uint8(bl>>8)
			i += 3
		}
	}
	return dst
}

func fromGray(m *image.Gray, w, h int) *Image {
	if m.Stride == w && len(m.Pix) == w*h {
		return &Image{W: w, H: h, C: 1, Pix: m.Pix}
	}
	dst := NewImage(w, h, 1)
	for y := range h {
		copy(dst.Pix[y*w:(y+1)*w], m.Pix[y*m.Stride:])
	}
	return dst
}

func fromRGBA(m *image.RGBA, w, h int) *Image {
	dst := NewImage(w, h, 3)
	for y := range h {
		src, out := m.Pix[y*m.Stride:][:4*w], dst.Pix[3*y*w:][:3*w]
		for x := range w {
			copy(out[3*x:3*x+3], src[4*x:4*x+3])
		}
	}
	return dst
}

func fromNRGBA(m *image.NRGBA, w, h int) *Image {
	dst := NewImage(w, h, 3)
	for y := range h {
		src, out := m.Pix[y*m.Stride:][:4*w], dst.Pix[3*y*w:][:3*w]
		for x := range w {
			a := uint32(src[4*x+3])
			for c := range 3 {
				out[3*x+c] = uint8((uint32(src[4*x+c])*a + 127) / 255)
			}
		}
	}
	return dst
}

func fromPaletted(m *image.Paletted, w, h int) *Image {
	// An index beyond the palette is what a broken file may hold: black, as
	// the PNG specification lets a decoder choose.
	var lut [256][3]uint8
	for i, c := range m.Palette {
		n := color.NRGBAModel.Convert(c).(color.NRGBA)
		for j, v := range [3]uint8{n.R, n.G, n.B} {
			lut[i][j] = uint8((uint32(v)*uint32(n.A) + 127) / 255)
		}
	}
	dst := NewImage(w, h, 3)
	for y := range h {
		row, out := m.Pix[y*m.Stride:][:w], dst.Pix[3*y*w:][:3*w]
		for x, p := range row {
			copy(out[3*x:3*x+3], lut[p][:])
		}
	}
	return dst
}
