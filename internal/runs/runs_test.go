package runs_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"spos/internal/runs"

	"github.com/google/go-cmp/cmp"
)

var (
	created = time.Unix(1e9, 0).UTC()
	later   = created.Add(time.Hour)
)

const config = "seed: 3\nlr: 0.5\n"

func create(t *testing.T) *runs.Run {
	t.Helper()
	r, err := runs.Create(filepath.Join(t.TempDir(), "a", "run"), []byte(config), runs.Lineage{
		Verb: "train", Args: []string{"c.yaml"}, Code: "v1", Seed: 3, Created: created,
		Inputs: []runs.Input{{Role: "checkpoint", Path: "x", SHA256: "ab"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func metric(step int64) runs.Metric {
	return runs.Metric{Step: step, Time: created.Add(time.Duration(step) * time.Second), Values: map[string]float64{"train/loss": 1 / float64(step), "lr": 0.5}}
}

func TestCreateResume(t *testing.T) {
	r := create(t)
	for step := int64(1); step <= 5; step++ {
		if err := r.Record(metric(step)); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(r.Path(runs.ConfigFile)); err != nil || string(text) != config {
		t.Errorf("config: %q, %v", text, err)
	}
	again, err := runs.Resume(r.Dir, []byte(config), later)
	if err != nil {
		t.Fatal(err)
	}
	want := r.Lineage
	want.Resumed = []time.Time{later}
	if got, err := runs.ReadLineage(r.Dir); err != nil || !cmp.Equal(want, got) || !cmp.Equal(want, again.Lineage) {
		t.Errorf("lineage (%v):\n%s", err, cmp.Diff(want, got))
	}
	// The checkpoint was of step 3.
	if err := again.Rewind(3); err != nil {
		t.Fatal(err)
	}
	if err := again.Record(metric(4), metric(6)); err != nil {
		t.Fatal(err)
	}
	if err := again.Rewind(4); err != nil {
		t.Fatal(err)
	}
	if err := again.Record(metric(7)); err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := runs.ReadMetrics(r.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]runs.Metric{metric(1), metric(2), metric(3), metric(4), metric(7)}, got); d != "" {
		t.Errorf("metrics (-want +got):\n%s", d)
	}
}

func TestCreateRefuses(t *testing.T) {
	r := create(t)
	r.Close()
	if _, err := runs.Create(r.Dir, nil, runs.Lineage{}); !errors.Is(err, runs.ErrExists) || !strings.Contains(err.Error(), "holds a run") {
		t.Errorf("a run is there: %v", err)
	}
	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, "thesis.tex"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := runs.Create(other, nil, runs.Lineage{}); !errors.Is(err, runs.ErrExists) || !strings.Contains(err.Error(), "thesis.tex") {
		t.Errorf("somebody's folder: %v", err)
	}
	// A Create that was killed before the lineage left this.
	half := t.TempDir()
	for _, name := range []string{".lock", ".config.yaml123", "config.yaml"} {
		if err := os.WriteFile(filepath.Join(half, name), []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h, err := runs.Create(half, []byte("new"), runs.Lineage{})
	if err != nil {
		t.Fatal(err)
	}
	h.Close()
	if text, _ := os.ReadFile(h.Path(runs.ConfigFile)); string(text) != "new" {
		t.Errorf("config %q", text)
	}
}

func TestResumeRefuses(t *testing.T) {
	if _, err := runs.Resume(t.TempDir(), nil, later); !errors.Is(err, runs.ErrNoRun) {
		t.Errorf("no run: %v", err)
	}
	r := create(t)
	r.Close()
	for text, want := range map[string]string{
		"seed: 4\nlr: 0.5\n": `line 1 was "seed: 3" and is now "seed: 4"`,
		config + "x: 1\n":    "",
	} {
		if _, err := runs.Resume(r.Dir, []byte(text), later); !errors.Is(err, runs.ErrConfig) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if l, err := runs.ReadLineage(r.Dir); err != nil || len(l.Resumed) != 0 {
		t.Errorf("a refused resume left %v, %v", l.Resumed, err)
	}
	for text, want := range map[string]string{"{": "damaged", `{"format":9}`: "format 9"} {
		if err := os.WriteFile(r.Path(runs.LineageFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := runs.Resume(r.Dir, nil, later); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestLock(t *testing.T) {
	r := create(t)
	if _, err := runs.Resume(r.Dir, nil, later); !errors.Is(err, runs.ErrLocked) {
		t.Errorf("resumed twice in one process: %v", err)
	}
	other := func() string {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), "RUNS_TEST_LOCK="+r.Dir, "GORACE=atexit_sleep_ms=0")
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	if got := other(); !strings.HasPrefix(got, "true") || !strings.Contains(got, fmt.Sprintf("process %d ", os.Getpid())) {
		t.Errorf("another process: %s", got)
	}
	r.Close()
	if got := other(); !strings.HasPrefix(got, "false <nil>") {
		t.Errorf("after Close: %s", got)
	}
}
