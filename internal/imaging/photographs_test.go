package imaging

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// Photographs reads real ones where there are any, and skips otherwise.
func Photographs(tb testing.TB) [][]byte {
	tb.Helper()
	dir := os.Getenv("SPOS_DATA")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "data")
	}
	f, err := os.Open(filepath.Join(dir, "imagenet-sample-50.tar"))
	if err != nil {
		tb.Skipf("no photographs (set SPOS_DATA to a folder that holds imagenet-sample-50.tar): %v", err)
	}
	defer f.Close()
	var all [][]byte
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			tb.Fatal(err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		b, err := io.ReadAll(r)
		if err != nil {
			tb.Fatal(err)
		}
		all = append(all, b)
	}
}
