package pth

import "math"

// maxNumbers keeps the bytes of a storage within an int64, whatever its type.
const maxNumbers = math.MaxInt64 / 16

// call stands for calling fn, or making an instance of it: torch's builders of
// tensors and OrderedDict give what they say, all else an object.
func (m *machine) call(fn any, args *seq) any {
	g, ok := fn.(*global)
	if !ok {
		return &object{how: "a call of no known function", tensors: args.tensors || holds(fn)}
	}
	switch g.name {
	case "collections.OrderedDict":
		return m.orderedDict(args)
	case "torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2":
		return m.rebuild(args)
	case "torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state":
		if len(args.items) > 0 && isTensor(args.items[0]) {
			return args.items[0]
		}
	case "torch._tensor._rebuild_from_type_v2": // a tensor that had attributes set on it
		if len(args.items) == 4 && isPlain(args.items[1]) {
			builder, ok1 := args.items[0].(*global)
			inner, ok2 := args.items[2].(*seq)
			if ok1 && ok2 && builder.name != g.name {
				return m.call(builder, inner)
			}
		}
	}
	return &object{how: "made by ", of: g, tensors: args.tensors}
}

func isTensor(v any) bool {
	_, ok := v.(*tensor)
	return ok
}

// isPlain tells whether a class adds nothing to a tensor's numbers.
func isPlain(class any) bool {
	g, ok := class.(*global)
	return ok && (g.name == "torch.Tensor" || g.name == "torch._tensor.Tensor" || g.name == "torch.nn.parameter.Parameter")
}

// orderedDict makes an OrderedDict: of nothing, as Python 3 writes it before
// it sets the items, or of a list of pairs, as Python 2 does.
func (m *machine) orderedDict(args *seq) any {
	d := &dict{}
	if len(args.items) == 0 {
		return d
	}
	pairs, ok := args.items[0].(*seq)
	if !ok || len(args.items) > 1 {
		return &object{how: "an OrderedDict of no list of pairs", tensors: args.tensors}
	}
	if m.spend(len(pairs.items)); m.err != nil {
		return d
	}
	for _, p := range pairs.items {
		pair, ok := p.(*seq)
		if !ok || len(pair.items) != 2 || !d.set(pair.items[0], pair.items[1]) {
			m.fail("an OrderedDict of no pairs, or with a key twice")
			break
		}
	}
	return d
}

// rebuild makes a tensor of (storage, offset, shape, strides, …). Whether they
// fit together is seen when it turns out to be a weight.
func (m *machine) rebuild(args *seq) any {
	if len(args.items) < 4 {
		m.fail("%d arguments for a tensor", len(args.items))
		return nil
	}
	s, ok1 := args.items[0].(*storage)
	offset, ok2 := args.items[1].(int64)
	shape, ok3 := extents(args.items[2])
	strides, ok4 := extents(args.items[3])
	if !ok1 || !ok2 || !ok3 || !ok4 {
		m.fail("a tensor wants a storage, an offset, and a shape and strides of rank %d at most", maxRank)
	}
	return &tensor{storage: s, offset: offset, shape: shape, strides: strides}
}

func extents(v any) ([]int64, bool) {
	s, ok := v.(*seq)
	if !ok || len(s.items) > maxRank {
		return nil, false
	}
	out := make([]int64, len(s.items))
	for i, v := range s.items {
		if out[i], ok = v.(int64); !ok {
			return nil, false
		}
	}
	return out, true
}

// persistent resolves a persistent id: the storages of torch.save, and the
// classes of modules that its old format kept with their source.
func (m *machine) persistent(id any) any {
	t, ok := id.(*seq)
	if !ok || len(t.items) < 2 {
		m.fail("persistent id is %s, not a tuple", describe(id))
		return nil
	}
	if t.items[0] == "module" {
		return t.items[1]
	}
	if t.items[0] != "storage" || len(t.items) < 5 {
		m.fail("persistent id is no storage")
		return nil
	}
	class, ok1 := t.items[1].(*global)
	key, ok2 := t.items[2].(string)
	n, ok3 := t.items[4].(int64)
	if !ok1 || !ok2 || !ok3 || n < 0 || n > maxNumbers {
		m.fail("a storage wants a class, a key, a place and a count")
		return nil
	}
	dt := dtypeOf(class.name)
	s, known := m.storages[key]
	if !known {
		s = &storage{key: key, dtype: dt, n: n}
		m.storages[key] = s
	}
	if s.dtype != dt || s.n != n {
		m.fail("storage %.200q is %d of %s and %d of %s", key, s.n, s.dtype.name, n, dt.name)
	}
	if len(t.items) < 6 || t.items[5] == nil {
		return s
	}
	return m.view(s, t.items[5])
}

// view is a storage that is part of another: (key, first, count).
func (m *machine) view(s *storage, of any) any {
	v, ok := of.(*seq)
	if !ok || len(v.items) != 3 {
		m.fail("view of storage %.200q is %s, not three values", s.key, describe(of))
		return nil
	}
	first, ok1 := v.items[1].(int64)
	n, ok2 := v.items[2].(int64)
	if !ok1 || !ok2 || first < 0 || n < 0 || first > s.n || n > s.n-first {
		m.fail("view of storage %.200q does not lie in its %d numbers", s.key, s.n)
	}
	return &storage{key: s.key, dtype: s.dtype, n: n, of: s, first: first}
}
