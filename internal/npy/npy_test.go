package npy_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"spos/internal/npy"
)

// file makes a file of a version by hand.
func file(major byte, header, data string) []byte {
	b := append([]byte("\x93NUMPY"), major, 0)
	if major == 1 {
		b = binary.LittleEndian.AppendUint16(b, uint16(len(header)))
	} else {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(header)))
	}
	return append(append(b, header...), data...)
}

func TestParse(t *testing.T) {
	for name, tt := range map[string]struct {
		content []byte
		want    npy.Array
	}{
		"version 1":  {file(1, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1), }   \n", "abcdefgh"), npy.Array{"f4", []int64{2, 1}, []byte("abcdefgh")}},
		"version 2":  {file(2, "{'descr': '|u1', 'fortran_order': False, 'shape': (3,), }\n", "abc"), npy.Array{"u1", []int64{3}, []byte("abc")}},
		"big endian": {file(3, `{"shape":(2,),"descr":">i2","fortran_order":False}`, "abcd"), npy.Array{"i2", []int64{2}, []byte("badc")}},
		"scalar":     {file(1, "{'descr': '<f8', 'fortran_order': False, 'shape': ()}", "abcdefgh"), npy.Array{"f8", []int64{}, []byte("abcdefgh")}},
		"empty":      {file(1, "{'descr': '<f8', 'fortran_order': True, 'shape': (0,)}", ""), npy.Array{"f8", []int64{0}, []byte{}}},
	} {
		got, err := npy.Parse(tt.content)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	const fine = "{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}"
	for name, tt := range map[string]struct {
		content []byte
		part    string
	}{
		"nothing":        {nil, "does not begin"},
		"a picture":      {[]byte("\x89PNG\r\n\x1a\n000"), "does not begin"},
		"version 9":      {file(9, fine, "abcd"), "version 9"},
		"cut header":     {file(1, fine, "abcd")[:40], "cut"},
		"long header":    {file(2, strings.Repeat(" ", 1<<17), ""), "too long"},
		"cut data":       {file(1, fine, "abc"), "3 bytes of data"},
		"more data":      {file(1, fine, "abcde"), "5 bytes of data"},
		"column order":   {file(1, "{'descr': '<f4', 'fortran_order': True, 'shape': (1,1)}", "abcd"), "ascontiguousarray"},
		"objects":        {file(1, "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", "abcd"), `type "|O"`},
		"text":           {file(1, "{'descr': '<U3', 'fortran_order': False, 'shape': (1,)}", "abcd"), `"U3"`},
		"records":        {file(1, "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}", "abcd"), "records"},
		"overflow":       {file(1, "{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296,4294967296,4294967296)}", ""), "too large"},
		"wraps to fit":   {file(1, "{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387905,)}", "abcd"), "too large"},
		"negative":       {file(1, "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}", "abcd"), "shape"},
		"huge dimension": {file(1, "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,)}", ""), "shape"},
		"twice":          {file(1, "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (1,)}", "abcd"), "twice"},
		"missing":        {file(1, "{'descr': '<f4', 'shape': (1,)}", "abcd"), "missing"},
		"unknown":        {file(1, "{'descr': '<f4', 'x': 1}", "abcd"), "unknown key"},
		"code":           {file(1, "__import__('os').abort()", ""), "{ expected"},
	} {
		_, err := npy.Parse(tt.content)
		if !errors.Is(err, npy.ErrFormat) || !strings.Contains(err.Error(), tt.part) {
			t.Errorf("%s: %v, want %q", name, err, tt.part)
		}
	}
}

// TestNumPy: files go back and forth between NumPy and this package, byte for byte.
func TestNumPy(t *testing.T) {
	python := os.Getenv("SPOS_PYTHON")
	if python == "" {
		python = "python3"
	}
	dir := t.TempDir()
	script := `
import sys
try: import numpy as np
except ImportError as e: sys.exit(77)
for dtype in "b1 u1 u2 u4 u8 i1 i2 i4 i8 f2 f4 f8".split():
    np.save(dtype + ".npy", (np.arange(6) % 2 if dtype == "b1" else np.arange(6)).astype(dtype).reshape(1, 2, 3))
    np.save(dtype + ".scalar.npy", np.array(1, dtype))
`
	cmd := exec.CommandContext(t.Context(), python, "-c", script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("%s has no numpy: set SPOS_PYTHON to one that has it\n%s", python, out)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.npy"))
	if err != nil || len(files) != 24 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, path := range files {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		a, err := npy.Parse(content)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		var b bytes.Buffer
		if err := npy.Write(&b, a); err != nil {
			t.Fatal(err)
		}
		again, err := npy.Parse(b.Bytes())
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if diff := cmp.Diff(a, again); diff != "" {
			t.Errorf("%s: %s", path, diff)
		}
		if !bytes.Equal(b.Bytes(), content) {
			t.Errorf("%s: NumPy writes\n%q\nwe\n%q", path, content[:min(128, len(content))], b.Bytes()[:min(128, b.Len())])
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(file(1, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1), }   \n", "abcdefgh"))
	f.Add(file(2, "{'descr': '>i2', 'fortran_order': True, 'shape': (1,)}", "ab"))
	f.Add(file(1, "{'descr': '<f8', 'fortran_order': False, 'shape': ()}", "abcdefgh"))
	f.Fuzz(func(t *testing.T, content []byte) {
		a, err := npy.Parse(content)
		if err != nil {
			return
		}
		var b bytes.Buffer
		if err := npy.Write(&b, a); err != nil {
			t.Fatal(err)
		}
		again, err := npy.Parse(b.Bytes())
		if err != nil || !cmp.Equal(a, again) {
			t.Fatalf("%v became %v, %v", a, again, err)
		}
	})
}
