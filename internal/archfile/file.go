// Package archfile is architectures as text: our own file (best.yaml) and the
// subnet files of the reference toolbox. It knows spaces and archs; it must
// never know who searched for them or what is done with them.
package archfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/goccy/go-yaml"
	"github.com/google/renameio/v2"

	"spos/internal/arch"
)

// FileFormat is the first line of a best.yaml.
const FileFormat = "spos.best/1"

// maxFile bounds the files that this package reads.
const maxFile = 1 << 20

// ErrFile is wrapped by every error about the content of a best.yaml.
var ErrFile = errors.New("not a usable best.yaml")

// File is the outcome of a search as best.yaml spells it (docs/formats.md).
// Format, Space and Arch are needed; a file written by hand may leave out the
// rest, which is there for people and for lineage.
type File struct {
	Format  string    `yaml:"format"`
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
	LatencyLimit float64  `yaml:"latency_limit_ms,omitempty"`
	Lineage      *Lineage `yaml:"lineage,omitempty"`
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
		return nil, fmt.Errorf("write best.yaml: %w", err)
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
// content wrap [ErrFile]; an unknown key shows its line.
func Read(path string) (File, error) {
	text, err := readBounded(path)
	if err != nil {
		return File{}, err
	}
	f, err := Parse(text)
	if err != nil {
		return File{}, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

func readBounded(path string) ([]byte, error) {
	in, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	text, err := io.ReadAll(io.LimitReader(in, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if len(text) > maxFile {
		return nil, fmt.Errorf("read %s: more than %d bytes; an architecture takes a few hundred", path, maxFile)
	}
	return text, nil
}

// Parse is [Read] of a text.
func Parse(text []byte) (File, error) {
	var f File
	if err := decodeStrict(text, &f); err != nil {
		return File{}, fmt.Errorf("%w: %w", ErrFile, err)
	}
	switch {
	case f.Format != FileFormat:
		return File{}, fmt.Errorf("%w: format is %q, not %q", ErrFile, f.Format, FileFormat)
	case f.Space == "":
		return File{}, fmt.Errorf("%w: space is missing", ErrFile)
	case f.Arch == "":
		return File{}, fmt.Errorf("%w: arch is missing", ErrFile)
	case f.Choices != nil && len(f.Choices) != len(f.Arch):
		return File{}, fmt.Errorf("%w: %d choices, the arch has %d digits", ErrFile, len(f.Choices), len(f.Arch))
	case len(f.Input) != 0 && len(f.Input) != 3:
		return File{}, fmt.Errorf("%w: input has %d numbers, not channels, height, width", ErrFile, len(f.Input))
	}
	return f, nil
}

// decodeStrict decodes YAML and refuses keys that v does not have.
func decodeStrict(text []byte, v any) (err error) {
	defer func() { // the YAML library has panicked on malformed text before
		if r := recover(); r != nil {
			err = fmt.Errorf("malformed YAML: %v", r)
		}
	}()
	err = yaml.NewDecoder(bytes.NewReader(text), yaml.Strict(), yaml.CustomUnmarshaler(readArch)).Decode(v)
	if errors.Is(err, io.EOF) {
		return errors.New("there is no YAML in it")
	}
	return err
}

// readArch keeps the digits of an arch that was written without quotes: YAML
// reads 0120 as an octal number.
func readArch(a *arch.Arch, text []byte) error {
	text = bytes.TrimSpace(text)
	if len(text) > 0 && text[0] >= '0' && text[0] <= '9' {
		*a = arch.Arch(bytes.Fields(text)[0])
		return nil
	}
	return yaml.Unmarshal(text, (*string)(a))
}

// In is the arch as a point of s. It fails where the file is of another
// space, and where its choices and its arch disagree.
func (f File) In(s *arch.Space) (arch.Arch, error) {
	if f.Space != s.Name {
		return "", fmt.Errorf("%w: it is of space %s, not of %s", ErrFile, f.Space, s.Name)
	}
	names, err := chosen(s, f.Arch)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrFile, err)
	}
	if f.Choices != nil && !slices.Equal(f.Choices, names) {
		for i := range names {
			if f.Choices[i] != names[i] {
				return "", fmt.Errorf("%w: block %d: choices say %s, arch %s says %s", ErrFile, i, f.Choices[i], f.Arch, names[i])
			}
		}
	}
	return f.Arch, nil
}
