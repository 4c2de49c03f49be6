package pth_test

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"iter"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"spos/internal/ckpt"
	"spos/internal/pth"

	"github.com/google/go-cmp/cmp"
)

type named struct {
	name string
	t    ckpt.Tensor
}

func seq(ts ...named) iter.Seq2[string, ckpt.Tensor] {
	return func(yield func(string, ckpt.Tensor) bool) {
		for _, n := range ts {
			if !yield(n.name, n.t) {
				return
			}
		}
	}
}

// some tensors: the rank of a convolution, a vector, a count, nothing at all,
// a scalar, numbers that are easily lost, more numbers than a buffer holds.
func some() []named {
	ts := []named{
		{"features.0.weight", ckpt.Tensor{Shape: []int{2, 3, 1, 2}, Data: make([]float32, 12)}},
		{"features.1.bias", ckpt.Tensor{Shape: []int{3}, Data: []float32{float32(math.Copysign(0, -1)), float32(math.Inf(-1)), 1e-45}}},
		{"features.1.num_batches_tracked", ckpt.Tensor{Shape: []int{}, Data: []float32{16777216}}},
		{"empty", ckpt.Tensor{Shape: []int{0, 3}, Data: []float32{}}},
		{"scalar", ckpt.Tensor{Shape: []int{}, Data: []float32{0.1}}},
		{"größer", ckpt.Tensor{Shape: []int{20011}, Data: make([]float32, 20011)}},
	}
	for _, n := range []named{ts[0], ts[5]} {
		for i := range n.t.Data {
			n.t.Data[i] = float32(i) / 3
		}
	}
	return ts
}

func counters(name string) bool { return strings.HasSuffix(name, ".num_batches_tracked") }

func write(t testing.TB, o pth.Options, ts ...named) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "out.pth")
	if err := pth.Write(path, seq(ts...), o); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestWriteThenRead(t *testing.T) {
	for name, o := range map[string]pth.Options{
		"bare":    {Int64: counters},
		"wrapped": {Int64: counters, Meta: map[string]string{"b": "2", "a": "ö"}},
		"no meta": {Int64: counters, Meta: map[string]string{}},
	} {
		t.Run(name, func(t *testing.T) {
			path := write(t, o, some()...)
			f, err := pth.Open(path, "")
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if want := map[bool]string{true: "state_dict", false: pth.Root}[o.Meta != nil]; f.Key() != want {
				t.Errorf("key %q, want %q", f.Key(), want)
			}
			for i, n := range some() {
				if got := f.Names()[i]; got != n.name {
					t.Errorf("name %d is %q, want %q", i, got, n.name)
				}
				if counters(n.name) {
					if dtype, err := f.DType(n.name); dtype != "int64" {
						t.Errorf("%s: type %q, %v", n.name, dtype, err)
					}
					continue
				}
				if got, err := f.Tensor(n.name); err != nil || !cmp.Equal(got, n.t) {
					t.Errorf("%s: got %v, %v", n.name, got, err)
				}
			}
			one, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			two, err := os.ReadFile(write(t, o, some()...))
			if err != nil || !bytes.Equal(one, two) {
				t.Errorf("bytes differ from one time to the next (%v)", err)
			}
		})
	}
}

// The archive is laid out as torch's: these records, stored, and storages at
// multiples of 64.
func TestWriteLayout(t *testing.T) {
	z, err := zip.OpenReader(write(t, pth.Options{}, some()[:2]...))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	var names []string
	content := map[string]string{}
	for _, e := range z.File {
		names = append(names, e.Name)
		at, err := e.DataOffset()
		if err != nil || at%64 != 0 || e.Method != zip.Store {
			t.Errorf("%s at %d by method %d (%v)", e.Name, at, e.Method, err)
		}
		r, err := e.Open()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r) // checks the CRC
		if err != nil {
			t.Errorf("%s: %v", e.Name, err)
		}
		content[e.Name] = string(b)
	}
	want := []string{"archive/data.pkl", "archive/byteorder", "archive/data/0", "archive/data/1", "archive/version", "archive/.data/serialization_id"}
	if d := cmp.Diff(want, names); d != "" {
		t.Error(d)
	}
	if content["archive/byteorder"] != "little" || content["archive/version"] != "3\n" || len(content["archive/.data/serialization_id"]) != 40 {
		t.Errorf("records %q", content)
	}
}

func TestWriteRefusesAndLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "m.pth")
	for want, ts := range map[string][]named{
		"taken":         {some()[0], some()[0]},
		"do not fill":   {{"x", ckpt.Tensor{Shape: []int{2}, Data: []float32{1}}}},
		"shape [-1":     {{"x", ckpt.Tensor{Shape: []int{-1, -1}, Data: []float32{1}}}},
		"shape [1099":   {{"x", ckpt.Tensor{Shape: []int{1 << 40, 1 << 40}}}},
		"0.5 is no in":  {{"x.num_batches_tracked", ckpt.Tensor{Data: []float32{0.5}}}},
		"NaN is no in":  {{"x.num_batches_tracked", ckpt.Tensor{Data: []float32{float32(math.NaN())}}}},
		"e+18 is no in": {{"x.num_batches_tracked", ckpt.Tensor{Data: []float32{1 << 63}}}},
	} {
		if err := pth.Write(path, seq(ts...), pth.Options{Int64: counters}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if err := pth.Write(filepath.Join(dir, "no", "m"), seq(), pth.Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
}

// retold loads a checkpoint as strictly as torch can, mapped and not, saves it
// again in both formats, and says what was in it.
const retold = `
import collections, json, sys
import torch
path, out = sys.argv[1:]
d = torch.load(path, weights_only=True)
mapped = torch.load(path, weights_only=True, mmap=True)
meta = None
if "state_dict" in d:
    assert type(d) is dict and list(d) == ["meta", "state_dict"], list(d)
    meta, d, mapped = d["meta"], d["state_dict"], mapped["state_dict"]
assert type(d) is collections.OrderedDict, type(d)
torch.save(d, out + ".zip")
torch.save({"state_dict": d}, out + ".legacy", _use_new_zipfile_serialization=False)
tensors = []
for k, v in d.items():
    assert torch.equal(v, mapped[k]) and v.is_contiguous() and not v.requires_grad, k
    if v.dtype == torch.int64:
        tensors.append(dict(name=k, dtype="int64", shape=list(v.shape), value=v.tolist()))
    else:
        tensors.append(dict(name=k, dtype=str(v.dtype)[6:], shape=list(v.shape), float32=v.numpy().tobytes().hex()))
print(json.dumps(dict(meta=meta, tensors=tensors)))
`

// With a Python that has torch, both directions are held against it.
func TestTorch(t *testing.T) {
	python := os.Getenv("SPOS_TORCH_PYTHON")
	if python == "" {
		t.Skip("SPOS_TORCH_PYTHON names no Python that has torch")
	}
	for name, meta := range map[string]map[string]string{"bare": nil, "wrapped": {"text": "ö", "arch": "0123"}} {
		t.Run(name, func(t *testing.T) {
			path := write(t, pth.Options{Meta: meta, Int64: counters}, some()...)
			again := filepath.Join(t.TempDir(), "again")
			cmd := exec.CommandContext(t.Context(), python, "-c", retold, path, again)
			cmd.Env = append(os.Environ(), "OMP_NUM_THREADS=1")
			cmd.Stderr = t.Output()
			text, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			var told struct {
				Meta    map[string]string
				Tensors []struct {
					Name, DType string
					Shape       []int
					Float32     string
					Value       int64
				}
			}
			if err := json.Unmarshal(text, &told); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(meta, told.Meta); d != "" {
				t.Errorf("meta: %s", d)
			}
			if len(told.Tensors) != len(some()) {
				t.Fatalf("%d tensors, want %d", len(told.Tensors), len(some()))
			}
			for i, n := range some() {
				got := told.Tensors[i]
				if got.Name != n.name || !cmp.Equal(got.Shape, n.t.Shape) {
					t.Errorf("tensor %d is %s %v, want %s %v", i, got.Name, got.Shape, n.name, n.t.Shape)
				}
				switch {
				case counters(n.name):
					if got.DType != "int64" || got.Value != int64(n.t.Data[0]) {
						t.Errorf("%s: %s %d", n.name, got.DType, got.Value)
					}
				case got.DType != "float32" || !same(floats(t, got.Float32), n.t.Data):
					t.Errorf("%s: %s with other numbers", n.name, got.DType)
				}
			}
			for _, form := range []string{".zip", ".legacy"} {
				readBack(t, again+form)
			}
		})
	}
}

// readBack compares what torch saved again with what was written.
func readBack(t *testing.T, path string) {
	t.Helper()
	f, err := pth.Open(path, "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, n := range some() {
		if counters(n.name) {
			continue
		}
		if got, err := f.Tensor(n.name); err != nil || !cmp.Equal(got, n.t) {
			t.Errorf("%s, saved again: %s: %v", filepath.Ext(path), n.name, err)
		}
	}
}
