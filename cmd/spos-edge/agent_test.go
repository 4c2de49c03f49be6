package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"spos/export"
	"spos/internal/fleet"
	"spos/internal/native"
	"spos/latency"
)

// edge is the program with some arguments, in an environment that holds
// nothing of ours.
func edge(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	library, err := native.ONNXRuntime()
	if err != nil {
		t.Skip(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, append(args, "--log-format", "json")...)
	cmd.Env = []string{runMain + "=1", "SPOS_ONNXRUNTIME=" + library, "TMPDIR=" + t.TempDir(), "GORACE=atexit_sleep_ms=0"}
	return cmd
}

// daemon is a program that runs until the test ends, and its log.
type daemon struct {
	*exec.Cmd
	lines chan map[string]any
}

func begun(t testing.TB, cmd *exec.Cmd) *daemon {
	t.Helper()
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d := &daemon{cmd, make(chan map[string]any, 1000)}
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer close(d.lines)
		for s := bufio.NewScanner(stderr); s.Scan(); {
			line := map[string]any{"raw": s.Text()}
			_ = json.Unmarshal(s.Bytes(), &line)
			d.lines <- line
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		go func() {
			for range d.lines {
			}
		}()
		<-read
		_ = cmd.Wait() // as it was killed
	})
	return d
}

// await is the next line of the log with a message.
func (d *daemon) await(t testing.TB, msg string) map[string]any {
	t.Helper()
	var seen []any
	for line := range d.lines {
		if line["msg"] == msg {
			return line
		}
		seen = append(seen, line["raw"])
	}
	t.Fatalf("the log ends without %q: %v", msg, seen)
	return nil
}

// newFleet is a broker and agents, each on a processor of its own as far as
// there are any, which have spoken.
func newFleet(t testing.TB, names ...string) (url string, conn *fleet.Conn, agents map[string]*exec.Cmd) {
	t.Helper()
	broker := begun(t, edge(t, "fleet", "serve", "--dir", t.TempDir(), "--listen", "127.0.0.1:0"))
	url, _ = broker.await(t, "broker is ready")["url"].(string)
	agents = map[string]*exec.Cmd{}
	for i, name := range names {
		agents[name] = newAgent(t, url, name, i)
	}
	conn, err := fleet.Connect(t.Context(), fleet.Options{URL: url, Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return url, conn, agents
}

func newAgent(t testing.TB, url, name string, cpu int) *exec.Cmd {
	t.Helper()
	a := begun(t, edge(t, "agent", "--connect", url, "--name", name, "--cpus", strconv.Itoa(cpu%2)))
	a.await(t, "agent is ready")
	return a.Cmd
}

func testModel(name string) string { return filepath.Join("../../latency/testdata", name) }

// TestAgents: a broker, two agents and searchers, all processes of their own,
// and real models, one of which is too big; an agent is killed in the middle.
func TestAgents(t *testing.T) {
	url, _, agents := newFleet(t, "one", "two")
	measure := func(args ...string) (results []latency.Result, problem string) {
		cmd := edge(t, append([]string{"latency", "measure", "--fleet", url, "--json", "--quick"}, args...)...)
		var out, problems bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &problems
		if err := cmd.Run(); err != nil {
			return nil, problems.String()
		}
		if err := json.Unmarshal(out.Bytes(), &results); err != nil {
			t.Errorf("%v: %s", err, out.Bytes())
		}
		return results, ""
	}
	var searchers sync.WaitGroup
	for range 2 {
		searchers.Go(func() {
			results, problem := measure("--device", "one", "--sessions", "20", testModel("convs2.onnx"), testModel("convs8.onnx"))
			if problem != "" || len(results) != 2 || results[0].Sessions != 20 || results[1].P50 <= results[0].P50 {
				t.Errorf("%+v %s", results, problem)
			}
		})
	}
	searchers.Go(func() {
		if _, problem := measure("--device", "two", testModel("greedy.onnx")); !strings.Contains(problem, "device two") || !strings.Contains(problem, "needs more memory") {
			t.Errorf("a model that needs 100 GB: %q", problem)
		}
	})
	_ = agents["one"].Process.Kill()
	newAgent(t, url, "one", 0)
	searchers.Wait()
	if results, problem := measure("--device", "two", testModel("convs2.onnx")); problem != "" || len(results[0].Fingerprint.Session.Affinity) != 1 {
		t.Errorf("after a model that was too big: %+v %s", results, problem)
	}
	list := edge(t, "latency", "devices", "--fleet", url)
	out, err := list.Output()
	if err != nil || !strings.Contains(string(out), "one ") || !strings.Contains(string(out), "two ") || !strings.Contains(string(out), "ONNX Runtime 1.") {
		t.Errorf("%v:\n%s", err, out)
	}
}

// TestPair: candidates of two agents as a pool, and of one alone. How long
// they take says something on a quiet machine only (make agents-pair).
func TestPair(t *testing.T) {
	n, quiet := 8, false
	if text := os.Getenv("SPOS_PAIR"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
		quiet = true
	}
	_, conn, _ := newFleet(t, "one", "two")
	model, err := os.ReadFile(testModel("../sentinel.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	candidates := make([]latency.Model, n) // each with bytes of its own, as a search's are
	for i := range candidates {
		text, err := export.SetMetadata(model, "candidate", strconv.Itoa(i))
		if err != nil {
			t.Fatal(err)
		}
		candidates[i] = latency.Model{Name: fmt.Sprint(i), Bytes: text}
	}
	log := slog.New(slog.DiscardHandler)
	remote := func(name string) *latency.Remote {
		return &latency.Remote{Courier: conn, Name: name, Version: "dev", Log: log}
	}
	took := func(d latency.Device) float64 {
		t.Helper()
		if _, err := d.Fingerprint(t.Context(), nil, latency.Screening()); err != nil { // the agents are up
			t.Fatal(err)
		}
		start := time.Now()
		results, err := latency.MeasureAll(context.WithoutCancel(t.Context()), d, candidates, latency.Screening())
		if err != nil || len(results) != n {
			t.Fatalf("%d results, %v", len(results), err)
		}
		return time.Since(start).Seconds()
	}
	one := took(remote("one"))
	two := took(latency.NewPool(latency.Member{Device: remote("one"), Name: "one"}, latency.Member{Device: remote("two"), Name: "two"}))
	t.Logf("%d candidates: one agent %.1f s, two %.1f s, ratio %.2f", n, one, two, two/one)
	if quiet && two/one > 0.55 {
		t.Errorf("two agents took %.2f of the time of one, want half", two/one)
	}
}
