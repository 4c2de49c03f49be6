package ckpt

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"math"
	"os"
	"slices"
	"unicode/utf8"
)

// Limits on what a header may claim. Ours are a few hundred kilobytes.
const (
	maxHeader = 16 << 20
	maxRank   = 8
)

const metadataKey = "__metadata__"

// entry is a tensor in the JSON header; the offsets count from its end.
type entry struct {
	DType   string  `json:"dtype"`
	Shape   []int64 `json:"shape"`
	Offsets []int64 `json:"data_offsets"`
}

var dtypeSize = map[string]int64{
	"BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1,
	"I16": 2, "U16": 2, "F16": 2, "BF16": 2,
	"I32": 4, "U32": 4, "F32": 4,
	"F64": 8, "I64": 8, "U64": 8,
}

// File is an open safetensors file, all of its header checked. Tensors are
// read when asked for. Its methods may be called concurrently.
type File struct {
	name    string
	r       io.ReaderAt
	close   func() error
	start   int64 // of the data
	meta    map[string]string
	names   []string // in data order
	entries map[string]entry
}

// Open opens a safetensors file and checks its header against its size:
// every tensor lies inside the file, together they fill it without gap or
// overlap, shapes and types agree with the bytes. Errors about the content
// wrap [ErrCorrupt] and name the file and the tensor. The caller closes the
// file.
func Open(path string) (*File, error) {
	f, size, err := OpenRegular(path)
	if err != nil {
		return nil, err
	}
	c, err := Read(f, size, path)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	c.close = f.Close
	return c, nil
}

// OpenRegular opens a file that is no device, pipe or folder, and says how long
// it is.
func OpenRegular(path string) (*os.File, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, fmt.Errorf("open checkpoint: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, 0, errors.Join(fmt.Errorf("open checkpoint: %w", err), f.Close())
	}
	if !info.Mode().IsRegular() {
		return nil, 0, errors.Join(fmt.Errorf("open checkpoint %s: not a regular file", path), f.Close())
	}
	return f, info.Size(), nil
}

// Read is [Open] for size bytes of r; name is how errors call them. Closing
// the File does not close r.
func Read(r io.ReaderAt, size int64, name string) (*File, error) {
	f := &File{name: name, r: r, close: func() error { return nil }, entries: map[string]entry{}}
	head, err := readHeader(r, size)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	f.start = 8 + int64(len(head))
	if err := f.parse(head); err != nil {
		return nil, fmt.Errorf("%s: header: %w", name, err)
	}
	if err := f.layout(size - f.start); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return f, nil
}

func corrupt(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, ErrCorrupt)...)
}

func readHeader(r io.ReaderAt, size int64) ([]byte, error) {
	if size < 8 {
		return nil, corrupt("%d bytes are too few for a safetensors file", size)
	}
	var length [8]byte
	if _, err := r.ReadAt(length[:], 0); err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	n := binary.LittleEndian.Uint64(length[:])
	if n > maxHeader {
		return nil, corrupt("header of %d bytes is over the limit of %d (is this a safetensors file?)", n, maxHeader)
	}
	if int64(n) > size-8 {
		return nil, corrupt("header of %d bytes in a file of %d: cut short", n, size)
	}
	head := make([]byte, n)
	if _, err := r.ReadAt(head, 8); err != nil && !(errors.Is(err, io.EOF) && n == 0) {
		return nil, fmt.Errorf("read header: %w", err)
	}
	if !utf8.Valid(head) {
		return nil, corrupt("header is not UTF-8")
	}
	return head, nil
}

// parse walks the JSON by tokens, because decoding into a map would let a
// repeated name win in silence.
func (f *File) parse(head []byte) error {
	d := json.NewDecoder(bytes.NewReader(head))
	for name, err := range members(d) {
		if err != nil {
			return err
		}
		if name == metadataKey {
			if f.meta != nil {
				return corrupt("%s appears twice", metadataKey)
			}
			if err := f.parseMeta(d); err != nil {
				return err
			}
			continue
		}
		if _, dup := f.entries[name]; dup {
			return corrupt("tensor %.200q appears twice", name)
		}
		var e entry
		if err := d.Decode(&e); err != nil {
			return corrupt("tensor %.200q: %v", name, err)
		}
		if err := e.check(); err != nil {
			return fmt.Errorf("tensor %.200q: %w", name, err)
		}
		f.entries[name] = e
		f.names = append(f.names, name)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return corrupt("text after the JSON object")
	}
	return nil
}

