package export_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestOfficialChecker gives the files to ONNX's own checker, which infers all
// shapes and compares them with the declared ones. It is skipped where
// $SPOS_PYTHON, or python3, has no onnx.
func TestOfficialChecker(t *testing.T) {
	python := os.Getenv("SPOS_PYTHON")
	if python == "" {
		python = "python3"
	}
	if out, err := exec.CommandContext(t.Context(), python, "-c", "import onnx").CombinedOutput(); err != nil {
		t.Skipf("%s cannot import onnx (%v): `pip install onnx`, or set SPOS_PYTHON to a Python that has it\n%s", python, err, lastLine(out))
	}
	dir, i := t.TempDir(), 0
	for _, n := range nets(t, 1) {
		w := copied(t, n)
		for _, o := range variants {
			i++
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d.onnx", i)), bytesOf(t, n, w, o), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	const script = `
import pathlib, sys, onnx
for f in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    m = onnx.load(f)
    onnx.checker.check_model(m, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(m, check_type=True, strict_mode=True, data_prop=True)
    known = {v.name for v in list(inferred.graph.value_info) + list(m.graph.output)}
    missing = {o for n in m.graph.node for o in n.output} - known
    assert not missing, f"{f}: no shape for {missing}"
    print("checked")
`
	out, err := exec.CommandContext(t.Context(), python, "-c", script, dir).CombinedOutput()
	if got := strings.Count(string(out), "checked"); err != nil || got != i {
		t.Errorf("%d of %d files pass: %v\n%s", got, i, err, out)
	}
}

func lastLine(b []byte) string {
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return lines[len(lines)-1]
}
