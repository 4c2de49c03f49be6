package serve

import (
	"encoding/binary"
	"fmt"
	"math/bits"
)

// Datatype is the element type of a tensor under its name in the Open Inference Protocol.
type Datatype uint8

// The datatypes of the protocol. The zero Datatype is none of them.
const (
	Bool Datatype = iota + 1
	Uint8
	Uint16
	Uint32
	Uint64
	Int8
	Int16
	Int32
	Int64
	FP16
	BF16
	FP32
	FP64
	Bytes // strings; every element has its own length
)

var datatypes = [...]struct {
	name string
	size int
}{
	Bool: {"BOOL", 1}, Uint8: {"UINT8", 1}, Uint16: {"UINT16", 2}, Uint32: {"UINT32", 4}, Uint64: {"UINT64", 8},
	Int8: {"INT8", 1}, Int16: {"INT16", 2}, Int32: {"INT32", 4}, Int64: {"INT64", 8},
	FP16: {"FP16", 2}, BF16: {"BF16", 2}, FP32: {"FP32", 4}, FP64: {"FP64", 8}, Bytes: {"BYTES", 0},
}

// ParseDatatype reads a protocol name such as "FP32". Names are case-sensitive, as in the protocol.
func ParseDatatype(name string) (Datatype, bool) {
	for d := Bool; int(d) < len(datatypes); d++ {
		if datatypes[d].name == name {
			return d, true
		}
	}
	return 0, false
}

// String returns the protocol name.
func (d Datatype) String() string {
	if d == 0 || int(d) >= len(datatypes) {
		return fmt.Sprintf("Datatype(%d)", uint8(d))
	}
	return datatypes[d].name
}

// MarshalText writes the protocol name.
func (d Datatype) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads the protocol name.
func (d *Datatype) UnmarshalText(name []byte) (err error) {
	var ok bool
	if *d, ok = ParseDatatype(string(name)); !ok {
		err = fmt.Errorf("serve: unknown datatype %q", name)
	}
	return err
}

// Size is the number of bytes of one element, and 0 for Bytes.
func (d Datatype) Size() int {
	if int(d) >= len(datatypes) {
		return 0
	}
	return datatypes[d].size
}

// Tensor is a tensor in the form in which it travels: row-major, little-endian, unpadded. A Bytes tensor holds, for
// every element, its length as four little-endian bytes and then its content.
//
// The memory of an input belongs to the server, starts at a multiple of 64 bytes and may be read until Run returns.
type Tensor struct {
	Name  string
	Type  Datatype
	Shape []int64
	Data  []byte
}

// elements multiplies out a shape of non-negative dimensions. It reports false when the product does not fit.
func elements(shape []int64) (int64, bool) {
	n := uint64(1)
	for _, d := range shape {
		if d < 0 {
			return 0, false
		}
		hi, lo := bits.Mul64(n, uint64(d))
		if hi != 0 || lo > 1<<62 {
			return 0, false
		}
		n = lo
	}
	return int64(n), true
}

// checkStrings verifies that data holds exactly n length-prefixed elements.
func checkStrings(data []byte, n int64) error {
	count := int64(0)
	for rest := data; len(rest) > 0; count++ {
		if len(rest) < 4 {
			return fmt.Errorf("element %d: %d bytes are left where a 4-byte length was expected", count, len(rest))
		}
		size := int64(binary.LittleEndian.Uint32(rest))
		if size > int64(len(rest)-4) {
			return fmt.Errorf("element %d announces %d bytes, %d are left", count, size, len(rest)-4)
		}
		rest = rest[4+size:]
	}
	if count != n {
		return fmt.Errorf("%d elements, the shape asks for %d", count, n)
	}
	return nil
}
