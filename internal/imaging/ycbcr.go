package imaging

import "image"

// fromYCbCr converts a JPEG's planes to RGB. Chroma is upsampled with the
// triangle filter and converted in the integer arithmetic that libjpeg uses
// by default (jdsample.c, jdcolor.c): networks are trained on pixels decoded
// by it, and nearest-neighbour chroma, which image/jpeg's own At gives, is off
// by tens of levels at coloured edges.
func fromYCbCr(m *image.YCbCr, w, h int) *Image {
	dst := NewImage(w, h, 3)
	up := upsampler{
		hs: 1, vs: 1, cw: w, ch: h, stride: m.CStride,
		sum: make([]int32, w+2),
	}
	switch m.SubsampleRatio {
	case image.YCbCrSubsampleRatio444: // nothing to do
	case image.YCbCrSubsampleRatio422:
		up.hs = 2
	case image.YCbCrSubsampleRatio420:
		up.hs, up.vs = 2, 2
	case image.YCbCrSubsampleRatio440:
		up.vs = 2
	case image.YCbCrSubsampleRatio411:
		up.hs = 4
	case image.YCbCrSubsampleRatio410:
		up.hs, up.vs = 4, 2
	}
	up.cw, up.ch = (w+up.hs-1)/up.hs, (h+up.vs-1)/up.vs
	cb, cr := make([]uint8, w+up.hs), make([]uint8, w+up.hs)
	for y := range h {
		up.row(cb, m.Cb, y)
		up.row(cr, m.Cr, y)
		rgbRow(dst.Pix[3*y*w:3*(y+1)*w], m.Y[y*m.YStride:][:w], cb[:w], cr[:w])
	}
	return dst
}

// upsampler makes full rows out of a chroma plane of cw×ch samples.
type upsampler struct {
	hs, vs, cw, ch, stride int
	sum                    []int32
}

// row writes row y of the plane at full width, and up to hs−1 samples beyond.
func (u *upsampler) row(dst, plane []uint8, y int) {
	near := plane[y/u.vs*u.stride:][:u.cw]
	switch {
	case u.hs == 1 && u.vs == 1:
		copy(dst, near)
		return
	case u.hs == 4 || (u.hs == 2 && u.cw <= 2): // libjpeg filters neither
		for i := range dst {
			dst[i] = near[min(i/u.hs, u.cw-1)]
		}
		return
	}
	// Weights are 3 to 1 in each subsampled direction; the rounding
	// alternates so that it has no bias.
	sum, one, shift := u.sum[:u.cw], int32(1), 2
	if u.vs == 2 {
		far := u.farther(plane, y)
		for i, c := range near {
			sum[i] = 3*int32(c) + int32(far[i])
		}
		if u.hs == 1 {
			bias := int32(1 + y%2)
			for i, s := range sum {
				dst[i] = uint8((s + bias) >> 2)
			}
			return
		}
		one, shift = 8, 4
	} else {
		for i, c := range near {
			sum[i] = int32(c)
		}
	}
	other := one - 1 // 8 and 7 of sixteen
	if u.vs == 1 {
		other = 2 // 1 and 2 of four
	}
	last := sum[0]
	for i, s := range sum {
		next := sum[min(i+1, u.cw-1)]
		dst[2*i] = uint8((3*s + last + one) >> shift)
		dst[2*i+1] = uint8((3*s + next + other) >> shift)
		last = s
	}
}

// farther is the second nearest row of samples to row y of the image.
func (u *upsampler) farther(plane []uint8, y int) []uint8 {
	i := y/2 - 1 + y%2*2
	i = min(max(i, 0), u.ch-1)
	return plane[i*u.stride:][:u.cw]
}

func rgbRow(dst, luma, cb, cr []uint8) {
	// JFIF's factors times 65536, as jdcolor.c rounds them.
	const crR, cbB, cbG, crG, half = 91881, 116130, 22554, 46802, 1 << 15
	for x, l := range luma {
		y, b, r := int32(l), int32(cb[x])-128, int32(cr[x])-128
		d := dst[3*x : 3*x+3 : 3*x+3]
		d[0] = clamp(y + (crR*r+half)>>16)
		d[1] = clamp(y + (half-cbG*b-crG*r)>>16)
		d[2] = clamp(y + (cbB*b+half)>>16)
	}
}

func clamp(v int32) uint8 {
	if uint32(v) > 255 {
		if v < 0 {
			return 0
		}
		return 255
	}
	return uint8(v)
}
