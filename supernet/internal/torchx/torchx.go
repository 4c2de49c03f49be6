// Package torchx is the project's only door to libtorch. It uses gotorch where
// gotorch has what is needed and its own C extension (csrc) for the rest, and
// settles at this one place what gotorch leaves open: whose memory a tensor
// is, which thread computes, and how a C++ exception becomes a Go error. It
// knows no network, space or file.
//
// All computing happens on a [Worker]'s thread, inside [Worker.Do]. Tensors
// made there belong to a [Scope] and die with it.
package torchx

// #cgo CFLAGS: -I${SRCDIR}/csrc
// #cgo LDFLAGS: -ltorchx
// #include <stdlib.h>
// #include "torchx.h"
import "C"

import (
	"fmt"
	"strings"

	torch "github.com/wangkuiyi/gotorch"
)

// Tensor is gotorch's tensor: a handle, copied freely and owned by a [Scope].
// The zero Tensor stands for an absent one.
type Tensor = torch.Tensor

// NativeError is a C++ exception that came back from libtorch.
type NativeError struct {
	Op   string // the call that failed
	Text string // libtorch's own words
}

func (e *NativeError) Error() string {
	text, _, _ := strings.Cut(e.Text, "\n")
	return fmt.Sprintf("libtorch: %s: %s", e.Op, text)
}

// Version is the version of the libtorch that the extension was compiled
// against.
func Version() string { return C.GoString(C.tx_version()) }

// CUDADevices is the number of CUDA devices that this libtorch can use.
func CUDADevices() int {
	if !torch.IsCUDAAvailable() {
		return 0
	}
	return int(C.tx_cuda_devices())
}

// Memory is what the host cache holds, in bytes.
type Memory struct {
	Used int64 // by living tensors
	Peak int64 // the most that was ever used
	Held int64 // from the system: used and waiting for reuse
}

// HostMemory reports the blocks of 64 KiB and more of all CPU tensors of the
// process.
func HostMemory() Memory {
	var used, peak, held C.int64_t
	C.tx_host_memory(&used, &peak, &held)
	return Memory{Used: int64(used), Peak: int64(peak), Held: int64(held)}
}

// ReleaseHostMemory returns to the system what waits for reuse.
func ReleaseHostMemory() { C.tx_release_host_memory() }

// check panics with a [*NativeError] if a C call returned a message, which it
// frees. [Worker.Do] turns the panic into an error.
func check(op string, message *C.char) {
	if message == nil {
		return
	}
	text := C.GoString(message)
	C.tx_free_message(message)
	panic(&NativeError{Op: op, Text: text})
}

// fromGotorch runs a gotorch call, which panics with a string where the C++
// side threw, and panics with a [*NativeError] instead.
func fromGotorch(op string, call func() Tensor) Tensor {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case string:
			panic(&NativeError{Op: op, Text: p})
		default:
			panic(p)
		}
	}()
	return call()
}
