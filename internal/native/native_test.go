package native_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"spos/internal/native"
)

// write makes files under dir: path, text, path, text, …
func write(t *testing.T, dir string, files ...string) {
	t.Helper()
	for pair := range slices.Chunk(files, 2) {
		path := filepath.Join(dir, pair[0])
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(pair[1]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// host is a machine of its own under a temporary directory.
func host(t *testing.T, env map[string]string) native.Host {
	t.Helper()
	root := t.TempDir()
	write(t, root, "app/bin/spos", "")
	return native.Host{Root: root, Exe: filepath.Join(root, "app/bin/spos"), Getenv: func(k string) string { return env[k] }}
}

func TestONNXRuntimeOrder(t *testing.T) {
	env := map[string]string{}
	h := host(t, env)
	env["HOME"] = filepath.Join(h.Root, "home")
	env["LD_LIBRARY_PATH"] = filepath.Join(h.Root, "ld")

	machine := cmp.Or(map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH], runtime.GOARCH)

	// From the last place to the first: each must win over those before it.
	for _, want := range []string{
		"usr/lib/x86_64-linux-gnu/libonnxruntime.so.1.20.0",
		"usr/local/lib/libonnxruntime.so",
		"ld/libonnxruntime.so.1.9.0",
		filepath.Join("home/.cache/spos/onnxruntime-1.32.0-"+machine, "onnxruntime/capi/libonnxruntime.so.1.32.0"),
		"app/lib/libonnxruntime.so",
		"app/bin/libonnxruntime.so.1.9.0",
		"app/bin/libonnxruntime.so.1.10.0",
	} {
		write(t, h.Root, want, "")
		got, err := h.ONNXRuntime()
		if err != nil || got != filepath.Join(h.Root, want) {
			t.Errorf("ONNXRuntime() = %q, %v; want %s", got, err, want)
		}
	}
	env[native.EnvONNXRuntime] = filepath.Join(h.Root, "ld/libonnxruntime.so.1.9.0")
	if got, err := h.ONNXRuntime(); err != nil || got != env[native.EnvONNXRuntime] {
		t.Errorf("with the variable: %q, %v", got, err)
	}
}

func TestONNXRuntimeMissing(t *testing.T) {
	env := map[string]string{}
	h := host(t, env)
	_, err := h.ONNXRuntime()
	if !errors.Is(err, native.ErrNotFound) || !strings.Contains(err.Error(), "make native") || !strings.Contains(err.Error(), native.EnvONNXRuntime) {
		t.Errorf("err = %v; want ErrNotFound that says how to mend it", err)
	}
	write(t, h.Root, "app/bin/libonnxruntime.so", "")
	env[native.EnvONNXRuntime] = filepath.Join(h.Root, "nowhere.so")
	if _, err := h.ONNXRuntime(); !errors.Is(err, native.ErrNotFound) || !strings.Contains(err.Error(), "nowhere.so") {
		t.Errorf("a variable that names no file: err = %v; want ErrNotFound naming it", err)
	}
}

func TestLibtorchOfTorchlessProgram(t *testing.T) {
	if _, err := native.Libtorch(); !errors.Is(err, native.ErrTorchless) {
		t.Errorf("err = %v; want ErrTorchless for a test that links no libtorch", err)
	}
}

// linked makes a program that needs libcgotorch.so and looks for it in lib.
func linked(t *testing.T, lib string) native.Host {
	t.Helper()
	cc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("no gcc to link a program with")
	}
	dir := t.TempDir()
	write(t, dir, "lib.c", "int f(void){return 0;}", "main.c", "int f(void); int main(void){return f();}")
	for _, args := range [][]string{
		{"-shared", "-fPIC", "-o", "libcgotorch.so", "lib.c"},
		{"-o", "prog", "main.c", "-L.", "-lcgotorch", "-Wl,-rpath,/nowhere:" + lib + ",--enable-new-dtags"},
	} {
		cmd := exec.CommandContext(t.Context(), cc, args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("gcc %v: %v\n%s", args, err, out)
		}
	}
	return native.Host{Exe: filepath.Join(dir, "prog")}
}

func TestLibtorch(t *testing.T) {
	lib := t.TempDir()
	h := linked(t, lib)

	if _, err := h.Libtorch(); !errors.Is(err, native.ErrNotFound) || !strings.Contains(err.Error(), lib) {
		t.Errorf("without a record: err = %v; want ErrNotFound naming %s", err, lib)
	}
	write(t, lib, "build.json", "{")
	if _, err := h.Libtorch(); !errors.Is(err, native.ErrNotFound) || !strings.Contains(err.Error(), "build.json") {
		t.Errorf("a broken record: err = %v; want ErrNotFound naming it", err)
	}
	write(t, lib, "build.json", `{"torch": "2.15.0", "origin": "wheel", "cuda": true, "torch_dir": "`+lib+`/torch", "compiler": "12"}`)
	if _, err := h.Libtorch(); !errors.Is(err, native.ErrNotFound) || !strings.Contains(err.Error(), "libtorch_cpu.so has gone") {
		t.Errorf("without libtorch: err = %v; want ErrNotFound naming it", err)
	}
	write(t, lib, "torch/lib/libtorch_cpu.so", "")
	b, err := h.Libtorch()
	if want := (native.Build{Dir: lib, Torch: "2.15.0", Origin: "wheel", CUDA: true, TorchDir: lib + "/torch", Compiler: "12"}); err != nil || b != want {
		t.Errorf("Libtorch() = %+v, %v; want %+v", b, err, want)
	}
}

func TestCPULimits(t *testing.T) {
	tests := map[string]struct {
		files  []string
		quota  float64
		memory int64
	}{
		"none": {},
		"v2, the tightest on the way up": {
			files: []string{
				"proc/self/cgroup", "1:cpu:/elsewhere\n0::/a/b\n",
				"sys/fs/cgroup/a/b/cpu.max", "max 100000\n", "sys/fs/cgroup/a/cpu.max", "150000 100000\n",
				"sys/fs/cgroup/a/b/memory.max", "4096\n", "sys/fs/cgroup/a/memory.max", "max\n",
			},
			quota: 1.5, memory: 4096,
		},
		"v1": {
			files: []string{
				"sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n",
				"sys/fs/cgroup/memory/memory.limit_in_bytes", "8192\n",
			},
			quota: 0.5, memory: 8192,
		},
		"v1 unlimited": {
			files: []string{
				"sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n",
				"sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n",
			},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			h := host(t, nil)
			write(t, h.Root, tt.files...)
			p := h.CPU()
			if p.Quota != tt.quota || p.MemoryLimit != tt.memory {
				t.Errorf("quota %g, memory limit %d; want %g, %d", p.Quota, p.MemoryLimit, tt.quota, tt.memory)
			}
		})
	}
}

