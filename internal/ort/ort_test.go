package ort_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"spos/internal/native"
	"spos/internal/ort"
)

// open is the library for a test, which is skipped where there is none.
func open(t testing.TB) *ort.Runtime {
	t.Helper()
	path, err := native.ONNXRuntime()
	if err != nil {
		t.Skip(err)
	}
	r, err := ort.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func model(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// load makes a session that the test's end closes.
func load(t testing.TB, name string, o ort.Options) *ort.Session {
	t.Helper()
	o.Name = name
	s, err := open(t).NewSession(model(t, name), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestOpen(t *testing.T) {
	r := open(t)
	if v := r.Version(); !strings.HasPrefix(v, "1.") {
		t.Errorf("Version() = %q, want 1.…", v)
	}
	if !filepath.IsAbs(r.Path()) {
		t.Errorf("Path() = %q is not absolute", r.Path())
	}
	// The same file by another name is the same library.
	link := filepath.Join(t.TempDir(), "link.so")
	if err := os.Symlink(r.Path(), link); err != nil {
		t.Fatal(err)
	}
	again, err := ort.Open(link)
	if err != nil || again != r {
		t.Errorf("second Open = %p, %v, want %p", again, err, r)
	}
	other := filepath.Join(t.TempDir(), "other.so")
	if err := os.WriteFile(other, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ort.Open(other); !errors.Is(err, ort.ErrLibrary) || !strings.Contains(err.Error(), r.Path()) {
		t.Errorf("Open of another library: %v, want ErrLibrary naming %s", err, r.Path())
	}
}

// TestTelemetry holds the only switch that keeps the library from calling
// home (checked under strace: no socket, no file in the cache directory).
func TestTelemetry(t *testing.T) {
	open(t)
	if got := os.Getenv("ORT_DISABLE_TELEMETRY"); got != "1" {
		t.Errorf("ORT_DISABLE_TELEMETRY = %q after Open, want 1", got)
	}
}

func TestOpenMissing(t *testing.T) {
	for name, path := range map[string]string{"unset": "", "absent": filepath.Join(t.TempDir(), "libonnxruntime.so")} {
		t.Run(name, func(t *testing.T) {
			_, err := ort.Open(path)
			if !errors.Is(err, ort.ErrLibrary) {
				t.Fatalf("Open(%q) = %v, want ErrLibrary", path, err)
			}
			for _, want := range []string{path, "make native", native.EnvONNXRuntime} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not mention %q", err, want)
				}
			}
		})
	}
}
