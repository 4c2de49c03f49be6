package ort_test

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"spos/internal/ort"
)

func TestProviders(t *testing.T) {
	r := open(t)
	has, err := r.Providers()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(has, ort.CPU) || !slices.IsSorted(has) {
		t.Errorf("Providers() = %v, want cpu among them, sorted", has)
	}
	for _, name := range append(ort.Providers(), "abacus") {
		if slices.Contains(has, name) {
			continue
		}
		_, err := r.NewSession(model(t, "conv.onnx"), ort.Options{Provider: name})
		if !errors.Is(err, ort.ErrProvider) {
			t.Errorf("provider %s: error %v, want ErrProvider", name, err)
			continue
		}
		for _, want := range []string{name, r.Path(), "built with", "cpu", "SPOS_ONNXRUNTIME"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("provider %s: %q lacks %q", name, err, want)
			}
		}
	}
}

func TestProviderName(t *testing.T) {
	for in, want := range map[string]string{
		"": "cpu", "CPU": "cpu", "OpenVINOExecutionProvider": "openvino", "XnnpackExecutionProvider": "xnnpack",
		"QNN": "qnn", "TensorrtExecutionProvider": "tensorrt",
	} {
		if got := ort.ProviderName(in); got != want {
			t.Errorf("ProviderName(%q) = %q, want %q", in, got, want)
		}
	}
}

// A provider with a pool of its own gets the threads, and the library's pool
// stays out of its way.
func TestOwnPool(t *testing.T) {
	threads := map[string]string{"session.intra_op_thread_affinities": "2"}
	for name, option := range map[string]string{"xnnpack": "intra_op_num_threads", "openvino": "num_of_threads"} {
		got := ort.Settled(ort.Options{Provider: name, IntraOp: 2, Config: threads})
		want := ort.Options{
			Provider: name, IntraOp: 1, Spinning: new(false), Config: map[string]string{},
			ProviderConfig: map[string]string{option: "2"},
		}
		if d := cmp.Diff(want, got, cmp.AllowUnexported(ort.Options{})); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
		own := ort.Settled(ort.Options{Provider: name, IntraOp: 2, Spinning: new(true), ProviderConfig: map[string]string{option: "3"}})
		if own.ProviderConfig[option] != "3" || !*own.Spinning {
			t.Errorf("%s: what was said is not kept: %+v", name, own)
		}
	}
	if got := ort.Settled(ort.Options{IntraOp: 2, Config: threads}); got.IntraOp != 2 || len(got.Config) != 1 {
		t.Errorf("cpu: %+v", got)
	}
}

// place runs a model of testdata as a measurement would.
func place(t *testing.T, name string, o ort.Options) (ort.Placement, error) {
	return open(t).Place(model(t, name), o, func(s *ort.Session) (*ort.Fixed, error) {
		in := make([]ort.Tensor, len(s.Inputs()))
		for i, info := range s.Inputs() {
			shape := slices.Clone(info.Shape)
			for d := range shape {
				shape[d] = max(shape[d], 1)
			}
			var err error
			if in[i], err = ort.New(info.Type, shape...); err != nil {
				return nil, err
			}
		}
		return s.Fix(in, make([]ort.Tensor, len(s.Outputs())))
	})
}

func TestPlace(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	for _, level := range []ort.GraphLevel{ort.LevelDisable, ort.LevelAll} {
		p, err := place(t, "conv.onnx", ort.Options{GraphLevel: level})
		if err != nil {
			t.Fatal(err)
		}
		nodes, time := p.Share()
		if use := p.Shares[ort.CPU]; p.Provider != ort.CPU || use.Nodes < 1 || nodes != 1 || time < 0.999 || len(p.Elsewhere) != 0 {
			t.Errorf("graph level %s: %+v, share %v, %v", level, p, nodes, time)
		}
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Errorf("left in the directory for temporary files: %v, %v", left, err)
	}

	t.Setenv("TMPDIR", dir+"/missing")
	if _, err := place(t, "conv.onnx", ort.Options{Name: "conv"}); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "conv") {
		t.Errorf("no directory for temporary files: error %v", err)
	}
}

