// Package archfile is architectures as text: our digits and our own file
// (best.yaml and the published networks), the subnet files of the reference
// toolbox, and the Python lists of the official code bases. It knows spaces
// and archs; it must never know who searched for them or what is done with
// them.
package archfile

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"spos/internal/arch"
)

// ErrText is wrapped by every error about the content of a text.
var ErrText = errors.New("not a usable architecture")

// Format is one way to spell an architecture.
type Format string

// The formats.
const (
	Digits   Format = "digits"      // one base-36 digit a choice block
	YAML     Format = "yaml"        // [File]
	Razor0   Format = "mmrazor-0.x" // open-mmlab/mmrazor, branch 0.x: mutable_cfg
	Razor1   Format = "mmrazor-1.x" // open-mmlab/mmrazor, branch main: fix_subnet
	List     Format = "list"        // indices in the order of the space: megvii-model/SinglePathOneShot and ShuffleNet-Series/DetNAS
	AngleNAS Format = "anglenas"    // indices in the order of megvii-model/AngleNAS, -1 an identity
	OneShot  Format = "oneshot"     // megvii-model/ShuffleNet-Series/OneShot: a list of blocks and one of channel scales
)

// Formats are all formats, in the order in which they are listed to people.
func Formats() []Format { return []Format{Digits, YAML, Razor0, Razor1, List, AngleNAS, OneShot} }

var (
	digitsText = regexp.MustCompile(`^[0-9a-z]+$`)
	ourKey     = regexp.MustCompile(`(?m)^[{ ]*(format|space|arch)\s*:`)
	razor0Text = regexp.MustCompile(`stage_\d+_block_\d+["']?\s*:`)
	razor1Text = regexp.MustCompile(`\blayers?\.?\d+\.\d+["']?\s*:`)
)

// Detect tells the format of a text. A list counts as [AngleNAS] only where
// it has a -1: without one nothing tells its order from the space's own. A
// text in no known format wraps [ErrText].
func Detect(text []byte) (Format, error) {
	text = bytes.TrimSpace(text)
	switch {
	case len(text) == 0:
		return "", fmt.Errorf("%w: it is empty", ErrText)
	case digitsText.Match(text):
		return Digits, nil
	case razor0Text.Match(text):
		return Razor0, nil
	case razor1Text.Match(text):
		return Razor1, nil
	case ourKey.Match(text):
		return YAML, nil
	}
	lists, err := parseLists(string(text))
	switch {
	case err != nil:
		return "", fmt.Errorf("%w: it is neither digits, YAML with a known key, nor a list of numbers: %w", ErrText, err)
	case len(lists) == 2:
		return OneShot, nil
	case slices.Contains(lists[0].items, "-1"):
		return AngleNAS, nil
	default:
		return List, nil
	}
}

// Decode reads an architecture of s from a text; an empty f is detected, and
// from names the text in errors. Errors about the content wrap [ErrText] or
// [arch.ErrNotInSpace] and say which entry is wrong and what was expected.
func Decode(s *arch.Space, text []byte, f Format, from string) (arch.Arch, error) {
	a, err := decode(s, text, f, from)
	if err != nil {
		return "", locate(err, from)
	}
	return a, nil
}

// located is an error that says where it is.
type located struct{ error }

func (l located) Unwrap() error { return l.error }

// locate puts from before an error that does not have its place yet.
func locate(err error, from string) error {
	if _, ok := errors.AsType[located](err); ok {
		return err
	}
	return located{fmt.Errorf("%s: %w", from, err)}
}

func decode(s *arch.Space, text []byte, f Format, from string) (_ arch.Arch, err error) {
	if f == "" {
		if f, err = Detect(text); err != nil {
			return "", err
		}
	}
	switch f {
	case Digits:
		return s.Parse(string(bytes.TrimSpace(text)))
	case YAML:
		file, err := Parse(text, from)
		if err != nil {
			return "", err
		}
		return file.In(s)
	case Razor0, Razor1:
		return parseRazor(s, text, from)
	case List, AngleNAS, OneShot:
		return parseList(s, text, f)
	default:
		return "", unknownFormat(f)
	}
}

// Encode spells an architecture of s. It fails where the format has no word
// for a candidate of s.
func Encode(s *arch.Space, a arch.Arch, f Format) ([]byte, error) {
	names, err := chosen(s, a)
	if err != nil {
		return nil, err
	}
	switch f {
	case Digits:
		return []byte(a + "\n"), nil
	case YAML:
		file, err := New(s, a)
		if err != nil {
			return nil, err
		}
		return file.Text()
	case Razor0, Razor1:
		return razor(s, names, f), nil
	case List, AngleNAS, OneShot:
		return list(s, a, names, f)
	default:
		return nil, unknownFormat(f)
	}
}

func unknownFormat(f Format) error {
	var all []string
	for _, known := range Formats() {
		all = append(all, string(known))
	}
	return fmt.Errorf("format %q is none of %s", f, strings.Join(all, ", "))
}

// Translate finds the architecture of space to that has the candidates of a,
// an architecture of from, block by block and by name. It fails with
// [arch.ErrNotInSpace] where to has other stages or lacks a candidate.
func Translate(from, to *arch.Space, a arch.Arch) (arch.Arch, error) {
	names, err := chosen(from, a)
	if err != nil {
		return "", err
	}
	if x, y := stages(from), stages(to); !slices.Equal(x, y) {
		return "", fmt.Errorf("%s has stages of %v choice blocks and %s of %v: %w", from.Name, x, to.Name, y, arch.ErrNotInSpace)
	}
	choices := make([]int, len(names))
	for i, name := range names {
		if choices[i] = slices.Index(to.Candidates(i), name); choices[i] < 0 {
			return "", fmt.Errorf("block %d: %s of %s is none of the candidates %s of %s: %w",
				i, name, from.Name, strings.Join(to.Candidates(i), ", "), to.Name, arch.ErrNotInSpace)
		}
	}
	return arch.Make(choices), nil
}

// stages counts the choice blocks of each stage.
func stages(s *arch.Space) []int {
	var n []int
	for i := range s.Len() {
		if s.Stage(i) == len(n) {
			n = append(n, 0)
		}
		n[s.Stage(i)]++
	}
	return n
}
