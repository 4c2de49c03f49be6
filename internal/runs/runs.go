// Package runs keeps a run on disk: a directory with the configuration it was
// started with, its metrics, where it comes from, and a lock. Whatever is
// acknowledged survives kill -9. It knows nothing of what the run computes;
// journals of other records and checkpoints live in the same directory.
package runs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/renameio/v2"
)

// Format is the version of a run's layout that this program writes, and the
// only one that it reads.
const Format = 1

// The files of a run.
const (
	ConfigFile  = "config.yaml"   // the resolved configuration
	LineageFile = "lineage.json"  // a directory with it is a run
	MetricsFile = "metrics.jsonl" // a [Metric] a line
	TrialsFile  = "trials.jsonl"  // of a search
	lockFile    = ".lock"
)

var (
	// ErrExists is wrapped where a run should start in a directory that holds
	// one, or something else.
	ErrExists = errors.New("runs: directory is in use")
	// ErrNoRun is wrapped where a directory holds no run.
	ErrNoRun = errors.New("runs: no run here")
	// ErrConfig is wrapped where a run should go on under another
	// configuration.
	ErrConfig = errors.New("runs: configuration has changed")
)

// Lineage says where a run comes from.
type Lineage struct {
	Format  int         `json:"format"` // set by [Create]
	Verb    string      `json:"verb"`
	Args    []string    `json:"args,omitempty"`
	Code    string      `json:"code,omitempty"` // version of the program
	Host    string      `json:"host,omitempty"`
	Seed    uint64      `json:"seed"`
	Inputs  []Input     `json:"inputs,omitempty"`
	Created time.Time   `json:"created"`
	Resumed []time.Time `json:"resumed,omitempty"` // kept by [Resume]
}

// Input is a file that a run started from.
type Input struct {
	Role   string `json:"role"` // checkpoint, arch, …
	Path   string `json:"path"`
	SHA256 string `json:"sha256,omitempty"`
}

// Run is a run that is being written, by one process and one goroutine at a
// time.
type Run struct {
	Dir     string
	Lineage Lineage

	lock    *os.File
	metrics *Journal[Metric]
	events  *events // made at the first metric
	from    int64   // step after which earlier event files are void
}

// Create starts a run in dir, which is made or must be empty. config is the
// resolved configuration. The error wraps [ErrExists] where dir holds
// something, and [ErrLocked] where another process writes a run there.
func Create(dir string, config []byte, l Lineage) (*Run, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("create run: %w", err)
	}
	if err := vacant(dir); err != nil {
		return nil, fmt.Errorf("create run: %w", err)
	}
	held, err := lock(filepath.Join(dir, lockFile))
	if err != nil {
		return nil, fmt.Errorf("create run: %w", err)
	}
	l.Format = Format
	r := &Run{Dir: dir, Lineage: l, lock: held}
	// The lineage comes last: it makes the directory a run.
	err = errors.Join(vacant(dir), write(filepath.Join(dir, ConfigFile), config))
	if err == nil {
		err = r.writeLineage()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create run: %w", err), held.Close())
	}
	return r, nil
}

// vacant tells whether a run can start in dir. What a Create that was killed
// may have left is no obstacle.
func vacant(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch name := e.Name(); {
		case name == LineageFile:
			return fmt.Errorf("%s holds a run: resume it, remove it or give another --work-dir: %w", dir, ErrExists)
		case name != ConfigFile && !strings.HasPrefix(name, "."):
			return fmt.Errorf("%s holds %s and no run: give another --work-dir: %w", dir, name, ErrExists)
		}
	}
	return nil
}

func write(path string, text []byte) error {
	return renameio.WriteFile(path, text, 0o644, renameio.WithTempDir(filepath.Dir(path)))
}

func (r *Run) writeLineage() error {
	text, err := json.MarshalIndent(r.Lineage, "", "  ")
	if err != nil {
		return err
	}
	if err := write(r.Path(LineageFile), append(text, '\n')); err != nil {
		return err
	}
	return syncDir(r.Dir)
}

// Resume goes on with the run in dir. A config that is not nil must be the
// one it was started with, else the error wraps [ErrConfig] and shows the
// first line that differs. It also wraps [ErrNoRun] and [ErrLocked].
func Resume(dir string, config []byte, now time.Time) (*Run, error) {
	l, err := ReadLineage(dir)
	if err != nil {
		return nil, fmt.Errorf("resume: %w", err)
	}
	held, err := lock(filepath.Join(dir, lockFile))
	if err != nil {
		return nil, fmt.Errorf("resume: %w", err)
	}
	r := &Run{Dir: dir, Lineage: l, lock: held}
	r.Lineage.Resumed = append(r.Lineage.Resumed, now)
	if config != nil {
		err = r.sameConfig(config)
	}
	if err == nil {
		err = r.writeLineage()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("resume %s: %w", dir, err), held.Close())
	}
	return r, nil
}

