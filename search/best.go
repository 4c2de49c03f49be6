package search

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

// BestFormat is the first line of a best.yaml.
const BestFormat = "spos.best/1"

// maxBest bounds the files that this package reads.
const maxBest = 1 << 20

// ErrBest is wrapped by every error about the content of a best.yaml.
var ErrBest = errors.New("not a usable best.yaml")

// Best is the outcome of a search as best.yaml spells it (docs/formats.md).
// Format, Space and Arch are needed; a file written by hand may leave out the
// rest, which is there for people and for lineage.
type Best struct {
	Format  string    `yaml:"format"`
	Space   string    `yaml:"space"`
	Arch    arch.Arch `yaml:"arch"`
	Input   []int     `yaml:"input,flow,omitempty"` // channels, height, width
	Classes int       `yaml:"classes,omitempty"`
	// Choices names the candidate of each block.
	Choices  []string           `yaml:"choices,omitempty"`
	Accuracy float64            `yaml:"accuracy,omitempty"` // a fraction
	Values   map[string]float64 `yaml:"values,omitempty"`
	Cost     *BestCost          `yaml:"cost,omitempty"`
	Latency  *Interval          `yaml:"latency_ms,omitempty"`
	// LatencyLimit in milliseconds is what the search promised.
	LatencyLimit float64  `yaml:"latency_limit_ms,omitempty"`
	Lineage      *Lineage `yaml:"lineage,omitempty"`
}

// BestCost is the net's arithmetic cost for one image.
type BestCost struct {
	Params          int64 `yaml:"params"`
	MACs            int64 `yaml:"macs"`
	MMCV            int64 `yaml:"mmcv_flops"`
	Thop            int64 `yaml:"thop_flops"`
	ActivationBytes int64 `yaml:"activation_bytes"`
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
	Origin     Origin      `yaml:"origin"`
	Parents    []arch.Arch `yaml:"parents,omitempty"`
}

// NewBest spells a trial out. The trial's own lineage is filled in; the
// caller sets Method, Seed, Checkpoint, Evaluated and LatencyLimit.
func NewBest(s *arch.Space, t Trial) (Best, error) {
	net, err := s.Net(t.Arch)
	if err != nil {
		return Best{}, err
	}
	names, err := chosen(s, t.Arch)
	if err != nil {
		return Best{}, err
	}
	c := net.Cost()
	b := Best{
		Format: BestFormat, Space: s.Name, Arch: t.Arch,
		Input: []int{s.In.C, s.In.H, s.In.W}, Classes: s.Classes, Choices: names,
		Accuracy: t.Accuracy, Values: t.Values,
		Cost: &BestCost{c.Params, c.MACs, c.FLOPs.MMCV, c.FLOPs.Thop, c.ActivationBytes},
		Lineage: &Lineage{
			Config: t.Config, Trial: t.ID, Generation: t.Generation, Origin: t.Origin, Parents: t.Parents,
		},
	}
	if t.Latency != (Interval{}) {
		b.Latency = new(t.Latency)
	}
	return b, nil
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
func (b Best) Text() ([]byte, error) {
	text, err := yaml.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("write best.yaml: %w", err)
	}
	return text, nil
}

// Write puts the file in place atomically.
func (b Best) Write(path string) error {
	text, err := b.Text()
	if err != nil {
		return err
	}
	if err := renameio.WriteFile(path, text, 0o644); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// ReadBest reads a file that [Best.Write] or a person wrote. Errors about its
// content wrap [ErrBest]; an unknown key shows its line.
func ReadBest(path string) (Best, error) {
	text, err := readBounded(path)
	if err != nil {
		return Best{}, err
	}
	b, err := ParseBest(text)
	if err != nil {
		return Best{}, fmt.Errorf("%s: %w", path, err)
	}
	return b, nil
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxBest+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if len(text) > maxBest {
		return nil, fmt.Errorf("read %s: more than %d bytes; an architecture takes a few hundred", path, maxBest)
	}
	return text, nil
}

// ParseBest is [ReadBest] of a text.
func ParseBest(text []byte) (Best, error) {
	var b Best
	if err := decodeStrict(text, &b); err != nil {
		return Best{}, fmt.Errorf("%w: %w", ErrBest, err)
	}
	switch {
	case b.Format != BestFormat:
		return Best{}, fmt.Errorf("%w: format is %q, not %q", ErrBest, b.Format, BestFormat)
	case b.Space == "":
		return Best{}, fmt.Errorf("%w: space is missing", ErrBest)
	case b.Arch == "":
		return Best{}, fmt.Errorf("%w: arch is missing", ErrBest)
	case b.Choices != nil && len(b.Choices) != len(b.Arch):
		return Best{}, fmt.Errorf("%w: %d choices, the arch has %d digits", ErrBest, len(b.Choices), len(b.Arch))
	case len(b.Input) != 0 && len(b.Input) != 3:
		return Best{}, fmt.Errorf("%w: input has %d numbers, not channels, height, width", ErrBest, len(b.Input))
	}
	return b, nil
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
func (b Best) In(s *arch.Space) (arch.Arch, error) {
	if b.Space != s.Name {
		return "", fmt.Errorf("%w: it is of space %s, not of %s", ErrBest, b.Space, s.Name)
	}
	names, err := chosen(s, b.Arch)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrBest, err)
	}
	if b.Choices != nil && !slices.Equal(b.Choices, names) {
		for i := range names {
			if b.Choices[i] != names[i] {
				return "", fmt.Errorf("%w: block %d: choices say %s, arch %s says %s", ErrBest, i, b.Choices[i], b.Arch, names[i])
			}
		}
	}
	return b.Arch, nil
}
