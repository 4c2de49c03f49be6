package ckpt

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/renameio/v2"
)

// Format is the version of [State] that this program writes, and the only one
// that it reads.
const Format = 1

// The files of a checkpoint directory.
const (
	ModelFile     = "model.safetensors"
	OptimizerFile = "optimizer.safetensors"
	StateFile     = "state.json"
)

// Dir is the folder of a run that holds its checkpoints.
const Dir = "ckpt"

// maxState bounds state.json; ours are a few kilobytes.
const maxState = 16 << 20

// stateKey is where model.safetensors carries the State in its own metadata,
// so that the file alone can be exported.
const stateKey = "spos"

const (
	stepPrefix = "step-"
	tempPrefix = ".tmp-"
)

var (
	// ErrNone is wrapped where there is no complete checkpoint.
	ErrNone = errors.New("ckpt: no checkpoint")
	// ErrFormat is wrapped by the error about a State of another version.
	ErrFormat = errors.New("ckpt: other format version")
	// ErrSpace is wrapped by the error about a checkpoint of another space.
	ErrSpace = errors.New("ckpt: other search space")
)

// State is everything about a checkpoint that is not a tensor: enough to
// explain, resume, evaluate and export it with nothing else at hand.
type State struct {
	Format int    `json:"format"`         // set by [Save]
	Space  Space  `json:"space"`          // the space the tensors' names and shapes come from
	Arch   string `json:"arch,omitempty"` // of a stand-alone net; empty for a supernet
	Step   int64  `json:"step"`           // optimiser steps taken
	// Config is the resolved configuration of the run, as YAML.
	Config string `json:"config,omitempty"`
	// Recipe is the evaluation preprocessing (imaging.Recipe), as JSON.
	Recipe json.RawMessage `json:"recipe,omitempty"`
	Labels []string        `json:"labels,omitempty"` // class names, in logit order
	// Lineage says where the weights come from.
	Lineage Lineage `json:"lineage"`
}

// Space names a search space and spells it out: Text is its YAML, with the
// input and classes that the checkpoint was trained with.
type Space struct {
	Name string `json:"name"`
	Text string `json:"text"`
}

// Lineage says where weights come from.
type Lineage struct {
	Parent string    `json:"parent,omitempty"` // [Digest] of the model file training started from
	Code   string    `json:"code,omitempty"`   // version of the program
	Data   string    `json:"data,omitempty"`   // fingerprint of the images trained on
	Seed   uint64    `json:"seed"`
	Time   time.Time `json:"time"` // when it was saved
	// Promise is what the search that chose the net promised of its latency.
	Promise *Promise `json:"promise,omitempty"`
}

// Promise is what the latency of a net is to stay below, and how that is
// measured; what is zero is as usual.
type Promise struct {
	Limits  []Limit `json:"limits"`
	Mode    string  `json:"mode,omitempty"`
	Batch   int     `json:"batch,omitempty"`
	Threads int     `json:"threads,omitempty"`
}

// Limit is that of one device; 0 is none.
type Limit struct {
	Device string  `json:"device"`
	MS     float64 `json:"limit_ms,omitempty"`
}

// In tells whether the checkpoint belongs to a space, given as in [Space].
// The error wraps [ErrSpace] and says what differs.
func (s State) In(space Space) error {
	if s.Space.Name != space.Name {
		return fmt.Errorf("checkpoint is of space %s, not %s: give a checkpoint of that space, or the space of the checkpoint: %w",
			s.Space.Name, space.Name, ErrSpace)
	}
	have, want := strings.Split(s.Space.Text, "\n"), strings.Split(space.Text, "\n")
	for i := range max(len(have), len(want)) {
		h, w := line(have, i), line(want, i)
		if h != w {
			return fmt.Errorf("checkpoint is of space %s as it was then: line %d is now %q and was %q; leave the space out to use the checkpoint's own, or train again: %w",
				s.Space.Name, i+1, w, h, ErrSpace)
		}
	}
	return nil
}

func line(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return ""
}

// Snapshot is what [Save] writes. The rules of [Write] hold for the tensors.
type Snapshot struct {
	State     State
	Model     iter.Seq2[string, Tensor]
	Optimizer iter.Seq2[string, Tensor] // nil where there is nothing to resume
	Replace   bool                      // a checkpoint of the same step
}

