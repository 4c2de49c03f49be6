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
	case *image.Gray16:
		dst := NewImage(w, h, 1)
		for y := range h {
			row := m.Pix[y*m.Stride:]
			for x := range w {
				dst.Pix[y*w+x] = row[2*x]
			}
		}
		return dst
	case *image.Paletted:
		return fromPaletted(m, w, h)
	}
	// CMYK and 16-bit colour. RGBA is premultiplied by alpha, which is what
	// compositing on black means.
	dst := NewImage(w, h, 3)
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
