package main

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestTelemetry watches every system call of a server for as many seconds as SPOS_TELEMETRY says: it opens no
// connection and writes no file. The library that it loads would do both within a quarter of a minute.
func TestTelemetry(t *testing.T) {
	seconds, err := strconv.Atoi(os.Getenv("SPOS_TELEMETRY"))
	if err != nil {
		t.Skip("SPOS_TELEMETRY is not set to a number of seconds: make telemetry does")
	}
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("no strace (apt-get install strace)")
	}
	place, home := newPlace(t), t.TempDir()
	watched := func(library string) (trace string, stop func()) {
		trace = filepath.Join(t.TempDir(), "trace")
		// -D leaves the server the child of this test, for its signals.
		cmd := place.command(t, "set -- "+strace+" -D -f -q -s 200 -o "+trace+" -e trace="+traced+` "$@";`)
		// The variable CI would keep the library quiet.
		cmd.Env = append(cmd.Env, "HOME="+home, "XDG_CACHE_HOME="+filepath.Join(home, "cache"), library)
		p := begin(t, cmd)
		infer(t, p.url)
		return trace, func() {
			infer(t, p.url)
			p.stop(t)
			end := strconv.Itoa(p.Process.Pid) + " +++ exited with 0 +++"
			for { // until strace has written it
				text, err := os.ReadFile(trace)
				if err != nil {
					t.Fatal(err)
				}
				if strings.Contains(string(text), end) {
					return
				}
			}
		}
	}
	ours, stopOurs := watched("X=")
	control, stopControl := watched("ORT_DISABLE_TELEMETRY=0")
	time.Sleep(time.Duration(seconds) * time.Second) // what is waited for is that nothing happens
	stopOurs()
	stopControl()
	for _, call := range telling(t, ours) {
		t.Errorf("the server did %s", call)
	}
	if calls := telling(t, control); len(calls) == 0 {
		t.Log("the library was as quiet with its telemetry on: this run proves little")
	} else {
		t.Logf("with its telemetry on the library did %d such calls, such as %s", len(calls), calls[0])
	}
}

// traced are the calls that speak to a network or change a file system, and with them those that do neither.
const traced = "network,open,openat,openat2,creat,mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat"

var (
	connection = regexp.MustCompile(`\b(connect|sendto|sendmsg|sendmmsg)\(.*AF_INET`)
	writing    = regexp.MustCompile(`\b(open|openat|openat2|creat|mkdir|mkdirat|rename|renameat|renameat2|unlink|unlinkat)\(`)
	harmless   = regexp.MustCompile(`open(at|at2)?\(.*(O_RDONLY|O_PATH)|"/dev/(null|tty)"|"/proc/self/`)
)

// telling are the lines of a trace that speak to a network or change a file system.
func telling(t *testing.T, trace string) (calls []string) {
	t.Helper()
	f, err := os.Open(trace)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	n := 0
	for ; lines.Scan(); n++ {
		line := lines.Text()
		if connection.MatchString(line) || writing.MatchString(line) && !harmless.MatchString(line) {
			calls = append(calls, line)
		}
	}
	if lines.Err() != nil || n == 0 {
		t.Fatalf("the trace has %d lines: %v", n, lines.Err())
	}
	return calls
}

// TestReadOnly runs the server as nobody, without capabilities, where every file system is read-only.
func TestReadOnly(t *testing.T) {
	if os.Getenv("SPOS_READONLY") == "" {
		t.Skip("SPOS_READONLY is not set: make readonly does")
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can make such a place")
	}
	place := newPlace(t)
	// Of the places of tests nobody may read, so there is another.
	dir, err := os.MkdirTemp("", "spos-readonly") //nolint:usetesting // t.TempDir is a test's alone
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, library := filepath.Join(dir, "spos-edge"), filepath.Join(dir, "libonnxruntime.so")
	for from, to := range map[string]string{self: program, place.library: library, filepath.Join(place.repository, "addsub/1/model.onnx"): filepath.Join(dir, "models/addsub/1/model.onnx")} {
		copyFile(t, from, to)
	}
	if err := os.Chmod(dir, 0o777); err != nil { // so that only the file system forbids to write
		t.Fatal(err)
	}
	const prepare = `
		mount --make-rprivate /
		for at in $(cut -d' ' -f2 /proc/self/mounts); do mount -o remount,bind,ro "$at" 2>/dev/null || true; done
		if touch "$1/written" 2>/dev/null; then echo "$1 can be written to" >&2; exit 1; fi
		shift
		exec setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs --bounding-set=-all "$@"`
	cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "sh", "-c", prepare, "sh", dir,
		program, "serve", "--log-format", "json", "--repository", filepath.Join(dir, "models"), "--http", "127.0.0.1:0", "--poll", "1s")
	cmd.Env = []string{runMain + "=1", "SPOS_ONNXRUNTIME=" + library, "GORACE=atexit_sleep_ms=0", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	p := begin(t, cmd)
	infer(t, p.url)
	status, err := os.ReadFile("/proc/" + strconv.Itoa(p.Process.Pid) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Uid:\t65534", "CapEff:\t0000000000000000", "NoNewPrivs:\t1"} {
		if !strings.Contains(string(status), want) {
			t.Errorf("the process's status lacks %q:\n%s", want, status)
		}
	}
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.end(t)
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}
