package pth

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
)

const (
	maxRank  = 8
	maxDepth = 16       // of dicts within the weights
	maxList  = 32 << 20 // bytes of names, and a little for each value
	maxReuse = 16       // how often the file's bytes may be tensors, on average
)

// dtype is a type of numbers, as torch names it.
type dtype struct {
	name string
	size int64 // bytes; zero: not known
}

var storageTypes = map[string]dtype{
	"FloatStorage":         {"float32", 4},
	"HalfStorage":          {"float16", 2},
	"BFloat16Storage":      {"bfloat16", 2},
	"DoubleStorage":        {"float64", 8},
	"LongStorage":          {"int64", 8},
	"IntStorage":           {"int32", 4},
	"ShortStorage":         {"int16", 2},
	"CharStorage":          {"int8", 1},
	"ByteStorage":          {"uint8", 1},
	"BoolStorage":          {"bool", 1},
	"ComplexFloatStorage":  {"complex64", 8},
	"ComplexDoubleStorage": {"complex128", 16},
	"QInt8Storage":         {"qint8", 1},
	"QUInt8Storage":        {"quint8", 1},
	"QInt32Storage":        {"qint32", 4},
	"UntypedStorage":       {"untyped", 1},
}

// dtypeOf is the type behind a storage class such as torch.FloatStorage.
func dtypeOf(class string) dtype {
	rest, ok := strings.CutPrefix(class, "torch.")
	rest = strings.TrimPrefix(strings.TrimPrefix(rest, "cuda."), "storage.")
	if d, known := storageTypes[rest]; ok && known {
		return d
	}
	return dtype{name: class}
}

// candidates are the keys of the dicts that hold weights, [Root] among them.
func candidates(root *dict) []string {
	var found []string
	if slices.ContainsFunc(root.values, isWeight) {
		found = append(found, Root)
	}
	seen := map[*dict]bool{root: true}
	for i, v := range root.values {
		key, ok := root.keys[i].(string)
		if d, isDict := v.(*dict); ok && isDict && reaches(d, seen, 0) {
			found = append(found, key)
		}
	}
	return found
}

func isWeight(v any) bool {
	t, ok := v.(*tensor)
	return ok && len(t.shape) > 0
}

// reaches looks for a weight behind keys that are strings. A dict that was
// seen is not looked at again, which keeps the work linear.
func reaches(d *dict, seen map[*dict]bool, depth int) bool {
	if seen[d] || depth > maxDepth {
		return false
	}
	seen[d] = true
	for i, v := range d.values {
		if _, ok := d.keys[i].(string); !ok {
			continue
		}
		if isWeight(v) {
			return true
		}
		if sub, ok := v.(*dict); ok && reaches(sub, seen, depth+1) {
			return true
		}
	}
	return false
}

func keysOf(d *dict) iter.Seq[string] { return maps.Keys(d.names) }

// quoted lists the first of some keys.
func quoted(keys []string) string {
	if len(keys) == 0 {
		return "none"
	}
	const most = 12
	var b strings.Builder
	for i, k := range keys[:min(len(keys), most)] {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(strconv.Quote(k[:min(len(k), 100)]))
	}
	if len(keys) > most {
		b.WriteString(", …")
	}
	return b.String()
}

// entry is a checked tensor.
type entry struct {
	dtype   dtype
	shape   []int
	n       int64  // numbers
	at      int64  // byte of the file where the storage's numbers begin
	offset  int64  // of the first, in numbers
	axes    []axis // in the order of the file
	foreign string // what it is, if it cannot be read
}

// span is how many numbers of the storage lie between the first and the last,
// both included.
func (e *entry) span() int64 {
	n := int64(1)
	for _, a := range e.axes {
		n += (a.n - 1) * a.in
	}
	return n
}

// axis is a dimension: how many steps, and how far one goes in the storage and
// in the row-major result.
type axis struct{ n, in, out int64 }

// list gathers the tensors of a dict.
type list struct {
	size    int64 // of the file
	locate  func(*storage) (int64, error)
	budget  int
	bytes   int64 // that tensors may still take in all
	names   []string
	entries map[string]entry
}