// profile is two runs, of which the second counts: a compiled subgraph, an
// operator in a loop, one left to the processor, arithmetic on a shape.
const profile = `[
{"cat" : "Session","dur" :34204,"ts" :800,"ph" : "X","name" :"session_initialization","args" : {}},
{"cat" : "Node","dur" :2928,"name" :"sub_kernel_time","args" : {"output_type_shape" : [{"float":[1,16]}],"node_index" : "4","provider" : "OpenVINOExecutionProvider","op_name" : "sub"}},
{"cat" : "Session","dur" :2968,"name" :"model_run","args" : {}},
{"cat" : "Node","dur" :60,"name" :"sub_kernel_time","args" : {"output_type_shape" : [{"float":[1,16]}],"node_index" : "4","provider" : "OpenVINOExecutionProvider","op_name" : "sub"}},
{"cat" : "Node","dur" :10,"name" :"d_kernel_time","args" : {"output_type_shape" : [{"float":[1,16]}],"node_index" : "2","provider" : "CPUExecutionProvider","op_name" : "Det"}},
{"cat" : "Node","dur" :10,"name" :"d_kernel_time","args" : {"output_type_shape" : [{"float":[1,16]}],"node_index" : "2","provider" : "CPUExecutionProvider","op_name" : "Det"}},
{"cat" : "Node","dur" :20,"name" :"s_kernel_time","args" : {"output_type_shape" : [{"int64":[4]}],"node_index" : "3","provider" : "CPUExecutionProvider","op_name" : "Shape"}},
{"cat" : "Session","dur" :187,"name" :"model_run","args" : {}}
]`

func TestProfile(t *testing.T) {
	p, err := ort.PlaceProfile(strings.NewReader(profile), "openvino")
	if err != nil {
		t.Fatal(err)
	}
	want := ort.Placement{
		Provider: "openvino",
		Shares:   map[string]ort.Use{"openvino": {Nodes: 1, Time: 0.6}, "cpu": {Nodes: 2, Time: 0.4}},
		Elsewhere: []ort.Stray{
			{Op: "Det", Provider: "cpu", Nodes: 1, Time: 0.2},
			{Op: "Shape", Provider: "cpu", Nodes: 1, Time: 0.2, Shapes: true},
		},
	}
	if d := cmp.Diff(want, p); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if nodes, time := p.Share(); nodes != 0.5 || time < 0.7499 || time > 0.7501 { // Shape does not count
		t.Errorf("Share() = %v, %v, want 0.5, 0.75", nodes, time)
	}
	none, err := ort.PlaceProfile(strings.NewReader(profile), "cuda")
	if err != nil {
		t.Fatal(err)
	}
	if nodes, time := none.Share(); nodes != 0 || time != 0 {
		t.Errorf("nothing ran on cuda: Share() = %v, %v", nodes, time)
	}
}

func TestProfileErrors(t *testing.T) {
	for name, text := range map[string]string{
		"empty":    "",
		"object":   `{"cat":"Node"}`,
		"cut":      profile[:len(profile)-2],
		"no run":   `[{"cat" : "Node","dur" :1,"name" :"a_kernel_time"}]`,
		"no event": `[]`,
		"quotes":   `[{"cat" : "Node","name" :"a"b_kernel_time"}]`,
	} {
		if p, err := ort.PlaceProfile(strings.NewReader(text), "cpu"); err == nil {
			t.Errorf("%s: accepted as %+v", name, p)
		}
	}
}

func FuzzProfile(f *testing.F) {
	f.Add(profile)
	f.Add(`[{"cat":"Node","dur":-5,"name":"_kernel_time","args":{"output_type_shape":[{"int64":[-1,9999999999]}]}},{"cat":"Session","name":"model_run"}]`)
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ort.PlaceProfile(strings.NewReader(text), "cpu")
		if err != nil {
			return
		}
		nodes := 0
		for _, use := range p.Shares {
			nodes += use.Nodes
			if use.Time < 0 || use.Time > 1+1e-9 {
				t.Errorf("time share %v", use.Time)
			}
		}
		if nodes == 0 {
			t.Error("no node, and no error")
		}
	})
}
