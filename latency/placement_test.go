package latency_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"spos/internal/ort"
	"spos/latency"
)

// somewhere is a device that ran a model as it says.
func somewhere(at *ort.Placement) runnerFunc {
	return func() latency.Sample {
		return latency.Sample{Runs: []time.Duration{1e6, 1e6}, Settled: true, Pinned: true, Placement: at}
	}
}

// split is a placement of which OpenVINO ran 8 of 10 nodes and 60 % of the time.
func split() *ort.Placement {
	return &ort.Placement{
		Provider: "openvino",
		Shares:   map[string]ort.Use{"openvino": {Nodes: 8, Time: 0.6}, "cpu": {Nodes: 3, Time: 0.4}},
		Elsewhere: []ort.Stray{
			{Op: "LpPool", Provider: "cpu", Nodes: 2, Time: 0.4},
			{Op: "Shape", Provider: "cpu", Nodes: 1, Shapes: true},
		},
	}
}

func TestFallback(t *testing.T) {
	whole := &ort.Placement{
		Provider: "openvino", Shares: map[string]ort.Use{"openvino": {Nodes: 8, Time: 1}, "cpu": {Nodes: 1}},
		Elsewhere: []ort.Stray{{Op: "Shape", Provider: "cpu", Nodes: 1, Shapes: true}},
	}
	for name, test := range map[string]struct {
		at      *ort.Placement
		allowed float64
		want    string // in the error; "" for none
		warning string
	}{
		"all of it":       {whole, 0, "", ""},
		"part":            {split(), 0, "openvino ran 80 % of the nodes and 60 % of the time, the rest is LpPool on cpu (2 nodes, 40.0 % of the time)", ""},
		"below the share": {split(), 0.3, "--min-share 0.60", ""},
		"allowed share":   {split(), 1 - 0.6, "", "LpPool on cpu"},
		"allowed":         {split(), 1, "", "LpPool on cpu"},
		"nothing":         {&ort.Placement{Provider: "openvino", Shares: map[string]ort.Use{"cpu": {Nodes: 1, Time: 1}}, Elsewhere: []ort.Stray{{Op: "Conv", Provider: "cpu", Nodes: 1, Time: 1}}}, 0, "ran 0 % of the nodes", ""},
		"not told":        {nil, 0, "does not tell", ""},
		"need not tell":   {nil, 1, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := brief()
			p.Session.Provider, p.Fallback = "openvino", test.allowed
			res, err := latency.Measure(t.Context(), somewhere(test.at), models("a")[0], p)
			if test.want != "" {
				if !errors.Is(err, latency.ErrFallback) || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "a") {
					t.Fatalf("error %v, want ErrFallback with %q", err, test.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if res.Placement != test.at {
				t.Error("the result does not carry the placement")
			}
			if said := strings.Join(res.Warnings, "\n"); strings.Contains(said, "openvino ran") != (test.warning != "") || !strings.Contains(said, test.warning) {
				t.Errorf("warnings %q, want %q", said, test.warning)
			}
		})
	}
	if _, err := latency.Measure(t.Context(), somewhere(nil), models("a")[0], brief()); err != nil {
		t.Errorf("the processor alone: %v", err)
	}
}

// What was measured with a fallback allowed does not pass where it is not.
func TestFallbackFromCache(t *testing.T) {
	cache, err := latency.OpenCache(filepath.Join(t.TempDir(), "cache.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer cache.Close()
	m := latency.Meter{Runner: placed{somewhere(split())}, Protocol: brief(), Cache: cache}
	m.Protocol.Session.Provider, m.Protocol.Fallback = "openvino", 1
	if _, err := m.Measure(t.Context(), models("a")...); err != nil {
		t.Fatal(err)
	}
	m.Protocol.Fallback = 0
	m.Runner = placed{} // which would panic
	if _, err := m.Measure(t.Context(), models("a")...); !errors.Is(err, latency.ErrFallback) {
		t.Errorf("error %v, want ErrFallback", err)
	}
}

type placed struct{ runnerFunc }

func (placed) Fingerprint(context.Context, []byte, latency.Protocol) (latency.Fingerprint, error) {
	return latency.Fingerprint{}, nil
}

func TestProviderMissing(t *testing.T) {
	p := brief()
	p.Session.Provider = "abacus"
	_, err := latency.Measure(t.Context(), local(t), latency.Model{Name: "m", Bytes: read(t, "convs2.onnx")}, p)
	if !errors.Is(err, ort.ErrProvider) || !strings.Contains(err.Error(), "built with") {
		t.Errorf("error %v, want ErrProvider", err)
	}
}