// add lists what a dict holds, dicts within it under prefix. The budget ends
// what few dicts that hold one another could blow up.
func (l *list) add(d *dict, prefix string, depth int) error {
	if depth > maxDepth {
		return corrupt("%.200q: dicts nested more than %d deep", prefix, maxDepth)
	}
	for i, v := range d.values {
		key, ok := d.keys[i].(string)
		if !ok || !holds(v) {
			continue
		}
		name := prefix + key
		if l.budget -= len(name) + 64; l.budget < 0 {
			return corrupt("%.200q: names of the tensors take more than %d bytes", name, maxList)
		}
		if sub, ok := v.(*dict); ok {
			if err := l.add(sub, name+".", depth+1); err != nil {
				return err
			}
			continue
		}
		if _, dup := l.entries[name]; dup {
			return corrupt("tensor %.200q appears twice", name)
		}
		e, err := l.check(v)
		if err != nil {
			return fmt.Errorf("tensor %.200q: %w", name, err)
		}
		l.entries[name] = e
		l.names = append(l.names, name)
	}
	return nil
}

// check holds what a tensor claims against its storage and the file.
func (l *list) check(v any) (entry, error) {
	t, ok := v.(*tensor)
	if !ok {
		return entry{foreign: describe(v)}, nil
	}
	if t.foreign != "" {
		return entry{foreign: t.foreign}, nil
	}
	e := entry{dtype: t.storage.dtype, offset: t.offset}
	if e.dtype.size == 0 {
		return entry{foreign: "of the unknown type " + e.dtype.name}, nil
	}
	var err error
	if e.shape, e.n, err = l.extent(t); err != nil || e.n == 0 {
		return e, err
	}
	if e.axes, err = axes(t); err != nil {
		return e, err
	}
	if l.bytes -= max(e.n, e.span()) * e.dtype.size; l.bytes < 0 {
		return e, corrupt("tensors share storages until they are more than %d times as large as the file", maxReuse)
	}
	s := t.storage
	if s.of != nil {
		e.offset += s.first
		s = s.of
	}
	e.at, err = l.locate(s)
	return e, err
}

// extent checks shape and strides: the tensor has no more numbers than the
// file has bytes, and all of them lie in the storage.
func (l *list) extent(t *tensor) (shape []int, n int64, err error) {
	if len(t.strides) != len(t.shape) {
		return nil, 0, corrupt("%d strides for a shape of %d", len(t.strides), len(t.shape))
	}
	shape = make([]int, len(t.shape))
	n = 1
	for i, d := range t.shape {
		if d < 0 || t.strides[i] < 0 || int64(int(d)) != d {
			return nil, 0, corrupt("shape %v with strides %v", t.shape, t.strides)
		}
		shape[i] = int(d)
		if d > 0 && n > l.size/d {
			return nil, 0, corrupt("shape %v has more numbers than the file has bytes", t.shape)
		}
		n *= d
	}
	if n == 0 {
		return shape, 0, nil
	}
	room := t.storage.n - 1 - t.offset // steps from the first number to the storage's last
	if t.offset < 0 || room < 0 {
		return nil, 0, corrupt("begins at %d of %d numbers", t.offset, t.storage.n)
	}
	for i, d := range t.shape {
		if s := t.strides[i]; d > 1 && s > room/(d-1) {
			return nil, 0, corrupt("shape %v with strides %v from %d leaves its storage of %d", t.shape, t.strides, t.offset, t.storage.n)
		}
		room -= (d - 1) * t.strides[i]
	}
	return shape, n, nil
}

// axes orders the dimensions by their strides, so that a tensor is read in the
// order of the file, and joins those that continue one another: a contiguous
// tensor has one axis. Numbers may be repeated (stride zero) but not otherwise
// overlap, so that no byte is read twice.
func axes(t *tensor) ([]axis, error) {
	var all []axis
	out := int64(1)
	for i := len(t.shape) - 1; i >= 0; i-- {
		if d := t.shape[i]; d > 1 {
			all = append(all, axis{n: d, in: t.strides[i], out: out})
			out *= d
		}
	}
	slices.Reverse(all)
	slices.SortStableFunc(all, func(a, b axis) int { return cmp.Compare(b.in, a.in) })
	reach := int64(0)
	for _, a := range slices.Backward(all) {
		if a.in > 0 && a.in <= reach {
			return nil, corrupt("shape %v with strides %v overlaps itself", t.shape, t.strides)
		}
		reach += (a.n - 1) * a.in
	}
	joined := []axis{}
	for _, a := range all {
		if k := len(joined) - 1; k >= 0 && joined[k].in == a.in*a.n && joined[k].out == a.out*a.n {
			joined[k] = axis{n: joined[k].n * a.n, in: a.in, out: a.out}
			continue
		}
		joined = append(joined, a)
	}
	if len(joined) == 0 {
		joined = append(joined, axis{n: 1, in: 1, out: 1})
	}
	return joined, nil
}
