package main

import (
	"os"
	"strings"
	"testing"

	"spos/export"
)

// TestServeReadsWhatExportWrites: neither may import the other, so the names
// of metadata keys are held together here.
func TestServeReadsWhatExportWrites(t *testing.T) {
	text, err := os.ReadFile("../../serve/onnx.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{export.KeyFormat, export.KeySpace, export.KeyArch, export.KeyPreprocess, export.KeyLabels, export.KeyLineage, export.KeyLatency} {
		if !strings.Contains(string(text), `"`+key+`"`) {
			t.Errorf("serve does not read %s", key)
		}
	}
}
