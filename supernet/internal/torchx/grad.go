package torchx

// #include "torchx.h"
import "C"

import "unsafe"

// WithGrad runs f with gradients on.
func (s *Scope) WithGrad(f func()) {
	was := C.tx_set_grad_mode(1)
	defer C.tx_set_grad_mode(was)
	f()
}

// Backward adds to the gradient of every leaf that loss depends on.
func Backward(loss Tensor) { check("backward", C.tx_backward(handle(loss))) }

// Grad is the gradient of a leaf after [Backward].
func (s *Scope) Grad(leaf Tensor) Tensor {
	var out C.tx_tensor
	check("grad", C.tx_grad(handle(leaf), &out))
	return s.own(out)
}

// SGD is PyTorch's optimiser of that name: g += decay·p; v = momentum·v + g;
// p -= lr·v, or p -= lr·(g + momentum·v) with Nesterov's look-ahead.
type SGD struct {
	LR, Momentum float64
	Nesterov     bool
	ClipValue    float64 // bound of each gradient element; 0: none
	ClipNorm     float64 // bound of the norm of all gradients together; 0: none
}

// Step updates leaves, which have gradients, and their velocities, of the same
// shapes; decay holds one weight decay for each.
func (o SGD) Step(leaves, velocity []Tensor, decay []float64) {
	if len(leaves) == 0 {
		return
	}
	p, v := make([]C.tx_tensor, len(leaves)), make([]C.tx_tensor, len(leaves))
	for i := range leaves {
		p[i], v[i] = handle(leaves[i]), handle(velocity[i])
	}
	opt := C.tx_sgd_options{
		lr: C.double(o.LR), momentum: C.double(o.Momentum),
		clip_value: C.double(o.ClipValue), clip_norm: C.double(o.ClipNorm),
	}
	if o.Nesterov {
		opt.nesterov = 1
	}
	check("sgd", C.tx_sgd(unsafe.SliceData(p), unsafe.SliceData(v),
		(*C.double)(unsafe.SliceData(decay)), C.int64_t(len(p)), &opt))
}
