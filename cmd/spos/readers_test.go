package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"spos/cmd/internal/cli"
	"spos/configs"
	"spos/export"
	"spos/internal/arch"
	"spos/internal/data"
	"spos/internal/refnet"
	"spos/supernet"
)

// TestReadersAgree holds the readers of a net against one another: for random
// archs of every shipped space, parameters by cost, by weight views, by ONNX
// initializers and by the tensors that libtorch uses are one number; shapes
// are the net's; and the logits of libtorch, of ONNX Runtime and of the plain
// reference agree. Agreement is relative to the spread of the logits: 1e-4 is
// ten times what float32 sums of a few hundred terms in another order give.
func TestReadersAgree(t *testing.T) {
	const tolerance = 1e-4
	for _, name := range configs.Spaces() {
		s, err := configs.Space(name)
		if err != nil {
			t.Fatal(err)
		}
		// 64 pixels still have every stride and every shape of kernel overlap.
		if s.In.H > 64 {
			if s, err = s.With(arch.Shape{C: s.In.C, H: 64, W: 64}, s.Classes); err != nil {
				t.Fatal(err)
			}
		}
		r := rand.New(rand.NewPCG(11, 12))
		for range 3 {
			a := s.Sample(r)
			t.Run(fmt.Sprintf("%s/%s", name, a), func(t *testing.T) {
				n, err := s.Net(a)
				if err != nil {
					t.Fatal(err)
				}
				agree(t, n, r, tolerance)
			})
		}
	}
}

func agree(t *testing.T, n *arch.Net, r *rand.Rand, tolerance float64) {
	const batch = 4
	images := make([]float32, batch*n.In.Numel())
	for i := range images {
		images[i] = float32(r.NormFloat64())
	}
	b := data.Batch{Images: images, Labels: make([]int64, batch), N: batch, Shape: n.In}

	var params []arch.Param
	trainable := int64(0)
	for v := range n.Views() {
		params = append(params, v.Param)
		if v.Role.Trainable() {
			trainable += int64(v.Numel())
		}
	}
	if c := n.Cost(); c.Params != trainable {
		t.Errorf("cost counts %d parameters, the views hold %d", c.Params, trainable)
	}

	model, err := supernet.New(params, supernet.Options{Seed: 5})
	if err != nil {
		t.Fatal(err)
	}
	defer model.Close()
	// Random weights need statistics of their own, or activations overflow.
	stats, err := model.Calibrate(t.Context(), n, func(yield func(data.Batch, error) bool) { yield(b, nil) })
	if err != nil {
		t.Fatal(err)
	}
	tensors, err := model.Extract(n, stats)
	if err != nil {
		t.Fatal(err)
	}
	if len(tensors) != len(params) {
		t.Errorf("libtorch uses %d tensors, the net has %d", len(tensors), len(params))
	}
	torch, err := model.Logits(t.Context(), n, stats, b)
	if err != nil {
		t.Fatal(err)
	}
	reference, err := refnet.Run(n, bag(tensors), nil, images, batch)
	if err != nil {
		t.Fatal(err)
	}
	compare(t, "libtorch and the reference", n, torch, reference, tolerance)
	compare(t, "ONNX Runtime and the reference", n, onnxLogits(t, n, bag(tensors), b), reference, tolerance)
}

// onnxLogits exports the net, proves the file's structure and runs it.
func onnxLogits(t *testing.T, n *arch.Net, w bag, b data.Batch) []float32 {
	m, err := export.Model(n, w, export.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := export.Check(m, n); err != nil {
		t.Error(err)
	}
	text, err := export.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	sum, err := export.Inspect(text)
	if err != nil {
		t.Fatal(err)
	}
	if c := n.Cost(); sum.Net == nil || !sum.Net.Agrees || sum.Net.Params != c.Params || sum.MACs != c.MACs {
		t.Errorf("the file read back has %+v and %d MACs; the net %+v", sum.Net, sum.MACs, c)
	}
	if sum.Reader != "onnx-go" {
		t.Errorf("the independent reader could not read the file: %s", sum.Reader)
	}
	rt, err := cli.OpenRuntime()
	if err != nil {
		t.Fatal(err)
	}
	on, err := openONNX(rt, text, n, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer on.session.Close()
	logits, err := on.logits(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	return logits
}

func compare(t *testing.T, who string, n *arch.Net, got, want []float32, tolerance float64) {
	t.Helper()
	d := export.Compare(want, got, n.Classes())
	if math.IsNaN(d.Spread) || d.Spread == 0 || !(d.MaxRel <= tolerance) {
		t.Errorf("%s differ by %.3g of a spread of %.3g", who, d.MaxRel, d.Spread)
	}
}
