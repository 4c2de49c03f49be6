package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func TestSecondSignalForces(t *testing.T) {
	p := begin(t, newPlace(t).command(t, ""))
	conn, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// A request whose body does not come keeps the server from stopping.
	if _, err := io.WriteString(conn, "POST /v2/models/addsub/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	for metric(t, p.url, "spos_serve_in_flight") < 2 { // that one and the one that asks
	}
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.await(t, "stopping")
	// One that comes in the same instant may still count as the first.
	ended := make(chan error, 1)
	go func() { ended <- p.Wait() }()
	for {
		_ = p.Process.Signal(syscall.SIGTERM) // it may have ended
		select {
		case err := <-ended:
			exit, ok := errors.AsType[*exec.ExitError](err)
			if !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGTERM {
				t.Errorf("the second signal ended it with %v", p.ProcessState)
			}
			return
		default:
			runtime.Gosched()
		}
	}
}

// TestEnvironment has no home, no place for temporary files, and flags in the environment.
func TestEnvironment(t *testing.T) {
	cmd := newPlace(t).command(t, "")
	cmd.Dir = "/"
	cmd.Env = append(cmd.Env, "TMPDIR=/dev/null/nowhere", "SPOS_SERVE_METRICS=127.0.0.1:0", "SPOS_SERVE_PPROF=true",
		"SPOS_SERVE_TOKENS=", "SPOS_SERVE_TYPO=1", "SPOS_SERVE_SERVICE_HOST=10.0.0.1")
	p := begin(t, cmd)
	infer(t, p.url)
	if code, _ := fetch(t, p.operators+"/debug/pprof/goroutine?debug=1"); code != 200 {
		t.Errorf("--pprof of the environment: %d", code)
	}
	if log := strings.Join(p.seen, "\n"); !strings.Contains(log, "SPOS_SERVE_TYPO") || strings.Contains(log, "SERVICE_HOST") {
		t.Errorf("logged %s", log)
	}
	p.stop(t)

	cmd = newPlace(t).command(t, "")
	cmd.Env = append(cmd.Env, "SPOS_SERVE_QUEUE=many")
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "SPOS_SERVE_QUEUE=many: ") {
		t.Errorf("a wrong number: %v %s", err, out)
	}
}

// TestLogNobodyReads closes the log's pipe; what writes to it must neither die nor wait.
func TestLogNobodyReads(t *testing.T) {
	p := begin(t, newPlace(t).command(t, "", "--metrics", "127.0.0.1:0"))
	if err := p.stderr.Close(); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		infer(t, p.url)
	}
	if lost := metric(t, p.operators, "spos_serve_log_lines_lost_total"); lost == 0 {
		t.Error("lost lines are not counted")
	}
	p.stop(t)
}

// TestLogOnFullDisk writes its log to a device that has no room.
func TestLogOnFullDisk(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	// The log says nothing, so the port is ours to find: the server gets a listener.
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cmd := newPlace(t).command(t, "LISTEN_PID=$$")
	inherit(t, cmd, ln)
	cmd.Env = append(cmd.Env, "LISTEN_FDS=1")
	cmd.Stderr = full
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{Cmd: cmd, url: "http://" + ln.Addr().String()}
	infer(t, p.url) // waits in the socket's queue until it is served
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
}

// inherit hands a listener to a command, as systemd does, and closes it here.
func inherit(t testing.TB, cmd *exec.Cmd, lns ...net.Listener) {
	t.Helper()
	for _, ln := range lns {
		f, err := ln.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
		if err := ln.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSystemd hands over listeners and listens to what the program says of itself.
func TestSystemd(t *testing.T) {
	var lns []net.Listener
	for range 2 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		lns = append(lns, ln)
	}
	dir, err := os.MkdirTemp("", "spos") //nolint:usetesting // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	ears, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "n"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer ears.Close()
	cmd := newPlace(t).command(t, "export LISTEN_PID=$$ WATCHDOG_PID=$$;")
	cmd.Env = append(cmd.Env, "LISTEN_FDS=2", "LISTEN_FDNAMES=metrics:http", "NOTIFY_SOCKET="+filepath.Join(dir, "n"), "WATCHDOG_USEC=20000")
	metrics, main := "http://"+lns[0].Addr().String(), "http://"+lns[1].Addr().String()
	inherit(t, cmd, lns...)
	p := begin(t, cmd)
	if p.url != main || p.operators != metrics {
		t.Errorf("it serves at %s and %s, handed over were %s and %s", p.url, p.operators, main, metrics)
	}
	hear := func(want string) {
		t.Helper()
		b := make([]byte, 1<<10)
		for {
			n, err := ears.Read(b)
			if err != nil {
				t.Fatal(err)
			}
			if slices.Contains(strings.Split(string(b[:n]), "\n"), want) {
				return
			}
		}
	}
	hear("READY=1")
	hear("WATCHDOG=1")
	hear("WATCHDOG=1")
	infer(t, main)
	if code, _ := fetch(t, metrics+"/metrics"); code != 200 {
		t.Errorf("metrics: %d", code)
	}
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	hear("STOPPING=1")
	p.end(t)
}

// TestFewDescriptors opens more connections than the process may.
func TestFewDescriptors(t *testing.T) {
	p := begin(t, newPlace(t).command(t, "ulimit -n 64;"))
	if log := strings.Join(p.seen, "\n"); !strings.Contains(log, "fewer connections") {
		t.Errorf("it does not say that it has few descriptors: %s", log)
	}
	var conns []net.Conn
	for range 200 {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(p.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	// The first of them is served although the others want more than there is.
	if _, err := io.WriteString(conns[0], "GET /v2/health/ready HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	status := make([]byte, len("HTTP/1.1 200"))
	if _, err := io.ReadFull(conns[0], status); err != nil || string(status) != "HTTP/1.1 200" {
		t.Errorf("answered %q %v", status, err)
	}
	for _, conn := range conns {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
	infer(t, p.url)
	p.stop(t)
}

func TestHealthVerb(t *testing.T) {
	place := newPlace(t)
	p := begin(t, place.command(t, "", "--metrics", "127.0.0.1:0"))
	health := func(args ...string) (string, error) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(ctx, self, append([]string{"serve", "health"}, args...)...)
		cmd.Env = []string{runMain + "=1", "GORACE=atexit_sleep_ms=0"}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	for _, url := range []string{p.url, p.operators, p.url + "/v2"} {
		if out, err := health(url); err != nil || out != "" {
			t.Errorf("%s: %v %s", url, err, out)
		}
	}
	for _, bad := range []string{"localhost:8000", "ftp://localhost", "http://"} {
		if out, err := health(bad); err == nil || !strings.Contains(out, "write http://host:port") {
			t.Errorf("%s: %v %s", bad, err, out)
		}
	}
	p.stop(t)
	if out, err := health(p.url); err == nil || out == "" {
		t.Errorf("of a server that is gone: %v %s", err, out)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(503)
		fmt.Fprint(w, `{"error":"the server is not ready"}`)
	})}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = srv.Serve(ln) }()
	defer srv.Close()
	if out, err := health("http://" + ln.Addr().String()); err == nil || !strings.Contains(out, "not ready") {
		t.Errorf("of a server that is not ready: %v %s", err, out)
	}
}
