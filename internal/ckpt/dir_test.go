package ckpt_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"spos/internal/ckpt"

	"github.com/google/go-cmp/cmp"
)

func state(step int64) ckpt.State {
	return ckpt.State{
		Space:   ckpt.Space{Name: "s", Text: "name: s\nclasses: 2\n"},
		Step:    step,
		Config:  "seed: 3\n",
		Recipe:  json.RawMessage(`{"size":28}`),
		Labels:  []string{"cat", "dog"},
		Lineage: ckpt.Lineage{Parent: "ab", Code: "v1", Seed: 3, Time: time.Unix(1e9, 0).UTC()},
	}
}

// snapshot has tensors whose content is the step, so that a mix of two
// checkpoints shows.
func snapshot(step int64) ckpt.Snapshot {
	t := named{"w", ckpt.Tensor{Shape: []int{1000}, Data: make([]float32, 1000)}}
	for i := range t.t.Data {
		t.t.Data[i] = float32(step)
	}
	return ckpt.Snapshot{State: state(step), Model: seq(t), Optimizer: seq(t)}
}

func check(t *testing.T, c *ckpt.Checkpoint) {
	t.Helper()
	for name, open := range map[string]func() (*ckpt.File, error){"model": c.Model, "optimizer": c.Optimizer} {
		f, err := open()
		if err != nil {
			t.Fatal(err)
		}
		w, err := f.Tensor("w")
		if err != nil {
			t.Fatal(err)
		}
		if w.Data[0] != float32(c.State.Step) || w.Data[999] != float32(c.State.Step) {
			t.Errorf("%s of step %d holds step %v", name, c.State.Step, w.Data[0])
		}
		f.Close()
	}
}

func TestSaveLatest(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run", ckpt.Dir)
	if _, err := ckpt.Latest(dir); !errors.Is(err, ckpt.ErrNone) {
		t.Errorf("before any: %v", err)
	}
	for step := range int64(5) {
		if _, err := ckpt.Save(dir, snapshot(step*100), 2); err != nil {
			t.Fatal(err)
		}
		c, err := ckpt.Latest(dir)
		if err != nil {
			t.Fatal(err)
		}
		want := state(step * 100)
		want.Format = ckpt.Format
		if d := cmp.Diff(want, c.State, cmp.Comparer(sameJSON)); d != "" {
			t.Errorf("state (-want +got):\n%s", d)
		}
		check(t, c)
	}
	left, _ := filepath.Glob(filepath.Join(dir, "*"))
	if len(left) != 2 || filepath.Base(left[0]) != "step-00000300" {
		t.Errorf("kept %v", left)
	}
	if _, err := ckpt.Save(dir, snapshot(400), 2); !errors.Is(err, fs.ErrExist) {
		t.Errorf("same step again: %v", err)
	}
	again := snapshot(400)
	again.State.Lineage.Code, again.Replace = "v2", true
	if _, err := ckpt.Save(dir, again, 2); err != nil {
		t.Fatal(err)
	}
	c, err := ckpt.Latest(dir)
	if err != nil || c.State.Step != 400 || c.State.Lineage.Code != "v2" {
		t.Errorf("same step replaced: %+v, %v", c, err)
	}
	check(t, c)
	if left, _ := os.ReadDir(dir); len(left) != 2 {
		t.Errorf("left %v", left)
	}
}

// A checkpoint whose successor cannot be written stays.
func TestSaveKeepsWhatItCannotReplace(t *testing.T) {
	dir := t.TempDir()
	if _, err := ckpt.Save(dir, snapshot(1), 1); err != nil {
		t.Fatal(err)
	}
	bad := snapshot(1)
	bad.Replace = true
	bad.Model = seq(named{"w", ckpt.Tensor{Shape: []int{3}, Data: make([]float32, 2)}})
	if _, err := ckpt.Save(dir, bad, 1); err == nil {
		t.Error("a tensor of the wrong shape was saved")
	}
	c, err := ckpt.Latest(dir)
	if err != nil {
		t.Fatal(err)
	}
	check(t, c)
}

func sameJSON(a, b json.RawMessage) bool {
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && cmp.Equal(x, y)
}

