package ort

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	yalue "github.com/yalue/onnxruntime_go"

	"spos/internal/native"
)

// TestScan compares our reading of a file with the library's own.
func TestScan(t *testing.T) {
	path, err := native.ONNXRuntime()
	if err != nil {
		t.Skip(err)
	}
	if _, err := Open(path); err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob("testdata/*.onnx")
	if len(files) == 0 {
		t.Fatal("no models")
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		sig, err := scan(b)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		in, out, err := yalue.GetInputOutputInfoWithONNXData(b)
		if err != nil {
			t.Fatal(err)
		}
		for i, pair := range []struct {
			ours   []Info
			theirs []yalue.InputOutputInfo
		}{{sig.in, in}, {sig.out, out}} {
			same := func(a Info, b yalue.InputOutputInfo) bool {
				return a.Name == b.Name && a.Type == typeOf(b.DataType) && (a.Shape == nil || slices.Equal(a.Shape, b.Dimensions))
			}
			if !slices.EqualFunc(pair.ours, pair.theirs, same) {
				t.Errorf("%s, list %d: we read %+v, the library %+v", file, i, pair.ours, pair.theirs)
			}
		}
	}
}

// FuzzScan: no bytes make the reader panic, and what it returns is coherent.
func FuzzScan(f *testing.F) {
	for _, pattern := range []string{"testdata/*.onnx", "testdata/bad/*.onnx"} {
		files, _ := filepath.Glob(pattern)
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			if len(b) < 1<<12 {
				f.Add(b)
			}
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = checkInternal(b) // must end, whatever it says
		sig, err := scan(b)
		if err != nil {
			return
		}
		for _, i := range slices.Concat(sig.in, sig.out) {
			if len(i.Shape) != len(i.Symbols) {
				t.Errorf("%s: %d extents and %d symbols", i.Name, len(i.Shape), len(i.Symbols))
			}
		}
	})
}