func (r *Run) sameConfig(config []byte) error {
	was, err := os.ReadFile(r.Path(ConfigFile))
	if err != nil {
		return err
	}
	a, b := bytes.Split(was, []byte("\n")), bytes.Split(config, []byte("\n"))
	for i := range min(len(a), len(b)) {
		if !bytes.Equal(a[i], b[i]) {
			return fmt.Errorf("%s, line %d was %q and is now %q: %w", ConfigFile, i+1, a[i], b[i], ErrConfig)
		}
	}
	if len(a) != len(b) {
		return fmt.Errorf("%s had %d lines and has %d: %w", ConfigFile, len(a), len(b), ErrConfig)
	}
	return nil
}

// ReadLineage reads the lineage of the run in dir, which may be in use. It
// wraps [ErrNoRun].
func ReadLineage(dir string) (Lineage, error) {
	path := filepath.Join(dir, LineageFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Lineage{}, fmt.Errorf("%s: %w", dir, ErrNoRun)
	}
	if err != nil {
		return Lineage{}, err
	}
	var l Lineage
	if err := json.Unmarshal(text, &l); err != nil {
		return Lineage{}, fmt.Errorf("%s: %w: %w", path, err, ErrCorrupt)
	}
	if l.Format != Format {
		return Lineage{}, fmt.Errorf("%s: format %d, and this program reads %d: use the program that wrote it, or a newer one", path, l.Format, Format)
	}
	return l, nil
}

// Path is the path of a file of the run.
func (r *Run) Path(name string) string { return filepath.Join(r.Dir, name) }

// Metric is what is known about one step.
type Metric struct {
	Step   int64              `json:"step"`
	Time   time.Time          `json:"time"`
	Values map[string]float64 `json:"values"` // by name: "train/loss", "val/top1"
}

// ReadMetrics reads the metrics of the run in dir, which may be in use.
func ReadMetrics(dir string) ([]Metric, error) {
	ms, err := ReadJournal[Metric](filepath.Join(dir, MetricsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return ms, err
}

// Record appends metrics, to [MetricsFile] and to a TensorBoard event file.
// They are on the disk when it returns. Values must be finite.
func (r *Run) Record(ms ...Metric) error {
	if len(ms) == 0 {
		return nil
	}
	if r.metrics == nil {
		j, _, err := OpenJournal[Metric](r.Path(MetricsFile))
		if err != nil {
			return err
		}
		r.metrics = j
	}
	if r.events == nil {
		e, err := newEvents(r.Dir, ms[0].Time, r.from)
		if err != nil {
			return err
		}
		r.events = e
	}
	if err := r.metrics.Append(ms...); err != nil {
		return err
	}
	for _, m := range ms {
		if err := r.events.scalars(m.Time, m.Step, m.Values); err != nil {
			return err
		}
	}
	return nil
}

// Rewind forgets the metrics after step: the resumed run, which goes on from a
// checkpoint of that step, makes them again.
func (r *Run) Rewind(step int64) error {
	ms, err := ReadMetrics(r.Dir)
	if err != nil {
		return err
	}
	r.from = step
	kept := slices.DeleteFunc(slices.Clone(ms), func(m Metric) bool { return m.Step > step })
	if len(kept) == len(ms) {
		return nil
	}
	if r.metrics != nil {
		if err := r.metrics.Close(); err != nil {
			return err
		}
		r.metrics = nil
	}
	var text bytes.Buffer
	for _, m := range kept {
		line, err := json.Marshal(m)
		if err != nil {
			return err
		}
		text.Write(append(line, '\n'))
	}
	if err := write(r.Path(MetricsFile), text.Bytes()); err != nil {
		return fmt.Errorf("rewind metrics: %w", err)
	}
	return nil
}

// Close ends the writing and gives the lock back. The run stays.
func (r *Run) Close() error {
	var errs []error
	if r.metrics != nil {
		errs = append(errs, r.metrics.Close())
	}
	if r.events != nil {
		errs = append(errs, r.events.f.Close())
	}
	return errors.Join(append(errs, r.lock.Close())...)
}
