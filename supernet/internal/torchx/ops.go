package torchx

// #include "torchx.h"
import "C"

import (
	"unsafe"

	torch "github.com/wangkuiyi/gotorch"
	"github.com/wangkuiyi/gotorch/nn/functional"
)

// Act is an activation, numbered as in torchx.h.
type Act int32

// The activations.
const (
	None  Act = C.TX_ACT_NONE
	ReLU  Act = C.TX_ACT_RELU
	ReLU6 Act = C.TX_ACT_RELU6
)

// Conv2D is a square convolution; bias may be absent.
func (s *Scope) Conv2D(x, weight, bias Tensor, stride, pad, groups int) Tensor {
	st, pd, one := int64(stride), int64(pad), int64(1)
	return s.adopt(fromGotorch("conv2d", func() Tensor {
		return functional.Conv2d(x, weight, bias, []int64{st, st}, []int64{pd, pd}, []int64{one, one}, int64(groups))
	}))
}

// Depthwise is the convolution of every channel with a kernel of its own.
func (s *Scope) Depthwise(x, weight Tensor, stride, pad int) Tensor {
	var out C.tx_tensor
	check("depthwise", C.tx_depthwise(handle(x), handle(weight), C.int64_t(stride), C.int64_t(pad), &out))
	return s.own(out)
}

// Linear is x·weightᵀ + bias; bias may be absent.
func (s *Scope) Linear(x, weight, bias Tensor) Tensor {
	return s.adopt(fromGotorch("linear", func() Tensor { return functional.Linear(x, weight, bias) }))
}

// GlobalPool is the mean over height and width, which stay as 1×1.
func (s *Scope) GlobalPool(x Tensor) Tensor {
	return s.adopt(fromGotorch("adaptive_avg_pool2d", func() Tensor {
		return functional.AdaptiveAvgPool2d(x, []int64{1, 1})
	}))
}

// Add is a + b.
func (s *Scope) Add(a, b Tensor) Tensor {
	return s.adopt(fromGotorch("add", func() Tensor { return torch.Add(a, b, 1) }))
}

// Flatten makes x two-dimensional, keeping the first dimension.
func (s *Scope) Flatten(x Tensor) Tensor {
	return s.adopt(fromGotorch("flatten", func() Tensor { return torch.Flatten(x, 1, -1) }))
}

// Norm is what a batch norm takes. Gamma and Beta may be absent: one and zero.
type Norm struct {
	Gamma, Beta, Mean, Var Tensor
	Momentum, Eps          float64
}

// NormAct normalises x by its own statistics, moves n.Mean and n.Var by
// n.Momentum towards the batch's mean and unbiased variance, and applies act.
func (s *Scope) NormAct(x Tensor, n Norm, act Act) Tensor {
	var out C.tx_tensor
	check("batch_norm", C.tx_norm_act(handle(x), handle(n.Gamma), handle(n.Beta), handle(n.Mean), handle(n.Var),
		C.double(n.Momentum), C.double(n.Eps), C.int32_t(act), &out))
	return s.own(out)
}

// Apply overwrites x with act(x). It has no gradient.
func Apply(x Tensor, act Act) {
	check("activation", C.tx_act_inplace(handle(x), C.int32_t(act)))
}

// FoldNorm is the weight and bias of the convolution that equals weight's
// convolution followed by n with fixed statistics.
func (s *Scope) FoldNorm(weight Tensor, n Norm) (w, b Tensor) {
	var cw, cb C.tx_tensor
	check("fold", C.tx_fold_norm(handle(weight), handle(n.Gamma), handle(n.Beta), handle(n.Mean), handle(n.Var),
		C.double(n.Eps), &cw, &cb))
	return s.own(cw), s.own(cb)
}

// Regroup numbers the channels of all inputs through and makes one tensor for
// each list of channel numbers.
func (s *Scope) Regroup(in []Tensor, lists [][]int32) []Tensor {
	src := make([]C.tx_tensor, len(in))
	for i, t := range in {
		src[i] = handle(t)
	}
	var channels []int32
	counts := make([]int32, len(lists))
	for i, l := range lists {
		channels = append(channels, l...)
		counts[i] = int32(len(l))
	}
	out := make([]C.tx_tensor, len(lists))
	check("regroup", C.tx_regroup(unsafe.SliceData(src), C.int32_t(len(src)),
		(*C.int32_t)(unsafe.SliceData(channels)), (*C.int32_t)(unsafe.SliceData(counts)),
		C.int32_t(len(out)), unsafe.SliceData(out)))
	ts := make([]Tensor, len(out))
	for i, h := range out {
		ts[i] = s.own(h)
	}
	return ts
}

// Dropout zeroes elements with probability rate and scales the others to keep
// the mean. The mask follows from seed alone.
func (s *Scope) Dropout(x Tensor, rate float64, seed uint64) Tensor {
	var out C.tx_tensor
	check("dropout", C.tx_dropout(handle(x), C.double(rate), C.uint64_t(seed), &out))
	return s.own(out)
}

// CrossEntropy is the mean cross entropy of rows of logits against int64
// labels, with label smoothing.
func (s *Scope) CrossEntropy(logits, labels Tensor, smoothing float64) Tensor {
	var out C.tx_tensor
	check("cross_entropy", C.tx_cross_entropy(handle(logits), handle(labels), C.double(smoothing), &out))
	return s.own(out)
}

// Score reads a loss and counts the rows whose largest logit is the label's.
func Score(loss, logits, labels Tensor) (value float64, correct int) {
	var v C.double
	var n C.int64_t
	check("score", C.tx_score(handle(loss), handle(logits), handle(labels), &v, &n))
	return float64(v), int(n)
}
