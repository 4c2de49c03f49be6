package export_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"spos/configs"
	"spos/export"
	"spos/export/onnxpb"
	"spos/internal/arch"
	"spos/internal/ckpt"
	"spos/internal/ort"
	"spos/internal/refnet"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// variants are the ways to export that must all mean the same.
var variants = map[string]export.Options{
	"folded":       {},
	"static batch": {Batch: 2},
	"norms kept":   {KeepNorm: true},
	"old":          {Opset: 13},
	"new":          {Opset: 22},
}

func TestModelIsTheNet(t *testing.T) {
	for name, n := range nets(t, 2) {
		w := copied(t, n)
		for variant, o := range variants {
			m, err := export.Model(n, w, o)
			if err != nil {
				t.Fatalf("%s, %s: %v", name, variant, err)
			}
			if err := export.Check(m, n); err != nil {
				t.Errorf("%s, %s: %v", name, variant, err)
			}
			if got, want := elements(m), viewElements(n, o.KeepNorm); got != want {
				t.Errorf("%s, %s: initializers hold %d numbers, want %d", name, variant, got, want)
			}
		}
	}
}

// elements is the sum of float initializers, scalars aside.
func elements(m *onnxpb.ModelProto) int {
	sum := 0
	for _, t := range m.GetGraph().GetInitializer() {
		if t.GetDataType() == int32(onnxpb.TensorProto_FLOAT) && len(t.GetDims()) > 0 {
			sum += len(t.GetRawData()) / 4
		}
	}
	return sum
}

// viewElements is what the file should hold: all views; folded, each norm's
// are replaced by a bias; kept, norms that are not affine get ones and zeros.
func viewElements(n *arch.Net, kept bool) int {
	sum := 0
	for v := range n.Views() {
		sum += v.Numel()
	}
	for i := range n.Ops {
		o := &n.Ops[i]
		if o.Norm == nil {
			continue
		}
		has := 2 * o.Out.C
		if o.Norm.Gamma != nil {
			has += 2 * o.Out.C
		}
		if kept {
			sum += 4*o.Out.C - has
		} else {
			sum += o.Out.C - has
		}
	}
	return sum
}

// logitsTolerance is relative to the spread of the logits: float32 sums of up
// to a few thousand products over fifty layers stay an order below.
const logitsTolerance = 1e-4

func TestRuntimeAgreesWithReference(t *testing.T) {
	rt := runtime(t)
	for name, n := range nets(t, 1) {
		batch := 2
		if n.In.H > 100 {
			if n.Space != "shufflenetv2-spos" {
				continue
			}
			batch = 1 // the reference takes its time: one net, one image of full size
		}
		t.Run(name, func(t *testing.T) {
			w, x := copied(t, n), images(n, batch)
			want, err := refnet.Run(n, w, nil, x, batch)
			if err != nil {
				t.Fatal(err)
			}
			for variant, o := range variants {
				if o.Batch > 0 && o.Batch != batch {
					continue
				}
				got := run(t, rt, bytesOf(t, n, w, o), n, x, batch)
				d := export.Compare(want, got, n.Classes())
				if d.MaxRel > logitsTolerance || d.Top1 != batch {
					t.Errorf("%s: %+v", variant, d)
				}
				if d.Spread < 1e-3 {
					t.Errorf("logits hardly differ (spread %g): the comparison shows nothing", d.Spread)
				}
			}
		})
	}
}

