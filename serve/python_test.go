package serve_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"spos/serve"
)

// TestOfficialClient lets the protocol's own Python client judge the server.
func TestOfficialClient(t *testing.T) {
	library(t)
	python := os.Getenv("SPOS_PYTHON")
	if python == "" {
		python = "python3"
	}
	python, err := exec.LookPath(python)
	if err != nil {
		t.Skipf("no Python: %v; set SPOS_PYTHON to one that has tritonclient[http]", err)
	}
	dir := repository(t, map[string]string{"addsub/1": "testdata/addsub.onnx", "picture/1": "testdata/picture.onnx"})
	url := startONNX(t, dir, serve.Options{}, quiet())
	picture := filepath.Join(t.TempDir(), "picture.jpg")
	if err := os.WriteFile(picture, serve.SeedImages(t)["image/jpeg"], 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), python, "testdata/client.py", strings.TrimPrefix(url, "http://"), picture).CombinedOutput()
	const missing = 77
	if e, ok := errors.AsType[*exec.ExitError](err); ok && e.ExitCode() == missing {
		t.Skipf("%s: %s: set SPOS_PYTHON to one that has tritonclient[http]", python, strings.TrimSpace(string(out)))
	}
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
