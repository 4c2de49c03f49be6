package ort

import (
	"fmt"
	"math/bits"
	"slices"
	"unsafe"

	yalue "github.com/yalue/onnxruntime_go"
)

// Type is the type of a tensor's elements.
type Type uint8

// The types, those of the Open Inference Protocol.
const (
	Undefined Type = iota
	Bool
	Uint8
	Uint16
	Uint32
	Uint64
	Int8
	Int16
	Int32
	Int64
	Float16
	BFloat16
	Float32
	Float64
	String
)

// maxElements bounds a tensor: no shape from a request or a file makes us
// multiply into an overflow.
const maxElements = 1 << 40

// types says of each Type its name, bytes an element, the binding's constant
// and the constant of onnx.proto.
var types = [...]struct {
	name  string
	size  int
	yalue yalue.TensorElementDataType
	proto int
}{
	Undefined: {"undefined", 0, yalue.TensorElementDataTypeUndefined, 0},
	Bool:      {"bool", 1, yalue.TensorElementDataTypeBool, 9},
	Uint8:     {"uint8", 1, yalue.TensorElementDataTypeUint8, 2},
	Uint16:    {"uint16", 2, yalue.TensorElementDataTypeUint16, 4},
	Uint32:    {"uint32", 4, yalue.TensorElementDataTypeUint32, 12},
	Uint64:    {"uint64", 8, yalue.TensorElementDataTypeUint64, 13},
	Int8:      {"int8", 1, yalue.TensorElementDataTypeInt8, 3},
	Int16:     {"int16", 2, yalue.TensorElementDataTypeInt16, 5},
	Int32:     {"int32", 4, yalue.TensorElementDataTypeInt32, 6},
	Int64:     {"int64", 8, yalue.TensorElementDataTypeInt64, 7},
	Float16:   {"float16", 2, yalue.TensorElementDataTypeFloat16, 10},
	BFloat16:  {"bfloat16", 2, yalue.TensorElementDataTypeBFloat16, 16},
	Float32:   {"float32", 4, yalue.TensorElementDataTypeFloat, 1},
	Float64:   {"float64", 8, yalue.TensorElementDataTypeDouble, 11},
	String:    {"string", 0, yalue.TensorElementDataTypeString, 8},
}

// String is the name as numpy has it: "float32", "uint8", "bfloat16".
func (t Type) String() string {
	if int(t) >= len(types) {
		return fmt.Sprintf("type(%d)", uint8(t))
	}
	return types[t].name
}

// Size is the bytes of one element; 0 for String and Undefined.
func (t Type) Size() int {
	if int(t) >= len(types) {
		return 0
	}
	return types[t].size
}

func typeOf(y yalue.TensorElementDataType) Type {
	for t, e := range types {
		if e.yalue == y {
			return Type(t)
		}
	}
	return Undefined
}

func typeOfProto(n uint64) Type {
	for t, e := range types {
		if uint64(e.proto) == n {
			return Type(t)
		}
	}
	return Undefined
}

// Tensor is a dense tensor in ordinary Go memory, row-major, in the machine's
// byte order. Data holds every type but String, whose elements are in Strings.
// An empty Shape is a scalar.
//
// As an output of [Session.Run], a Tensor with Data (or Strings) nil asks for
// memory: Run then sets Type, Shape and Data. One with Data is written in
// place, and its Shape must be the one that the model makes.
type Tensor struct {
	Type    Type
	Shape   []int64
	Data    []byte
	Strings []string
}

// Element is a Go type that a tensor can be seen through.
type Element interface {
	~bool | ~uint8 | ~uint16 | ~uint32 | ~uint64 | ~int8 | ~int16 | ~int32 | ~int64 | ~float32 | ~float64
}

// Of is a tensor over data itself, which is not copied. Its Type follows
// from T (uint16 is Uint16: set Type to Float16 or BFloat16 where the bits
// are those). A data of another length than the shape is found by the run.
func Of[T Element](data []T, shape ...int64) Tensor {
	return Tensor{Type: elementType[T](), Shape: shape, Data: bytesOf(data)}
}

