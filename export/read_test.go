package export_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"spos/export"
	"spos/export/onnxpb"
)

// encode is a model's bytes.
func encode(t testing.TB, m *onnxpb.ModelProto) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestInspectExports(t *testing.T) {
	for name, n := range nets(t, 1) {
		w := copied(t, n)
		for variant, o := range variants {
			s, err := export.Inspect(bytesOf(t, n, w, o))
			if err != nil {
				t.Fatalf("%s, %s: %v", name, variant, err)
			}
			c := n.Cost()
			if s.Reader != "onnx-go" {
				t.Errorf("%s, %s: reader %s", name, variant, s.Reader)
			}
			if s.Net == nil || !s.Net.Agrees || s.Net.Params != c.Params || s.Net.MACs != c.MACs || s.Net.Arch != string(n.Arch) {
				t.Errorf("%s, %s: net %+v, want %d parameters and %d MACs", name, variant, s.Net, c.Params, c.MACs)
			}
			if want := max(1, int64(o.Batch)) * c.MACs; s.MACs != want || s.Unknown != nil {
				t.Errorf("%s, %s: %d MACs (unknown: %v), want %d", name, variant, s.MACs, s.Unknown, want)
			}
			if want := viewElements(n, o.KeepNorm); s.Params+s.Buffers != int64(want) {
				t.Errorf("%s, %s: %d parameters and %d buffers, want %d in all", name, variant, s.Params, s.Buffers, want)
			}
		}
	}
}

func TestInspectText(t *testing.T) {
	n := everyKind()
	labels := []string{"cat", "dog\x1b[31m", "bird", "a very special fourth class"}
	s, err := export.Inspect(bytesOf(t, n, copied(t, n), export.Options{Labels: labels, Version: "1.0"}))
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := s.Write(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"input: FLOAT [N, 3, 9, 7]", "logits: FLOAT [N, 4]", "4 labels: cat, dog [31m, bird, …", "spos 1.0", "ir 8, opset ai.onnx 17",
		"34032 a run with N = 1", "0 of test: 1834 parameters with norms unfolded, 34032 MACs an image; agrees",
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in\n%s", want, text.String())
		}
	}
	if strings.ContainsRune(text.String(), '\x1b') {
		t.Error("control characters of the file reach the terminal")
	}
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var back export.Summary
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(back.Inputs[0].Shape, s.Inputs[0].Shape) || back.MACs != s.MACs || back.Metadata[export.KeyLabels] != s.Metadata[export.KeyLabels] {
		t.Errorf("JSON does not round: %s", b)
	}
}

// TestInspectForeign reads what other exporters write and we never do.
func TestInspectForeign(t *testing.T) {
	half := func(m *onnxpb.ModelProto) *onnxpb.ModelProto {
		w := m.Graph.Initializer[0]
		w.DataType, w.RawData, w.FloatData = new(int32(onnxpb.TensorProto_FLOAT16)), make([]byte, 2*len(w.FloatData)), nil
		return m
	}
	layer := sketch{
		x: map[string][]int64{"x": {1, 3, 8, 8}}, w: map[string][]int64{"w": {4, 3, 3, 3}},
		ops: []op{{"Conv", "x w", "y", nil}}, outs: "y",
	}
	square := layer
	square.ops = []op{{"Conv", "x w", "a", nil}, {"Mul", "a a", "y", nil}}
	listed := layer.model() // files before IR 4 list initializers as inputs
	listed.Graph.Input = append(listed.Graph.Input, info("w", []int64{4, 3, 3, 3}))
	external := layer.model()
	external.Graph.Initializer[0].DataLocation = onnxpb.TensorProto_EXTERNAL.Enum()
	external.Graph.Initializer[0].FloatData = nil
	external.Graph.Initializer[0].ExternalData = []*onnxpb.StringStringEntryProto{{Key: new("location"), Value: new("/etc/passwd")}}
	branch := layer.model()
	branch.Graph.Node = append(branch.Graph.Node, &onnxpb.NodeProto{
		OpType: new("If"), Input: []string{"y"}, Output: []string{"z"},
		Attribute: []*onnxpb.AttributeProto{{Name: new("then_branch"), Type: onnxpb.AttributeProto_GRAPH.Enum(), G: &onnxpb.GraphProto{}}},
	})
	domain := layer.model()
	domain.Graph.Node[0].Domain = new("com.example")
	batchless := layer.model()
	batchless.Graph.Input[0].Type = nil

	const params, macs = 4 * 3 * 3 * 3, 4 * 6 * 6 * 27
	tests := map[string]struct {
		m       *onnxpb.ModelProto
		reader  string // prefix
		macs    int64
		unknown int
	}{
		"plain":               {layer.model(), "onnx-go", macs, 0},
		"one value twice":     {square.model(), "onnx-go", macs, 0},
		"float16":             {half(layer.model()), "onnxpb (onnx-go: ", macs, 0},
		"listed initializers": {listed, "onnx-go", macs, 0},
		"external data":       {external, "onnxpb (onnx-go: external data)", macs, 0},
		"subgraph":            {branch, "onnxpb (onnx-go: subgraphs)", macs, 1},
		"foreign domain":      {domain, "onnx-go", 0, 1},
		"no input shape":      {batchless, "onnx-go", 0, 1},
	}
	for name, tt := range tests {
		s, err := export.Inspect(encode(t, tt.m))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !strings.HasPrefix(s.Reader, tt.reader) || s.Params != params || s.MACs != tt.macs || len(s.Unknown) != tt.unknown || len(s.Inputs) != 1 {
			t.Errorf("%s: %+v", name, s)
		}
		if s.Net != nil {
			t.Errorf("%s: net %+v of a file that is none of ours", name, s.Net)
		}
	}
}

