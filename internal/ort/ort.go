// Package ort is the only door to ONNX Runtime. It opens the shared library
// at run time, makes sessions from model bytes or files, and runs them on
// plain Go tensors. It must never know what a network is for: no arch, no
// latency, no HTTP.
//
// The package wraps github.com/yalue/onnxruntime_go and settles what that
// binding leaves to its caller: one owner of the process-wide environment,
// memory that C reads is pinned, everything native is freed by Close, and
// every error names the model.
package ort

import (
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	yalue "github.com/yalue/onnxruntime_go"
)

// envTelemetry, set to 1 before the environment is made, is what keeps the
// published library from calling home (seen with 1.30 and later; the API's
// own DisableTelemetry returns success and does not stop it).
const envTelemetry = "ORT_DISABLE_TELEMETRY"

var (
	// ErrLibrary is wrapped by [Open] where the library is missing or not
	// usable; its text says how to mend that.
	ErrLibrary = errors.New("ort: ONNX Runtime is not available")
	// ErrClosed is returned by everything that is used after its Close.
	ErrClosed = errors.New("ort: closed")
	// ErrTensor is wrapped where the tensors handed to a session are not
	// those that its model takes: the caller's mistake, found before the run.
	ErrTensor = errors.New("ort: tensor does not fit the model")
)

// Runtime is the opened library. There is one in a process and it stays
// open: unloading it under a live session would crash. Safe for concurrent use.
type Runtime struct {
	path  string
	build func() string
}

// opened is the process's one library, as the library itself is process-wide.
var opened struct {
	sync.Mutex
	rt *Runtime
}

// Open loads the library at path, which package native finds, and makes its environment, once a process:
// a second Open of the same file returns the same Runtime, and of another
// file is an error. It turns the library's telemetry off. Errors wrap
// [ErrLibrary].
func Open(path string) (*Runtime, error) {
	const mend = "run `make native`, or set SPOS_ONNXRUNTIME to the libonnxruntime.so of an onnxruntime wheel"
	if path == "" {
		return nil, fmt.Errorf("%w: no path to the library: %s", ErrLibrary, mend)
	}
	abs, err := filepath.Abs(path)
	if err == nil {
		abs, err = filepath.EvalSymlinks(abs)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w: %s", ErrLibrary, err, mend)
	}

	opened.Lock()
	defer opened.Unlock()
	switch {
	case opened.rt == nil:
	case opened.rt.path == abs:
		return opened.rt, nil
	default:
		return nil, fmt.Errorf("%w: %s cannot be opened, this process already uses %s", ErrLibrary, abs, opened.rt.path)
	}
	if os.Getenv(envTelemetry) == "" {
		if err := os.Setenv(envTelemetry, "1"); err != nil {
			return nil, fmt.Errorf("%w: turn telemetry off: %w", ErrLibrary, err)
		}
	}
	yalue.SetSharedLibraryPath(abs)
	if err := yalue.InitializeEnvironment(yalue.WithLogLevelFatal()); err != nil {
		return nil, fmt.Errorf("%w: open %s: %w (it must be ONNX Runtime 1.24 or newer, built for this machine): %s",
			ErrLibrary, abs, err, mend)
	}
	opened.rt = &Runtime{path: abs, build: sync.OnceValue(func() string { return buildOf(abs) })}
	return opened.rt, nil
}

// Path is the library's file, absolute, with symbolic links resolved.
func (r *Runtime) Path() string { return r.path }

// Version is the library's own version, such as "1.32.0".
func (r *Runtime) Version() string { return yalue.GetVersion() }

// Build tells builds of one version apart: the linker's identifier of the
// library, else a hash of its file. "" where neither can be read.
func (r *Runtime) Build() string { return r.build() }

// buildOf reads the identifier of an ELF file: a note of its own section, whose
// header is three 32-bit lengths and the name "GNU".
func buildOf(path string) string {
	const header, short = 16, 12
	if f, err := elf.Open(path); err == nil {
		defer f.Close()
		if s := f.Section(".note.gnu.build-id"); s != nil {
			if note, err := s.Data(); err == nil && len(note) >= header+short/2 {
				return hex.EncodeToString(note[header:])[:short]
			}
		}
	}
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return ""
	}
	return hex.EncodeToString(h.Sum(nil))[:short]
}
