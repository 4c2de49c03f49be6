package ckpt_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io/fs"
	"iter"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"spos/internal/ckpt"

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

var three = []named{
	{"b.weight", ckpt.Tensor{Shape: []int{2, 3}, Data: []float32{1, -2, 3.5, 0, float32(math.Inf(1)), 1e-40}}},
	{"a.scalar", ckpt.Tensor{Shape: []int{}, Data: []float32{7}}},
	{"empty", ckpt.Tensor{Shape: []int{0, 4}, Data: []float32{}}},
}

func TestWriteOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.safetensors")
	meta := map[string]string{"space": "läsbar \"quoted\"\n<b>", "arch": "0123"}
	if err := ckpt.Write(path, meta, seq(three...)); err != nil {
		t.Fatal(err)
	}
	f, err := ckpt.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if d := cmp.Diff(meta, f.Metadata()); d != "" {
		t.Errorf("metadata (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]string{"b.weight", "a.scalar", "empty"}, f.Names()); d != "" {
		t.Errorf("names (-want +got):\n%s", d)
	}
	for _, n := range three {
		got, err := f.Tensor(n.name)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(n.t, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", n.name, d)
		}
	}
	if _, err := f.Tensor("nope"); !errors.Is(err, ckpt.ErrMissing) || !strings.Contains(err.Error(), "nope") {
		t.Errorf("missing tensor: %v", err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := binary.LittleEndian.Uint64(raw); n%8 != 0 {
		t.Errorf("header length %d leaves the data unaligned", n)
	}
}

func TestWriteLarge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.safetensors")
	want := ckpt.Tensor{Shape: []int{3, 100_003}, Data: make([]float32, 300_009)}
	for i := range want.Data {
		want.Data[i] = float32(i)
	}
	if err := ckpt.Write(path, nil, seq(named{"x", want}, three[0])); err != nil {
		t.Fatal(err)
	}
	f, err := ckpt.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, err := f.Tensor("x")
	if err != nil || !cmp.Equal(want, got) {
		t.Errorf("tensor longer than the buffers differs (%v)", err)
	}
	if f.Metadata() != nil {
		t.Errorf("metadata %v, want none", f.Metadata())
	}
}

func TestWriteRefusesAndLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "m.safetensors")
	for name, ts := range map[string][]named{
		"taken":          {three[0], three[0]},
		"do not fill":    {{"x", ckpt.Tensor{Shape: []int{2}, Data: []float32{1}}}},
		"__metadata__":   {{"__metadata__", ckpt.Tensor{Data: []float32{1}}}},
		"shape [-1 -1]":  {{"x", ckpt.Tensor{Shape: []int{-1, -1}, Data: []float32{1}}}},
		"elements do no": {{"x", ckpt.Tensor{Shape: []int{1 << 40, 1 << 40}}}},
	} {
		if err := ckpt.Write(path, nil, seq(ts...)); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if err := ckpt.Write(filepath.Join(dir, "no", "m"), nil, seq()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
}

// Tensors that are made when their turn comes give the same file, and an error
// there leaves nothing.
func TestWriteLoads(t *testing.T) {
	dir := t.TempDir()
	lazy := func(n named, err error) named {
		data := n.t.Data
		return named{n.name, ckpt.Tensor{Shape: n.t.Shape, Load: func() ([]float32, error) { return data, err }}}
	}
	plain, loaded := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	if err := ckpt.Write(plain, nil, seq(three...)); err != nil {
		t.Fatal(err)
	}
	if err := ckpt.Write(loaded, nil, seq(lazy(three[0], nil), three[1], lazy(three[2], nil))); err != nil {
		t.Fatal(err)
	}
	a, _ := os.ReadFile(plain)
	b, _ := os.ReadFile(loaded)
	if !bytes.Equal(a, b) {
		t.Error("the files differ")
	}
	broken := errors.New("broken")
	if err := ckpt.Write(filepath.Join(dir, "c"), nil, seq(three[0], lazy(three[1], broken))); !errors.Is(err, broken) {
		t.Errorf("an error midway: %v", err)
	}
	short := ckpt.Tensor{Shape: []int{3}, Load: func() ([]float32, error) { return []float32{1}, nil }}
	if err := ckpt.Write(filepath.Join(dir, "c"), nil, seq(named{"x", short})); err == nil || !strings.Contains(err.Error(), "do not fill") {
		t.Errorf("too few elements: %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 2 {
		t.Errorf("left behind: %v", left)
	}
}

func raw(head string, data ...byte) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(head)))
	return append(append(b, head...), data...)
}

