package native_test

import (
	"archive/zip"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"spos/internal/native"
)

// A compiler that says what it compiles, and copies; and a Python whose pip
// finds the wheels in $WHEELS instead of an index.
const (
	fakeCompiler = `#!/bin/bash
[[ $1 == -dump* ]] && { echo "${1#-dump}"; exit; }
src= out=
while (($#)); do
	case $1 in -c) src=$2; shift ;; -o) out=$2; shift ;; esac
	shift
done
[[ -z $src ]] && { : >"$out"; exit; }
echo "compiled $(basename "$src")" >>"$LOG"
grep -q BROKEN "$src" && { echo "$src: broken"; exit 1; }
cp "$src" "$out"
`
	fakePython = `#!/bin/bash
case "$*" in
*find_spec*) echo "$PYTHON_TORCH" ;;
*--version*) ;;
*download*)
	echo "downloaded" >>"$LOG"
	[[ -n $WHEELS ]] || exit 1
	while [[ $1 != --dest ]]; do shift; done
	mkdir -p "$2"
	cp "$WHEELS"/*.whl "$2" ;;
*) exec python3 "$@" ;;
esac
`
)

// checkout is a copy of what the script reads, with a cache of its own.
type checkout struct {
	t    *testing.T
	root string
	env  map[string]string
}

func newCheckout(t *testing.T) checkout {
	t.Helper()
	for _, tool := range []string{"gcc", "ldd", "nm", "python3"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("the script needs %s", tool)
		}
	}
	dir := t.TempDir()
	write(t, dir, "bin/c++", fakeCompiler, "bin/python", fakePython)
	for _, tool := range []string{"bin/c++", "bin/python"} {
		if err := os.Chmod(filepath.Join(dir, tool), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	torch := libtorch(t, filepath.Join(dir, "torch"))
	write(t, dir, "libonnxruntime.so", "")
	c := checkout{t, filepath.Join(dir, "one"), map[string]string{
		"CXX": filepath.Join(dir, "bin/c++"), "PYTHON": filepath.Join(dir, "bin/python"), "LOG": filepath.Join(dir, "log"),
		"XDG_CACHE_HOME": filepath.Join(dir, "cache"), "LIBTORCH": torch, "SPOS_ONNXRUNTIME": filepath.Join(dir, "libonnxruntime.so"),
		"WHEELS": "", "PYTHON_TORCH": "",
	}}
	c.fill()
	return c
}

// fill copies the real script and makes two sources of ours.
func (c checkout) fill() {
	c.t.Helper()
	const csrc = "supernet/internal/torchx/csrc/"
	for to, from := range map[string]string{
		"internal/native/native.sh": "native.sh", "internal/native/pins": "pins", "go.mod": "../../go.mod", "go.sum": "../../go.sum",
	} {
		text, err := os.ReadFile(from)
		if err != nil {
			c.t.Fatal(err)
		}
		write(c.t, c.root, to, string(text))
	}
	write(c.t, c.root, csrc+"a.cc", "a", csrc+"b.cc", "b", csrc+"x.h", "x")
}

// libtorch makes a directory that passes for one.
func libtorch(t *testing.T, dir string) string {
	t.Helper()
	write(t, dir,
		"include/torch/headeronly/version.h", "#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION_MINOR 11\n#define TORCH_VERSION_PATCH 3\n",
		"lib/empty.c", "int empty;\n")
	for _, lib := range []string{"libtorch_cpu.so", "libc10.so"} {
		cmd := exec.CommandContext(t.Context(), "gcc", "-shared", "-o", lib, "empty.c")
		cmd.Dir = filepath.Join(dir, "lib")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("gcc: %v\n%s", err, out)
		}
	}
	return dir
}

// run returns what the script said and what it compiled and downloaded.
func (c checkout) run() (out string, did []string, err error) {
	c.t.Helper()
	os.Remove(c.env["LOG"])
	cmd := exec.CommandContext(c.t.Context(), "bash", filepath.Join(c.root, "internal/native/native.sh"))
	cmd.Env = os.Environ()
	for k, v := range c.env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	text, err := cmd.CombinedOutput()
	log, _ := os.ReadFile(c.env["LOG"]) // absent: it did nothing
	return string(text), strings.Split(strings.TrimSpace(string(log)), "\n"), err
}

// want runs the script, which must do so many things, and returns the record.
func (c checkout) want(things int, also ...string) native.Build {
	c.t.Helper()
	out, did, err := c.run()
	if err != nil {
		c.t.Fatalf("%v\n%s", err, out)
	}
	n := 0
	for _, d := range did {
		if d != "" {
			n++
		}
	}
	if n != things {
		c.t.Errorf("did %q; want %d things", did, things)
	}
	for _, a := range also {
		if !strings.Contains(strings.Join(did, "\n")+out, a) {
			c.t.Errorf("did %q and said %q; want %q", did, out, a)
		}
	}
	return c.record()
}

func (c checkout) record() native.Build {
	c.t.Helper()
	sh := exec.CommandContext(c.t.Context(), "sh", "-c", `. .native/env.sh; . .native/env.sh; cat "$SPOS_NATIVE/build.json"`)
	sh.Dir = c.root
	text, err := sh.Output()
	if err != nil {
		c.t.Fatal(err)
	}
	var b native.Build
	if err := json.Unmarshal(text, &b); err != nil {
		c.t.Fatalf("%v in %s", err, text)
	}
	return b
}

