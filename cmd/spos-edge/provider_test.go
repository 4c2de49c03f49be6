package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"spos/latency"
)

// TestOpenVINO measures on a provider other than the processor's: SPOS_OPENVINO names the libonnxruntime.so of a
// build that has OpenVINO, which itself computes on the processor.
func TestOpenVINO(t *testing.T) {
	library := os.Getenv("SPOS_OPENVINO")
	if library == "" {
		t.Skip("SPOS_OPENVINO does not name a libonnxruntime.so with OpenVINO: make openvino does")
	}
	spos := func(args ...string) (stdout, stderr string, err error) {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), self, args...)
		cmd.Env = []string{runMain + "=1", "SPOS_ONNXRUNTIME=" + library, "TMPDIR=" + t.TempDir(), "HOME=" + t.TempDir()}
		var out, errs strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &errs
		err = cmd.Run()
		return out.String(), errs.String(), err
	}
	measure := func(model string, args ...string) (latency.Result, string, error) {
		out, errs, err := spos(append([]string{"latency", "measure", "--quick", "--json", "--provider", "openvino", model}, args...)...)
		if err != nil {
			return latency.Result{}, errs, err
		}
		var results []latency.Result
		if err := json.Unmarshal([]byte(out), &results); err != nil || len(results) != 1 {
			t.Fatalf("%v: %s", err, out)
		}
		return results[0], errs, nil
	}

	shufflenet := filepath.Join(t.TempDir(), "shufflenet.onnx")
	if _, errs, err := spos("export", "--space", "shufflenetv2-spos", "--arch", "21012020202300003233", "-o", shufflenet); err != nil {
		t.Fatalf("%v: %s", err, errs)
	}
	for _, model := range []string{"../../latency/testdata/convs8.onnx", shufflenet} {
		r, errs, err := measure(model)
		if err != nil {
			t.Fatalf("%s: %v: %s", model, err, errs)
		}
		use := r.Placement.Shares["openvino"]
		if use.Nodes < 16 || use.Time < 0.999 || len(r.Placement.Elsewhere) != 0 || r.Fingerprint.Session.Provider != "openvino" {
			t.Errorf("%s: %+v on %+v, want all of it on openvino", model, *r.Placement, r.Fingerprint.Session)
		}
		t.Logf("%s: %d nodes on openvino, p50 %v", filepath.Base(model), use.Nodes, r.P50)
	}

	const stray = "../../latency/testdata/lppool.onnx"
	_, errs, err := measure(stray)
	if err == nil || !strings.Contains(errs, "LpPool on cpu (1 node") || !strings.Contains(errs, "80 % of the nodes") {
		t.Errorf("an operator that OpenVINO has not: error %v: %s", err, errs)
	}
	r, errs, err := measure(stray, "--allow-fallback")
	if err != nil {
		t.Fatalf("%v: %s", err, errs)
	}
	if nodes, time := r.Placement.Share(); nodes != 0.8 || time <= 0 || time >= 1 || !strings.Contains(strings.Join(r.Warnings, "\n"), "LpPool") {
		t.Errorf("allowed: share %v, %v, warnings %q", nodes, time, r.Warnings)
	}
	// OpenVINO says nothing of a device that it has not, and the processor runs it all.
	if _, errs, err := measure(stray, "--provider-option", "device_type=ABACUS"); err == nil || !strings.Contains(errs, "ran 0 % of the nodes") || !strings.Contains(errs, "options") {
		t.Errorf("a device that is not there: error %v: %s", err, errs)
	}
	if _, errs, err := measure(stray, "--provider-option", "abacus=1"); err == nil || !strings.Contains(errs, "options map[abacus:1") {
		t.Errorf("an option that is not there: error %v: %s", err, errs)
	}
	for model, want := range map[string]string{"models.py": "does not load", "strings.onnx": "cannot be made up"} {
		if _, errs, err := measure("../../latency/testdata/" + model); err == nil || !strings.Contains(errs, want) {
			t.Errorf("%s: error %v, want %q: %s", model, err, want, errs)
		}
	}
	if _, errs, err := measure(stray, "--provider", "xnnpack"); err == nil || !strings.Contains(errs, "was built with cpu, openvino") {
		t.Errorf("a provider that is not there: error %v: %s", err, errs)
	}
}