// broken files, each with a part of the message that it must give.
func broken() map[string][]byte {
	four := []byte{0, 0, 0, 0}
	return map[string][]byte{
		"too few":              {1, 2, 3},
		"over the limit":       append(binary.LittleEndian.AppendUint64(nil, 1<<62), four...),
		"in a file of":         append(binary.LittleEndian.AppendUint64(nil, 5000), four...),
		"no JSON object":       raw(""),
		"no JSON object ([":    raw("[]"),
		"is cut short":         raw(`{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}`, four...),
		"text after":           raw(`{} {}`),
		"not UTF-8":            raw("{\"\xff\":1}"),
		`tensor "a" appears`:   raw(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"a":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}}`, four...),
		`tensor "a": json`:     raw(`{"a":3}`),
		"unknown type":         raw(`{"a":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}}`, four...),
		"are no range":         raw(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}`, four...),
		"1 data_offsets":       raw(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}}`, four...),
		"rank 0: no list":      raw(`{"a":{"dtype":"F32","data_offsets":[0,4]}}`, four...),
		"rank 9: no list":      raw(`{"a":{"dtype":"U8","shape":[1,1,1,1,1,1,1,1,4],"data_offsets":[0,4]}}`, four...),
		"extent -1":            raw(`{"a":{"dtype":"F32","shape":[-1,-1],"data_offsets":[0,4]}}`, four...),
		"too large":            raw(`{"a":{"dtype":"F32","shape":[4294967296,4294967296,4294967296],"data_offsets":[0,0]}}`),
		"which takes 8":        raw(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}`, four...),
		"the file is cut":      raw(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, four...),
		"starts at byte 0":     raw(`{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}`, four...),
		"starts at byte 2":     raw(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}}`, four...),
		"belong to no tensor":  raw(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, four...),
		"is no string":         raw(`{"__metadata__":{"a":1}}`),
		`"a" is no string`:     raw(`{"__metadata__":{"a":null}}`),
		`key "a" appears`:      raw(`{"__metadata__":{"a":"1","a":"2"}}`),
		"__metadata__ appears": raw(`{"__metadata__":{},"__metadata__":{}}`),
	}
}

func TestOpenBroken(t *testing.T) {
	for want, b := range broken() {
		path := filepath.Join(t.TempDir(), "bad.safetensors")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := ckpt.Open(path)
		if !errors.Is(err, ckpt.ErrCorrupt) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%q: got %v", want, err)
		}
	}
	if _, err := ckpt.Open(t.TempDir()); err == nil {
		t.Error("a folder opened as a file")
	}
	if _, err := ckpt.Open(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// Every proper prefix of a good file is refused.
func TestOpenTruncated(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.safetensors")
	if err := ckpt.Write(path, map[string]string{"k": "v"}, seq(three...)); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := range b {
		if _, err := ckpt.Read(bytes.NewReader(b), int64(n), "cut"); !errors.Is(err, ckpt.ErrCorrupt) {
			t.Fatalf("first %d of %d bytes: %v", n, len(b), err)
		}
	}
	f, err := ckpt.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.Truncate(path, int64(len(b)-8)); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Tensor("a.scalar"); !errors.Is(err, ckpt.ErrCorrupt) {
		t.Errorf("cut while open: %v", err)
	}
}

func TestTensorTypes(t *testing.T) {
	le := binary.LittleEndian
	half := func(hs ...uint16) (b []byte) {
		for _, h := range hs {
			b = le.AppendUint16(b, h)
		}
		return b
	}
	for name, c := range map[string]struct {
		dtype string
		data  []byte
		want  []float32
	}{
		// Values of IEEE 754 binary16: one, the least subnormal, the greatest
		// subnormal, the greatest number, minus zero, minus infinity.
		"f16":  {"F16", half(0x3c00, 0x0001, 0x03ff, 0x7bff, 0x8000, 0xfc00), []float32{1, 0x1p-24, 1023 * 0x1p-24, 65504, float32(math.Copysign(0, -1)), float32(math.Inf(-1))}},
		"bf16": {"BF16", half(0x3f80, 0xc000, 0x7f80), []float32{1, -2, float32(math.Inf(1))}},
		"f64":  {"F64", le.AppendUint64(nil, math.Float64bits(0.1)), []float32{0.1}},
	} {
		head := `{"x":{"dtype":"` + c.dtype + `","shape":[` + itoa(len(c.want)) + `],"data_offsets":[0,` + itoa(len(c.data)) + `]}}`
		b := raw(head, c.data...)
		f, err := ckpt.Read(bytes.NewReader(b), int64(len(b)), name)
		if err != nil {
			t.Fatal(err)
		}
		got, err := f.Tensor("x")
		if err != nil {
			t.Fatal(err)
		}
		for i, w := range c.want {
			if math.Float32bits(got.Data[i]) != math.Float32bits(w) {
				t.Errorf("%s[%d] = %v, want %v", name, i, got.Data[i], w)
			}
		}
	}
	b := raw(`{"n":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}`, make([]byte, 8)...)
	f, err := ckpt.Read(bytes.NewReader(b), int64(len(b)), "ints")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Tensor("n"); err == nil || !strings.Contains(err.Error(), "I64") {
		t.Errorf("integers: %v", err)
	}
}

func itoa(n int) string {
	b, _ := json.Marshal(n)
	return string(b)
}

func FuzzRead(f *testing.F) {
	for _, b := range broken() {
		f.Add(b)
	}
	path := filepath.Join(f.TempDir(), "m.safetensors")
	if err := ckpt.Write(path, map[string]string{"k": "v"}, seq(three...)); err != nil {
		f.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ckpt.Read(bytes.NewReader(b), int64(len(b)), "fuzz")
		if err != nil {
			if !errors.Is(err, ckpt.ErrCorrupt) {
				t.Fatalf("not ErrCorrupt: %v", err)
			}
			return
		}
		total := 0
		for _, name := range c.Names() {
			x, err := c.Tensor(name)
			if err == nil {
				total += len(x.Data)
			}
		}
		if total > len(b) {
			t.Fatalf("%d elements out of %d bytes", total, len(b))
		}
	})
}
