package serve

import (
	"encoding/binary"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// wireField is the value of a field: a number, or bytes.
type wireField struct {
	typ  protowire.Type
	num  uint64
	data []byte
}

// eachField calls f for the fields of a message.
func eachField(b []byte, f func(num protowire.Number, v wireField) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errWire
		}
		b = b[n:]
		v := wireField{typ: typ}
		switch typ {
		case protowire.VarintType:
			v.num, n = protowire.ConsumeVarint(b)
		case protowire.Fixed32Type:
			var x uint32
			x, n = protowire.ConsumeFixed32(b)
			v.num = uint64(x)
		case protowire.Fixed64Type:
			v.num, n = protowire.ConsumeFixed64(b)
		case protowire.BytesType:
			v.data, n = protowire.ConsumeBytes(b)
		default: // groups, which this protocol has none of
			return errWire
		}
		if n < 0 {
			return errWire
		}
		b = b[n:]
		if err := f(num, v); err != nil {
			return err
		}
	}
	return nil
}

func (f wireField) bytes() ([]byte, error) {
	if f.typ != protowire.BytesType {
		return nil, errWire
	}
	return f.data, nil
}

func (f wireField) string() (string, error) {
	if f.typ != protowire.BytesType || !utf8.Valid(f.data) {
		return "", errWire
	}
	return string(f.data), nil
}