func TestCPUSettings(t *testing.T) {
	h := host(t, nil)
	write(t, h.Root,
		"proc/meminfo", "MemTotal:       1024 kB\nMemFree: 1 kB\n",
		"sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n",
		"sys/devices/system/cpu/intel_pstate/no_turbo", "1\n")
	p := h.CPU()
	if p.Memory != 1<<20 || p.Governor != "powersave" || p.Turbo != "off" {
		t.Errorf("memory %d, governor %q, turbo %q; want 1 MiB, powersave, off", p.Memory, p.Governor, p.Turbo)
	}
	if p.Model == "" || p.Logical < 1 || p.Arch == "" {
		t.Errorf("the chip's own facts are missing: %+v", p)
	}
}

func TestCUDA(t *testing.T) {
	for name, version := range map[string]string{
		"closed module": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\nGCC version:  gcc version 12.2.0\n",
		"open module":   "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  535.104.05  Release Build\n",
	} {
		t.Run(name, func(t *testing.T) {
			h := host(t, nil)
			if d := h.CUDA(); d.Driver != "" || len(d.GPUs) != 0 {
				t.Errorf("on a machine without a driver: %+v", d)
			}
			write(t, h.Root, "proc/driver/nvidia/version", version,
				"proc/driver/nvidia/gpus/0000:01:00.0/information", "Model: \t\t NVIDIA L4\nIRQ: 3\n")
			if d := h.CUDA(); d.Driver != "535.104.05" || !slices.Equal(d.GPUs, []string{"NVIDIA L4"}) {
				t.Errorf("CUDA() = %+v; want driver 535.104.05 and one NVIDIA L4", d)
			}
		})
	}
}

func TestReport(t *testing.T) {
	h := host(t, nil)
	h.Exe = "" // a real program, this one: built without libtorch
	r := h.Examine()
	if r.Healthy() {
		t.Error("healthy without ONNX Runtime")
	}
	var out bytes.Buffer
	if err := r.Write(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"onnxruntime  PROBLEM", "mend: run `make native`", "not part of this program"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the report lacks %q:\n%s", want, out.String())
		}
	}

	write(t, h.Root, "usr/lib/libonnxruntime.so.1.32.0", "")
	r = h.Examine()
	if !r.Healthy() {
		t.Errorf("not healthy with everything in place: %+v", r.Items)
	}
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"name":"onnxruntime","found":true,"version":"1.32.0"`, `"gpus":[]`} {
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf("JSON lacks %s: %s", want, text)
		}
	}
}