func TestInspectBroken(t *testing.T) {
	n := everyKind()
	whole := bytesOf(t, n, copied(t, n), export.Options{})
	small := func() *onnxpb.ModelProto {
		return sketch{x: map[string][]int64{"x": {2, 3}}, w: map[string][]int64{"w": {3}}, ops: []op{{"Add", "x w", "a", nil}, {"Relu", "a", "y", nil}}, outs: "y"}.model()
	}
	edit := func(f func(g *onnxpb.GraphProto)) []byte {
		m := small()
		f(m.Graph)
		return encode(t, m)
	}
	// Graphs nested in attributes.
	var nested []byte
	for range 100 {
		attr := protowire.AppendBytes(protowire.AppendTag(nil, 6, protowire.BytesType), nested)
		node := protowire.AppendBytes(protowire.AppendTag(nil, 5, protowire.BytesType), attr)
		nested = protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), node)
	}
	deep := protowire.AppendBytes(protowire.AppendTag(nil, 7, protowire.BytesType), nested)
	// Two bytes each in the file, a hundred and more in memory.
	many := protowire.AppendBytes(protowire.AppendTag(nil, 7, protowire.BytesType), bytes.Repeat([]byte{1<<3 | 2, 0}, 2<<20))

	tests := map[string]struct {
		file []byte
		want string
	}{
		"empty":        {nil, "no graph"},
		"text":         {[]byte("#!/bin/sh\necho this is no model\n"), ""},
		"cut in half":  {whole[:len(whole)/2], ""},
		"cut at end":   {whole[:len(whole)-3], ""},
		"deep":         {deep, "nested deeper"},
		"many":         {many, "more than"},
		"no output":    {edit(func(g *onnxpb.GraphProto) { g.Output = nil }), "no graph with outputs"},
		"lost output":  {edit(func(g *onnxpb.GraphProto) { g.Output[0].Name = new("z") }), `output "z"`},
		"lost weight":  {edit(func(g *onnxpb.GraphProto) { g.Initializer = nil }), `reads "w"`},
		"cycle":        {edit(func(g *onnxpb.GraphProto) { g.Node[0].Input[1] = "y" }), "cycle"},
		"out of order": {edit(func(g *onnxpb.GraphProto) { slices.Reverse(g.Node) }), "out of order"},
		"two makers":   {edit(func(g *onnxpb.GraphProto) { g.Node[1].Output[0] = "a" }), "two makers"},
		"made input":   {edit(func(g *onnxpb.GraphProto) { g.Node[1].Output[0] = "x" }), `makes "x"`},
		"two weights":  {edit(func(g *onnxpb.GraphProto) { g.Initializer = append(g.Initializer, g.Initializer[0]) }), "exists twice"},
		"two inputs":   {edit(func(g *onnxpb.GraphProto) { g.Input = append(g.Input, g.Input[0]) }), "listed twice"},
		"huge shape":   {edit(func(g *onnxpb.GraphProto) { g.Initializer[0].Dims = []int64{math.MaxInt64, 3} }), "impossible shape"},
		"overflow":     {edit(func(g *onnxpb.GraphProto) { g.Initializer[0].Dims = []int64{1 << 32, 1 << 32} }), "impossible shape"},
		"negative":     {edit(func(g *onnxpb.GraphProto) { g.Initializer[0].Dims = []int64{-3} }), "impossible shape"},
		"many axes":    {edit(func(g *onnxpb.GraphProto) { g.Initializer[0].Dims = slices.Repeat([]int64{1}, 1000) }), "1000 dimensions"},
		"few data":     {edit(func(g *onnxpb.GraphProto) { g.Initializer[0].Dims = []int64{1 << 40} }), "3 elements"},
		"odd bytes": {edit(func(g *onnxpb.GraphProto) {
			g.Initializer[0].FloatData, g.Initializer[0].RawData = nil, make([]byte, 13)
		}), "13 bytes"},
		"contradiction": {edit(func(g *onnxpb.GraphProto) { g.Initializer[0].Dims = []int64{3, 1} }), "node 0 (Add making a)"},
	}
	for name, tt := range tests {
		s, err := export.Inspect(tt.file)
		if err == nil || !errors.Is(err, export.ErrNotONNX) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want one with %q; summary %+v", name, err, tt.want, s)
		}
	}
}