// View is t's elements as T, over t's own memory. It panics where T has not
// the size of t's elements or Data is not aligned for T.
func View[T Element](t Tensor) []T {
	var zero T
	size := int(unsafe.Sizeof(zero))
	if size != t.Type.Size() {
		panic(fmt.Sprintf("ort: a %s tensor seen as %T", t.Type, zero))
	}
	if len(t.Data) == 0 {
		return nil
	}
	if !aligned(t.Data, size) {
		panic(fmt.Sprintf("ort: %s data is not aligned to %d bytes", t.Type, size))
	}
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(t.Data))), len(t.Data)/size)
}

// New is a zeroed tensor of this type and shape, aligned for its type. The
// shape must be non-negative and within what [Session.Run] accepts.
func New(t Type, shape ...int64) (Tensor, error) {
	n, err := numel(shape)
	if err != nil {
		return Tensor{}, err
	}
	if t == String {
		return Tensor{Type: t, Shape: shape, Strings: make([]string, n)}, nil
	}
	// Words of eight bytes, so that any element type is aligned.
	words := make([]uint64, (n*t.Size()+7)/8)
	return Tensor{Type: t, Shape: shape, Data: bytesOf(words)[: n*t.Size() : n*t.Size()]}, nil
}

// check reports whether t's own parts agree: shape, type and length.
func (t *Tensor) check() error {
	n, err := numel(t.Shape)
	if err != nil {
		return err
	}
	switch {
	case t.Type == Undefined || int(t.Type) >= len(types):
		return fmt.Errorf("%w: it has no element type", ErrTensor)
	case t.Type == String && len(t.Strings) != n:
		return fmt.Errorf("%w: shape %v has %d elements, it holds %d strings", ErrTensor, t.Shape, n, len(t.Strings))
	case t.Type != String && len(t.Data) != n*t.Type.Size():
		return fmt.Errorf("%w: shape %v of %s takes %d bytes, it holds %d", ErrTensor, t.Shape, t.Type, n*t.Type.Size(), len(t.Data))
	}
	return nil
}

// numel multiplies a shape out, refusing negative extents and products beyond
// maxElements (zero extents do not excuse the others).
func numel(shape []int64) (int, error) {
	n, product := uint64(1), uint64(1)
	for _, d := range shape {
		if d < 0 {
			return 0, fmt.Errorf("%w: shape %v has a negative extent", ErrTensor, shape)
		}
		n *= uint64(d)
		hi, lo := bits.Mul64(product, uint64(max(d, 1)))
		if hi != 0 || lo > maxElements {
			return 0, fmt.Errorf("%w: shape %v has more than %d elements", ErrTensor, shape, int64(maxElements))
		}
		product = lo
	}
	return int(n), nil
}

func bytesOf[T any](s []T) []byte {
	if s == nil {
		return nil
	}
	var zero T
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), len(s)*int(unsafe.Sizeof(zero)))
}

func aligned(b []byte, size int) bool {
	return uintptr(unsafe.Pointer(unsafe.SliceData(b)))%uintptr(size) == 0
}

// elementType is the Type of T, whatever T's own name.
func elementType[T Element]() Type {
	return typeOf(yalue.TensorElementDataType(yalue.GetTensorElementDataType[T]()))
}

// fits reports whether t is what the model's input or output info says.
func (t *Tensor) fits(info Info) error {
	if err := t.check(); err != nil {
		return err
	}
	if t.Type != info.Type {
		return fmt.Errorf("%w: it is %s, the model has %s", ErrTensor, t.Type, info.Type)
	}
	if info.Shape == nil {
		return nil
	}
	same := func(a, b int64) bool { return a == b || b < 0 }
	if !slices.EqualFunc(t.Shape, info.Shape, same) {
		return fmt.Errorf("%w: its shape is %v, the model has %v", ErrTensor, t.Shape, info.Shape)
	}
	return nil
}
