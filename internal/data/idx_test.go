package data

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// idx encodes an array whose header may lie.
func idx(payload []byte, dims ...uint32) []byte {
	b := []byte{0, 0, 8, byte(len(dims))}
	for _, d := range dims {
		b = binary.BigEndian.AppendUint32(b, d)
	}
	return append(b, payload...)
}

func gzipped(b []byte) []byte {
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	_, _ = z.Write(b)
	_ = z.Close()
	return buf.Bytes()
}

func TestReadIDX(t *testing.T) {
	whole := idx([]byte{1, 2, 3, 4, 5, 6}, 3, 2, 1)
	packed := gzipped(whole)
	badSum := bytes.Clone(packed)
	badSum[len(badSum)-5] ^= 1
	wrongType := bytes.Clone(whole)
	wrongType[2] = 13 // float
	tests := map[string]struct {
		in   []byte
		says string // empty: it reads
	}{
		"plain":            {whole, ""},
		"gzip":             {packed, ""},
		"empty":            {nil, "header"},
		"short header":     {whole[:10], "header"},
		"one byte short":   {whole[:len(whole)-1], "after 5 of 6"},
		"one byte more":    {append(bytes.Clone(whole), 0), "more than"},
		"two dimensions":   {idx([]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, 3, 2), "magic"},
		"floats":           {wrongType, "magic"},
		"gzip truncated":   {packed[:len(packed)-9], "EOF"},
		"gzip checksum":    {badSum, "checksum"},
		"zero dimension":   {idx(nil, 3, 0, 2), "dimension 2"},
		"4 billion images": {idx(nil, 1<<32-1, 1, 1), "dimension 1"},
		"product overflow": {idx(nil, 1<<24, 1<<16, 1<<16), "dimension 2"},
		"2 GiB of nothing": {idx([]byte{1}, 1<<11, 1<<10, 1<<10), "after 1 of 2147483648"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			f, err := readIDX(bytes.NewReader(tt.in), 3)
			runtime.ReadMemStats(&after)
			if n := after.TotalAlloc - before.TotalAlloc; n > 4<<20 {
				t.Errorf("%d bytes allocated for %d", n, len(tt.in))
			}
			if tt.says != "" {
				if err == nil || !strings.Contains(err.Error(), tt.says) {
					t.Errorf("error %v does not say %q", err, tt.says)
				}
				return
			}
			if err != nil || !bytes.Equal(f.data, whole[16:]) || f.dims[0] != 3 || f.dims[1] != 2 || f.dims[2] != 1 {
				t.Errorf("got %+v, %v", f, err)
			}
		})
	}
}

func FuzzReadIDX(f *testing.F) {
	f.Add(idx([]byte{1, 2, 3, 4, 5, 6}, 3, 2, 1))
	f.Add(gzipped(idx([]byte{1, 2}, 2, 1, 1)))
	f.Add(idx(nil, 1<<24, 1<<7, 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := readIDX(bytes.NewReader(b), 3)
		if err == nil && len(a.data) != a.dims[0]*a.dims[1]*a.dims[2] {
			t.Fatalf("%v of %d bytes", a.dims, len(a.data))
		}
	})
}

// mnist writes a folder of the MNIST family.
func mnist(t *testing.T, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	all := map[string][]byte{
		"train-images-idx3-ubyte":   idx(make([]byte, 40*6), 40, 2, 3),
		"train-labels.idx1-ubyte":   idx(bytes.Repeat([]byte{0, 1}, 20), 40),
		"t10k-images.idx3-ubyte.gz": gzipped(idx(make([]byte, 12), 2, 2, 3)),
		"t10k-labels-idx1-ubyte.gz": gzipped(idx([]byte{1, 0}, 2)),
	}
	maps.Copy(all, files)
	for n, b := range all {
		if err := os.WriteFile(filepath.Join(dir, n), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestOpenIDX(t *testing.T) {
	s, err := Open(t.Context(), Spec{Path: mnist(t, nil)})
	if err != nil {
		t.Fatal(err)
	}
	if s.Kind != IDX || s.Train.Len() != 36 || s.Val.Len() != 4 || s.Test.Len() != 2 || s.Shape.String() != "1×2×3" {
		t.Errorf("%+v: %d, %d, %d images", s, s.Train.Len(), s.Val.Len(), s.Test.Len())
	}
	if strings.Join(s.Classes, " ") != "0 1" {
		t.Errorf("classes %q", s.Classes)
	}
	if s, err = Open(t.Context(), Spec{Path: mnist(t, nil), Kind: FashionMNIST}); err != nil || s.Classes[9] != "Ankle boot" {
		t.Errorf("%v, %v", s, err)
	}
	for name, tt := range map[string]struct {
		files map[string][]byte
		says  string
	}{
		"fewer labels":   {map[string][]byte{"train-labels.idx1-ubyte": idx([]byte{0, 1}, 2)}, "40 images and 2 labels"},
		"foreign label":  {map[string][]byte{"t10k-labels-idx1-ubyte.gz": gzipped(idx([]byte{1, 2}, 2))}, "there are 2 classes"},
		"another size":   {map[string][]byte{"t10k-images.idx3-ubyte.gz": gzipped(idx(make([]byte, 8), 2, 2, 2))}, "1×2×2"},
		"truncated file": {map[string][]byte{"train-images-idx3-ubyte": idx(nil, 40, 2, 3)}, "train-images-idx3-ubyte"},
	} {
		if _, err := Open(t.Context(), Spec{Path: mnist(t, tt.files)}); !errors.Is(err, ErrData) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: error %v does not say %q", name, err, tt.says)
		}
	}
	if _, err := Open(t.Context(), Spec{Path: t.TempDir(), Kind: IDX}); !errors.Is(err, ErrNotFound) {
		t.Errorf("empty folder: %v", err)
	}
}