func TestScriptCompilesWhatChanged(t *testing.T) {
	c := newCheckout(t)
	first := c.want(3, "compiled gotorch.cc", "compiled a.cc", "compiled b.cc")
	if first.Torch != "2.11.3" || first.Origin != "LIBTORCH" || first.CUDA {
		t.Errorf("record %+v; want 2.11.3 from LIBTORCH without CUDA", first)
	}
	c.want(0)

	write(t, c.root, "supernet/internal/torchx/csrc/a.cc", "a, changed")
	c.want(1, "compiled a.cc")
	write(t, c.root, "supernet/internal/torchx/csrc/x.h", "x, changed")
	c.want(2, "compiled a.cc", "compiled b.cc")

	second := c
	second.root += "-more"
	second.fill()
	second.want(0)

	write(t, c.root, "supernet/internal/torchx/csrc/b.cc", "BROKEN")
	before := c.record()
	if out, _, err := c.run(); err == nil || !strings.Contains(out, "compilation failed") {
		t.Errorf("a broken source: %v, %s", err, out)
	}
	if after := c.record(); after != before {
		t.Errorf("a failed build changed what is used: %+v to %+v", before, after)
	}
}

func TestScriptTakesPythonsTorch(t *testing.T) {
	c := newCheckout(t)
	c.env["PYTHON_TORCH"], c.env["LIBTORCH"] = c.env["LIBTORCH"], ""
	write(t, c.env["PYTHON_TORCH"], "lib/libtorch_cuda.so", "") // where the tests' machine has CUDA
	if b := c.want(3); b.Origin != "python" || b.TorchDir != c.env["PYTHON_TORCH"] {
		t.Errorf("record %+v; want Python's torch", b)
	}
}

// A torch without CUDA is not what a machine with CUDA wants, unless somebody
// says so.
func TestScriptPassesOverTorchWithoutCUDA(t *testing.T) {
	c := newCheckout(t)
	bin := filepath.Dir(c.env["PYTHON"])
	write(t, bin, "nvidia-smi", "#!/bin/sh\n")
	if err := os.Chmod(filepath.Join(bin, "nvidia-smi"), 0o755); err != nil {
		t.Fatal(err)
	}
	c.env["PATH"] = bin + ":" + os.Getenv("PATH")
	wheels := t.TempDir()
	zipped(t, filepath.Join(wheels, "torch.whl"), c.env["LIBTORCH"], "torch")
	named := c.env["LIBTORCH"]
	c.env["PYTHON_TORCH"], c.env["LIBTORCH"], c.env["WHEELS"] = named, "", wheels

	if b := c.want(4, "downloaded", "it has no CUDA, and this machine does", "LIBTORCH="+named); b.Origin != "wheel" {
		t.Errorf("record %+v; want the wheel", b)
	}
	c.env["LIBTORCH"] = named
	if b := c.want(3); b.TorchDir != named {
		t.Errorf("record %+v; want %s", b, named)
	}
}

func TestScriptDownloadsOnce(t *testing.T) {
	c := newCheckout(t)
	wheels := t.TempDir()
	zipped(t, filepath.Join(wheels, "torch.whl"), c.env["LIBTORCH"], "torch")
	c.env["LIBTORCH"], c.env["WHEELS"] = "", wheels
	c.env["PYTHON_TORCH"] = libtorch(t, filepath.Join(t.TempDir(), "old"))
	write(t, c.env["PYTHON_TORCH"], "include/torch/headeronly/version.h",
		"#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION_MINOR 3\n#define TORCH_VERSION_PATCH 1\n")

	b := c.want(4, "downloaded", "2.3.1 is older")
	if !strings.HasPrefix(b.TorchDir, c.env["XDG_CACHE_HOME"]) {
		t.Errorf("record %+v; want libtorch in the cache", b)
	}
	c.env["WHEELS"] = "" // offline
	c.want(0)
}

func zipped(t *testing.T, file, dir, prefix string) {
	t.Helper()
	out, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	z := zip.NewWriter(out)
	err = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		w, err := z.Create(prefix + strings.TrimPrefix(path, dir))
		if err != nil {
			return err
		}
		_, err = w.Write(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestScriptSaysWhatIsMissing(t *testing.T) {
	tests := map[string]struct{ variable, value, want string }{
		"compiler":              {"CXX", "no-such-compiler", "apt-get install g++"},
		"libtorch":              {"LIBTORCH", "/nowhere", "it has no torch headers"},
		"runtime":               {"SPOS_ONNXRUNTIME", "/nowhere.so", "/nowhere.so is not a file"},
		"network":               {"LIBTORCH", "", "without a network, set LIBTORCH"},
		"a path without spaces": {"XDG_CACHE_HOME", "/tmp/with space", "no spaces"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := newCheckout(t)
			c.env[tt.variable] = tt.value
			out, _, err := c.run()
			if err == nil || !strings.Contains(out, tt.want) {
				t.Errorf("%v, %q; want a failure that says %q", err, out, tt.want)
			}
			if _, err := os.Stat(filepath.Join(c.root, ".native/env.sh")); err == nil {
				t.Error("env.sh was written all the same")
			}
		})
	}
}
