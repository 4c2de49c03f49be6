package archfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/goccy/go-yaml"
	"github.com/google/renameio/v2"

	"spos/internal/arch"
	"spos/internal/config"
)

// FileFormat is the first line of our own file.
const FileFormat = "spos.best/1"

// File is a network as our own YAML spells it (docs/formats.md): best.yaml of
// a search, and the published networks that ship. Format, Space and Arch are
// needed; the rest is there for people and for lineage.
type File struct {
	Format  string    `yaml:"format"`
	Name    string    `yaml:"name,omitempty"`
	About   string    `yaml:"about,omitempty"`
	Space   string    `yaml:"space"`
	Arch    arch.Arch `yaml:"arch"`
	Input   []int     `yaml:"input,flow,omitempty"` // channels, height, width
	Classes int       `yaml:"classes,omitempty"`
	// Choices names the candidate of each block.
	Choices  []string           `yaml:"choices,omitempty"`
	Accuracy float64            `yaml:"accuracy,omitempty"` // a fraction
	Values   map[string]float64 `yaml:"values,omitempty"`
	Cost     *Cost              `yaml:"cost,omitempty"`
	Latency  *Interval          `yaml:"latency_ms,omitempty"`
	// LatencyLimit in milliseconds is what the search promised.
	LatencyLimit float64 `yaml:"latency_limit_ms,omitempty"`
	// Devices are where it was measured, unless on this machine alone. Latency
	// and LatencyLimit are the first one's.
	Devices []OnDevice `yaml:"devices,omitempty"`
	// Measured is how, where it was not one image on one thread, back to back.
	Measured *Measured `yaml:"measured,omitempty"`
	Lineage  *Lineage  `yaml:"lineage,omitempty"`
	// Reported is what others say about the net, most original source first.
	Reported []Report `yaml:"reported,omitempty"`
}

// Report is what one source publishes about a net: its numbers in its
// rounding, never ours. Zero means that it does not say.
type Report struct {
	Source string `yaml:"source" json:"source"` // repository and file, or paper and table
	URL    string `yaml:"url,omitempty" json:"url,omitempty"`
	Params int64  `yaml:"params,omitempty" json:"params,omitempty"`
	FLOPs  int64  `yaml:"flops,omitempty" json:"flops,omitempty"`
	// Counter is what FLOPs were counted with; empty where that is not known.
	Counter arch.Counter `yaml:"counter,omitempty" json:"counter,omitempty"`
	// Top1 and Top5 are fractions, on the test images of Dataset.
	Top1    float64 `yaml:"top1,omitempty" json:"top1,omitempty"`
	Top5    float64 `yaml:"top5,omitempty" json:"top5,omitempty"`
	Dataset string  `yaml:"dataset,omitempty" json:"dataset,omitempty"`
	Metrics string  `yaml:"metrics,omitempty" json:"metrics,omitempty"` // any other numbers
	Note    string  `yaml:"note,omitempty" json:"note,omitempty"`
}

// Cost is the net's arithmetic cost for one image.
type Cost struct {
	Params          int64 `yaml:"params"`
	MACs            int64 `yaml:"macs"`
	MMCV            int64 `yaml:"mmcv_flops"`
	Thop            int64 `yaml:"thop_flops"`
	ActivationBytes int64 `yaml:"activation_bytes"`
}

// Interval is a latency in milliseconds: the median and the ends of its 95 %
// interval.
type Interval struct {
	P50  float64 `yaml:"p50"`
	Low  float64 `yaml:"low"`
	High float64 `yaml:"high"`
}

// OnDevice is what a search found on one device, and what it promised there.
type OnDevice struct {
	Device  string   `yaml:"device"`
	Latency Interval `yaml:"latency_ms"`
	Limit   float64  `yaml:"limit_ms,omitempty"` // 0: none
}

// Measured are the parts of a measuring protocol that a promise is about.
type Measured struct {
	Mode    string `yaml:"mode,omitempty"`
	Batch   int    `yaml:"batch,omitempty"`
	Threads int    `yaml:"threads,omitempty"`
}

// Lineage says where a choice comes from.
type Lineage struct {
	Method     string      `yaml:"method,omitempty"` // "evolution", "random"
	Seed       uint64      `yaml:"seed"`
	Config     string      `yaml:"config,omitempty"`     // as in every trial
	Checkpoint string      `yaml:"checkpoint,omitempty"` // of the supernet
	Evaluated  int         `yaml:"evaluated,omitempty"`  // nets evaluated in all
	Trial      int         `yaml:"trial"`
	Generation int         `yaml:"generation"`
	Origin     string      `yaml:"origin"`
	Parents    []arch.Arch `yaml:"parents,omitempty"`
}

// New spells a out: everything that follows from the space alone.
func New(s *arch.Space, a arch.Arch) (File, error) {
	net, err := s.Net(a)
	if err != nil {
		return File{}, err
	}
	names, err := chosen(s, a)
	if err != nil {
		return File{}, err
	}
	c := net.Cost()
	return File{
		Format: FileFormat, Space: s.Name, Arch: a,
		Input: []int{s.In.C, s.In.H, s.In.W}, Classes: s.Classes, Choices: names,
		Cost: &Cost{c.Params, c.MACs, c.FLOPs.MMCV, c.FLOPs.Thop, c.ActivationBytes},
	}, nil
}

