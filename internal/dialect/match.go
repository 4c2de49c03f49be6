package dialect

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"spos/internal/arch"
)

// Tensor is one of a file: its name and shape there.
type Tensor struct {
	Name  string
	Shape []int
}

// Match is a file that holds a target in a dialect.
type Match struct {
	Dialect *Dialect
	Target  // with the classes of the file's head
	// Entries are the target's tensors in the order of a checkpoint. Key is the
	// file's own name of each, and Order turns the file's tensor into ours.
	Entries []Entry
}

// Moved counts the tensors whose channels are reordered.
func (m *Match) Moved() int {
	n := 0
	for _, e := range m.Entries {
		if e.Order.Rows != nil || e.Order.Cols != nil {
			n++
		}
	}
	return n
}

// Detect finds the one dialect and target whose names and shapes are exactly
// those of a file. Nil dialects are all. Where none fits, the error is a
// [*MismatchError] with the nearest; where several targets do, it wraps
// [ErrAmbiguous]; where there is no target, it is [ErrNoTarget].
func Detect(file []Tensor, targets iter.Seq[Target], dialects []*Dialect) (*Match, error) {
	if dialects == nil {
		dialects = all
	}
	f, err := open(file)
	if err != nil {
		return nil, err
	}
	var (
		fits    []attempt
		nearest *MismatchError
		others  []string
		unfit   error
		tried   int
	)
	for t := range targets {
		tried++
		layers, err := t.layers()
		if err != nil {
			return nil, err
		}
		for _, d := range dialects {
			a, bad, err := f.match(d, t, layers)
			switch {
			case errors.Is(err, ErrUnfit):
				unfit = err
			case err != nil:
				return nil, err
			case bad == nil:
				fits = append(fits, a)
			default:
				others = append(others, fmt.Sprintf("%s (%d of %d)", d.Name, bad.Known, bad.Known+len(bad.Missing)))
				if nearest == nil || bad.distance() < nearest.distance() {
					nearest = bad
				}
			}
		}
	}
	switch {
	case len(fits) == 1:
		return fits[0].complete()
	case len(fits) > 1:
		return nil, ambiguous(fits)
	case nearest == nil && unfit == nil:
		return nil, ErrNoTarget
	case nearest == nil:
		return nil, unfit
	}
	if len(others) > 1 && tried == 1 {
		nearest.Tried = others
	}
	return nil, nearest
}

// ErrNoTarget is returned where there is nothing to compare a file with.
var ErrNoTarget = errors.New("no space to compare the tensors with")

// ErrAmbiguous is wrapped where a file fits several targets.
var ErrAmbiguous = errors.New("the tensors fit more than one space")

func ambiguous(fits []attempt) error {
	var list []string
	for _, a := range fits {
		list = append(list, fmt.Sprintf("%v as %s", a.target, a.dialect.Name))
	}
	return fmt.Errorf("%w: %s", ErrAmbiguous, strings.Join(list, "; "))
}

// contents are a file's tensors by their names without prefixes.
type contents struct {
	keys    []string // in the file's order
	tensors map[string]Tensor
}

// prefixes stand before all names of a file where its network lay in another
// module, and in no dialect at the start of a name.
var prefixes = []string{"module.", "architecture.", "model.", "backbone."}

func bare(name string) string {
	for again := true; again; {
		again = false
		for _, p := range prefixes {
			if rest, ok := strings.CutPrefix(name, p); ok {
				name, again = rest, true
			}
		}
	}
	return name
}

// bookkeeping are buffers of a state dict that no network computes with: batch
// counters, and what the counter of FLOPs thop leaves behind.
func bookkeeping(name string) bool {
	return strings.HasSuffix(name, counterSuffix) ||
		slices.Contains([]string{"total_ops", "total_params"}, name[strings.LastIndexByte(name, '.')+1:])
}

func open(file []Tensor) (*contents, error) {
	f := &contents{tensors: map[string]Tensor{}}
	for _, t := range file {
		if bookkeeping(t.Name) {
			continue
		}
		key := bare(t.Name)
		if twin, twice := f.tensors[key]; twice {
			return nil, fmt.Errorf("tensors %q and %q are one but for their prefix: give the state dict of one network", twin.Name, t.Name)
		}
		f.keys, f.tensors[key] = append(f.keys, key), t
	}
	return f, nil
}

