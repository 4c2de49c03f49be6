package supernet

import (
	"fmt"

	"spos/internal/arch"
	"spos/supernet/internal/torchx"
)

// layers runs the ops that differ between training and inference.
type layers interface {
	conv(sc *torchx.Scope, i int, op *arch.Op, x torchx.Tensor) torchx.Tensor
	linear(sc *torchx.Scope, i int, op *arch.Op, x torchx.Tensor) torchx.Tensor
	dropout(sc *torchx.Scope, i int, op *arch.Op, x torchx.Tensor) torchx.Tensor
}

// forward executes the net and returns its logits, (batch, classes). Every
// activation's handle is freed as soon as nothing reads it; what the backward
// pass needs, libtorch keeps. It panics with a [*torchx.NativeError].
func forward(sc *torchx.Scope, net *arch.Net, x torchx.Tensor, l layers) torchx.Tensor {
	values := map[int]torchx.Tensor{arch.Input: x}
	for _, st := range plan(net) {
		if g := st.sum; g != nil {
			in := make([]torchx.Tensor, len(g.in))
			for i, v := range g.in {
				in[i] = values[v]
			}
			for i, t := range sc.Regroup(in, g.lists) {
				values[g.out[i]] = t
			}
		} else {
			values[st.op] = run(sc, net, st.op, values, l)
		}
		for _, v := range st.spent {
			sc.Free(values[v])
			delete(values, v)
		}
	}
	return values[len(net.Ops)-1]
}

func run(sc *torchx.Scope, net *arch.Net, i int, values map[int]torchx.Tensor, l layers) torchx.Tensor {
	op := &net.Ops[i]
	x := values[op.Inputs[0]]
	switch op.Kind {
	case arch.Conv:
		return l.conv(sc, i, op, x)
	case arch.Linear:
		flat := sc.Flatten(x)
		defer sc.Free(flat)
		return l.linear(sc, i, op, flat)
	case arch.GlobalPool:
		return sc.GlobalPool(x)
	case arch.Dropout:
		return l.dropout(sc, i, op, x)
	case arch.Add:
		return sc.Add(x, values[op.Inputs[1]])
	case arch.Take, arch.Concat, arch.Shuffle: // the plan made regroupings of them
	}
	panic(fmt.Sprintf("supernet: %s: %v op in the plan", op.Name, op.Kind))
}

func act(a arch.Act) torchx.Act {
	switch a {
	case arch.ReLU:
		return torchx.ReLU
	case arch.ReLU6:
		return torchx.ReLU6
	case arch.None:
	}
	return torchx.None
}