// chosen names the candidate of each block.
func chosen(s *arch.Space, a arch.Arch) ([]string, error) {
	if _, err := s.Parse(string(a)); err != nil {
		return nil, err
	}
	names := make([]string, s.Len())
	for i := range names {
		c, err := a.Choice(i)
		if err != nil {
			return nil, err
		}
		names[i] = s.Candidates(i)[c]
	}
	return names, nil
}

// Text is the file's content.
func (f File) Text() ([]byte, error) {
	text, err := yaml.Marshal(f)
	if err != nil {
		return nil, fmt.Errorf("spell a network in YAML: %w", err)
	}
	return text, nil
}

// Write puts the file in place atomically.
func (f File) Write(path string) error {
	text, err := f.Text()
	if err != nil {
		return err
	}
	if err := renameio.WriteFile(path, text, 0o644); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// Read reads a file that [File.Write] or a person wrote. Errors about its
// content wrap [ErrText] and name its place.
func Read(path string) (File, error) {
	text, err := ReadText(path)
	if err != nil {
		return File{}, err
	}
	return Parse(text, path)
}

// maxText is more than the reader of configurations accepts.
const maxText = 1 << 17

// ReadText is a file's content, bounded: an architecture takes a few hundred
// bytes.
func ReadText(path string) ([]byte, error) {
	in, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	return ReadFrom(in, path)
}

// ReadFrom is [ReadText] of an open file; from names it in errors.
func ReadFrom(in io.Reader, from string) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(in, maxText+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", from, err)
	}
	if len(text) > maxText {
		return nil, fmt.Errorf("%s: %w: more than %d bytes; an architecture takes a few hundred", from, ErrText, maxText)
	}
	return text, nil
}

// Parse is [Read] of a text; from names it in errors.
func Parse(text []byte, from string) (File, error) {
	var f File
	if err := decodeStrict(text, from, &f); err != nil {
		return File{}, err
	}
	if err := f.check(); err != nil {
		return File{}, locate(fmt.Errorf("%w: %w", ErrText, err), from)
	}
	return f, nil
}

func (f *File) check() error {
	switch {
	case f.Format != FileFormat:
		return fmt.Errorf("format is %q, not %q", f.Format, FileFormat)
	case f.Space == "":
		return errors.New("space is missing: name the search space that the arch is of")
	case f.Arch == "":
		return errors.New("arch is missing: one digit a choice block")
	case f.Choices != nil && len(f.Choices) != len(f.Arch):
		return fmt.Errorf("%d choices, and the arch has %d digits: correct one, or leave choices out", len(f.Choices), len(f.Arch))
	case len(f.Input) != 0 && len(f.Input) != 3:
		return fmt.Errorf("input has %d numbers, not channels, height, width", len(f.Input))
	case f.Classes < 0:
		return fmt.Errorf("classes: %d", f.Classes)
	}
	for i, d := range f.Devices {
		if d.Device == "" {
			return fmt.Errorf("devices[%d]: device is missing", i)
		}
	}
	for i, r := range f.Reported {
		if r.Source == "" {
			return fmt.Errorf("reported[%d]: source is missing", i)
		}
		switch r.Counter {
		case "", arch.MACs, arch.MMCV, arch.Thop:
		default:
			return fmt.Errorf("reported[%d].counter: %q is none of %s, %s, %s", i, r.Counter, arch.MACs, arch.MMCV, arch.Thop)
		}
	}
	return nil
}

// decodeStrict decodes YAML into what v points to, under the rules of
// configurations.
func decodeStrict[T any](text []byte, from string, v *T) (err error) {
	defer func() { // the YAML library has panicked on malformed text before
		if r := recover(); r != nil {
			err = locate(fmt.Errorf("%w: malformed YAML: %v", ErrText, r), from)
		}
	}()
	if len(bytes.TrimSpace(text)) == 0 {
		return locate(fmt.Errorf("%w: it is empty", ErrText), from)
	}
	var zero T
	if *v, err = config.Read(bytes.NewReader(text), from, zero, nil); err != nil {
		return located{unusable{err}}
	}
	return nil
}

// unusable is ErrText without saying so: its last lines show the source.
type unusable struct{ error }

func (u unusable) Unwrap() []error { return []error{u.error, ErrText} }

// In is the arch as a point of s. It fails where the file is of another
// space, and where its choices and its arch disagree.
func (f File) In(s *arch.Space) (arch.Arch, error) {
	if f.Space != s.Name {
		return "", fmt.Errorf("%w: it is of space %s, not of %s", ErrText, f.Space, s.Name)
	}
	names, err := chosen(s, f.Arch)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrText, err)
	}
	for i, name := range f.Choices {
		if name != names[i] {
			return "", fmt.Errorf("%w: block %d: choices say %s, arch %s says %s: correct one, or leave choices out", ErrText, i, name, f.Arch, names[i])
		}
	}
	return f.Arch, nil
}
