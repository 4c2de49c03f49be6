package imaging

import "math"

// view is a rectangle of an image's pixels, read where they are.
type view struct {
	pix     []uint8 // first pixel of the rectangle onwards
	stride  int     // bytes from one row to the next
	w, h, c int
}

func (m *Image) view() view { return view{pix: m.Pix, stride: m.W * m.C, w: m.W, h: m.H, c: m.C} }

// cut is the part of v at (x, y), which must lie within it.
func (v view) cut(x, y, w, h int) view {
	v.pix = v.pix[y*v.stride+x*v.c:]
	v.w, v.h = w, h
	return v
}

// resize scales v to w×h and returns the window of nw×nh pixels at (x, y) of
// the result, computing only what the window shows. Pixels outside v count
// for nothing, so that cutting first and scaling then is the same as in the
// libraries that this agrees with.
func resize(v view, w, h int, f Interpolation, x, y, nw, nh int) view {
	if v.w == w && v.h == h {
		return v.cut(x, y, nw, nh)
	}
	if f == Bilinear {
		return bilinear(v, w, h, x, y, nw, nh)
	}
	return antialiased(v, w, h, x, y, nw, nh)
}

// taps are the weights of one axis: output i is the sum over k of
// weight[i·n+k] times input first[i]+k.
type taps struct {
	n      int
	first  []int32
	count  []int32
	weight []int32
}

// Pillow's fixed point: 8 bits of pixel and 2 of headroom leave 22 of 32.
const weightBits = 32 - 8 - 2

// triangle gives the weights of Pillow's antialiased bilinear filter for
// outputs [lo, lo+n) of an axis of in pixels scaled to out (Resample.c). The
// triangle's support is one output pixel, but never less than one input pixel.
func triangle(in, out, lo, n int) taps {
	scale := float64(in) / float64(out)
	width := max(scale, 1)
	size := int(math.Ceil(width))*2 + 1
	t := taps{n: size, first: make([]int32, n), count: make([]int32, n), weight: make([]int32, n*size)}
	w := make([]float64, size)
	for i := range n {
		center := (float64(lo+i) + 0.5) * scale
		first := max(int(center-width+0.5), 0)
		count := min(int(center+width+0.5), in) - first
		var sum float64
		for k := range count {
			w[k] = max(1-math.Abs((float64(first+k)-center+0.5)/width), 0)
			sum += w[k]
		}
		for k := range count {
			t.weight[i*size+k] = int32(math.Round(w[k] / sum * (1 << weightBits)))
		}
		t.first[i], t.count[i] = int32(first), int32(count)
	}
	return t
}

// antialiased scales by rows, rounds to 8 bits, and then by columns.
func antialiased(v view, w, h, x, y, nw, nh int) view {
	ty, top := taps{}, y
	if v.h == h {
		v = v.cut(0, y, v.w, nh)
	} else {
		ty = triangle(v.h, h, y, nh)
		top = int(ty.first[0])
		v = v.cut(0, top, v.w, int(ty.first[nh-1]+ty.count[nh-1])-top)
	}
	if v.w == w {
		v = v.cut(x, 0, nw, v.h)
	} else {
		v = scaleRows(v, triangle(v.w, w, x, nw), nw)
	}
	if ty.n == 0 {
		return v
	}
	return scaleColumns(v, ty, top, nh)
}

func scaleRows(v view, t taps, w int) view {
	dst := NewImage(w, v.h, v.c)
	for y := range v.h {
		src, out := v.pix[y*v.stride:][:v.w*v.c], dst.Pix[y*w*v.c:][:w*v.c]
		if v.c == 3 {
			scaleRow3(out, src, t)
		} else {
			scaleRow1(out, src, t)
		}
	}
	return dst.view()
}

func scaleRow3(dst, src []uint8, t taps) {
	for i, first := range t.first {
		weights := t.weight[i*t.n:][:t.count[i]]
		px := src[3*first:][:3*len(weights)]
		var r, g, b int32 = 1 << (weightBits - 1), 1 << (weightBits - 1), 1 << (weightBits - 1)
		for k, w := range weights {
			p := px[3*k : 3*k+3 : 3*k+3]
			r += w * int32(p[0])
			g += w * int32(p[1])
			b += w * int32(p[2])
		}
		d := dst[3*i : 3*i+3 : 3*i+3]
		d[0], d[1], d[2] = clamp(r>>weightBits), clamp(g>>weightBits), clamp(b>>weightBits)
	}
}

