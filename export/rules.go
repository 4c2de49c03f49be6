package export

import (
	"fmt"
	"slices"
)

// rule tells the shapes of a node's outputs and its multiply-accumulates.
type rule func(f *inference, n node) (shapes [][]int64, macs int64, err error)

// rules is by operator: what classic convolutional networks are made of.
var rules = map[string]rule{
	"Conv":                  convRule(1),
	"QLinearConv":           convRule(3),
	"Gemm":                  gemm,
	"MatMul":                matMul,
	"MaxPool":               pool,
	"AveragePool":           pool,
	"GlobalAveragePool":     globalPool,
	"GlobalMaxPool":         globalPool,
	"ReduceMean":            reduce,
	"ReduceSum":             reduce,
	"ReduceMax":             reduce,
	"Flatten":               flatten,
	"Reshape":               reshape,
	"Transpose":             transpose,
	"Concat":                concat,
	"Slice":                 slice,
	"Split":                 split,
	"Gather":                gather,
	"Squeeze":               squeeze,
	"Unsqueeze":             unsqueeze,
	"Pad":                   pad,
	"Constant":              constant,
	"Shape":                 shapeOf,
	"Cast":                  same,
	"Identity":              same,
	"Dropout":               same,
	"BatchNormalization":    same,
	"InstanceNormalization": same,
	"LayerNormalization":    same,
	"LRN":                   same,
	"Relu":                  same,
	"LeakyRelu":             same,
	"PRelu":                 same,
	"Clip":                  same,
	"Elu":                   same,
	"Selu":                  same,
	"Sigmoid":               same,
	"HardSigmoid":           same,
	"HardSwish":             same,
	"Tanh":                  same,
	"Softmax":               same,
	"LogSoftmax":            same,
	"Softplus":              same,
	"Erf":                   same,
	"Exp":                   same,
	"Log":                   same,
	"Sqrt":                  same,
	"Abs":                   same,
	"Neg":                   same,
	"Reciprocal":            same,
	"QuantizeLinear":        same,
	"DequantizeLinear":      same,
	"Add":                   elementwise,
	"Sub":                   elementwise,
	"Mul":                   elementwise,
	"Div":                   elementwise,
	"Pow":                   elementwise,
	"Max":                   elementwise,
	"Min":                   elementwise,
	"Sum":                   elementwise,
	"Mean":                  elementwise,
}

// one is the result of a rule with one output and no multiplications.
func one(shape []int64) ([][]int64, int64, error) { return [][]int64{shape}, 0, nil }

func fail(err error) ([][]int64, int64, error) { return nil, 0, err }

// same is for what keeps the shape of its first input, and its integers where
// they are known.
func same(f *inference, n node) ([][]int64, int64, error) {
	x, err := f.shape(n, 0)
	if err != nil {
		return fail(err)
	}
	if v, ok := f.ints[n.in[0]]; ok && (n.op == "Cast" || n.op == "Identity") && len(n.out) > 0 {
		f.ints[n.out[0]] = v
	}
	return one(x)
}

func elementwise(f *inference, n node) ([][]int64, int64, error) {
	shapes := make([][]int64, len(n.in))
	for i := range n.in {
		var err error
		if shapes[i], err = f.shape(n, i); err != nil {
			return fail(err)
		}
	}
	s, err := broadcast(shapes...)
	if err != nil {
		return fail(err)
	}
	return one(s)
}

// convRule is for convolutions whose weight is input w.
func convRule(w int) rule {
	return func(f *inference, n node) ([][]int64, int64, error) {
		x, err := f.ranked(n, 0, 3)
		if err != nil {
			return fail(err)
		}
		weight, err := f.ranked(n, w, 3)
		if err != nil {
			return fail(err)
		}
		group := n.int("group", 1)
		if len(weight) != len(x) || group < 1 || x[1] != weight[1]*group || weight[0]%group != 0 {
			return fail(fmt.Errorf("weight %v in %d groups does not fit input %v", weight, group, x))
		}
		out, err := window(n, x[2:], weight[2:])
		if err != nil {
			return fail(err)
		}
		out = append([]int64{x[0], weight[0]}, out...)
		if _, err := elements(out); err != nil {
			return fail(err)
		}
		macs, err := elements(slices.Concat(out, weight[1:]))
		if err != nil {
			return fail(err)
		}
		return [][]int64{out}, macs, nil
	}
}