// Save writes a snapshot as dir/step-00001234. It is written under a
// temporary name and moved into place once all of it is on the disk, so that
// after kill -9 at any moment dir holds complete checkpoints only. Then older
// ones go, until keep are left (zero keeps all). It returns the new
// checkpoint's path. A step that is there already is an error that wraps
// [fs.ErrExist], unless s says to replace it. dir must have one writer at a
// time: a run's lock sees to it.
func Save(dir string, s Snapshot, keep int) (string, error) {
	s.State.Format = Format
	path := filepath.Join(dir, stepName(s.State.Step))
	if err := save(dir, path, s); err != nil {
		return "", fmt.Errorf("save checkpoint %s: %w", path, err)
	}
	if err := prune(dir, keep); err != nil {
		return path, fmt.Errorf("remove old checkpoints of %s: %w", dir, err)
	}
	return path, nil
}

func stepName(step int64) string { return fmt.Sprintf("%s%08d", stepPrefix, step) }

func save(dir, path string, s Snapshot) error {
	if !s.Replace && complete(path) {
		return fs.ErrExist
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	temp, err := os.MkdirTemp(dir, tempPrefix)
	if err != nil {
		return err
	}
	err = fill(temp, s)
	if err == nil {
		err = replace(temp, path)
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(temp))
	}
	return syncDir(dir)
}

// replace gives temp the name path. What has that name, and may be the only
// checkpoint, keeps it if that fails; else the next prune removes it.
func replace(temp, path string) error {
	old := filepath.Join(filepath.Dir(path), tempPrefix+filepath.Base(path))
	if err := os.RemoveAll(old); err != nil {
		return err
	}
	if err := os.Rename(path, old); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	err := os.Rename(temp, path)
	if err != nil {
		_ = os.Rename(old, path) // absent where nothing had the name
	}
	return err
}

// complete tells whether path holds a checkpoint of which no file is missing.
func complete(path string) bool {
	for _, name := range []string{ModelFile, StateFile} {
		if _, err := os.Stat(filepath.Join(path, name)); err != nil {
			return false
		}
	}
	return true
}

func fill(dir string, s Snapshot) error {
	text, err := json.Marshal(s.State)
	if err != nil {
		return err
	}
	meta := map[string]string{stateKey: string(text)}
	if err := Write(filepath.Join(dir, ModelFile), meta, s.Model); err != nil {
		return err
	}
	if s.Optimizer != nil {
		if err := Write(filepath.Join(dir, OptimizerFile), meta, s.Optimizer); err != nil {
			return err
		}
	}
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, text, "", "  "); err != nil {
		return err
	}
	pretty.WriteByte('\n')
	if err := renameio.WriteFile(filepath.Join(dir, StateFile), pretty.Bytes(), 0o644, renameio.WithTempDir(dir)); err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o755); err != nil { // a temporary folder is private
		return err
	}
	return syncDir(dir)
}

