package archfile

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"spos/internal/arch"
)

// The reference toolbox, mmrazor, spells a chosen net as YAML in two ways:
//
//	0.x  stage_0_block_0: {chosen: [shuffle_7x7]}
//	1.x  backbone.layers.0.0: {chosen: shuffle_7x7}
//
// Stages and the blocks of a stage count from zero (its files
// SPOS_SHUFFLENETV2_330M_IN1k_PAPER.yaml on branch 0.x and SPOS_SUBNET.yaml on
// main). The names are those of the space's candidates, so a net of a shipped
// space loads there as it is.

// ErrRazor is wrapped by every error about the content of a subnet file.
var ErrRazor = errors.New("not a usable mmrazor subnet file")

// RazorVersion is a generation of mmrazor's subnet files.
type RazorVersion int

// The versions.
const (
	Razor0 RazorVersion = iota // 0.x, fix_subnet / mutable_cfg
	Razor1                     // 1.x, fix_subnet
)

// Razor spells a in mmrazor's YAML.
func Razor(s *arch.Space, a arch.Arch, v RazorVersion) ([]byte, error) {
	names, err := chosen(s, a)
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	for i, at := range places(s) {
		if v == Razor0 {
			fmt.Fprintf(&b, "stage_%d_block_%d:\n  chosen:\n  - %s\n", at.stage, at.block, names[i])
		} else {
			fmt.Fprintf(&b, "backbone.layers.%d.%d:\n  chosen: %s\n", at.stage, at.block, names[i])
		}
	}
	return []byte(b.String()), nil
}

// place is where a choice block sits, both counted from zero.
type place struct{ stage, block int }

func (p place) String() string { return fmt.Sprintf("stage %d block %d", p.stage, p.block) }

func places(s *arch.Space) []place {
	ps := make([]place, s.Len())
	for i := range ps {
		ps[i].stage = s.Stage(i)
		if i > 0 && ps[i-1].stage == ps[i].stage {
			ps[i].block = ps[i-1].block + 1
		}
	}
	return ps
}

// ReadRazor reads a subnet file of either version.
func ReadRazor(s *arch.Space, path string) (arch.Arch, error) {
	text, err := readBounded(path)
	if err != nil {
		return "", err
	}
	a, err := ParseRazor(s, text)
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return a, nil
}

// razorEntry is the value of one key. The toolbox ignores meta as well.
type razorEntry struct {
	Chosen any `yaml:"chosen"`
	Meta   any `yaml:"meta"`
}

// ParseRazor is [ReadRazor] of a text. Every block must be there once and
// nothing else; a module path may have a prefix before "layers".
func ParseRazor(s *arch.Space, text []byte) (arch.Arch, error) {
	var entries map[string]razorEntry
	if err := decodeStrict(text, &entries); err != nil {
		return "", fmt.Errorf("%w: %w", ErrRazor, err)
	}
	ps := places(s)
	choices := make([]int, len(ps))
	found := make([]bool, len(ps))
	for key, e := range entries {
		at, ok := parsePlace(key)
		i := slices.Index(ps, at)
		if !ok || i < 0 {
			return "", fmt.Errorf("%w: key %q is no choice block of %s (%d blocks in %d stages)", ErrRazor, key, s.Name, len(ps), s.Stage(s.Len()-1)+1)
		}
		if found[i] {
			return "", fmt.Errorf("%w: %v is there twice", ErrRazor, at)
		}
		name, err := e.name()
		if err != nil {
			return "", fmt.Errorf("%w: key %q: %w", ErrRazor, key, err)
		}
		c := slices.Index(s.Candidates(i), name)
		if c < 0 {
			return "", fmt.Errorf("%w: key %q: %q is none of the candidates %s", ErrRazor, key, name, strings.Join(s.Candidates(i), ", "))
		}
		choices[i], found[i] = c, true
	}
	if i := slices.Index(found, false); i >= 0 {
		return "", fmt.Errorf("%w: %v is missing", ErrRazor, ps[i])
	}
	return arch.Make(choices), nil
}

func (e razorEntry) name() (string, error) {
	switch c := e.Chosen.(type) {
	case string:
		return c, nil
	case []any:
		if len(c) == 1 {
			if name, ok := c[0].(string); ok {
				return name, nil
			}
		}
		return "", fmt.Errorf("chosen is %v, not one name", c)
	default:
		return "", fmt.Errorf("chosen is %v, not a name", c)
	}
}

var (
	razor0Key = regexp.MustCompile(`^stage_(\d{1,4})_block_(\d{1,4})$`)
	razor1Key = regexp.MustCompile(`^(?:\w+\.)*layers\.(\d{1,4})\.(\d{1,4})$`)
)

func parsePlace(key string) (place, bool) {
	m := razor0Key.FindStringSubmatch(key)
	if m == nil {
		m = razor1Key.FindStringSubmatch(key)
	}
	if m == nil {
		return place{}, false
	}
	stage, _ := strconv.Atoi(m[1]) // four digits
	block, _ := strconv.Atoi(m[2])
	return place{stage, block}, true
}
