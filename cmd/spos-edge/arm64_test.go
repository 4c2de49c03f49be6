package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"spos/latency"
)

// board is a directory like the one on a device: the arm64 program and, beside it, ONNX Runtime, found because it
// lies there. They run under user-mode emulation, so times mean nothing.
type board struct{ dir, root, qemu string }

// cpuinfo is what an emulated program must find: ONNX Runtime reads the processor there, and the host's would be of
// another architecture, on which it crashes.
const cpuinfo = `processor	: 0
BogoMIPS	: 100.00
Features	: fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid
CPU implementer	: 0x41
CPU architecture: 8
CPU variant	: 0x0
CPU part	: 0xd08
CPU revision	: 3
`

func newBoard(t *testing.T) board {
	t.Helper()
	program, library := os.Getenv("SPOS_ARM64"), os.Getenv("SPOS_ARM64_ONNXRUNTIME")
	if program == "" || library == "" {
		t.Skip("SPOS_ARM64 and SPOS_ARM64_ONNXRUNTIME do not name the program and the library: make edge-arm64-proof does")
	}
	qemu, err := exec.LookPath("qemu-aarch64-static")
	if err != nil {
		t.Skip("no qemu-aarch64-static (apt-get install qemu-user-static)")
	}
	b := board{filepath.Join(t.TempDir(), "board"), t.TempDir(), qemu}
	if err := os.Mkdir(b.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	copyFile(t, program, filepath.Join(b.dir, "spos-edge"))
	copyFile(t, library, filepath.Join(b.dir, filepath.Base(library)))
	for _, dir := range []string{"lib", "usr"} {
		if err := os.Symlink("/usr/aarch64-linux-gnu/"+strings.TrimPrefix(dir, "usr"), filepath.Join(b.root, dir)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(b.root, "proc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.root, "proc", "cpuinfo"), []byte(cpuinfo), 0o644); err != nil {
		t.Fatal(err)
	}
	return b
}

// emulated is the program's name and arguments as the host starts it.
func (b board) emulated(args ...string) []string {
	return append([]string{b.qemu, "-L", b.root, filepath.Join(b.dir, "spos-edge")}, args...)
}

// run is a verb's standard output. Nothing tells the program where its library is.
func (b board) run(t *testing.T, args ...string) string {
	t.Helper()
	line := b.emulated(args...)
	cmd := exec.CommandContext(t.Context(), line[0], line[1:]...)
	cmd.Env = []string{"HOME=" + t.TempDir()}
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v: %s%s", strings.Join(args, " "), err, out, errs.String())
	}
	return string(out)
}

func TestARM64(t *testing.T) {
	b := newBoard(t)

	said := b.run(t, "doctor")
	t.Logf("doctor:\n%s", said)
	if !strings.Contains(said, filepath.Join(b.dir, "libonnxruntime.so")) {
		t.Errorf("the library beside the program was not found:\n%s", said)
	}

	said = b.run(t, "latency", "measure", "--quick", "--json", "../../latency/testdata/convs8.onnx")
	var results []latency.Result
	if err := json.Unmarshal([]byte(said), &results); err != nil || len(results) != 1 {
		t.Fatalf("%v: %s", err, said)
	}
	fp := results[0].Fingerprint
	t.Logf("measured: p50 %v (emulated), %d runs, on %s, %q, ONNX Runtime %s", results[0].P50, results[0].Runs, fp.Host.Arch, fp.Host.CPU, fp.Session.Runtime)
	if fp.Host.Arch != "linux/arm64" || results[0].P50 <= 0 {
		t.Errorf("%+v", results[0])
	}

	p := place{t.TempDir(), ""}
	copyModel(t, p.repository)
	line := b.emulated("serve", "-v", "--log-format", "json")
	cmd := exec.CommandContext(t.Context(), line[0], line[1:]...)
	cmd.Env = []string{"HOME=" + t.TempDir(), "SPOS_SERVE_REPOSITORY=" + p.repository, "SPOS_SERVE_HTTP=127.0.0.1:0"}
	server := begin(t, cmd)
	infer(t, server.url)
	t.Logf("served: %s", server.url)
	server.stop(t)
}

func copyModel(t *testing.T, repository string) {
	t.Helper()
	dir := filepath.Join(repository, "addsub", "1")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	copyFile(t, "../../serve/testdata/addsub.onnx", filepath.Join(dir, "model.onnx"))
}