// window is the output extent of a sliding kernel.
func window(n node, in, kernel []int64) ([]int64, error) {
	strides, err := n.intList("strides", len(in), 1)
	if err != nil {
		return nil, err
	}
	dilations, err := n.intList("dilations", len(in), 1)
	if err != nil {
		return nil, err
	}
	pads, err := n.intList("pads", 2*len(in), 0)
	if err != nil {
		return nil, err
	}
	auto, _ := n.attrs["auto_pad"].(string)
	out := make([]int64, len(in))
	for i := range in {
		const most = 1 << 30
		if strides[i] < 1 || strides[i] > most || dilations[i] < 1 || kernel[i] < 1 ||
			max(kernel[i], dilations[i], pads[i], pads[i+len(in)]) > most || min(pads[i], pads[i+len(in)]) < 0 {
			return nil, fmt.Errorf("impossible window: kernel %v, strides %v, dilations %v, pads %v", kernel, strides, dilations, pads)
		}
		switch auto {
		case "SAME_UPPER", "SAME_LOWER":
			out[i] = (in[i] + strides[i] - 1) / strides[i]
			continue
		case "VALID":
			pads = make([]int64, 2*len(in))
		}
		room := in[i] + pads[i] + pads[i+len(in)] - dilations[i]*(kernel[i]-1) - 1
		if room < 0 {
			return nil, fmt.Errorf("kernel %v is larger than the input %v", kernel, in)
		}
		if n.int("ceil_mode", 0) == 1 {
			out[i] = (room+strides[i]-1)/strides[i] + 1
			if (out[i]-1)*strides[i] >= in[i]+pads[i] { // a window that starts in the padding does not count
				out[i]--
			}
			continue
		}
		out[i] = room/strides[i] + 1
	}
	return out, nil
}

func pool(f *inference, n node) ([][]int64, int64, error) {
	x, err := f.ranked(n, 0, 3)
	if err != nil {
		return fail(err)
	}
	kernel, err := n.intList("kernel_shape", len(x)-2, 1)
	if err != nil {
		return fail(err)
	}
	out, err := window(n, x[2:], kernel)
	if err != nil {
		return fail(err)
	}
	return one(append([]int64{x[0], x[1]}, out...))
}

func globalPool(f *inference, n node) ([][]int64, int64, error) {
	x, err := f.ranked(n, 0, 3)
	if err != nil {
		return fail(err)
	}
	return one(append([]int64{x[0], x[1]}, slices.Repeat([]int64{1}, len(x)-2)...))
}

func reduce(f *inference, n node) ([][]int64, int64, error) {
	x, err := f.shape(n, 0)
	if err != nil {
		return fail(err)
	}
	axes, err := f.list(n, "axes", 1)
	if err != nil {
		return fail(err)
	}
	gone := make([]bool, len(x))
	for _, a := range axes {
		i, err := axisOf(a, len(x))
		if err != nil {
			return fail(err)
		}
		gone[i] = true
	}
	all := len(axes) == 0 && n.int("noop_with_empty_axes", 0) == 0
	out := []int64{}
	for i, d := range x {
		switch {
		case !gone[i] && !all:
			out = append(out, d)
		case n.int("keepdims", 1) == 1:
			out = append(out, 1)
		}
	}
	return one(out)
}

// gemm is A·B with optional transposition, plus a bias.
func gemm(f *inference, n node) ([][]int64, int64, error) {
	a, err := f.ranked(n, 0, 2)
	if err != nil {
		return fail(err)
	}
	b, err := f.ranked(n, 1, 2)
	if err != nil {
		return fail(err)
	}
	if len(a) != 2 || len(b) != 2 {
		return fail(fmt.Errorf("factors %v and %v are no matrices", a, b))
	}
	if n.int("transA", 0) == 1 {
		a = []int64{a[1], a[0]}
	}
	if n.int("transB", 0) == 1 {
		b = []int64{b[1], b[0]}
	}
	return multiply(a, b)
}

func matMul(f *inference, n node) ([][]int64, int64, error) {
	a, err := f.ranked(n, 0, 2)
	if err != nil {
		return fail(err)
	}
	b, err := f.ranked(n, 1, 2)
	if err != nil {
		return fail(err)
	}
	return multiply(a, b)
}

func multiply(a, b []int64) ([][]int64, int64, error) {
	la, lb := len(a), len(b)
	if a[la-1] != b[lb-2] {
		return fail(fmt.Errorf("factors %v and %v do not fit", a, b))
	}
	batch, err := broadcast(a[:la-2], b[:lb-2])
	if err != nil {
		return fail(err)
	}
	out := append(batch, a[la-2], b[lb-1])
	macs, err := elements(append(slices.Clone(out), a[la-1]))
	if err != nil {
		return fail(err)
	}
	return [][]int64{out}, macs, nil
}
