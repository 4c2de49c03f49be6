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

// The official code bases pass architectures around as Python lists:
// megvii-model/SinglePathOneShot and ShuffleNet-Series/DetNAS indices of
// candidates, megvii-model/AngleNAS indices of its own (SPOS/training/
// config.py), ShuffleNet-Series/OneShot indices of blocks and, in a second
// list, channel scales or their indices.

// angleNAS names the operations in the order of blocks_keys in AngleNAS's
// config.py; an identity is -1 there.
var angleNAS = []string{"mb_k3e3", "mb_k3e6", "mb_k5e3", "mb_k5e6", "mb_k7e3", "mb_k7e6"}

const angleNASIdentity = "identity"

// numbers is one list of a text, with the variable it is assigned to.
type numbers struct {
	name  string
	items []string
}

var (
	bracketed = regexp.MustCompile(`^\s*(?:(\w+)\s*=\s*)?[\[(]([^\[\]()]*)[\])][\s,;]*`)
	oneNumber = regexp.MustCompile(`^-?(\d{1,3}(\.\d{0,3})?|\.\d{1,3})$`)
)

// parseLists reads one or two lists: in brackets or parentheses, or bare on
// lines of their own; items between commas or blanks.
func parseLists(text string) ([]numbers, error) {
	var all []numbers
	add := func(name, body string) error {
		items := strings.FieldsFunc(body, func(r rune) bool { return strings.ContainsRune(", \t\r\n", r) })
		for i, item := range items {
			if !oneNumber.MatchString(item) {
				return fmt.Errorf("entry %d, %.20q, is no number", i, item)
			}
		}
		if len(items) == 0 {
			return errors.New("a list without entries")
		}
		if len(all) == 2 {
			return errors.New("more than two lists")
		}
		all = append(all, numbers{name, items})
		return nil
	}
	if strings.ContainsAny(text, "[]()") {
		for rest := text; rest != ""; {
			m := bracketed.FindStringSubmatch(rest)
			if m == nil {
				return nil, fmt.Errorf("%.20q is no list in brackets", strings.TrimSpace(rest))
			}
			if err := add(m[1], m[2]); err != nil {
				return nil, err
			}
			rest = rest[len(m[0]):]
		}
		return all, nil
	}
	for line := range strings.FieldsFuncSeq(strings.TrimSpace(text), func(r rune) bool { return r == '\n' || r == ';' }) {
		if err := add("", line); err != nil {
			return nil, err
		}
	}
	if all == nil {
		return nil, errors.New("a list without entries")
	}
	return all, nil
}

func parseList(s *arch.Space, text []byte, f Format) (arch.Arch, error) {
	lists, err := parseLists(string(text))
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrText, err)
	}
	want := 1
	if f == OneShot {
		want = 2
	}
	if len(lists) != want {
		return "", fmt.Errorf("%w: %d lists, and the format %s has %d", ErrText, len(lists), f, want)
	}
	for _, l := range lists {
		if len(l.items) != s.Len() {
			return "", fmt.Errorf("%w: the list has %d entries, %s has %d choice blocks", ErrText, len(l.items), s.Name, s.Len())
		}
	}
	choices := make([]int, s.Len())
	for i := range choices {
		name, err := entry(s, lists, f, i)
		if err != nil {
			return "", fmt.Errorf("%w: entry %d: %w", ErrText, i, err)
		}
		if choices[i] = slices.Index(s.Candidates(i), name); choices[i] < 0 {
			return "", fmt.Errorf("%w: entry %d: %s is %s, none of the candidates %s of %s", ErrText, i, lists[0].items[i], name, strings.Join(s.Candidates(i), ", "), s.Name)
		}
	}
	return arch.Make(choices), nil
}

// entry is the name of the candidate that entry i of the lists means.
func entry(s *arch.Space, lists []numbers, f Format, i int) (string, error) {
	item := lists[0].items[i]
	switch f {
	case AngleNAS:
		if item == "-1" {
			return angleNASIdentity, nil
		}
		return pick(angleNAS, item)
	case OneShot:
		blocks, scales, err := scaled(s, i)
		if err != nil {
			return "", err
		}
		block, err := pick(blocks, item)
		if err != nil {
			return "", err
		}
		scale, err := scaleOf(lists[1], scales, i)
		return block + "@" + scale, err
	default:
		return pick(s.Candidates(i), item)
	}
}

func pick(names []string, index string) (string, error) {
	i, err := strconv.Atoi(index)
	if err != nil || i < 0 || i >= len(names) {
		return "", fmt.Errorf("%s is not in 0..%d (%s)", index, len(names)-1, strings.Join(names, ", "))
	}
	return names[i], nil
}

// scaled splits the names of block i's candidates, as in shuffle_3x3@0.2, into
// the blocks and the scales, each in order.
func scaled(s *arch.Space, i int) (blocks, scales []string, err error) {
	for _, name := range s.Candidates(i) {
		block, scale, ok := strings.Cut(name, "@")
		if !ok {
			return nil, nil, fmt.Errorf("the candidates of %s have no channel scales: give one list of blocks", s.Name)
		}
		if !slices.Contains(blocks, block) {
			blocks = append(blocks, block)
		}
		if !slices.Contains(scales, scale) {
			scales = append(scales, scale)
		}
	}
	return blocks, scales, nil
}

// scaleOf reads entry i of a list of scales. It holds indices where it is
// called so, or where no entry has a decimal point.
func scaleOf(l numbers, scales []string, i int) (string, error) {
	if l.name == "scale_ids" || l.name == "" && !slices.ContainsFunc(l.items, func(item string) bool { return strings.Contains(item, ".") }) {
		return pick(scales, l.items[i])
	}
	v, err := strconv.ParseFloat(l.items[i], 64)
	scale := strconv.FormatFloat(v, 'f', -1, 64)
	if err != nil || !slices.Contains(scales, scale) {
		return "", fmt.Errorf("scale %s is none of %s", l.items[i], strings.Join(scales, ", "))
	}
	return scale, nil
}

func list(s *arch.Space, a arch.Arch, names []string, f Format) ([]byte, error) {
	items := make([]string, len(names))
	scales := make([]string, len(names))
	for i, name := range names {
		var at int
		switch f {
		case AngleNAS:
			if at = slices.Index(angleNAS, name); at < 0 && name != angleNASIdentity {
				return nil, fmt.Errorf("block %d: AngleNAS has no %s, only %s and %s", i, name, strings.Join(angleNAS, ", "), angleNASIdentity)
			}
		case OneShot:
			blocks, _, err := scaled(s, i)
			if err != nil {
				return nil, err
			}
			block, scale, _ := strings.Cut(name, "@")
			at, scales[i] = slices.Index(blocks, block), scale
			if !strings.Contains(scale, ".") {
				scales[i] += ".0"
			}
		default:
			at, _ = a.Choice(i) // a is in the space
		}
		items[i] = strconv.Itoa(at)
	}
	switch f {
	case AngleNAS: // as its --model_id is given
		return []byte(strings.Join(items, " ") + "\n"), nil
	case OneShot: // the arguments of ShuffleNetV2_OneShot
		return fmt.Appendf(nil, "architecture = [%s]\nchannels_scales = [%s]\n", strings.Join(items, ", "), strings.Join(scales, ", ")), nil
	default:
		return []byte("[" + strings.Join(items, ", ") + "]\n"), nil
	}
}
