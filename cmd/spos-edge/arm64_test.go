package main

import (
	"encoding/json"
	"fmt"
	"net"
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

// TestARM64Agent has the emulated program register with a broker on this machine and measure for a search on it.
func TestARM64Agent(t *testing.T) {
	b := newBoard(t)
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	free.Close()

	line := b.emulated("agent", "--connect", "nats://"+address, "--name", "arm", "--log-format", "json")
	agent := exec.CommandContext(t.Context(), line[0], line[1:]...)
	agent.Env = []string{"HOME=" + t.TempDir()}
	device := start(t, agent)
	device.await(t, "the broker does not answer")
	// The agent starts its own file to measure in, which this machine cannot: from here on the file is a script that
	// has it emulated.
	arm := filepath.Join(b.dir, "spos-edge.arm64")
	if err := os.Rename(filepath.Join(b.dir, "spos-edge"), arm); err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf("#!/bin/sh\nexec %s -L %s %s \"$@\"\n", b.qemu, b.root, arm)
	if err := os.WriteFile(filepath.Join(b.dir, "spos-edge"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}

	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	host := func(args ...string) *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), self, args...)
		cmd.Env = []string{runMain + "=1", "HOME=" + t.TempDir()}
		return cmd
	}
	broker := start(t, host("fleet", "serve", "--dir", filepath.Join(t.TempDir(), "fleet"), "--listen", address, "--log-format", "json"))
	device.await(t, "agent is ready")

	asker := host("latency", "measure", "--quick", "--json", "--device", "arm", "--fleet", "nats://"+address, "../../latency/testdata/convs8.onnx")
	var errs strings.Builder
	asker.Stderr = &errs
	out, err := asker.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, errs.String())
	}
	var results []latency.Result
	if err := json.Unmarshal(out, &results); err != nil || len(results) != 1 {
		t.Fatalf("%v: %s", err, out)
	}
	fp := results[0].Fingerprint
	t.Logf("measured for the host: p50 %v (emulated), %d runs, on %s, %q", results[0].P50, results[0].Runs, fp.Host.Arch, fp.Host.CPU)
	if fp.Host.Arch != "linux/arm64" {
		t.Errorf("measured on %s", fp.Host.Arch)
	}
	device.stop(t)
	broker.stop(t)
}

func copyModel(t *testing.T, repository string) {
	t.Helper()
	dir := filepath.Join(repository, "addsub", "1")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	copyFile(t, "../../serve/testdata/addsub.onnx", filepath.Join(dir, "model.onnx"))
}
