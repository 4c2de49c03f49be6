package runs_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"spos/internal/runs"

	"github.com/google/go-cmp/cmp"
)

type record struct {
	N    int    `json:"n"`
	Text string `json:"text,omitempty"`
}

func open(t *testing.T, path string) (*runs.Journal[record], []record) {
	t.Helper()
	j, got, err := runs.OpenJournal[record](path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j, got
}

func TestJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j.jsonl")
	j, got := open(t, path)
	if len(got) != 0 {
		t.Errorf("new journal holds %v", got)
	}
	want := []record{{1, "a\nb"}, {2, "ü"}, {3, ""}}
	if err := j.Append(want[0]); err != nil {
		t.Fatal(err)
	}
	if err := j.Append(want[1:]...); err != nil {
		t.Fatal(err)
	}
	if got, err := runs.ReadJournal[record](path); err != nil || !cmp.Equal(want, got) {
		t.Errorf("read while open: %v, %v", got, err)
	}
	j.Close()
	if err := j.Append(want[0]); !errors.Is(err, os.ErrClosed) {
		t.Errorf("append after close: %v", err)
	}
	_, got = open(t, path)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	if _, err := runs.ReadJournal[record](path + "x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no journal: %v", err)
	}
}

// A journal that was cut anywhere holds the records before the cut, and goes
// on from there.
func TestJournalCutAnywhere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j.jsonl")
	j, _ := open(t, path)
	if err := j.Append(record{1, "a"}, record{22, ""}, record{3, "b"}); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(whole) + 1 {
		for _, tail := range []string{"", "\x00\x00\n\x00"} {
			cut := filepath.Join(t.TempDir(), "j.jsonl")
			if err := os.WriteFile(cut, append(whole[:n:n], tail...), 0o600); err != nil {
				t.Fatal(err)
			}
			lines := strings.Count(string(whole[:n]), "\n")
			j, got := open(t, cut)
			if len(got) != lines {
				t.Fatalf("cut at %d with tail %q: %d records, want %d", n, tail, len(got), lines)
			}
			if err := j.Append(record{N: 9}); err != nil {
				t.Fatal(err)
			}
			j.Close()
			again, err := runs.ReadJournal[record](cut)
			if err != nil || len(again) != lines+1 || again[lines].N != 9 {
				t.Fatalf("cut at %d with tail %q: then %v, %v", n, tail, again, err)
			}
		}
	}
}

func TestJournalCorrupt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j.jsonl")
	for text, want := range map[string]string{
		"{\"n\":1}\n{\"n\":\n{\"n\":3}\n": "line 2 is no JSON, and line 3",
		"{\"n\":1}\n{\"n\":\"two\"}\n":    "line 2",
		"\n{\"n\":1}\n":                   "line 1",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, _, err := runs.OpenJournal[record](path)
		if !errors.Is(err, runs.ErrCorrupt) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
		if now, _ := os.ReadFile(path); string(now) != text {
			t.Errorf("%q was changed to %q", text, now)
		}
	}
}

func TestJournalRefusedRecord(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j.jsonl")
	j, _, err := runs.OpenJournal[map[string]float64](path)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if err := j.Append(map[string]float64{"a": 1}, map[string]float64{"a": math.NaN()}); err == nil {
		t.Error("NaN was written")
	}
	if err := j.Append(map[string]float64{"a": 2}); err != nil {
		t.Fatal(err)
	}
	got, err := runs.ReadJournal[map[string]float64](path)
	if err != nil || len(got) != 1 || got[0]["a"] != 2 {
		t.Errorf("%v, %v: want the second append alone", got, err)
	}
}

// killed is the child of TestJournalKill: it appends numbered records, one or
// three at a time, and says which are acknowledged.
func killed(path string) error {
	j, got, err := runs.OpenJournal[record](path)
	if err != nil {
		return err
	}
	pad := strings.Repeat("x", 5000) // so that a record spans pages
	for n := len(got); ; {
		batch := []record{{n, pad}}
		if n%2 == 0 {
			batch = append(batch, record{n + 1, ""}, record{n + 2, pad})
		}
		if err := j.Append(batch...); err != nil {
			return err
		}
		n += len(batch)
		if _, err := fmt.Println(n); err != nil {
			return err
		}
	}
}

func TestMain(m *testing.M) {
	if path := os.Getenv("RUNS_TEST_KILL"); path != "" {
		fmt.Fprintln(os.Stderr, killed(path))
		os.Exit(1)
	}
	if dir := os.Getenv("RUNS_TEST_LOCK"); dir != "" {
		_, err := runs.Resume(dir, nil, time.Now())
		fmt.Println(errors.Is(err, runs.ErrLocked), err)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// Whenever the writer is killed, every acknowledged record is there, once and
// in order.
func TestJournalKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j.jsonl")
	const seed = 1
	r := rand.New(rand.NewPCG(seed, 0))
	for range 20 {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), "RUNS_TEST_KILL="+path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		if !lines.Scan() {
			t.Fatal("child wrote nothing")
		}
		time.AfterFunc(time.Duration(r.IntN(20_000))*time.Microsecond, func() { cmd.Process.Kill() })
		acknowledged := 0
		for ok := true; ok; ok = lines.Scan() {
			fmt.Sscan(lines.Text(), &acknowledged)
		}
		cmd.Wait()
		got, err := runs.ReadJournal[record](path)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) < acknowledged {
			t.Fatalf("%d records were acknowledged, %d are there", acknowledged, len(got))
		}
		for i, v := range got {
			if v.N != i {
				t.Fatalf("record %d is numbered %d", i, v.N)
			}
		}
	}
}

func FuzzReadJournal(f *testing.F) {
	f.Add([]byte("{\"n\":1}\n{\"n\":2}\n{\"n\""))
	f.Add([]byte("{}\n\x00\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "j")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		j, got, err := runs.OpenJournal[json.RawMessage](path)
		if err != nil {
			if !errors.Is(err, runs.ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		defer j.Close()
		if err := j.Append(json.RawMessage(`1`)); err != nil {
			t.Fatal(err)
		}
		if again, err := runs.ReadJournal[json.RawMessage](path); err != nil || len(again) != len(got)+1 {
			t.Fatalf("%d records, then %d (%v)", len(got), len(again), err)
		}
	})
}