// scalars calls f for the numbers of a repeated field, packed or not.
func (f wireField) scalars(element protowire.Type, call func(uint64) error) error {
	if f.typ == element {
		return call(f.num)
	}
	if f.typ != protowire.BytesType {
		return errWire
	}
	for b := f.data; len(b) > 0; {
		var v uint64
		var n int
		switch element {
		case protowire.Fixed32Type:
			var x uint32
			x, n = protowire.ConsumeFixed32(b)
			v = uint64(x)
		case protowire.Fixed64Type:
			v, n = protowire.ConsumeFixed64(b)
		default:
			v, n = protowire.ConsumeVarint(b)
		}
		if n < 0 {
			return errWire
		}
		if err := call(v); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// The kinds of InferParameter, by the number of its field.
const (
	paramInt  = 2
	paramText = 3
	paramUint = 5
)

// wireParam is an entry of a map of parameters.
type wireParam struct {
	key  string
	kind protowire.Number
	num  uint64
	some bool // it is not 0, false or ""
	text string
}

// whole is the value of a parameter that counts something.
func (p wireParam) whole() (uint64, bool) {
	return p.num, p.kind == paramUint || p.kind == paramInt && int64(p.num) >= 0
}

// one reads an entry. seen are the keys of the map so far.
func (r *rpcReader) one(b []byte, seen *[]string) (p wireParam, err error) {
	err = eachField(b, func(num protowire.Number, f wireField) (err error) {
		switch num {
		case 1:
			p.key, err = f.string()
		case 2:
			var value []byte
			if value, err = f.bytes(); err == nil {
				err = eachField(value, func(kind protowire.Number, v wireField) error {
					p.kind, p.num, p.some = kind, v.num, v.num != 0 || len(v.data) > 0
					if kind == paramText {
						p.text = short(string(v.data))
					}
					return nil
				})
			}
		}
		return err
	})
	switch {
	case err != nil:
		return p, err
	case slices.Contains(*seen, p.key):
		return p, badRequest("the parameter %q appears twice", short(p.key))
	case len(*seen) == maxParameters:
		return p, badRequest("more than %d parameters", maxParameters)
	}
	*seen = append(*seen, p.key)
	return p, nil
}

func (r *rpcReader) paramOf(f wireField, seen *[]string) (wireParam, error) {
	b, err := f.bytes()
	if err != nil {
		return wireParam{}, err
	}
	return r.one(b, seen)
}

// input takes an input, and its tensor where that is in contents.
func (r *rpcReader) input(b []byte) error {
	if err := r.room(); err != nil {
		return err
	}
	in := wireInput{size: -1, dataAt: -1}
	in.Shape = []int64{}
	datatype := ""
	var contents []byte
	var seen []string
	err := eachField(b, func(num protowire.Number, f wireField) (err error) {
		switch num {
		case 1:
			in.Name, err = f.string()
		case 2:
			datatype, err = f.string()
		case 3:
			err = f.scalars(protowire.VarintType, func(d uint64) error {
				if in.Shape = append(in.Shape, int64(d)); len(in.Shape) > maxRank {
					return badRequest("a shape of more than %d dimensions", maxRank)
				}
				return nil
			})
		case 4:
			var p wireParam
			p, err = r.paramOf(f, &seen)
			switch {
			case err != nil:
			case strings.HasPrefix(p.key, "shared_memory_"):
				err = errShared
			case p.key == "content_type":
				in.base64 = p.text == "base64"
			}
		case 5:
			if in.have {
				return badRequest("an input has contents twice")
			}
			in.have = true
			contents, err = f.bytes()
		}
		return err
	})
	if err != nil {
		return err
	}
	if in.Name == "" {
		return badRequest("an input without name")
	}
	var ok bool
	if in.Type, ok = ParseDatatype(datatype); !ok {
		return badRequest("unknown datatype %q", short(datatype))
	}
	if in.have {
		r.typed++
		if err := r.contents(&in, contents); err != nil {
			return err
		}
	}
	r.in = append(r.in, in)
	return nil
}

// contentsField is where InferTensorContents holds the elements of a datatype, and as what.
func contentsField(t Datatype) (num protowire.Number, element protowire.Type) {
	switch t {
	case Bool:
		return 1, protowire.VarintType
	case Int8, Int16, Int32:
		return 2, protowire.VarintType
	case Int64:
		return 3, protowire.VarintType
	case Uint8, Uint16, Uint32:
		return 4, protowire.VarintType
	case Uint64:
		return 5, protowire.VarintType
	case FP32:
		return 6, protowire.Fixed32Type
	case FP64:
		return 7, protowire.Fixed64Type
	case Bytes:
		return 8, protowire.BytesType
	}
	return 0, 0
}

var contentsNames = [...]string{
	1: "bool_contents", 2: "int_contents", 3: "int64_contents", 4: "uint_contents",
	5: "uint64_contents", 6: "fp32_contents", 7: "fp64_contents", 8: "bytes_contents",
}

// contents makes a tensor of typed contents. Its memory is only taken when the message can hold that many elements.
func (r *rpcReader) contents(in *wireInput, b []byte) error {
	name := short(in.Name)
	field, element := contentsField(in.Type)
	if field == 0 {
		return badRequest("input %q: %s has no typed contents, send it in raw_input_contents", name, in.Type)
	}
	want, ok := elements(in.Shape)
	switch {
	case !ok || want == 0 || want > math.MaxInt32:
		return nil // bind says what is wrong with the shape
	case want > int64(len(b)):
		return badRequest("input %q: fewer values than its shape asks for", name)
	}
	size := int(want) * in.Type.Size()
	if in.Type == Bytes {
		size = 4*int(want) + len(b)
	}
	buf, err := r.mem.alloc(size)
	if err != nil {
		return err
	}
	buf = buf[:0]
	n := int64(0)
	err = eachField(b, func(num protowire.Number, f wireField) error {
		switch {
		case num >= protowire.Number(len(contentsNames)):
			return nil
		case num != field:
			return badRequest("input %q: its elements are in %s, %s takes %s", name, contentsNames[num], in.Type, contentsNames[field])
		case element == protowire.BytesType:
			s, err := f.bytes()
			if err != nil {
				return err
			}
			if n++; n <= want {
				buf = append(binary.LittleEndian.AppendUint32(buf, uint32(len(s))), s...)
			}
			return nil
		}
		if size := in.Type.Size(); element != protowire.VarintType && f.typ == protowire.BytesType && len(f.data)%size == 0 {
			// Packed floating-point numbers have the form of a tensor already.
			if n += int64(len(f.data) / size); n <= want {
				buf = append(buf, f.data...)
			}
			return nil
		}
		return f.scalars(element, func(v uint64) (err error) {
			if n++; n <= want {
				buf, err = appendScalar(buf, in.Type, v)
			}
			return err
		})
	})
	if err != nil {
		return err
	}
	if n > want {
		return badRequest("more values than the shape asks for, %d", want)
	}
	if n < want {
		return badRequest("input %q: %d values, its shape asks for %d", name, n, want)
	}
	in.Data = buf
	return nil
}

// appendScalar narrows a number of the wire to a datatype.
func appendScalar(b []byte, t Datatype, v uint64) ([]byte, error) {
	outside := func(x any) error { return badRequest("%v is out of the range of %s", x, t) }
	switch t {
	case Bool:
		if v > 1 {
			v = 1
		}
		return append(b, byte(v)), nil
	case Int8, Int16, Int32:
		x := int64(int32(v))
		if bits := 8 * t.Size(); x < -1<<(bits-1) || x > 1<<(bits-1)-1 {
			return nil, outside(x)
		}
		v = uint64(x)
	case Uint8, Uint16, Uint32:
		if v = uint64(uint32(v)); v > 1<<(8*t.Size())-1 {
			return nil, outside(v)
		}
	}
	switch t.Size() {
	case 1:
		return append(b, byte(v)), nil
	case 2:
		return binary.LittleEndian.AppendUint16(b, uint16(v)), nil
	case 4:
		return binary.LittleEndian.AppendUint32(b, uint32(v)), nil
	}
	return binary.LittleEndian.AppendUint64(b, v), nil
}
