package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"spos/internal/native"
)

// These tests run the program itself, as a process: the test's own binary is the program when this is set.
const runMain = "SPOS_TEST_RUN_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(runMain) != "" {
		if os.Getenv(emulateClock) != "" && os.Args[0] != emulatedName {
			emulate()
		}
		main()
	}
	os.Exit(m.Run())
}

// place is where a process finds what it needs: a repository of one model, and the library.
type place struct{ repository, library string }

func newPlace(t testing.TB) place {
	t.Helper()
	library, err := native.ONNXRuntime()
	if err != nil {
		t.Skip(err)
	}
	p := place{t.TempDir(), library}
	data, err := os.ReadFile("../../serve/testdata/addsub.onnx")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(p.repository, "addsub", "1")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "model.onnx"), data, 0o644); err != nil {
		t.Fatal(err)
	}
	return p
}

// process is a running server.
type process struct {
	*exec.Cmd
	url, operators string // as it logged them
	stderr         io.Closer
	lines          *bufio.Scanner
	seen           []string // lines that were read
}

// command is the program with an environment that holds nothing of ours, behind a shell's prefix if there is one.
func (p place) command(t testing.TB, prefix string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args = append([]string{"-c", prefix + ` exec "$@"`, "sh", self, "serve", "-v", "--log-format", "json"}, args...)
	cmd := exec.CommandContext(t.Context(), "/bin/sh", args...)
	cmd.Env = []string{runMain + "=1", "SPOS_ONNXRUNTIME=" + p.library, "SPOS_SERVE_REPOSITORY=" + p.repository, "SPOS_SERVE_HTTP=127.0.0.1:0", "GOMAXPROCS=2", "GORACE=atexit_sleep_ms=0"}
	return cmd
}

// begin starts a command and waits until it serves.
func begin(t testing.TB, cmd *exec.Cmd) *process {
	t.Helper()
	p := start(t, cmd)
	line := p.await(t, "serving")
	p.url, _ = line["address"].(string)
	p.operators, _ = line["metrics"].(string)
	return p
}

// start starts a command, whose log is read line by line.
func start(t testing.TB, cmd *exec.Cmd) *process {
	t.Helper()
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{Cmd: cmd, lines: bufio.NewScanner(stderr), stderr: stderr}
	t.Cleanup(func() {
		if p.ProcessState == nil {
			_ = p.Process.Kill()
			_ = p.Wait() // as it was killed
		}
	})
	return p
}

// await reads the log until a message that begins with text.
func (p *process) await(t testing.TB, text string) map[string]any {
	t.Helper()
	for p.lines.Scan() {
		var line map[string]any
		p.seen = append(p.seen, p.lines.Text())
		if err := json.Unmarshal(p.lines.Bytes(), &line); err != nil {
			continue
		}
		if msg, _ := line["msg"].(string); strings.HasPrefix(msg, text) && (text != "serving" || line["onnxruntime"] != nil) {
			return line
		}
	}
	t.Fatalf("the log ends without %q:\n%s", text, strings.Join(p.seen, "\n"))
	return nil
}

// stop asks the process to end and holds it to a clean end.
func (p *process) stop(t testing.TB) {
	t.Helper()
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.end(t)
}

// end waits for the end of a process that was asked to.
func (p *process) end(t testing.TB) {
	t.Helper()
	go func() { // or it could wait for a reader
		for p.lines.Scan() {
		}
	}()
	if err := p.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
}

// fetch is the status and body of a GET over a connection of its own.
func fetch(t testing.TB, url string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Close = true
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// infer sends one request and holds the answer to be right.
func infer(t testing.TB, url string) {
	t.Helper()
	const body = `{"inputs":[{"name":"INPUT0","datatype":"INT32","shape":[1,16],"data":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16]},` +
		`{"name":"INPUT1","datatype":"INT32","shape":[1,16],"data":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]}]}`
	r, err := http.NewRequestWithContext(t.Context(), "POST", url+"/v2/models/addsub/infer", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Close = true
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 || !strings.Contains(string(text), "[2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]") {
		t.Errorf("%d %s %v", resp.StatusCode, text, err)
	}
}

// metric is the value of a series without labels.
func metric(t testing.TB, url, name string) (value float64) {
	t.Helper()
	_, text := fetch(t, url+"/metrics")
	for line := range strings.Lines(text) {
		if _, err := fmt.Sscanf(line, name+" %g", &value); err == nil {
			return value
		}
	}
	t.Fatalf("no metric %s in\n%s", name, text)
	return 0
}