// run is the logits of ONNX Runtime, whose view of the model is compared, too.
func run(t *testing.T, rt *ort.Runtime, file []byte, n *arch.Net, x []float32, batch int) []float32 {
	t.Helper()
	s, err := rt.NewSession(file, ort.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if in := s.Inputs(); len(in) != 1 || in[0].Name != export.InputName || in[0].Shape[1] != int64(n.In.C) {
		t.Errorf("inputs %+v", in)
	}
	out := make([]ort.Tensor, 1)
	in := ort.Of(x, int64(batch), int64(n.In.C), int64(n.In.H), int64(n.In.W))
	if err := s.Run(context.Background(), []ort.Tensor{in}, out); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(out[0].Shape, []int64{int64(batch), int64(n.Classes())}) {
		t.Errorf("output shape %v, want %d×%d", out[0].Shape, batch, n.Classes())
	}
	return slices.Clone(ort.View[float32](out[0]))
}

func TestStats(t *testing.T) {
	rt, n := runtime(t), everyKind()
	w, x := export.Random(n, seed), images(n, 1)
	s := stats{"deep": {{1, -2, 0, 0.5, 3, 0}, {1, 2, 3, 4, 5, 1e-3}}}
	want, err := refnet.Run(n, w, s, x, 1)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := refnet.Run(n, w, nil, x, 1)
	if err != nil {
		t.Fatal(err)
	}
	if export.Compare(want, plain, 4).MaxRel < 0.01 {
		t.Error("the statistics change nothing")
	}
	for _, keep := range []bool{false, true} {
		got := run(t, rt, bytesOf(t, n, w, export.Options{Stats: s, KeepNorm: keep}), n, x, 1)
		if d := export.Compare(want, got, 4); d.MaxRel > logitsTolerance {
			t.Errorf("norms kept %v: %+v", keep, d)
		}
	}
}

func TestModelErrors(t *testing.T) {
	n := everyKind()
	spoil := func(f func(tensors)) export.Weights {
		ts := copied(t, n)
		f(ts)
		return ts
	}
	good := spoil(func(tensors) {})
	tests := map[string]struct {
		w    export.Weights
		o    export.Options
		want string
		is   error
	}{
		"missing tensor": {w: spoil(func(ts tensors) { delete(ts, "deep.weight") }), want: "op deep", is: ckpt.ErrMissing},
		"other shape":    {w: spoil(func(ts tensors) { ts["deep.weight"] = ckpt.Tensor{Shape: []int{2}, Data: make([]float32, 2)} }), want: "deep.weight has shape [2]"},
		"not a number":   {w: spoil(func(ts tensors) { ts["head.weight"].Data[3] = float32(math.NaN()) }), want: "head.weight, element 3"},
		"infinite":       {w: spoil(func(ts tensors) { ts["hidden.bias"].Data[0] = float32(math.Inf(-1)) }), want: "hidden.bias, element 0"},
		"negative variance": {
			w: spoil(func(ts tensors) { ts["stem.bn.running_var"].Data[2] = -1 }), want: "op stem, channel 2",
		},
		"short statistics": {w: good, o: export.Options{Stats: stats{"deep": {{1}, {1}}}}, want: "op deep"},
		"old opset":        {w: good, o: export.Options{Opset: 12}, want: "opset 12"},
		"new opset":        {w: good, o: export.Options{Opset: 99}, want: "opset 99"},
		"negative batch":   {w: good, o: export.Options{Batch: -1}, want: "batch -1"},
		"few labels":       {w: good, o: export.Options{Labels: []string{"a"}}, want: "1 labels for 4 classes"},
		"no JSON":          {w: good, o: export.Options{Preprocess: json.RawMessage("{")}, want: "preprocess"},
	}
	for name, tt := range tests {
		_, err := export.Model(n, tt.w, tt.o)
		if err == nil || !strings.Contains(err.Error(), tt.want) || tt.is != nil && !errors.Is(err, tt.is) {
			t.Errorf("%s: error %v, want one with %q", name, err, tt.want)
		}
	}
	clash := everyKind()
	clash.Ops[3].Name = "stem"
	if _, err := export.Model(clash, good, export.Options{}); err == nil {
		t.Error("two ops of one name are exported")
	}
}

func TestMetadata(t *testing.T) {
	n := everyKind()
	b := bytesOf(t, n, export.Random(n, seed), export.Options{
		Version: "1.2.3", Labels: []string{"a", "b", "ü", "d"},
		Preprocess: json.RawMessage(`{"resize":256}`), Lineage: map[string]string{"seed": "7", "run": "subnet"},
	})
	var m onnxpb.ModelProto
	if err := proto.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	var keys []string
	for _, e := range m.GetMetadataProps() {
		got[e.GetKey()] = e.GetValue()
		keys = append(keys, e.GetKey())
	}
	cost, err := json.Marshal(n.Cost())
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"spos.format": "1", "spos.space": "test", "spos.arch": "0", "spos.norm": "folded", "spos.norm_params": "56",
		"spos.cost": string(cost), "spos.labels": `["a","b","ü","d"]`, "spos.preprocess": `{"resize":256}`,
		"spos.lineage": `{"run":"subnet","seed":"7"}`,
	}
	if !maps.Equal(got, want) || !slices.IsSorted(keys) {
		t.Errorf("metadata %v,\nwant %v", got, want)
	}
	if m.GetProducerName() != "spos" || m.GetProducerVersion() != "1.2.3" || m.GetIrVersion() != 8 || m.GetOpsetImport()[0].GetVersion() != 17 {
		t.Errorf("producer %s %s, ir %d", m.GetProducerName(), m.GetProducerVersion(), m.GetIrVersion())
	}
}