// attempt is a dialect and a target that fit a file.
type attempt struct {
	dialect *Dialect
	target  Target
	classes int
	entries []Entry
}

// match compares a file with one dialect's names of a target.
func (f *contents) match(d *Dialect, t Target, layers []layer) (attempt, *MismatchError, error) {
	all, err := d.entries(t, layers)
	if err != nil {
		return attempt{}, nil, err
	}
	a := attempt{dialect: d, target: t, classes: t.Space.Classes}
	bad := &MismatchError{Dialect: d, Target: t}
	wanted := map[string]bool{}
	for _, e := range all {
		if e.Name == "" {
			continue
		}
		wanted[e.Key] = true
		have, ok := f.tensors[e.Key]
		if !ok {
			bad.Missing = append(bad.Missing, e)
			continue
		}
		bad.Known++
		e.Key = have.Name
		if (e.Role == arch.LinearWeight || e.Role == arch.LinearBias) && len(have.Shape) == len(e.Shape) {
			// The head has as many rows as there are classes.
			if e.Role == arch.LinearWeight {
				a.classes = have.Shape[0]
			}
			e.Shape = append([]int{a.classes}, e.Shape[1:]...)
		}
		if !slices.Equal(e.Shape, have.Shape) {
			bad.Shapes = append(bad.Shapes, Misshapen{e, have.Shape})
		}
		a.entries = append(a.entries, e)
	}
	for _, key := range f.keys {
		if !wanted[key] {
			bad.Extra = append(bad.Extra, f.tensors[key])
		}
	}
	if bad.distance() > 0 {
		return attempt{}, bad, nil
	}
	return a, nil, nil
}

// complete fits the space to the file's classes and finds the orders.
func (a attempt) complete() (*Match, error) {
	m := &Match{a.dialect, a.target, a.entries}
	if a.classes != m.Space.Classes {
		s, err := m.Space.With(m.Space.In, a.classes)
		if err != nil {
			return nil, err
		}
		m.Space = s
	}
	published, err := a.dialect.published(m.Target)
	if err != nil {
		return nil, err
	}
	orders, err := rewire(published, m.Target)
	if err != nil {
		return nil, err
	}
	for i := range m.Entries {
		m.Entries[i].Order = orders[m.Entries[i].Name]
	}
	return m, nil
}

// Misshapen is a tensor whose shape in the file is another.
type Misshapen struct {
	Entry
	Have []int
}

// MismatchError is the error about a file that does not hold a target in the names
// of a dialect.
type MismatchError struct {
	Dialect *Dialect
	Target  Target
	Known   int      // names of the target that the file has
	Missing []Entry  // those it does not have
	Extra   []Tensor // what else it has
	Shapes  []Misshapen
	Tried   []string // the dialects, with how many names each knows
}

func (m *MismatchError) distance() int { return len(m.Missing) + len(m.Extra) + len(m.Shapes) }

// listed bounds what an error prints of each list.
const listed = 4

func (m *MismatchError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "its tensors are not those of %v in the names of %s", m.Target, m.Dialect.Name)
	section(&b, "missing", m.Missing, func(e Entry) string {
		return fmt.Sprintf("%s %s (our %s)", e.Key, sizes(e.Shape), e.Name)
	})
	section(&b, "of another shape", m.Shapes, func(s Misshapen) string {
		return fmt.Sprintf("%s is %s, and %s is wanted (our %s)", s.Key, sizes(s.Have), sizes(s.Shape), s.Name)
	})
	section(&b, "not wanted", m.Extra, func(t Tensor) string { return t.Name + " " + sizes(t.Shape) })
	if m.Tried != nil {
		fmt.Fprintf(&b, "\n  names known to each dialect: %s", strings.Join(m.Tried, ", "))
	}
	return b.String()
}

func section[T any](b *strings.Builder, title string, list []T, line func(T) string) {
	if len(list) == 0 {
		return
	}
	fmt.Fprintf(b, "\n  %s: %d", title, len(list))
	for i, v := range list {
		if i == listed {
			fmt.Fprintf(b, "\n    and %d more", len(list)-listed)
			return
		}
		fmt.Fprintf(b, "\n    %s", line(v))
	}
}

// sizes is a shape as people write it.
func sizes(shape []int) string {
	if len(shape) == 0 {
		return "scalar"
	}
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(shape), " ", "×"), "[]")
}
