package torchx

// #include "torchx.h"
import "C"

import (
	"runtime"
	"slices"
	"unsafe"
)

// Scope owns tensors. Everything made through it is freed by Close in one
// crossing; Go's collector, which does not see native memory, has no part in
// it. A Scope is not safe for concurrent use.
type Scope struct {
	handles []C.tx_tensor
}

// Close frees every tensor of the scope. The scope can be used again.
func (s *Scope) Close() {
	if len(s.handles) > 0 {
		C.tx_free_tensors(unsafe.SliceData(s.handles), C.int64_t(len(s.handles)))
		s.handles = s.handles[:0]
	}
}

// Len is the number of tensors that the scope owns.
func (s *Scope) Len() int { return len(s.handles) }

// Free frees one tensor of the scope now, as a forward pass does with what
// nothing reads any more.
func (s *Scope) Free(t Tensor) {
	h := s.forget(t)
	C.tx_free_tensors(&h, 1)
}

// Move hands one tensor over to another scope.
func (s *Scope) Move(t Tensor, to *Scope) Tensor {
	to.handles = append(to.handles, s.forget(t))
	return t
}

func (s *Scope) forget(t Tensor) C.tx_tensor {
	h := handle(t)
	// What is freed early was made late.
	for i := len(s.handles) - 1; i >= 0; i-- {
		if s.handles[i] == h {
			s.handles = slices.Delete(s.handles, i, i+1)
			return h
		}
	}
	panic("torchx: the tensor is not of this scope")
}

// own makes a handle of the C library a tensor of the scope.
func (s *Scope) own(h C.tx_tensor) Tensor {
	s.handles = append(s.handles, h)
	p := unsafe.Pointer(h)
	return Tensor{T: &p}
}

// adopt takes a tensor that gotorch made out of the hands of its finalizer,
// which would free it under C's feet: gotorch passes the bare pointer and
// keeps nothing alive.
func (s *Scope) adopt(t Tensor) Tensor {
	runtime.SetFinalizer(t.T, nil)
	s.handles = append(s.handles, handle(t))
	return t
}

// handle is the C pointer of a tensor, nil for an absent one.
func handle(t Tensor) C.tx_tensor {
	if t.T == nil {
		return nil
	}
	return C.tx_tensor(*t.T)
}
