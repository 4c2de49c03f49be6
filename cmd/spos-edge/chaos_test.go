package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"spos/internal/fleet"
	"spos/internal/runs"
	"spos/latency"
)

// A broker, an agent with ONNX Runtime and a searcher that makes a table are
// processes of their own, and are disturbed while they measure.

var roles = []string{"broker", "agent", "searcher"}

// size is that of the table: nets beside those in situ, and sessions of each
// at least.
type size struct{ nets, holdout, sessions int }

func (s size) all() int { return (situNets + s.nets + s.holdout) * s.sessions }

// situNets is how many nets the table of the space always has.
const situNets = 24

// ensemble is the programs, by role.
type ensemble struct {
	size
	dir, url string
	env      func(role string) []string // in addition; nil: none
	running  map[string]*exec.Cmd
	ends     map[string]chan error
	again    int // starts of programs that had ended by themselves
}

func newEnsemble(t *testing.T, s size, env func(role string) []string) *ensemble {
	t.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := &ensemble{size: s, dir: t.TempDir(), url: "nats://" + free.Addr().String(), env: env, running: map[string]*exec.Cmd{}, ends: map[string]chan error{}}
	free.Close()
	t.Cleanup(func() {
		for role := range e.running {
			e.stop(role)
		}
		if t.Failed() {
			for _, role := range roles {
				t.Logf("%s:\n%s", role, e.lastWords(role))
			}
		}
	})
	e.start(t, "broker")
	e.connect(t).Close()
	e.start(t, "agent")
	e.start(t, "searcher")
	return e
}

func (e *ensemble) start(t *testing.T, role string) {
	t.Helper()
	args := map[string][]string{
		"broker": {"fleet", "serve", "--dir", filepath.Join(e.dir, "fleet"), "--listen", strings.TrimPrefix(e.url, "nats://")},
		"agent":  {"agent", "--connect", e.url, "--name", "dev", "-v", "--sentinel-every", "100000"},
		"searcher": {"latency", "table", "shufflenetv2-small", "--device", "dev", "--fleet", e.url, "-o", e.table(), "--runs", "3",
			"--nets", strconv.Itoa(e.nets), "--holdout", strconv.Itoa(e.holdout), "--sessions", strconv.Itoa(e.sessions)},
	}
	cmd := edge(t, args[role]...)
	cmd.Env = append(cmd.Env, "TMPDIR="+e.dir, "XDG_CACHE_HOME="+e.dir)
	if e.env != nil {
		cmd.Env = append(cmd.Env, e.env(role)...)
	}
	log, err := os.OpenFile(e.log(role), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end := make(chan error, 1)
	go func() { end <- cmd.Wait() }()
	e.running[role], e.ends[role] = cmd, end
}

func (e *ensemble) table() string          { return filepath.Join(e.dir, "table.json") }
func (e *ensemble) log(role string) string { return filepath.Join(e.dir, role+".log") }

// stop is kill -9.
func (e *ensemble) stop(role string) {
	_ = e.running[role].Process.Kill() // or it has ended
	err := <-e.ends[role]
	e.ends[role] <- err
}

// said are the lines of a role's log with a message.
func (e *ensemble) said(t *testing.T, role, msg string) []map[string]any {
	t.Helper()
	text, err := os.ReadFile(e.log(role))
	if err != nil {
		t.Fatal(err)
	}
	var found []map[string]any
	for s := bufio.NewScanner(bytes.NewReader(text)); s.Scan(); {
		var line map[string]any
		if json.Unmarshal(s.Bytes(), &line) == nil && line["msg"] == msg {
			found = append(found, line)
		}
	}
	return found
}

func (e *ensemble) lastWords(role string) string {
	text, _ := os.ReadFile(e.log(role))
	return string(text[max(0, len(text)-4000):])
}

// await waits until the agent has measured so often, or the table is made. A
// program that ends is started again, as a service manager or a person would.
func (e *ensemble) await(t *testing.T, times int) {
	t.Helper()
	for len(e.said(t, "agent", "task")) < times {
		for _, role := range roles {
			select {
			case err := <-e.ends[role]:
				if role == "searcher" && err == nil {
					e.ends[role] <- nil
					return
				}
				t.Logf("%s ended by itself: %v", role, err)
				e.again++
				e.start(t, role)
			default:
			}
		}
		select {
		case <-t.Context().Done():
			t.Fatal("the test ends")
		case <-time.After(20 * time.Millisecond): // a file says nothing by itself
		}
	}
}

// finish waits for the table.
func (e *ensemble) finish(t *testing.T) {
	t.Helper()
	for done := false; !done; {
		e.await(t, len(e.said(t, "agent", "task"))+1)
		select {
		case err := <-e.ends["searcher"]:
			e.ends["searcher"] <- err
			done = err == nil
		default:
		}
	}
}

// connect waits for the broker.
func (e *ensemble) connect(t *testing.T) *fleet.Conn {
	t.Helper()
	for {
		conn, err := fleet.Connect(t.Context(), fleet.Options{URL: e.url, Name: "test"})
		if err == nil {
			return conn
		}
		if !errors.Is(err, fleet.ErrNoBroker) || t.Context().Err() != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond) // nothing says when a broker comes
	}
}