func (f *File) parseMeta(d *json.Decoder) error {
	f.meta = map[string]string{}
	for key, err := range members(d) {
		if err != nil {
			return fmt.Errorf("%s: %w", metadataKey, err)
		}
		if _, dup := f.meta[key]; dup {
			return corrupt("%s: key %.200q appears twice", metadataKey, key)
		}
		var v *string
		if err := d.Decode(&v); err != nil || v == nil {
			return corrupt("%s: the value of %.200q is no string", metadataKey, key)
		}
		f.meta[key] = *v
	}
	return nil
}

// members yields the keys of the JSON object that comes next; the body must
// decode each key's value from d before it goes on.
func members(d *json.Decoder) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		if t, err := d.Token(); err != nil || t != json.Delim('{') {
			yield("", corrupt("no JSON object (%v, %v)", t, err))
			return
		}
		for d.More() {
			t, err := d.Token()
			key, ok := t.(string)
			if err != nil || !ok {
				yield("", corrupt("no JSON object: %v", err))
				return
			}
			if !yield(key, nil) {
				return
			}
		}
		if _, err := d.Token(); err != nil {
			yield("", corrupt("JSON object is cut short: %v", err))
		}
	}
}

func (e entry) check() error {
	size, ok := dtypeSize[e.DType]
	if !ok {
		return corrupt("unknown type %q", e.DType)
	}
	if len(e.Offsets) != 2 {
		return corrupt("%d data_offsets, not 2", len(e.Offsets))
	}
	if e.Offsets[0] < 0 || e.Offsets[1] < e.Offsets[0] {
		return corrupt("data_offsets %v are no range", e.Offsets)
	}
	if e.Shape == nil || len(e.Shape) > maxRank {
		return corrupt("shape of rank %d: no list of at most %d extents", len(e.Shape), maxRank)
	}
	n, err := elements(e.Shape, math.MaxInt64/size)
	if err != nil {
		return err
	}
	if got := e.Offsets[1] - e.Offsets[0]; got != n*size {
		return corrupt("%d bytes for shape %v of %s, which takes %d", got, e.Shape, e.DType, n*size)
	}
	return nil
}

// elements is the product of a shape's extents, at most limit.
func elements[I int | int64](shape []I, limit int64) (int64, error) {
	n := int64(1)
	for _, d := range shape {
		if d < 0 || int64(d) > math.MaxInt {
			return 0, corrupt("extent %d in shape %v", d, shape)
		}
		if d > 0 && n > limit/int64(d) {
			return 0, corrupt("shape %v is too large", shape)
		}
		n *= int64(d)
	}
	return n, nil
}

// layout checks that the tensors fill size bytes without gap or overlap, and
// sorts the names by place.
func (f *File) layout(size int64) error {
	slices.SortStableFunc(f.names, func(a, b string) int {
		x, y := f.entries[a].Offsets, f.entries[b].Offsets
		return cmp.Or(cmp.Compare(x[0], y[0]), cmp.Compare(x[1], y[1]))
	})
	var end int64
	for _, name := range f.names {
		o := f.entries[name].Offsets
		if o[0] != end {
			return corrupt("tensor %q starts at byte %d of the data, not at %d where the one before it ends", name, o[0], end)
		}
		end = o[1]
		if end > size {
			return corrupt("tensor %q ends at byte %d of %d: the file is cut short", name, end, size)
		}
	}
	if end != size {
		return corrupt("%d bytes belong to no tensor", size-end)
	}
	return nil
}

// Close closes the file. Tensors that were read stay valid.
func (f *File) Close() error { return f.close() }

