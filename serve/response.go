package serve

import (
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"
)

// appendResponse appends the JSON of an inference response. Outputs wanted in binary are only announced in it.
func appendResponse(b []byte, v *version, req *inferRequest, out []Tensor) ([]byte, error) {
	b = append(b, `{"model_name":`...)
	b = appendString(b, v.info.Name)
	b = append(b, `,"model_version":`...)
	b = appendString(b, v.info.Version)
	if req.id != "" {
		b = append(b, `,"id":`...)
		b = appendString(b, req.id)
	}
	b = append(b, `,"outputs":[`...)
	for i, t := range out {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"name":`...)
		b = appendString(b, t.Name)
		b = append(b, `,"datatype":"`...)
		b = append(b, t.Type.String()...)
		b = append(b, `","shape":[`...)
		for j, d := range t.Shape {
			if j > 0 {
				b = append(b, ',')
			}
			b = strconv.AppendInt(b, d, 10)
		}
		if req.outputs[i].binary {
			b = append(b, `],"parameters":{"binary_data_size":`...)
			b = append(strconv.AppendInt(b, int64(len(t.Data)), 10), "}}"...)
			continue
		}
		b = append(b, `],"data":[`...)
		var err error
		if b, err = appendData(b, t); err != nil {
			return nil, err
		}
		b = append(b, "]}"...)
	}
	return append(b, "]}"...), nil
}

// aroundValues is the room that an answer's JSON needs beside its values. Names that need more make it move.
const aroundValues = 2 << 10

// textSize is the most that the values of the outputs that are not wanted in binary take as JSON.
func textSize(req *inferRequest, out []Tensor) (size int) {
	for i, t := range out {
		if !req.outputs[i].binary {
			size += len(t.Data) / max(t.Type.Size(), 1) * widest[t.Type]
		}
	}
	return size
}

// widest is the longest JSON of one element with its comma, and of one byte of a Bytes tensor, whose lengths take more
// than quotes and commas.
var widest = [...]int{
	Bool: 6, Uint8: 4, Uint16: 6, Uint32: 11, Uint64: 21, Int8: 5, Int16: 7, Int32: 12, Int64: 21, FP32: 16, FP64: 25, Bytes: 6,
}

// checkOutput holds a model to its word: a response that contradicts itself would be read as something else.
func checkOutput(t Tensor, want wantedOutput) error {
	n, ok := elements(t.Shape)
	switch {
	case t.Type != want.Type || t.Name != want.Name:
		return fmt.Errorf("the model answered %s %q for %s %q", t.Type, t.Name, want.Type, want.Name)
	case !ok || t.Type != Bytes && n*int64(t.Type.Size()) != int64(len(t.Data)):
		return fmt.Errorf("the model answered %d bytes for %s %v in %q", len(t.Data), t.Type, t.Shape, t.Name)
	case t.Type == Bytes:
		if err := checkStrings(t.Data, n); err != nil {
			return fmt.Errorf("the model's answer in %q: %w", t.Name, err)
		}
	}
	return nil
}

// appendData appends the elements of t separated by commas. NaN and infinities become the bare tokens that the
// protocol's clients read.
func appendData(b []byte, t Tensor) ([]byte, error) {
	switch t.Type {
	case Bytes:
		return appendStrings(b, t)
	case FP16, BF16:
		return nil, fmt.Errorf("output %q: %s has no JSON form", t.Name, t.Type) // refused before the run
	}
	size := t.Type.Size()
	for d := t.Data; len(d) > 0; d = d[size:] {
		switch t.Type {
		case FP32:
			b = appendFloat(b, float64(math.Float32frombits(binary.LittleEndian.Uint32(d))), 32)
		case FP64:
			b = appendFloat(b, math.Float64frombits(binary.LittleEndian.Uint64(d)), 64)
		case Bool:
			b = strconv.AppendBool(b, d[0] != 0)
		case Uint8:
			b = strconv.AppendUint(b, uint64(d[0]), 10)
		case Uint16:
			b = strconv.AppendUint(b, uint64(binary.LittleEndian.Uint16(d)), 10)
		case Uint32:
			b = strconv.AppendUint(b, uint64(binary.LittleEndian.Uint32(d)), 10)
		case Uint64:
			b = strconv.AppendUint(b, binary.LittleEndian.Uint64(d), 10)
		case Int8:
			b = strconv.AppendInt(b, int64(int8(d[0])), 10)
		case Int16:
			b = strconv.AppendInt(b, int64(int16(binary.LittleEndian.Uint16(d))), 10)
		case Int32:
			b = strconv.AppendInt(b, int64(int32(binary.LittleEndian.Uint32(d))), 10)
		case Int64:
			b = strconv.AppendInt(b, int64(binary.LittleEndian.Uint64(d)), 10)
		default:
			return nil, fmt.Errorf("output %q has no datatype", t.Name)
		}
		if len(d) > size {
			b = append(b, ',')
		}
	}
	return b, nil
}

func appendFloat(b []byte, f float64, bits int) []byte {
	switch {
	case math.IsNaN(f):
		return append(b, "NaN"...)
	case math.IsInf(f, 1):
		return append(b, "Infinity"...)
	case math.IsInf(f, -1):
		return append(b, "-Infinity"...)
	}
	return strconv.AppendFloat(b, f, 'g', -1, bits)
}

func appendStrings(b []byte, t Tensor) ([]byte, error) {
	for d := t.Data; len(d) > 0; {
		n := binary.LittleEndian.Uint32(d)
		s := d[4 : 4+n]
		if !utf8.Valid(s) {
			return nil, badRequest("output %q holds strings that are not UTF-8: ask for it with binary_data", t.Name)
		}
		b = appendString(b, string(s))
		if d = d[4+n:]; len(d) > 0 {
			b = append(b, ',')
		}
	}
	return b, nil
}

// appendString appends s as a JSON string. What is not UTF-8 becomes the replacement character.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', byte(c))
		case c < ' ' || c == 0x7f || c == 0x2028 || c == 0x2029:
			b = fmt.Appendf(b, `\u%04x`, c)
		default:
			b = utf8.AppendRune(b, c)
		}
	}
	return append(b, '"')
}