// sampleKey tells samples apart: no two have the same times.
func sampleKey(s latency.Sample) string {
	return fmt.Sprint(s.Started.UnixNano(), s.Create, s.Warmup, s.Runs)
}

// check holds that the table has all sessions of all nets, each of which the
// agent has measured and answered under one ID, and that what was measured
// makes the same table again. A kill may have cost a measurement.
func (e *ensemble) check(t *testing.T, kills int) {
	t.Helper()
	measured := 0
	counted := e.counted(t)
	conn := e.connect(t)
	defer conn.Close()
	times := map[string]int{} // measured, by ID
	for _, line := range e.said(t, "agent", "task") {
		times[line["id"].(string)]++
	}
	answers := map[string]string{} // IDs by sample
	for id, n := range times {
		text, err := conn.Do(t.Context(), fleet.Job{ID: id, Device: "dev"})
		var answer struct{ Sample *latency.Sample }
		if err != nil || json.Unmarshal(text, &answer) != nil || answer.Sample == nil {
			t.Fatalf("what was measured %d times as %s has no answer: %v %s", n, id, err, text)
		}
		key := sampleKey(*answer.Sample)
		if other, ok := answers[key]; ok {
			t.Errorf("one sample answers %s and %s", id, other)
		}
		answers[key] = id
		if counted[key] > 0 {
			measured += n
		}
	}
	for key, n := range counted {
		if n > 1 || answers[key] == "" {
			t.Errorf("a sample is counted %d times and was measured as %q", n, answers[key])
		}
	}
	if measured > len(counted)+kills {
		t.Errorf("measured %d times for %d measurements and %d kills", measured, len(counted), kills)
	}
	t.Logf("measured %d times for %d measurements; %d programs had ended and were started again", measured, len(counted), e.again)
	e.remake(t)
}

// counted are the samples that the searcher has kept, and how often each.
func (e *ensemble) counted(t *testing.T) map[string]int {
	t.Helper()
	records, err := runs.ReadJournal[latency.Record](strings.TrimSuffix(e.table(), ".json") + ".journal.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	nets := map[string]latency.Result{}
	for _, r := range records {
		if r.Look == nil {
			nets[r.Key] = r.Result
		}
	}
	if len(nets) != e.all()/e.sessions {
		t.Errorf("%d nets are counted, want %d", len(nets), e.all()/e.sessions)
	}
	counted := map[string]int{}
	for _, r := range nets {
		if n := len(r.Samples); n < e.sessions || n > 2*e.sessions { // one more for each that was loud
			t.Errorf("%s has %d sessions, want %d", r.Model, n, e.sessions)
		}
		for _, s := range r.Samples {
			counted[sampleKey(s)]++
		}
	}
	return counted
}

// remake makes the table again from what is kept: nothing is measured for it,
// and it is the same.
func (e *ensemble) remake(t *testing.T) {
	t.Helper()
	table, err := latency.ReadTable(e.table())
	if err != nil {
		t.Fatal(err)
	}
	if len(table.Measurements) != e.all()/e.sessions {
		t.Errorf("the table has %d nets, want %d", len(table.Measurements), e.all()/e.sessions)
	}
	first, err := os.ReadFile(e.table())
	if err != nil {
		t.Fatal(err)
	}
	before := len(e.said(t, "agent", "task"))
	if err := os.Remove(e.table()); err != nil {
		t.Fatal(err)
	}
	e.start(t, "searcher")
	e.finish(t)
	if after := len(e.said(t, "agent", "task")); after != before {
		t.Errorf("%d more measurements for a table that was made before", after-before)
	}
	if second, err := os.ReadFile(e.table()); err != nil || !bytes.Equal(first, second) {
		t.Errorf("the table differs from the first: %v", err)
	}
}

// TestKills kills the programs in any order (make agents-chaos).
func TestKills(t *testing.T) {
	kills, s := 4, size{nets: 1, holdout: 1, sessions: 1}
	if text := os.Getenv("SPOS_CHAOS"); text != "" {
		var err error
		if kills, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
		s = size{nets: 36, holdout: 40, sessions: 3}
	}
	e := newEnsemble(t, s, nil)
	rng := rand.New(rand.NewPCG(11, uint64(kills)))
	killed := map[string]int{}
	for k := range kills {
		e.await(t, (k+1)*e.all()/(kills+1))
		role := roles[rng.IntN(len(roles))]
		killed[role]++
		e.stop(role)
		e.start(t, role)
	}
	e.finish(t)
	t.Logf("killed %v", killed)
	e.check(t, kills)
}