// TestGolden holds the exact bytes of a few nets: a change of the exporter
// that is meant to change nothing leaves them alone.
func TestGolden(t *testing.T) {
	var lines []string
	hash := func(name string, n *arch.Net, o export.Options) {
		sum := sha256.Sum256(bytesOf(t, n, export.Random(n, seed), o))
		lines = append(lines, fmt.Sprintf("%s  %s", hex.EncodeToString(sum[:]), name))
	}
	hash("every-kind", everyKind(), export.Options{})
	hash("every-kind-kept", everyKind(), export.Options{KeepNorm: true, Opset: 13, Batch: 3})
	for _, name := range configs.Spaces() {
		s, err := configs.Space(name)
		if err != nil {
			t.Fatal(err)
		}
		choices := make([]int, s.Len())
		for i := range choices {
			choices[i] = i % len(s.Candidates(i))
		}
		n, err := s.Net(arch.Make(choices))
		if err != nil {
			t.Fatal(err)
		}
		hash(name, n, export.Options{})
	}
	got, path := strings.Join(lines, "\n")+"\n", filepath.Join("testdata", "golden.sha256")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("exported bytes changed; if they should, run with -update and review:\n%swant\n%s", got, want)
	}
}

// TestRandomIsSane looks at the activations that random weights give: their
// size must not drift over the depth of a net.
func TestRandomIsSane(t *testing.T) {
	for _, name := range configs.Spaces() {
		s, err := configs.Space(name)
		if err != nil {
			t.Fatal(err)
		}
		n, err := shrunk(t, s).Net(s.Sample(rng(3)))
		if err != nil {
			t.Fatal(err)
		}
		// A linear layer's standard deviation is the only thing between the last
		// features and the logits.
		y, err := refnet.Run(n, export.Random(n, seed), nil, images(n, 1), 1)
		if err != nil {
			t.Fatal(err)
		}
		sum := 0.0
		for _, v := range y {
			sum += float64(v) * float64(v)
		}
		head := n.Ops[len(n.Ops)-1]
		features := math.Sqrt(sum/float64(len(y))) / (head.Weight.Init.Deviation() * math.Sqrt(float64(head.In.C)))
		if features < 0.05 || features > 20 {
			t.Errorf("%s: features have size %g, want about one", name, features)
		}
	}
}

func TestWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "model.onnx")
	want := bytesOf(t, everyKind(), export.Random(everyKind(), seed), export.Options{})
	if err := export.Write(path, want); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, want) {
		t.Error("the file is not the model's bytes")
	}
	if err := export.Write(filepath.Join(path, "under-a-file"), want); err == nil {
		t.Error("no error where the directory is a file")
	}
}

func TestCompare(t *testing.T) {
	nan := float32(math.NaN())
	tests := map[string]struct {
		a, b []float32
		want export.Diff
	}{
		"equal":       {[]float32{0, 1, 3, 2}, []float32{0, 1, 3, 2}, export.Diff{Spread: 3, Top1: 2, Rows: 2}},
		"other order": {[]float32{0, 1, 3, 2}, []float32{0, 1, 3, 5}, export.Diff{MaxAbs: 3, MaxRel: 1, Spread: 3, Top1: 1, Rows: 2, WorstRow: 1}},
		"nan":         {[]float32{0, 1}, []float32{nan, 1}, export.Diff{MaxAbs: math.Inf(1), MaxRel: math.Inf(1), Spread: 1, Top1: 0, Rows: 1}},
		"empty":       {nil, nil, export.Diff{}},
	}
	for name, tt := range tests {
		got := export.Compare(tt.a, tt.b, 2)
		if name == "nan" {
			got.Top1 = 0 // whatever compares with no number
		}
		if got != tt.want {
			t.Errorf("%s: %+v, want %+v", name, got, tt.want)
		}
	}
}