// syncDir makes renames inside a folder survive a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// prune removes what an interrupted Save left, and all but the newest keep
// checkpoints.
func prune(dir string, keep int) error {
	steps, err := stepsIn(dir)
	if err != nil {
		return err
	}
	if keep > 0 && len(steps) > keep {
		for _, step := range steps[:len(steps)-keep] {
			if err := discard(dir, stepName(step)); err != nil {
				return err
			}
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tempPrefix) {
			errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}

// discard removes a checkpoint directory, if it exists. It loses its name
// first, so that it is never half there.
func discard(dir, name string) error {
	temp := filepath.Join(dir, tempPrefix+name)
	if err := os.RemoveAll(temp); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(dir, name), temp); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	return os.RemoveAll(temp)
}

// stepsIn are the steps of the complete checkpoints, ascending.
func stepsIn(dir string) ([]int64, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var steps []int64
	for _, e := range entries {
		digits, ok := strings.CutPrefix(e.Name(), stepPrefix)
		step, err := strconv.ParseInt(digits, 10, 64)
		if ok && err == nil && stepName(step) == e.Name() && complete(filepath.Join(dir, e.Name())) {
			steps = append(steps, step)
		}
	}
	slices.Sort(steps)
	return steps, nil
}

// Checkpoint is one that was found on the disk. Its tensors are opened when
// asked for.
type Checkpoint struct {
	Path  string // of the directory, or of the file where a model stands alone
	State State
	alone bool
}

// Latest finds the newest complete checkpoint among those that [Save] wrote
// to dir. It wraps [ErrNone] where there is none.
func Latest(dir string) (*Checkpoint, error) {
	steps, err := stepsIn(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("look for checkpoints: %w", err)
	}
	if len(steps) == 0 {
		return nil, fmt.Errorf("in %s: %w", dir, ErrNone)
	}
	return openDir(filepath.Join(dir, stepName(steps[len(steps)-1])))
}

// Find opens what a user points at: a run, its folder of checkpoints (the
// newest is taken), one checkpoint directory, or a model file. It wraps
// [ErrNone] where the path is none of them.
func Find(path string) (*Checkpoint, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("find checkpoint: %w", err)
	}
	if !info.IsDir() {
		return openAlone(path)
	}
	if complete(path) {
		return openDir(path)
	}
	c, err := Latest(filepath.Join(path, Dir))
	if errors.Is(err, ErrNone) {
		c, err = Latest(path)
	}
	if errors.Is(err, ErrNone) {
		return nil, fmt.Errorf("%s is no run, checkpoint directory or %s: %w", path, ModelFile, ErrNone)
	}
	return c, err
}

func openDir(path string) (*Checkpoint, error) {
	name := filepath.Join(path, StateFile)
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxState {
		return nil, fmt.Errorf("%s: %d bytes, more than %d: %w", name, info.Size(), maxState, ErrCorrupt)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	s, err := parseState(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; to go back to an older checkpoint, remove %s", name, err, path)
	}
	return &Checkpoint{Path: path, State: s}, nil
}

func openAlone(path string) (*Checkpoint, error) {
	f, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, ok := f.meta[stateKey]
	if !ok {
		return nil, fmt.Errorf("%s has no %q entry in its metadata, so its space is unknown; give a checkpoint that spos wrote: %w", path, stateKey, ErrNone)
	}
	s, err := parseState([]byte(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", path, metadataKey, err)
	}
	return &Checkpoint{Path: path, State: s, alone: true}, nil
}

func parseState(text []byte) (State, error) {
	var version struct{ Format int }
	if err := json.Unmarshal(text, &version); err != nil {
		return State{}, corrupt("state: %v", err)
	}
	if version.Format != Format {
		return State{}, fmt.Errorf("state has format %d and this program reads %d; use the program that wrote it, or a newer one: %w", version.Format, Format, ErrFormat)
	}
	var s State
	if err := json.Unmarshal(text, &s); err != nil {
		return State{}, corrupt("state: %v", err)
	}
	return s, nil
}

// ModelPath is the path of the model file.
func (c *Checkpoint) ModelPath() string {
	if c.alone {
		return c.Path
	}
	return filepath.Join(c.Path, ModelFile)
}

// Model opens the weights and running statistics. The caller closes the file.
func (c *Checkpoint) Model() (*File, error) { return c.open(c.ModelPath()) }

// Optimizer opens what resuming needs beside the model, by the names of the
// tensors it belongs to. The caller closes the file. It wraps
// [fs.ErrNotExist] where the checkpoint has none.
func (c *Checkpoint) Optimizer() (*File, error) {
	if c.alone {
		return nil, fmt.Errorf("%s is a model without its optimizer: %w", c.Path, fs.ErrNotExist)
	}
	return c.open(filepath.Join(c.Path, OptimizerFile))
}

// open also checks that the file was saved with this state.
func (c *Checkpoint) open(path string) (*File, error) {
	f, err := Open(path)
	if err != nil {
		return nil, err
	}
	s, err := parseState([]byte(f.meta[stateKey]))
	if err == nil && (s.Step != c.State.Step || s.Arch != c.State.Arch || s.Space != c.State.Space) {
		err = corrupt("it belongs to another checkpoint: space %s, arch %q, step %d", s.Space.Name, s.Arch, s.Step)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	return f, nil
}
