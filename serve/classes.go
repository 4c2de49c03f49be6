package serve

import (
	"cmp"
	"encoding/binary"
	"math"
	"slices"
	"sort"
	"strconv"
)

// maxClasses bounds what the classification parameter may ask for.
const maxClasses = 1_000_000

// classes is the protocol's classification extension: it makes of an output the strings "value:index" or
// "value:index:label" of its top largest values. Real values have six decimals; the largest comes first, of equal ones
// that of the lower index, and NaN last. A model that takes batches gets a row for each item; the elements of others
// are one row.
func (v *version) classes(t Tensor, top int, mem *arena) (Tensor, error) {
	shape, width := []int64{}, len(t.Data)/t.Type.Size()
	if v.info.batched() && len(t.Shape) > 0 && t.Shape[0] > 0 {
		shape = append(shape, t.Shape[0])
		width /= int(t.Shape[0])
	}
	top = min(top, width)
	const usual = 40 // bytes of a value with its index and label
	if err := mem.reserve(int64(len(t.Data)) / int64(t.Type.Size()) / int64(max(width, 1)) * int64(top) * usual); err != nil {
		return Tensor{}, err
	}
	var labels []string
	if t.Name == v.info.Outputs[0].Name && len(v.info.Labels) == width {
		labels = v.info.Labels
	}
	out := Tensor{Name: t.Name, Type: Bytes, Shape: append(shape, int64(top))}
	switch t.Type {
	case FP32:
		out.Data = classStrings(t.Data, make([]float32, width), top, labels, appendReal[float32])
	case FP64:
		out.Data = classStrings(t.Data, make([]float64, width), top, labels, appendReal[float64])
	case Int8:
		out.Data = classStrings(t.Data, make([]int8, width), top, labels, appendSigned[int8])
	case Int16:
		out.Data = classStrings(t.Data, make([]int16, width), top, labels, appendSigned[int16])
	case Int32:
		out.Data = classStrings(t.Data, make([]int32, width), top, labels, appendSigned[int32])
	case Int64:
		out.Data = classStrings(t.Data, make([]int64, width), top, labels, appendSigned[int64])
	case Uint8:
		out.Data = classStrings(t.Data, make([]uint8, width), top, labels, appendUnsigned[uint8])
	case Uint16:
		out.Data = classStrings(t.Data, make([]uint16, width), top, labels, appendUnsigned[uint16])
	case Uint32:
		out.Data = classStrings(t.Data, make([]uint32, width), top, labels, appendUnsigned[uint32])
	case Uint64:
		out.Data = classStrings(t.Data, make([]uint64, width), top, labels, appendUnsigned[uint64])
	}
	return out, nil
}

// hasClasses reports the datatypes that classes can rank.
func hasClasses(t Datatype) bool {
	switch t {
	case Bool, FP16, BF16, Bytes:
		return false
	}
	return true
}

// classStrings ranks data row by row and returns the data of a Bytes tensor.
func classStrings[T cmp.Ordered](data []byte, row []T, top int, labels []string, value func([]byte, T) []byte) []byte {
	var b []byte
	size := binary.Size(row)
	for ; len(data) >= size && top > 0; data = data[size:] {
		if _, err := binary.Decode(data[:size], binary.LittleEndian, row); err != nil {
			break // cannot be: the sizes agree
		}
		for _, i := range largest(row, top) {
			at := len(b)
			b = value(append(b, 0, 0, 0, 0), row[i])
			b = strconv.AppendInt(append(b, ':'), int64(i), 10)
			if labels != nil {
				b = append(append(b, ':'), labels[i]...)
			}
			binary.LittleEndian.PutUint32(b[at:], uint32(len(b)-at-4))
		}
	}
	return b
}

// largest is the indices of the k largest values in order; equal ones go by index, NaN is the smallest.
func largest[T cmp.Ordered](xs []T, k int) []int {
	before := func(i, j int) int { return cmp.Or(cmp.Compare(xs[j], xs[i]), cmp.Compare(i, j)) }
	const few = 32 // up to here, keeping a short list in order beats sorting all
	if k > few {
		all := make([]int, len(xs))
		for i := range all {
			all[i] = i
		}
		slices.SortFunc(all, before)
		return all[:min(k, len(all))]
	}
	best := make([]int, 0, k+1)
	for i := range xs {
		if len(best) == k && (k == 0 || before(i, best[k-1]) > 0) {
			continue
		}
		at := sort.Search(len(best), func(j int) bool { return before(i, best[j]) < 0 })
		best = slices.Insert(best, at, i)
		best = best[:min(k, len(best))]
	}
	return best
}

// appendReal writes what C's %f does, which is what clients of this extension parse.
func appendReal[T float32 | float64](b []byte, v T) []byte {
	switch f := float64(v); {
	case math.IsNaN(f):
		return append(b, "nan"...)
	case math.IsInf(f, 1):
		return append(b, "inf"...)
	case math.IsInf(f, -1):
		return append(b, "-inf"...)
	default:
		return strconv.AppendFloat(b, f, 'f', 6, 64)
	}
}

func appendSigned[T int8 | int16 | int32 | int64](b []byte, v T) []byte {
	return strconv.AppendInt(b, int64(v), 10)
}

func appendUnsigned[T uint8 | uint16 | uint32 | uint64](b []byte, v T) []byte {
	return strconv.AppendUint(b, uint64(v), 10)
}

// batched reports a model whose first dimension is that of a batch: it is open in every input and output.
func (info *ModelInfo) batched() bool {
	for _, t := range slices.Concat(info.Inputs, info.Outputs) {
		if len(t.Shape) == 0 || t.Shape[0] >= 0 {
			return false
		}
	}
	return true
}
