package serve_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"spos/serve"
)

// TestSchemathesis lets a property-based tester call everything that the OpenAPI document describes, with data that
// fits it and data that does not, one request by one and in sequences. It fails on a status, header or body that is
// not declared, on invalid data that is taken, and on any 5xx but the refusals that the protocol has.
func TestSchemathesis(t *testing.T) {
	program := os.Getenv("SPOS_SCHEMATHESIS")
	if program == "" {
		t.Skip("SPOS_SCHEMATHESIS names no program; make conformance installs it")
	}
	config, err := filepath.Abs("testdata/schemathesis.toml")
	if err != nil {
		t.Fatal(err)
	}
	s := newShelf()
	s.put("spare", serve.ModelOptions{}, "1", "one")
	// Of two inputs, because a model of one takes any body for its tensor where the length header is 0.
	two := echoModel("tensors", fp32x3, serve.TensorInfo{Name: "y", Type: serve.Bytes, Shape: []int64{-1}})
	url := start(t, serve.Options{Source: s, ModelControl: true},
		two, serve.Classifier(), echoModel("spare", fp32x3))
	cmd := exec.CommandContext(t.Context(), program, "--config-file", config, "run", url+"/v2/openapi.json")
	cmd.Dir = t.TempDir()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	} else {
		t.Logf("%s", out[max(0, len(out)-1500):])
	}
}