func TestLatestSkipsUnfinished(t *testing.T) {
	dir := t.TempDir()
	for _, step := range []int64{1, 2, 3} {
		if _, err := ckpt.Save(dir, snapshot(step), 0); err != nil {
			t.Fatal(err)
		}
	}
	for _, lost := range []string{"step-00000003/state.json", "step-00000002/model.safetensors"} {
		if err := os.Remove(filepath.Join(dir, lost)); err != nil {
			t.Fatal(err)
		}
	}
	for _, stray := range []string{".tmp-123", "step-9", "step-x", "other"} {
		if err := os.Mkdir(filepath.Join(dir, stray), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	c, err := ckpt.Latest(dir)
	if err != nil || c.State.Step != 1 {
		t.Fatalf("latest is %+v (%v), want step 1", c, err)
	}
	// Training goes on from there and meets what is left of step 2.
	if _, err := ckpt.Save(dir, snapshot(2), 1); err != nil {
		t.Fatal(err)
	}
	if c, err = ckpt.Latest(dir); err != nil || c.State.Step != 2 {
		t.Fatalf("latest is %+v (%v), want step 2", c, err)
	}
	check(t, c)
	if _, err := os.Stat(filepath.Join(dir, ".tmp-123")); err == nil {
		t.Error("what an interrupted Save left is still there")
	}
	if _, err := os.Stat(filepath.Join(dir, "other")); err != nil {
		t.Error("a folder that is not ours is gone")
	}
}

func TestFind(t *testing.T) {
	run := t.TempDir()
	path, err := ckpt.Save(filepath.Join(run, ckpt.Dir), snapshot(7), 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{run, filepath.Join(run, ckpt.Dir), path} {
		c, err := ckpt.Find(p)
		if err != nil || c.State.Step != 7 || c.Path != path {
			t.Errorf("Find(%s) = %+v, %v", p, c, err)
		}
	}
	alone := filepath.Join(t.TempDir(), "exported.safetensors")
	if err := os.Rename(filepath.Join(path, ckpt.ModelFile), alone); err != nil {
		t.Fatal(err)
	}
	c, err := ckpt.Find(alone)
	if err != nil || c.State.Step != 7 || c.State.Space.Text == "" || c.ModelPath() != alone {
		t.Fatalf("model file alone: %+v, %v", c, err)
	}
	f, err := c.Model()
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if _, err := c.Optimizer(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("optimizer of a model file: %v", err)
	}
	if _, err := ckpt.Find(run); !errors.Is(err, ckpt.ErrNone) {
		t.Errorf("run without a checkpoint: %v", err)
	}
	if _, err := ckpt.Find(filepath.Join(run, "nope")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing there: %v", err)
	}
	foreign := filepath.Join(run, "foreign.safetensors")
	if err := ckpt.Write(foreign, nil, seq(three...)); err != nil {
		t.Fatal(err)
	}
	if _, err := ckpt.Find(foreign); !errors.Is(err, ckpt.ErrNone) {
		t.Errorf("foreign file: %v", err)
	}
}

func TestDamagedCheckpoint(t *testing.T) {
	dir := t.TempDir()
	path, err := ckpt.Save(dir, snapshot(1), 0)
	if err != nil {
		t.Fatal(err)
	}
	other, err := ckpt.Save(dir, snapshot(2), 0)
	if err != nil {
		t.Fatal(err)
	}
	c, err := ckpt.Find(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(other, ckpt.ModelFile), filepath.Join(path, ckpt.ModelFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Model(); !errors.Is(err, ckpt.ErrCorrupt) || !strings.Contains(err.Error(), "step 2") {
		t.Errorf("model of another checkpoint: %v", err)
	}
	for text, want := range map[string]error{`{"format":1,`: ckpt.ErrCorrupt, `{"format":2,"space":7}`: ckpt.ErrFormat, `{}`: ckpt.ErrFormat} {
		if err := os.WriteFile(filepath.Join(path, ckpt.StateFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ckpt.Find(path); !errors.Is(err, want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, want %v", text, err, want)
		}
	}
}

func TestStateIn(t *testing.T) {
	s := state(0)
	if err := s.In(s.Space); err != nil {
		t.Error(err)
	}
	for want, space := range map[string]ckpt.Space{
		"not other":                  {Name: "other", Text: s.Space.Text},
		`line 2 is now "classes: 3"`: {Name: "s", Text: "name: s\nclasses: 3\n"},
		"line 3":                     {Name: "s", Text: s.Space.Text + "x: 1"},
	} {
		if err := s.In(space); !errors.Is(err, ckpt.ErrSpace) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v", space, err)
		}
	}
}

// killed is the child of TestKill: it saves one step after another and says
// so, until it is killed.
func killed(dir string) error {
	first := int64(1)
	c, err := ckpt.Latest(dir)
	if err == nil {
		first = c.State.Step + 1
	} else if !errors.Is(err, ckpt.ErrNone) {
		return err
	}
	for step := first; ; step++ {
		if _, err := ckpt.Save(dir, snapshot(step), 2); err != nil {
			return err
		}
		if _, err := fmt.Println(step); err != nil {
			return err
		}
	}
}

func TestMain(m *testing.M) {
	if dir := os.Getenv("CKPT_TEST_KILL"); dir != "" {
		fmt.Fprintln(os.Stderr, killed(dir))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// Whenever the writer is killed, the newest checkpoint is complete and no
// older than the last one that was acknowledged.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	const seed = 1
	r := rand.New(rand.NewPCG(seed, 0))
	for range 20 {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), "CKPT_TEST_KILL="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		var acknowledged int64
		if !lines.Scan() {
			t.Fatal("child saved nothing")
		}
		time.AfterFunc(time.Duration(r.IntN(20_000))*time.Microsecond, func() { cmd.Process.Kill() })
		for ok := true; ok; ok = lines.Scan() {
			fmt.Sscan(lines.Text(), &acknowledged)
		}
		cmd.Wait()
		c, err := ckpt.Latest(dir)
		if err != nil {
			t.Fatal(err)
		}
		if c.State.Step < acknowledged {
			t.Fatalf("step %d was acknowledged, latest is %d", acknowledged, c.State.Step)
		}
		check(t, c)
	}
}
