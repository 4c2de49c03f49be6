package pth_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"spos/internal/ckpt"
	"spos/internal/pth"

	"github.com/google/go-cmp/cmp"
)

// golden is what torch says of a file in testdata.
type golden struct {
	Key     string
	Tensors []struct {
		Name, DType string
		Shape       []int
		Float32     *string // little-endian, in hexadecimal
	}
}

func goldens(t testing.TB) map[string]golden {
	t.Helper()
	text, err := os.ReadFile("testdata/want.json")
	if err != nil {
		t.Fatal(err)
	}
	var want map[string]golden
	if err := json.Unmarshal(text, &want); err != nil {
		t.Fatal(err)
	}
	return want
}

func floats(t testing.TB, text string) []float32 {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	out := make([]float32, len(b)/4)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return out
}

// same compares bit by bit.
func same(a, b []float32) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if math.Float32bits(a[i]) != math.Float32bits(b[i]) {
			return false
		}
	}
	return true
}

func compare(t *testing.T, f *pth.File, want golden) {
	t.Helper()
	if f.Key() != want.Key {
		t.Errorf("key %q, want %q", f.Key(), want.Key)
	}
	var names []string
	for _, w := range want.Tensors {
		names = append(names, w.Name)
		dtype, err := f.DType(w.Name)
		if err != nil || dtype != w.DType {
			t.Errorf("%s: type %s (%v), want %s", w.Name, dtype, err, w.DType)
		}
		shape, err := f.Shape(w.Name)
		if err != nil || !cmp.Equal(shape, w.Shape) {
			t.Errorf("%s: shape %v (%v), want %v", w.Name, shape, err, w.Shape)
		}
		got, err := f.Tensor(w.Name)
		if w.Float32 == nil {
			if !errors.Is(err, pth.ErrFormat) || !strings.Contains(err.Error(), w.DType) {
				t.Errorf("%s: %v, want an error that names %s", w.Name, err, w.DType)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", w.Name, err)
			continue
		}
		if !cmp.Equal(got.Shape, w.Shape) || !same(got.Data, floats(t, *w.Float32)) {
			t.Errorf("%s: got %v %v, want %v %v", w.Name, got.Shape, got.Data, w.Shape, floats(t, *w.Float32))
		}
	}
	if d := cmp.Diff(names, f.Names()); d != "" {
		t.Errorf("names (-want +got):\n%s", d)
	}
}

func TestGolden(t *testing.T) {
	for name, want := range goldens(t) {
		t.Run(name, func(t *testing.T) {
			f, err := pth.Open(filepath.Join("testdata", name), "")
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			compare(t, f, want)
		})
	}
}

func TestChoice(t *testing.T) {
	tests := map[string]struct {
		file, weights string
		is            error
		want          string // part of the error, or the key
	}{
		"two":             {"ambiguous.pth", "", pth.ErrChoice, `"model", "model_ema"`},
		"two, one named":  {"ambiguous.pth", "model_ema", nil, "model_ema"},
		"two, all of it":  {"ambiguous.pth", pth.Root, nil, pth.Root},
		"not there":       {"ambiguous.pth", "net", pth.ErrChoice, `no key "net", the dicts that hold tensors are "model", "model_ema"`},
		"ema":             {"mmengine.pth", "ema_state_dict", nil, "ema_state_dict"},
		"meta":            {"mmengine.pth", "meta", pth.ErrFormat, "no tensors"},
		"not a dict":      {"mmengine.pth", "param_schedulers", pth.ErrFormat, "a list"},
		"pickled module":  {"module.pth", "", pth.ErrFormat, "made by torch.nn.modules.container.Sequential"},
		"a tensor":        {"tensor.pth", "", pth.ErrFormat, "a tensor, not a dict"},
		"nothing":         {"weightless.pth", "", pth.ErrFormat, `"epoch", "log"`},
		"nothing, named":  {"weightless.pth", pth.Root, pth.ErrFormat, "no tensors"},
		"source, no file": {"make.py", "", pth.ErrFormat, "neither"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f, err := pth.Open(filepath.Join("testdata", tt.file), tt.weights)
			if tt.is != nil {
				if !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), tt.file) {
					t.Errorf("%v, want one that says %q", err, tt.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if f.Key() != tt.want {
				t.Errorf("key %q, want %q", f.Key(), tt.want)
			}
		})
	}
}

// A weight that is built by what is not read is an error when it is asked for,
// and in nobody's way otherwise.
func TestForeignWeight(t *testing.T) {
	f, err := pth.Open("testdata/foreign.pth", "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if d := cmp.Diff([]string{"a.weight", "b.weight"}, f.Names()); d != "" {
		t.Error(d)
	}
	if got, err := f.Tensor("a.weight"); err != nil || !same(got.Data, []float32{1, 1}) {
		t.Errorf("%v, %v", got, err)
	}
	for what, err := range map[string]error{
		"Tensor": func() error { _, err := f.Tensor("b.weight"); return err }(),
		"Shape":  func() error { _, err := f.Shape("b.weight"); return err }(),
		"DType":  func() error { _, err := f.DType("b.weight"); return err }(),
	} {
		if !errors.Is(err, pth.ErrFormat) || !strings.Contains(err.Error(), "b.weight") || !strings.Contains(err.Error(), "elsewhere.Quantised") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := f.Tensor("nobody"); !errors.Is(err, ckpt.ErrMissing) {
		t.Errorf("missing: %v", err)
	}
}

func TestOpenErrors(t *testing.T) {
	if _, err := pth.Open(t.TempDir(), ""); err == nil {
		t.Error("a folder opened as a file")
	}
	if _, err := pth.Open(filepath.Join(t.TempDir(), "none"), ""); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// Every proper prefix of a file of either format is refused.
func TestTruncated(t *testing.T) {
	for _, name := range []string{"bare.pth", "bare.legacy.pth", "views.legacy.pth"} {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		for n := range b {
			if _, err := pth.Read(bytes.NewReader(b), int64(n), "cut", ""); !errors.Is(err, pth.ErrCorrupt) {
				t.Fatalf("%s: first %d of %d bytes: %v", name, n, len(b), err)
			}
		}
		// The size may also be stale.
		cut := bytes.NewReader(b[:len(b)-8])
		if f, err := pth.Read(cut, int64(len(b)), "cut", ""); err == nil {
			for _, tensor := range f.Names() {
				_, e := f.Tensor(tensor)
				err = errors.Join(err, e)
			}
			if !errors.Is(err, pth.ErrCorrupt) {
				t.Errorf("%s, cut while open: %v", name, err)
			}
		} else if !errors.Is(err, pth.ErrCorrupt) {
			t.Errorf("%s, cut before it was opened: %v", name, err)
		}
	}
}

func TestPrefix(t *testing.T) {
	for want, names := range map[string][]string{
		"":              {"a.weight", "b.weight"},
		"module.":       {"module.a.weight", "module.b"},
		"module.net.":   {"module.net.a.x", "module.net.b.x"},
		"architecture.": {"architecture.backbone.w", "architecture.back.w"},
		"a.":            {"a.x"},
	} {
		if got := pth.Prefix(names); got != want {
			t.Errorf("%v: %q, want %q", names, got, want)
		}
	}
	for _, names := range [][]string{nil, {"x"}, {"a.b", "a"}, {"", "."}} {
		if got := pth.Prefix(names); got != "" {
			t.Errorf("%v: %q, want none", names, got)
		}
	}
}
