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

// judge runs a program of testdata with the protocol's own Python client against a server of models.
func judge(t *testing.T, program string, o serve.Options, models map[string]string, args ...string) {
	t.Helper()
	library(t)
	url := startONNX(t, repository(t, models), o, quiet())
	runPython(t, program, append([]string{strings.TrimPrefix(url, "http://")}, args...)...)
}

// runPython runs a program of testdata.
func runPython(t *testing.T, program string, args ...string) {
	t.Helper()
	python := os.Getenv("SPOS_PYTHON")
	if python == "" {
		python = "python3"
	}
	python, err := exec.LookPath(python)
	if err != nil {
		t.Skipf("no Python: %v; set SPOS_PYTHON to one that has tritonclient[http,grpc]", err)
	}
	args = append([]string{"testdata/" + program}, args...)
	out, err := exec.CommandContext(t.Context(), python, args...).CombinedOutput()
	const missing = 77
	if e, ok := errors.AsType[*exec.ExitError](err); ok && e.ExitCode() == missing {
		t.Skipf("%s: %s: set SPOS_PYTHON to one that has tritonclient[http,grpc]", python, strings.TrimSpace(string(out)))
	}
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func pictureFile(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "picture.jpg")
	if err := os.WriteFile(name, serve.SeedImages(t)["image/jpeg"], 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestOfficialClient(t *testing.T) {
	models := map[string]string{"addsub/1": "testdata/addsub.onnx", "picture/1": "testdata/picture.onnx"}
	judge(t, "client.py", serve.Options{}, models, pictureFile(t))
}

func TestOfficialClientExtensions(t *testing.T) {
	models := map[string]string{
		"addsub/1": "testdata/addsub.onnx", "picture/1": "testdata/picture.onnx", "text/1": "testdata/text.onnx",
	}
	judge(t, "extensions.py", serve.Options{}, models, pictureFile(t))
}

func TestOfficialClientControls(t *testing.T) {
	judge(t, "control.py", serve.Options{ModelControl: true}, map[string]string{"picture/1": "testdata/picture.onnx"})
}

func TestOfficialClientRPC(t *testing.T) {
	library(t)
	conn, _ := startRepositoryRPC(t, repository(t, map[string]string{
		"addsub/1": "testdata/addsub.onnx", "picture/1": "testdata/picture.onnx",
		"string/1": ortModels + "/identity_string.onnx", "fp16/1": ortModels + "/identity_fp16.onnx",
	}), serve.Options{ModelControl: true})
	runPython(t, "rpc.py", conn.Target(), pictureFile(t))
}