// Names are the tensors in the order of their data. The slice is a copy.
func (f *File) Names() []string { return slices.Clone(f.names) }

// Metadata is the free text of the header. The map is a copy, nil where the
// file has none.
func (f *File) Metadata() map[string]string { return maps.Clone(f.meta) }

// Shape is a tensor's shape, without reading it. It wraps [ErrMissing].
func (f *File) Shape(name string) ([]int, error) {
	e, err := f.entry(name)
	if err != nil {
		return nil, err
	}
	return e.shape(), nil
}

func (f *File) entry(name string) (entry, error) {
	e, ok := f.entries[name]
	if !ok {
		return entry{}, fmt.Errorf("%s: tensor %q: %w", f.name, name, ErrMissing)
	}
	return e, nil
}

func (e entry) shape() []int {
	s := make([]int, len(e.Shape))
	for i, d := range e.Shape {
		s[i] = int(d)
	}
	return s
}

// Tensor reads one tensor; the caller owns it. F16 and BF16 widen to float32
// without loss, F64 is rounded; integer types are refused, for float32 would
// change them. It wraps [ErrMissing].
func (f *File) Tensor(name string) (Tensor, error) {
	e, err := f.entry(name)
	if err != nil {
		return Tensor{}, err
	}
	convert, ok := converters[e.DType]
	if !ok {
		return Tensor{}, fmt.Errorf("%s: tensor %q is of type %s: only floating point is read", f.name, name, e.DType)
	}
	size := dtypeSize[e.DType]
	data := make([]float32, 0, (e.Offsets[1]-e.Offsets[0])/size)
	buf := make([]byte, min(1<<18, e.Offsets[1]-e.Offsets[0]))
	for at := e.Offsets[0]; at < e.Offsets[1]; at += int64(len(buf)) {
		buf = buf[:min(int64(len(buf)), e.Offsets[1]-at)]
		// A reader may report the end of the file together with a full buffer.
		if n, err := f.r.ReadAt(buf, f.start+at); n < len(buf) {
			if errors.Is(err, io.EOF) {
				err = corrupt("cut short since it was opened")
			}
			return Tensor{}, fmt.Errorf("%s: read tensor %q: %w", f.name, name, err)
		}
		data = convert(data, buf)
	}
	return Tensor{Shape: e.shape(), Data: data}, nil
}

// converters append little-endian elements of a type as float32.
var converters = map[string]func(dst []float32, src []byte) []float32{
	"F32": func(dst []float32, src []byte) []float32 {
		for i := 0; i+4 <= len(src); i += 4 {
			dst = append(dst, math.Float32frombits(binary.LittleEndian.Uint32(src[i:])))
		}
		return dst
	},
	"F64": func(dst []float32, src []byte) []float32 {
		for i := 0; i+8 <= len(src); i += 8 {
			dst = append(dst, float32(math.Float64frombits(binary.LittleEndian.Uint64(src[i:]))))
		}
		return dst
	},
	"BF16": func(dst []float32, src []byte) []float32 {
		for i := 0; i+2 <= len(src); i += 2 {
			dst = append(dst, math.Float32frombits(uint32(binary.LittleEndian.Uint16(src[i:]))<<16))
		}
		return dst
	},
	"F16": func(dst []float32, src []byte) []float32 {
		for i := 0; i+2 <= len(src); i += 2 {
			dst = append(dst, Half(binary.LittleEndian.Uint16(src[i:])))
		}
		return dst
	},
}

// Half widens an IEEE 754 binary16 number, exactly.
func Half(h uint16) float32 {
	sign, exp, frac := uint32(h>>15)<<31, uint32(h>>10&0x1f), uint32(h&0x3ff)
	switch exp {
	case 0: // zero and subnormals: frac × 2^-24
		return math.Float32frombits(sign | math.Float32bits(float32(frac)*0x1p-24))
	case 0x1f: // infinity and NaN
		return math.Float32frombits(sign | 0xff<<23 | frac<<13)
	default:
		return math.Float32frombits(sign | (exp+112)<<23 | frac<<13)
	}
}
