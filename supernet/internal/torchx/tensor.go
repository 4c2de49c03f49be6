package torchx

// #include "torchx.h"
import "C"

import (
	"unsafe"

	torch "github.com/wangkuiyi/gotorch"
)

// Place is where a tensor lives and how it is laid out.
type Place struct {
	CUDA         int  // device index, or -1 for the host
	ChannelsLast bool // for tensors of four dimensions
}

// Floats is a float32 tensor with a copy of data, row-major, put in place.
func (s *Scope) Floats(data []float32, shape []int64, p Place) Tensor {
	return s.upload(unsafe.Pointer(unsafe.SliceData(data)), torch.Float, shape, p)
}

// Ints is an int64 tensor with a copy of data.
func (s *Scope) Ints(data []int64, p Place) Tensor {
	return s.upload(unsafe.Pointer(unsafe.SliceData(data)), torch.Long, []int64{int64(len(data))}, p)
}

func (s *Scope) upload(data unsafe.Pointer, dtype int8, shape []int64, p Place) Tensor {
	host := s.adopt(fromGotorch("from_blob", func() Tensor { return torch.FromBlob(data, dtype, shape) }))
	placed := s.To(host, p)
	s.Free(host)
	return placed
}

// To is t at another place; it shares memory where nothing changes.
func (s *Scope) To(t Tensor, p Place) Tensor {
	var out C.tx_tensor
	last := C.int32_t(0)
	if p.ChannelsLast {
		last = 1
	}
	check("to", C.tx_to(handle(t), C.int32_t(p.CUDA), last, &out))
	return s.own(out)
}

// ZerosLike is a zeroed tensor of t's shape, layout and device.
func (s *Scope) ZerosLike(t Tensor) Tensor {
	var out C.tx_tensor
	check("zeros_like", C.tx_zeros_like(handle(t), &out))
	return s.own(out)
}

// Span is a range of one dimension.
type Span struct{ Start, Len int64 }

// Part is a tensor that shares the memory of the part of t that the spans
// select, one per dimension, or of all of t where there are none. A leaf part
// collects a gradient.
func (s *Scope) Part(t Tensor, spans []Span, leaf bool) Tensor {
	var out C.tx_tensor
	grad := C.int32_t(0)
	if leaf {
		grad = 1
	}
	p := (*C.int64_t)(unsafe.Pointer(unsafe.SliceData(spans)))
	check("part", C.tx_part(handle(t), p, C.int32_t(len(spans)), grad, &out))
	return s.own(out)
}

// Read copies t's elements, row-major, into dst, which must have room for
// exactly them.
func Read(t Tensor, dst []float32) {
	check("read", C.tx_to_host(handle(t), (*C.float)(unsafe.SliceData(dst)), C.int64_t(len(dst))))
}

// Write copies row-major elements into t.
func Write(t Tensor, src []float32) {
	check("write", C.tx_from_host(handle(t), (*C.float)(unsafe.SliceData(src)), C.int64_t(len(src))))
}
