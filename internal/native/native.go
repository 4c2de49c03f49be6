// Package native finds what the program runs on: the shared libraries that
// `make native` fetched or built, the processor with what the kernel lets this
// process have of it, and the CUDA devices. It only looks: it opens no
// library and imports no binding, so that the torch-free program can use it.
package native

import (
	"cmp"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// EnvONNXRuntime names the environment variable that holds the path of the
// ONNX Runtime library to use instead of any other.
const EnvONNXRuntime = "SPOS_ONNXRUNTIME"

var (
	// ErrNotFound is wrapped where a library is not on this machine, by a
	// [MissingError].
	ErrNotFound = errors.New("native: not found")
	// ErrTorchless is returned by [Libtorch] where the program is one that
	// was built without libtorch: nothing is missing.
	ErrTorchless = errors.New("native: this program is built without libtorch")
)

// MissingError says what is not there and the way out. It wraps [ErrNotFound].
type MissingError struct{ Problem, Mend string }

func (e *MissingError) Error() string { return "native: " + e.Problem + ": " + e.Mend }

// Unwrap makes every MissingError an [ErrNotFound].
func (e *MissingError) Unwrap() error { return ErrNotFound }

// Host is the machine to look at. The zero value is the one that the program
// runs on; tests hand in another.
type Host struct {
	Root   string              // prefix of the paths under /proc, /sys and /usr
	Exe    string              // the program's file; empty: os.Executable
	Getenv func(string) string // nil: os.Getenv
}

func (h Host) env(name string) string {
	if h.Getenv == nil {
		return os.Getenv(name)
	}
	return h.Getenv(name)
}

func (h Host) path(p string) string { return filepath.Join(h.Root, p) }

func (h Host) exe() (string, error) {
	p := h.Exe
	if p == "" {
		var err error
		if p, err = os.Executable(); err != nil {
			return "", err
		}
	}
	return filepath.EvalSymlinks(p)
}

// cache is where `make native` keeps what it made, empty where there is no home.
func (h Host) cache() string {
	if dir := h.env("XDG_CACHE_HOME"); dir != "" {
		return filepath.Join(dir, "spos")
	}
	if dir := h.env("HOME"); dir != "" {
		return filepath.Join(dir, ".cache", "spos")
	}
	return ""
}

// ONNXRuntime returns the path of the ONNX Runtime library: see [Host.ONNXRuntime].
func ONNXRuntime() (string, error) { return Host{}.ONNXRuntime() }

// ONNXRuntime returns the path of the library that $SPOS_ONNXRUNTIME names,
// else the newest libonnxruntime.so beside the program, in ../lib of it, in
// the user's cache as filled by `make native`, or where the system's loader
// looks; the first of these places that has one. A variable that names no file
// is an error and not passed over. Errors wrap [ErrNotFound].
func (h Host) ONNXRuntime() (string, error) {
	if p := h.env(EnvONNXRuntime); p != "" {
		if !isFile(p) {
			return "", &MissingError{EnvONNXRuntime + "=" + p + " is not a file", "name the libonnxruntime.so itself, or unset the variable"}
		}
		return p, nil
	}
	dirs := h.libraryDirs()
	for _, dir := range dirs {
		if p := newest(dir); p != "" {
			return p, nil
		}
	}
	return "", &MissingError{
		Problem: "no libonnxruntime.so in " + strings.Join(dirs, ", "),
		Mend:    "run `make native`, copy the library of the onnxruntime wheel beside the program, or set " + EnvONNXRuntime + " to its path",
	}
}

// libraryDirs lists glob patterns of the directories to search, in order.
func (h Host) libraryDirs() []string {
	var dirs []string
	if exe, err := h.exe(); err == nil {
		dir := filepath.Dir(exe)
		dirs = append(dirs, dir, filepath.Join(filepath.Dir(dir), "lib"))
	}
	if cache := h.cache(); cache != "" {
		dirs = append(dirs, filepath.Join(cache, "onnxruntime-*-"+machine(), "onnxruntime", "capi"))
	}
	dirs = append(dirs, filepath.SplitList(h.env("LD_LIBRARY_PATH"))...)
	for _, dir := range []string{"/usr/local/lib", "/usr/lib", "/usr/lib64", "/usr/lib/*-linux-gnu"} {
		dirs = append(dirs, h.path(dir))
	}
	return slices.DeleteFunc(dirs, func(dir string) bool { return dir == "" })
}

// newest is the file of the highest version among dir/libonnxruntime.so*, or
// empty. A plain .so counts lowest: it is a link to one of the others if any.
func newest(dir string) string {
	found, _ := filepath.Glob(filepath.Join(dir, "libonnxruntime.so*")) // only a bad pattern is an error, and finds nothing
	found = slices.DeleteFunc(found, func(p string) bool { return !isFile(p) })
	if len(found) == 0 {
		return ""
	}
	return slices.MaxFunc(found, func(a, b string) int {
		return slices.Compare(versionOf(a), versionOf(b))
	})
}

// versionOf reads 1.32.0 off libonnxruntime.so.1.32.0.
func versionOf(path string) []int {
	_, suffix, _ := strings.Cut(filepath.Base(path), ".so.")
	var v []int
	for part := range strings.SplitSeq(suffix, ".") {
		n, err := strconv.Atoi(part)
		if err != nil {
			return v
		}
		v = append(v, n)
	}
	return v
}

// machine is this architecture as uname spells it, and with it the cache.
func machine() string {
	switch runtime.GOARCH {
	case "amd64":
		return "x86_64"
	case "arm64":
		return "aarch64"
	}
	return runtime.GOARCH
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// Build is the record that `make native` leaves beside the libraries it built.
type Build struct {
	Dir         string `json:"dir"`         // where the record and our libraries lie
	Torch       string `json:"torch"`       // libtorch's version
	Origin      string `json:"origin"`      // LIBTORCH, python or wheel
	CUDA        bool   `json:"cuda"`        // linked with libtorch's CUDA half
	TorchDir    string `json:"torch_dir"`   // has include/ and lib/
	ONNXRuntime string `json:"onnxruntime"` // the library found at that time
	Compiler    string `json:"compiler"`
	Gotorch     string `json:"gotorch"`
}

// Libtorch says which libtorch this program is linked with: see [Host.Libtorch].
func Libtorch() (Build, error) { return Host{}.Libtorch() }

// Libtorch reads, off the program's own file, where its loader takes our
// libraries from, and returns the record that lies there. It returns
// [ErrTorchless] for a program without libtorch; errors wrap [ErrNotFound]
// where the record or the libtorch that it names has gone.
func (h Host) Libtorch() (Build, error) {
	const mend = "run `make native build`"
	exe, err := h.exe()
	if err != nil {
		return Build{}, fmt.Errorf("find the program's own file: %w", err)
	}
	file, err := elf.Open(exe)
	if err != nil {
		return Build{}, fmt.Errorf("read %s: %w", exe, err)
	}
	defer file.Close()
	needed, err := file.ImportedLibraries()
	if err != nil {
		return Build{}, fmt.Errorf("read %s: %w", exe, err)
	}
	if !slices.Contains(needed, "libcgotorch.so") {
		return Build{}, ErrTorchless
	}
	runpath, err := file.DynString(elf.DT_RUNPATH)
	if err != nil {
		return Build{}, fmt.Errorf("read %s: %w", exe, err)
	}
	for _, dir := range filepath.SplitList(strings.Join(runpath, ":")) {
		b, err := readBuild(dir)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return Build{}, &MissingError{err.Error(), mend}
		}
		if lib := filepath.Join(b.TorchDir, "lib", "libtorch_cpu.so"); !isFile(lib) {
			return b, &MissingError{lib + " has gone", mend}
		}
		return b, nil
	}
	return Build{}, &MissingError{"no build.json in " + cmp.Or(strings.Join(runpath, ":"), "an empty run path"), mend}
}

func readBuild(dir string) (Build, error) {
	path := filepath.Join(dir, "build.json")
	text, err := os.ReadFile(path)
	if err != nil {
		return Build{}, err
	}
	b := Build{Dir: dir}
	if err := json.Unmarshal(text, &b); err != nil {
		return Build{}, fmt.Errorf("read %s: %w", path, err)
	}
	b.Dir = dir
	return b, nil
}
