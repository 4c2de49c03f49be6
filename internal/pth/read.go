package pth

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"slices"

	"spos/internal/ckpt"
)

// window is how many bytes of a storage are in memory at once.
const window = 1 << 18

// decoders turn the first bytes of a little-endian number into a float32.
var decoders = map[string]func([]byte) float32{
	"float32":  func(b []byte) float32 { return math.Float32frombits(binary.LittleEndian.Uint32(b)) },
	"float64":  func(b []byte) float32 { return float32(math.Float64frombits(binary.LittleEndian.Uint64(b))) },
	"bfloat16": func(b []byte) float32 { return math.Float32frombits(uint32(binary.LittleEndian.Uint16(b)) << 16) },
	"float16":  func(b []byte) float32 { return ckpt.Half(binary.LittleEndian.Uint16(b)) },
}

// Tensor reads one tensor, row-major however it was stored; the caller owns
// it. float16 and bfloat16 widen to float32 without loss, float64 is rounded;
// other types are refused, for float32 would change them. Errors are those of
// [File.DType], and [ErrCorrupt].
func (f *File) Tensor(name string) (ckpt.Tensor, error) {
	e, err := f.entry(name)
	if err != nil {
		return ckpt.Tensor{}, err
	}
	decode, ok := decoders[e.dtype.name]
	if !ok {
		return ckpt.Tensor{}, fmt.Errorf("%s: tensor %q is of type %s: only floating point is read: %w", f.name, name, e.dtype.name, ErrFormat)
	}
	buf := f.buffers.Get().(*[window]byte)
	defer f.buffers.Put(buf)
	g := gather{
		r: f.r, base: e.at, buf: buf[:0],
		size: e.dtype.size, big: f.big, decode: decode,
		plain: e.dtype.name == "float32",
		dst:   make([]float32, e.n),
	}
	if e.n > 0 {
		g.end = (e.offset + e.span()) * g.size
		if err := g.all(e.axes, e.offset); err != nil {
			return ckpt.Tensor{}, fmt.Errorf("%s: read tensor %q: %w", f.name, name, err)
		}
	}
	return ckpt.Tensor{Shape: slices.Clone(e.shape), Data: g.dst}, nil
}

// gather copies a strided view of a storage, walking the storage forward.
type gather struct {
	r      io.ReaderAt
	base   int64  // byte of the file where the storage begins
	end    int64  // byte of the storage where the view ends
	buf    []byte // of the storage, from byte at
	at     int64
	size   int64 // of a number
	big    bool
	decode func([]byte) float32
	plain  bool // float32, which needs no decoder
	dst    []float32
}

// all walks the axes but the last like an odometer.
func (g *gather) all(axes []axis, pos int64) error {
	inner := axes[len(axes)-1]
	outer := axes[:len(axes)-1]
	var step [maxRank]int64
	out := int64(0)
	for {
		if err := g.run(inner, pos, out); err != nil {
			return err
		}
		k := len(outer) - 1
		for ; k >= 0; k-- {
			a := outer[k]
			step[k]++
			pos += a.in
			out += a.out
			if step[k] < a.n {
				break
			}
			step[k] = 0
			pos -= a.n * a.in
			out -= a.n * a.out
		}
		if k < 0 {
			return nil
		}
	}
}

// run copies one axis, as many numbers at a time as fit into the window.
func (g *gather) run(a axis, pos, out int64) error {
	most := a.n
	if a.in > 0 {
		most = (window/g.size-1)/a.in + 1
	}
	for n := a.n; n > 0; {
		k := min(n, most)
		src, err := g.bytes(pos*g.size, ((k-1)*a.in+1)*g.size)
		if err != nil {
			return err
		}
		if g.plain && a.in == 1 && a.out == 1 {
			for i := range g.dst[out : out+k] {
				g.dst[out+int64(i)] = math.Float32frombits(binary.LittleEndian.Uint32(src[4*i:]))
			}
		} else {
			for i := range k {
				g.dst[out+i*a.out] = g.decode(src[i*a.in*g.size:])
			}
		}
		n -= k
		pos += k * a.in
		out += k * a.out
	}
	return nil
}

// bytes gives n bytes of the storage from byte at, at most a window.
func (g *gather) bytes(at, n int64) ([]byte, error) {
	if have := at - g.at; have < 0 || have+n > int64(len(g.buf)) {
		g.buf = g.buf[:min(window, g.end-at)]
		g.at = at
		if err := readFull(g.r, g.buf, g.base+at); err != nil {
			g.buf = g.buf[:0]
			return nil, err
		}
		if g.big {
			reverse(g.buf, int(g.size))
		}
	}
	return g.buf[at-g.at:][:n], nil
}

// reverse turns the bytes of each number around.
func reverse(b []byte, size int) {
	for ; len(b) >= size; b = b[size:] {
		for i, j := 0, size-1; i < j; i, j = i+1, j-1 {
			b[i], b[j] = b[j], b[i]
		}
	}
}
