// Package dialect knows how other code bases name the tensors of our nets, and
// in which order they keep channels. It knows names, shapes and nets; where
// the tensors lie and what becomes of them it must never know.
package dialect

import (
	"errors"
	"fmt"
	"strings"

	"spos/internal/arch"
	"spos/internal/imaging"
)

// ErrUnknown is wrapped by the error about a name that no dialect has.
var ErrUnknown = errors.New("no such dialect")

// ErrUnfit is wrapped where a code base has no words for a space.
var ErrUnfit = errors.New("the dialect has no words for the space")

// Dialect is the names of one code base. It is read-only.
type Dialect struct {
	Name  string
	About string
	// Recipe is the preprocessing that its networks were trained with.
	Recipe func() imaging.Recipe
	// Wiring and Projection are those of its shuffle blocks ([arch.ShuffleSpec]);
	// empty where it has none.
	Wiring, Projection string
	// Wrapped says that its files hold the tensors under "state_dict".
	Wrapped bool

	// name is the paths of a layer's module and of its norm's; empty where the
	// code base has no such layer.
	name func(layer) (module, norm string)
	// prefix is what its own training puts before the key of a tensor of a
	// stand-alone net or of the supernet.
	prefix func(key string, alone bool) string
}

var all = []*Dialect{&spos, &mmrazor0, &mmrazor1, &anglenas, &macro, &shunlu91}

// All are the dialects, in the order in which they are listed to people.
func All() []*Dialect { return all }

// Find returns a dialect by its name.
func Find(name string) (*Dialect, error) {
	var names []string
	for _, d := range all {
		if d.Name == name {
			return d, nil
		}
		names = append(names, d.Name)
	}
	return nil, fmt.Errorf("%q: %w; there are %s", name, ErrUnknown, strings.Join(names, ", "))
}

// Target is what a file holds: the supernet of a space, or the stand-alone net
// of Arch where that is not empty.
type Target struct {
	Space *arch.Space
	Arch  arch.Arch
}

func (t Target) String() string {
	if t.Arch == "" {
		return "the supernet of " + t.Space.Name
	}
	return fmt.Sprintf("net %s of %s", t.Arch, t.Space.Name)
}

// Params are the target's tensors, in the order of a checkpoint.
func (t Target) Params() ([]arch.Param, error) {
	if t.Arch == "" {
		return t.Space.Params(), nil
	}
	n, err := t.Space.Net(t.Arch)
	if err != nil {
		return nil, err
	}
	var ps []arch.Param
	for v := range n.Views() {
		ps = append(ps, v.Param)
	}
	return ps, nil
}

// RecipeFor is the preprocessing for a target whose images have this shape.
func (d *Dialect) RecipeFor(in arch.Shape) imaging.Recipe {
	r := d.Recipe()
	if in.C == 1 {
		r = imaging.Recipe{Color: imaging.Gray}
	}
	return r.Sized(in.H, in.W)
}

// Entry is one tensor: what it is here, how it is called there, and the order
// in which its channels must be taken on the way. Of a batch counter, which we
// do not have, Param is zero.
type Entry struct {
	arch.Param
	Key   string
	Order arch.Order
}

// entries names all tensors of a target, without prefixes, each followed by
// the counter that belongs to it.
func (d *Dialect) entries(t Target, layers []layer) ([]Entry, error) {
	params, err := t.Params()
	if err != nil {
		return nil, err
	}
	keys, counters := map[string]string{}, map[string]string{}
	for _, l := range layers {
		module, norm := d.name(l)
		if module == "" || l.op.Norm != nil && norm == "" {
			return nil, fmt.Errorf("%s: %s of %s: %w", d.Name, l.op.Name, t.Space.Name, ErrUnfit)
		}
		keys[l.op.Name+".weight"] = module + ".weight"
		keys[l.op.Name+".bias"] = module + ".bias"
		for _, part := range []string{"weight", "bias", "running_mean", "running_var"} {
			keys[l.op.Name+".bn."+part] = norm + "." + part
		}
		counters[l.op.Name+".bn.running_var"] = norm + counterSuffix
	}
	var list []Entry
	for _, p := range params {
		list = append(list, Entry{Param: p, Key: keys[p.Name]})
		if c, ok := counters[p.Name]; ok {
			list = append(list, Entry{Key: c})
		}
	}
	return list, nil
}

// counterSuffix ends the name of the number of batches that a norm has seen.
// PyTorch uses it only where momentum is None, which no code base here sets.
const counterSuffix = ".num_batches_tracked"

// Export names all tensors of a target as the code base's own training saves
// them. Each Order turns our tensor into theirs. Errors wrap [ErrUnfit] where
// the code base could not build the net.
func (d *Dialect) Export(t Target) ([]Entry, error) {
	if s := t.Space.Spec().Shuffle; s != nil && s.Projection != d.Projection {
		return nil, fmt.Errorf("%s: a projection of width %q where %s has %q: %w", d.Name, d.Projection, t.Space.Name, s.Projection, ErrUnfit)
	}
	layers, err := t.layers()
	if err != nil {
		return nil, err
	}
	list, err := d.entries(t, layers)
	if err != nil {
		return nil, err
	}
	published, err := d.published(t)
	if err != nil {
		return nil, err
	}
	orders, err := rewire(t, published)
	if err != nil {
		return nil, err
	}
	for i := range list {
		list[i].Key = d.prefix(list[i].Key, t.Arch != "")
		list[i].Order = orders[list[i].Name]
	}
	return list, nil
}

// published is the target as the code base wires it.
func (d *Dialect) published(t Target) (Target, error) {
	spec := t.Space.Spec()
	if spec.Shuffle == nil || d.Wiring == "" {
		return t, nil
	}
	spec.Shuffle = &arch.ShuffleSpec{Wiring: d.Wiring, Projection: spec.Shuffle.Projection}
	s, err := arch.NewSpace(spec)
	return Target{s, t.Arch}, err
}

// rewire is how tensors of one target become those of the other.
func rewire(from, to Target) (map[string]arch.Order, error) {
	a, b := from.Space.Spec().Shuffle, to.Space.Spec().Shuffle
	if a == nil || b == nil || a.Wiring == b.Wiring {
		return nil, nil
	}
	orders, err := rewireTo(from, to)
	if err != nil {
		return nil, fmt.Errorf("%s wired as %q cannot be wired as %q: %w", from.Space.Name, a.Wiring, b.Wiring, err)
	}
	return orders, nil
}

func rewireTo(from, to Target) (map[string]arch.Order, error) {
	if to.Arch == "" {
		return arch.RewireSpace(from.Space, to.Space)
	}
	x, err := from.Space.Net(from.Arch)
	if err != nil {
		return nil, err
	}
	y, err := to.Space.Net(to.Arch)
	if err != nil {
		return nil, err
	}
	return arch.Rewire(x, y)
}
