package cli_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"spos/cmd/internal/cli"
	"spos/internal/native"
)

// edge runs a command line and returns what it printed.
func edge(t *testing.T, args ...string) (string, error) {
	t.Helper()
	root := cli.NewRoot("spos-edge", "")
	cli.AddVerbs(root)
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&bytes.Buffer{})
	root.SetArgs(args)
	err := root.ExecuteContext(t.Context())
	return out.String(), err
}

func TestCompareVerb(t *testing.T) {
	if _, err := native.ONNXRuntime(); err != nil {
		t.Skip(err)
	}
	const small, large = "../../../latency/testdata/convs2.onnx", "../../../latency/testdata/convs8.onnx"
	status := func(err error) int {
		if answer, ok := errors.AsType[*cli.StatusError](err); ok {
			return answer.Status
		}
		if err != nil {
			t.Fatal(err)
		}
		return 0
	}
	said, err := edge(t, "latency", "compare", small, large)
	if status(err) != 0 || !strings.HasPrefix(said, small+" is faster") {
		t.Errorf("A faster: %v\n%s", err, said)
	}
	said, err = edge(t, "latency", "compare", large, small, "--json")
	var told struct {
		Faster     string
		Ratio      float64
		Confidence float64
	}
	if e := json.Unmarshal([]byte(said), &told); e != nil || status(err) != cli.StatusNo || told.Faster != "b" || told.Ratio < 1.5 || told.Confidence > 0.01 {
		t.Errorf("B faster: %v, %v, %+v", err, e, told)
	}
	saved := make([]string, 2)
	for i, args := range [][]string{{small}, {large, "--mode", "paced", "--gap", "1ms"}} {
		text, err := edge(t, append([]string{"latency", "measure", "--quick", "--json", "--samples"}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		saved[i] = filepath.Join(t.TempDir(), "r.json")
		if err := os.WriteFile(saved[i], []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := edge(t, "latency", "compare", saved[0], saved[1]); err == nil || !strings.Contains(err.Error(), "session mode") {
		t.Errorf("results of two modes: %v, want the difference", err)
	}
	if _, err := edge(t, "latency", "compare", saved[0], saved[0]); status(err) != cli.StatusUndecided && status(err) != 0 {
		t.Errorf("a result with itself: %v", err)
	}
	if _, err := edge(t, "latency", "compare", saved[0], small); err == nil || !strings.Contains(err.Error(), "one of each") {
		t.Errorf("a result and a file: %v", err)
	}
}

func TestMeasureLimit(t *testing.T) {
	if _, err := native.ONNXRuntime(); err != nil {
		t.Skip(err)
	}
	const tokens = "../../../latency/testdata/tokens.onnx"
	said, err := edge(t, "latency", "measure", tokens, "--quick", "--dim", "length=7", "--limit", "1000")
	if err != nil || !strings.Contains(said, "limit 1000 ms: "+tokens+": met") || strings.Contains(said, "taken as 1") {
		t.Errorf("%v\n%s", err, said)
	}
	_, err = edge(t, "latency", "measure", tokens, "--quick", "--limit", "0.000001")
	if answer, ok := errors.AsType[*cli.StatusError](err); !ok || answer.Status != cli.StatusNo {
		t.Errorf("a picosecond: %v, want status %d", err, cli.StatusNo)
	}
	if _, err := edge(t, "latency", "measure", tokens, "--dim", "length"); err == nil || !strings.Contains(err.Error(), "NAME=EXTENT") {
		t.Errorf("a dimension without extent: %v", err)
	}
}
