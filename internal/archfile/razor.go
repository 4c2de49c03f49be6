package archfile

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"

	"spos/internal/arch"
)

// The reference toolbox, mmrazor, spells a chosen net as YAML in two ways:
//
//	0.x  stage_0_block_0: {chosen: [shuffle_7x7]}
//	1.x  backbone.layers.0.0: {chosen: shuffle_7x7}
//	     backbone.layer1.0: {chosen: mb_k3e1}
//
// The 0.x key is the mutable's space_id, with stages counted from zero
// (components/backbones/searchable_{shufflenet_v2,mobilenet}.py). The 1.x key
// is the module's path, in which SearchableShuffleNetV2 holds its stages in a
// list `layers` and SearchableMobileNetV2 in modules layer1, layer2, …
// (architectures/backbones/). Fixed blocks of the stem are mutables with one
// candidate there, each a stage of its own before the others. Names are those
// of the space's candidates.

// slot is one entry of a subnet file.
type slot struct {
	stage, block int
	choice       int // index of the choice block, or -1
	names        []string
}

func (p slot) String() string { return fmt.Sprintf("stage %d block %d", p.stage, p.block) }

func slots(s *arch.Space) []slot {
	var all []slot
	for _, l := range s.Spec().Stem {
		if l.Block != nil && l.Block.Name != "" {
			all = append(all, slot{stage: len(all), choice: -1, names: []string{l.Block.Name}})
		}
	}
	first, block := len(all), 0
	for i := range s.Len() {
		if block++; i == 0 || s.Stage(i) != s.Stage(i-1) {
			block = 0
		}
		all = append(all, slot{first + s.Stage(i), block, i, s.Candidates(i)})
	}
	return all
}

func (p slot) key(s *arch.Space, f Format) string {
	switch {
	case f == Razor0:
		return fmt.Sprintf("stage_%d_block_%d", p.stage, p.block)
	case s.Spec().Shuffle != nil:
		return fmt.Sprintf("backbone.layers.%d.%d", p.stage, p.block)
	default:
		return fmt.Sprintf("backbone.layer%d.%d", p.stage+1, p.block)
	}
}

func razor(s *arch.Space, names []string, f Format) []byte {
	var b strings.Builder
	for _, p := range slots(s) {
		name := p.names[0]
		if p.choice >= 0 {
			name = names[p.choice]
		}
		if f == Razor0 {
			fmt.Fprintf(&b, "%s:\n  chosen:\n  - %s\n", p.key(s, f), name)
		} else {
			fmt.Fprintf(&b, "%s:\n  chosen: %s\n", p.key(s, f), name)
		}
	}
	return []byte(b.String())
}

// razorEntry is the value of one key.
type razorEntry struct {
	Chosen chosenName `yaml:"chosen"`
	Meta   skipped    `yaml:"meta"` // 1.x writes the other candidates there and ignores them
}

// chosenName reads a name, or a list of one.
type chosenName string

// UnmarshalYAML implements [yaml.BytesUnmarshaler].
func (c *chosenName) UnmarshalYAML(text []byte) error {
	var list []string
	if err := yaml.Unmarshal(text, (*string)(c)); err == nil {
		return nil
	}
	if err := yaml.Unmarshal(text, &list); err != nil || len(list) != 1 {
		return errors.New("chosen is not one name")
	}
	*c = chosenName(list[0])
	return nil
}

type skipped struct{}

// UnmarshalYAML implements [yaml.BytesUnmarshaler].
func (*skipped) UnmarshalYAML([]byte) error { return nil }

// parseRazor reads a subnet file of either version. Every block must be there
// once and nothing else; a module path may have a prefix.
func parseRazor(s *arch.Space, text []byte, from string) (arch.Arch, error) {
	var entries map[string]razorEntry
	if err := decodeStrict(text, from, &entries); err != nil {
		return "", err
	}
	all := slots(s)
	choices := make([]int, s.Len())
	found := make([]bool, len(all))
	for _, key := range slices.Sorted(maps.Keys(entries)) {
		e := entries[key]
		stage, block, ok := parsePlace(key)
		i := slices.IndexFunc(all, func(p slot) bool { return p.stage == stage && p.block == block })
		if !ok || i < 0 {
			return "", fmt.Errorf("%w: key %q is no block of %s, which has %s to %s", ErrText, key, s.Name, all[0].key(s, Razor0), all[len(all)-1].key(s, Razor0))
		}
		if found[i] {
			return "", fmt.Errorf("%w: %v is there twice", ErrText, all[i])
		}
		c := slices.Index(all[i].names, string(e.Chosen))
		if c < 0 {
			return "", fmt.Errorf("%w: key %q: %q is none of the candidates %s of %s", ErrText, key, e.Chosen, strings.Join(all[i].names, ", "), s.Name)
		}
		found[i] = true
		if all[i].choice >= 0 {
			choices[all[i].choice] = c
		}
	}
	if i := slices.Index(found, false); i >= 0 {
		return "", fmt.Errorf("%w: %v is missing: %d of the %d blocks of %s are there", ErrText, all[i], len(entries), len(all), s.Name)
	}
	return arch.Make(choices), nil
}

var (
	razor0Key = regexp.MustCompile(`^stage_(\d{1,4})_block_(\d{1,4})$`)
	razor1Key = regexp.MustCompile(`^(?:\w+\.)*layer(s\.)?(\d{1,4})\.(\d{1,4})$`)
)

func parsePlace(key string) (stage, block int, ok bool) {
	if m := razor0Key.FindStringSubmatch(key); m != nil {
		stage, _ = strconv.Atoi(m[1]) // four digits
		block, _ = strconv.Atoi(m[2])
		return stage, block, true
	}
	m := razor1Key.FindStringSubmatch(key)
	if m == nil {
		return 0, 0, false
	}
	stage, _ = strconv.Atoi(m[2])
	block, _ = strconv.Atoi(m[3])
	if m[1] == "" { // layer1 is the first
		stage--
	}
	return stage, block, true
}
