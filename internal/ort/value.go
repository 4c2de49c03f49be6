package ort

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"unsafe"

	yalue "github.com/yalue/onnxruntime_go"
)

// goType holds, for one Go element type, what the binding only offers through
// its type parameter.
type goType struct {
	scalar func(data []byte) (yalue.Value, error)
	fetch  func(v yalue.Value, data []byte)
	empty  func(shape []int64) (yalue.Value, error)
	bytes  func(v yalue.Value) ([]byte, bool)
}

func goTypeOf[T Element]() goType {
	return goType{
		scalar: func(data []byte) (yalue.Value, error) {
			var x T
			copy(bytesOf(unsafe.Slice(&x, 1)), data)
			return yalue.NewScalar(x)
		},
		fetch: func(v yalue.Value, data []byte) {
			x := v.(*yalue.Scalar[T]).GetData()
			copy(data, bytesOf(unsafe.Slice(&x, 1)))
		},
		empty: func(shape []int64) (yalue.Value, error) { return yalue.NewTensor[T](shape, nil) },
		bytes: func(v yalue.Value) ([]byte, bool) {
			t, ok := v.(*yalue.Tensor[T])
			if !ok {
				return nil, false
			}
			return bytesOf(t.GetData()), true
		},
	}
}

// goTypes misses the 16-bit floats, for which Go has no type: they have
// neither scalars nor empty tensors, and their outputs are allocated here.
var goTypes = [...]goType{
	Bool: goTypeOf[bool](), Uint8: goTypeOf[uint8](), Uint16: goTypeOf[uint16](), Uint32: goTypeOf[uint32](),
	Uint64: goTypeOf[uint64](), Int8: goTypeOf[int8](), Int16: goTypeOf[int16](), Int32: goTypeOf[int32](),
	Int64: goTypeOf[int64](), Float32: goTypeOf[float32](), Float64: goTypeOf[float64](), String: {},
}

// wrap makes the library's view of a checked tensor over t's own memory,
// which pin keeps in place until it is unpinned. The caller destroys it.
func wrap(t *Tensor, pin *runtime.Pinner) (yalue.Value, error) {
	if t.Type == String {
		for i, s := range t.Strings {
			if strings.IndexByte(s, 0) >= 0 {
				return nil, fmt.Errorf("%w: string %d has a zero byte, where the library would cut it", ErrTensor, i)
			}
		}
		v, err := yalue.NewStringTensor(t.Shape)
		if err != nil {
			return nil, err
		}
		if err := v.SetContents(t.Strings); err != nil {
			return nil, errors.Join(err, v.Destroy())
		}
		return v, nil
	}
	special := len(t.Shape) == 0 || len(t.Data) == 0
	if special && goTypes[t.Type].scalar == nil {
		return nil, fmt.Errorf("%w: scalars and empty tensors of %s are not supported", ErrTensor, t.Type)
	}
	switch {
	case len(t.Shape) == 0:
		return goTypes[t.Type].scalar(t.Data)
	case len(t.Data) == 0:
		return goTypes[t.Type].empty(t.Shape)
	}
	pin.Pin(unsafe.SliceData(t.Data))
	return yalue.NewCustomDataTensor(t.Shape, t.Data, types[t.Type].yalue)
}

// settle brings the result of a run home where t's memory is not already it:
// scalars and strings, which the library keeps on its own side.
func settle(t *Tensor, v yalue.Value) error {
	switch {
	case t.Type == String:
		s, err := v.(*yalue.StringTensor).GetContents()
		if err != nil {
			return fmt.Errorf("read strings: %w", err)
		}
		copy(t.Strings, s)
	case len(t.Shape) == 0:
		goTypes[t.Type].fetch(v, t.Data)
	}
	return nil
}

// take fills t from a value that the library made.
func take(t *Tensor, v yalue.Value) error {
	t.Shape = slices.Clone(v.GetShape())
	if s, ok := v.(*yalue.StringTensor); ok {
		t.Type = String
		var err error
		t.Strings, err = s.GetContents()
		return err
	}
	for typ, n := range goTypes {
		if n.bytes == nil {
			continue
		}
		if data, ok := n.bytes(v); ok {
			t.Type, t.Data = Type(typ), data
			if t.Data == nil {
				t.Data = []byte{}
			}
			return nil
		}
	}
	return fmt.Errorf("%w: an output of a type that cannot be read back; give it memory", ErrTensor)
}

// values is the native side of a list of tensors.
type values []yalue.Value

func (vs values) destroy() {
	for _, v := range vs {
		if v != nil {
			// Destroy of a tensor only releases; it has no error to report.
			_ = v.Destroy()
		}
	}
}
