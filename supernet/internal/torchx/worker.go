package torchx

// #include "torchx.h"
import "C"

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
)

// ErrClosed is returned by [Worker.Do] after [Worker.Close].
var ErrClosed = errors.New("torchx: the worker is closed")

// Worker is one operating system thread on which libtorch computes. Grad mode,
// the OpenMP team and libtorch's scratch memory belong to a thread; goroutines
// wander between threads and would make new ones of each.
type Worker struct {
	mu     sync.Mutex // one job at a time; guards closed
	closed bool
	jobs   chan func()
	done   chan struct{}
}

// NewWorker starts a thread whose operators use the given number of threads,
// itself included; zero means as many as Go may use at once, which a
// container's quota bounds. The first worker makes libtorch
// keep freed host memory for reuse, see [HostMemory].
func NewWorker(threads int) *Worker {
	if threads <= 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	w := &Worker{jobs: make(chan func()), done: make(chan struct{})}
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		defer close(w.done)
		C.tx_cache_host_memory()
		C.tx_repeat_exactly()
		C.tx_set_threads(C.int32_t(threads))
		C.tx_set_grad_mode(0)
		for job := range w.jobs {
			job()
			w.done <- struct{}{}
		}
	}()
	return w
}

// Do runs f on the worker's thread with a scope that is closed when f
// returns, and waits for it. Gradients are off unless f asks with
// [Scope.WithGrad]. A C++ exception inside f comes back as a [*NativeError];
// any other panic of f continues in the caller. f must not call Do.
func (w *Worker) Do(f func(*Scope) error) (err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return ErrClosed
	}
	var crash any
	w.jobs <- func() {
		s := new(Scope)
		defer s.Close()
		defer func() {
			switch p := recover().(type) {
			case nil:
			case *NativeError:
				err = p
			default:
				crash = fmt.Sprintf("%v\n%s", p, debug.Stack())
			}
		}()
		err = f(s)
	}
	<-w.done
	if crash != nil {
		panic(crash)
	}
	return err
}

// Close ends the thread. Tensors stay valid. It may be called twice.
func (w *Worker) Close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closed {
		w.closed = true
		close(w.jobs)
		<-w.done
	}
}