func scaleRow1(dst, src []uint8, t taps) {
	for i, first := range t.first {
		var s int32 = 1 << (weightBits - 1)
		for k, w := range t.weight[i*t.n:][:t.count[i]] {
			s += w * int32(src[int(first)+k])
		}
		dst[i] = clamp(s >> weightBits)
	}
}

func scaleColumns(v view, t taps, top, h int) view {
	dst := NewImage(v.w, h, v.c)
	n := v.w * v.c
	acc := make([]int32, n)
	for y := range h {
		for i := range acc {
			acc[i] = 1 << (weightBits - 1)
		}
		for k, w := range t.weight[y*t.n:][:t.count[y]] {
			row := v.pix[(int(t.first[y])-top+k)*v.stride:][:n]
			for i, p := range row {
				acc[i] += w * int32(p)
			}
		}
		out := dst.Pix[y*n:][:n]
		for i, s := range acc {
			out[i] = clamp(s >> weightBits)
		}
	}
	return dst.view()
}

// lerp is where one output of OpenCV's INTER_LINEAR reads: input a with
// weight 1−t and b with weight t, in 2048ths.
type lerp struct{ a, b, t int32 }

const lerpBits = 11

// lerps places outputs [lo, lo+n) of an axis of in pixels scaled to out, with
// the place rounded to float32 as OpenCV's resize.cpp does.
func lerps(in, out, lo, n int) []lerp {
	scale := 1 / (float64(out) / float64(in))
	last := int32(in - 1)
	ls := make([]lerp, n)
	for i := range n {
		at := float64(float32(float64((float64(lo+i)+0.5)*scale) - 0.5))
		a := math.Floor(at)
		t := int32(math.RoundToEven((at - a) * (1 << lerpBits)))
		ls[i] = lerp{min(max(int32(a), 0), last), min(max(int32(a)+1, 0), last), t}
	}
	return ls
}

// bilinear reads the four nearest pixels with 11-bit weights, and drops bits
// between the directions where OpenCV does, so that the results are its own.
func bilinear(v view, w, h, x, y, nw, nh int) view {
	const one = 1 << lerpBits
	lx, ly := lerps(v.w, w, x, nw), lerps(v.h, h, y, nh)
	dst := NewImage(nw, nh, v.c)
	n := nw * v.c
	upper, lower := make([]int32, n), make([]int32, n)
	have := [2]int32{-1, -1} // the source rows that upper and lower hold
	for i, l := range ly {
		if l.a == have[1] {
			upper, lower = lower, upper
			have[0], have[1] = have[1], have[0]
		}
		if l.a != have[0] {
			lerpRow(upper, v, int(l.a), lx)
			have[0] = l.a
		}
		if l.b != have[1] {
			lerpRow(lower, v, int(l.b), lx)
			have[1] = l.b
		}
		out := dst.Pix[i*n:][:n]
		for j := range out {
			out[j] = uint8(((one-l.t)*(upper[j]>>4)>>16 + l.t*(lower[j]>>4)>>16 + 2) >> 2)
		}
	}
	return dst.view()
}

func lerpRow(dst []int32, v view, y int, lx []lerp) {
	const one = 1 << lerpBits
	src := v.pix[y*v.stride:][:v.w*v.c]
	if v.c == 1 {
		for i, l := range lx {
			dst[i] = int32(src[l.a])*(one-l.t) + int32(src[l.b])*l.t
		}
		return
	}
	for i, l := range lx {
		a, b, d := src[3*l.a:3*l.a+3:3*l.a+3], src[3*l.b:3*l.b+3:3*l.b+3], dst[3*i:3*i+3:3*i+3]
		d[0] = int32(a[0])*(one-l.t) + int32(b[0])*l.t
		d[1] = int32(a[1])*(one-l.t) + int32(b[1])*l.t
		d[2] = int32(a[2])*(one-l.t) + int32(b[2])*l.t
	}
}
