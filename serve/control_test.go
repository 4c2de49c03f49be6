package serve_test

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"spos/serve"
)

// TestOfficialClientControls lets the protocol's own Python client load, unload and read models.
func TestOfficialClientControls(t *testing.T) {
	library(t)
	python := os.Getenv("SPOS_PYTHON")
	if python == "" {
		python = "python3"
	}
	python, err := exec.LookPath(python)
	if err != nil {
		t.Skipf("no Python: %v; set SPOS_PYTHON to one that has tritonclient[http]", err)
	}
	url := startONNX(t, repository(t, map[string]string{"picture/1": "testdata/picture.onnx"}), serve.Options{ModelControl: true}, quiet())
	out, err := exec.CommandContext(t.Context(), python, "testdata/control.py", strings.TrimPrefix(url, "http://")).CombinedOutput()
	const missing = 77
	if e, ok := errors.AsType[*exec.ExitError](err); ok && e.ExitCode() == missing {
		t.Skipf("%s: %s: set SPOS_PYTHON to one that has tritonclient[http]", python, strings.TrimSpace(string(out)))
	}
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