func TestInspectFile(t *testing.T) {
	n, path := everyKind(), filepath.Join(t.TempDir(), "m.onnx")
	if err := os.WriteFile(path, bytesOf(t, n, copied(t, n), export.Options{}), 0o644); err != nil {
		t.Fatal(err)
	}
	if s, err := export.InspectFile(path); err != nil || s.Graph != "test/0" {
		t.Errorf("%+v, %v", s, err)
	}
	if err := os.WriteFile(path, []byte("no"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := export.InspectFile(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("error %v does not name the file", err)
	}
	if _, err := export.InspectFile(path + "2"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v of a missing file", err)
	}
}

// TestCheckFinds spoils exported models in ways that Check must see.
func TestCheckFinds(t *testing.T) {
	tests := map[string]func(m *onnxpb.ModelProto){
		"renamed node output": func(m *onnxpb.ModelProto) { m.Graph.Node[0].Output[0] = "other" },
		"declared shape":      func(m *onnxpb.ModelProto) { m.Graph.ValueInfo[0] = info("stem", []int64{1, 12, 5, 5}) },
		"stride": func(m *onnxpb.ModelProto) {
			for _, a := range m.Graph.Node[0].Attribute {
				if a.GetName() == "strides" {
					a.Ints = []int64{1, 1}
				}
			}
		},
		"lost bias": func(m *onnxpb.ModelProto) {
			m.Graph.Node[0].Input = m.Graph.Node[0].Input[:2]
		},
		"metadata": func(m *onnxpb.ModelProto) { m.MetadataProps = nil },
	}
	for name, spoil := range tests {
		n := everyKind()
		m, err := export.Model(n, copied(t, n), export.Options{})
		if err != nil {
			t.Fatal(err)
		}
		spoil(m)
		if err := export.Check(m, n); err == nil {
			t.Errorf("%s: not noticed", name)
		}
	}
	n := everyKind()
	m, err := export.Model(n, copied(t, n), export.Options{})
	if err != nil {
		t.Fatal(err)
	}
	n.Ops[0].Out.H++
	if err := export.Check(m, n); !errors.Is(err, export.ErrMismatch) {
		t.Errorf("another net: %v", err)
	}
}

// FuzzInspect: no file makes it panic, and what it accepts it can print.
func FuzzInspect(f *testing.F) {
	n := everyKind()
	f.Add(bytesOf(f, n, copied(f, n), export.Options{}))
	f.Add(encode(f, sketch{
		x: map[string][]int64{"x": {2, 3, 4}}, ints: map[string][]int64{"i": {0}, "m": {-1}}, ops: []op{
			{"Shape", "x", "s", nil}, {"Gather", "s i", "g", nil}, {"Concat", "g m", "t", map[string]any{"axis": 0}}, {"Reshape", "x t", "r", nil},
			{"Unsqueeze", "r i", "u", nil}, {"Squeeze", "u i", "q", nil}, {"Slice", "q i m", "l", nil}, {"Split", "l", "y", nil},
		}, outs: "y",
	}.model()))
	f.Add([]byte("\x3a\x02\x0a\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := export.Inspect(b)
		if err != nil {
			if !errors.Is(err, export.ErrNotONNX) {
				t.Errorf("error %v does not say what is wrong", err)
			}
			return
		}
		if err := s.Write(&bytes.Buffer{}); err != nil {
			t.Error(err)
		}
		if _, err := json.Marshal(s); err != nil {
			t.Error(err)
		}
	})
}
