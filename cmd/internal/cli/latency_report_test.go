package cli

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"spos/cmd/internal/latencyreport"
)

// TestLatencyReport: from files to a file, and what is said where there is none.
func TestLatencyReport(t *testing.T) {
	dir := t.TempDir()
	const result = `{"model":%q,"p50_ms":1,"low_ms":0.9,"high_ms":1.2,"min_ms":0.8,"p90_ms":1.3,"runs":3,"sessions":1,"mode":"hot"}`
	list := "[" + fmt.Sprintf(result, "piped") + "]"
	line := `{"key":"g@e","result":` + fmt.Sprintf(result, "net") + "}\n"
	if err := os.WriteFile(filepath.Join(dir, latencyreport.Journal), []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out.html")
	run := func(args ...string) error {
		root := NewRoot("spos", "test")
		AddVerbs(root)
		root.SetArgs(append([]string{"latency", "report"}, args...))
		root.SetIn(strings.NewReader(list))
		root.SetOut(io.Discard)
		root.SetErr(io.Discard)
		return root.Execute()
	}
	if err := run(dir, "-", "-o", out, "--title", "A & B"); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if err := run(t.TempDir(), "-o", out); err == nil || !strings.Contains(err.Error(), "it has no latency.jsonl") {
		t.Errorf("an empty directory: %v", err)
	}
	for _, wanted := range []string{"<h1>A &amp; B</h1>", "<td>net</td>", "<td>piped</td>", "standard input"} {
		if !strings.Contains(string(text), wanted) {
			t.Errorf("the report lacks %q", wanted)
		}
	}
	for want, args := range map[string][]string{
		`"output" not set`:          {dir},
		"requires at least 1 arg":   {"-o", out},
		"read measurements: ":       {filepath.Join(dir, "none"), "-o", out},
		"no latency measurements: ": {out, "-o", filepath.Join(dir, "b.html")},
	} {
		if err := run(args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", args, err, want)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "b.html")); err == nil {
		t.Error("a refused input left a report")
	}
}
