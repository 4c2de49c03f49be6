package pth

import "fmt"

// What a pickle builds, beside nil, bool, int64, float64 and string.
type (
	// seq is a tuple, list or set.
	seq struct {
		kind    byte // '(', '[' or '{'
		items   []any
		tensors bool // something in it is or holds a tensor
	}
	// dict is a dict or OrderedDict.
	dict struct {
		keys, values []any
		names        map[string]int // places of the keys that are strings
		tensors      bool
	}
	// global is the name of a class or function, and never more than it.
	global struct{ name string }
	// object stands for a value that is not read: an instance of some class, a
	// call of some function, a very long string.
	object struct {
		how     string  // "an instance of "
		of      *global // nil where how says it all
		tensors bool    // a tensor went into it
	}
	// long is an integer of more than 64 bits: its little-endian bytes.
	long string
	// storage is a run of numbers somewhere in the file.
	storage struct {
		key   string
		dtype dtype
		n     int64    // numbers
		of    *storage // the one that this is a view of, or nil
		first int64    // where in it
		at    int64    // byte in a legacy file; zero: not known
	}
	// tensor is a strided view of a storage.
	tensor struct {
		storage        *storage
		offset         int64
		shape, strides []int64
		foreign        string // why it cannot be read, if so
	}
)

// holds tells whether a value is or holds a tensor.
func holds(v any) bool {
	switch v := v.(type) {
	case *tensor, *storage:
		return true
	case *seq:
		return v.tensors
	case *dict:
		return v.tensors
	case *object:
		return v.tensors
	}
	return false
}

func newSeq(kind byte, items []any) *seq {
	s := &seq{kind: kind}
	s.append(items)
	return s
}

func (s *seq) append(items []any) {
	s.items = append(s.items, items...)
	for _, v := range items {
		s.tensors = s.tensors || holds(v)
	}
}

// take notes what goes into an object.
func (o *object) take(items []any) {
	for _, v := range items {
		o.tensors = o.tensors || holds(v)
	}
}

// set adds an item, unless the key is there. No dict that Python wrote sets a
// key twice, and which of two weights is meant would be a guess.
func (d *dict) set(key, value any) bool {
	if name, ok := key.(string); ok {
		if _, dup := d.names[name]; dup {
			return false
		}
		if d.names == nil {
			d.names = map[string]int{}
		}
		d.names[name] = len(d.keys)
	}
	d.keys = append(d.keys, key)
	d.values = append(d.values, value)
	d.tensors = d.tensors || holds(value)
	return true
}

func (d *dict) get(name string) (any, bool) {
	i, ok := d.names[name]
	if !ok {
		return nil, false
	}
	return d.values[i], true
}

// describe says what a value is, for messages.
func describe(v any) string {
	switch v := v.(type) {
	case nil:
		return "None"
	case bool:
		return "a bool"
	case int64, long:
		return "an int"
	case float64:
		return "a float"
	case string:
		return "a str"
	case *seq:
		return map[byte]string{'(': "a tuple", '[': "a list", '{': "a set"}[v.kind]
	case *dict:
		return "a dict"
	case *global:
		return "the name " + v.name
	case *object:
		if v.of == nil {
			return v.how
		}
		return v.how + v.of.name
	case *storage:
		return "a storage"
	case *tensor:
		return "a tensor"
	}
	return fmt.Sprintf("a %T", v)
}
