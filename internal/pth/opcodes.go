package pth

import (
	"encoding/binary"
	"math"
)

// opcodes are those of pickle protocol 2, which torch.save uses unless told
// otherwise, up to 5, and the binary ones of protocol 1. The text opcodes of
// protocol 0 are missing, apart from those that later protocols still use.
// STOP is the machine's own.
var opcodes = [256]func(*machine){
	0x80: func(m *machine) { m.take(1) }, // PROTO
	0x95: frame,

	'(': func(m *machine) { m.marks = append(m.marks, len(m.stack)) },
	'0': func(m *machine) { m.pop() },
	'1': func(m *machine) { m.popMark() },
	'2': func(m *machine) { m.push(m.top()) },

	'N':  func(m *machine) { m.push(nil) },
	0x88: func(m *machine) { m.push(true) },
	0x89: func(m *machine) { m.push(false) },
	'K':  func(m *machine) { m.push(int64(m.count(1))) },
	'M':  func(m *machine) { m.push(int64(m.count(2))) },
	'J':  func(m *machine) { m.push(int64(int32(m.count(4)))) },
	0x8a: func(m *machine) { integer(m, 1) },
	0x8b: func(m *machine) { integer(m, 4) },
	'G':  func(m *machine) { m.push(math.Float64frombits(binary.BigEndian.Uint64(m.take(8)))) },
	'U':  func(m *machine) { text(m, 1) },
	'T':  func(m *machine) { text(m, 4) },
	'X':  func(m *machine) { text(m, 4) },
	0x8c: func(m *machine) { text(m, 1) },
	0x8d: func(m *machine) { text(m, 8) },
	'C':  func(m *machine) { blob(m, 1) },
	'B':  func(m *machine) { blob(m, 4) },
	0x8e: func(m *machine) { blob(m, 8) },
	0x96: func(m *machine) { blob(m, 8) }, // BYTEARRAY8

	')':  func(m *machine) { m.push(newSeq('(', nil)) },
	']':  func(m *machine) { m.push(newSeq('[', nil)) },
	0x8f: func(m *machine) { m.push(newSeq('{', nil)) },
	'}':  func(m *machine) { m.push(&dict{}) },
	't':  func(m *machine) { m.push(newSeq('(', m.popMark())) },
	'l':  func(m *machine) { m.push(newSeq('[', m.popMark())) },
	0x91: func(m *machine) { m.push(newSeq('{', m.popMark())) }, // FROZENSET
	0x85: func(m *machine) { tuple(m, 1) },
	0x86: func(m *machine) { tuple(m, 2) },
	0x87: func(m *machine) { tuple(m, 3) },
	'd':  newDict,
	'a':  func(m *machine) { extend(m, []any{m.pop()}) },
	'e':  func(m *machine) { extend(m, m.popMark()) },
	0x90: func(m *machine) { extend(m, m.popMark()) }, // ADDITEMS
	's':  setItem,
	'u':  func(m *machine) { setItems(m, m.popMark()) },

	'q':  func(m *machine) { m.memo[uint32(m.count(1))] = m.top() },
	'r':  func(m *machine) { m.memo[uint32(m.count(4))] = m.top() },
	0x94: func(m *machine) { m.memo[uint32(len(m.memo))] = m.top() },
	'h':  func(m *machine) { recall(m, 1) },
	'j':  func(m *machine) { recall(m, 4) },

	'c':  func(m *machine) { pushGlobal(m, m.line(), m.line()) },
	0x93: stackGlobal,
	0x82: func(m *machine) { extension(m, 1) },
	0x83: func(m *machine) { extension(m, 2) },
	0x84: func(m *machine) { extension(m, 4) },
	'R':  reduce,
	0x81: reduce, // NEWOBJ: the same of a class
	0x92: newObjEx,
	'i':  inst,
	'o':  obj,
	'b':  build,
	'Q':  func(m *machine) { m.push(m.persistent(m.pop())) },
}

// frame is advice on how much to read at once, and must be true.
func frame(m *machine) {
	if n := m.count(8); n > uint64(m.left) {
		m.fail("frame of %d bytes, %d are left", n, m.left)
	}
}

// integer is a two's complement number of any length.
func integer(m *machine, size int) {
	n := m.count(size)
	if n > maxText {
		m.skip(n)
		m.push(&object{how: "a very long int"})
		return
	}
	b := m.take(int(n))
	if n > 8 {
		m.push(long(b))
		return
	}
	var wide [8]byte
	if n > 0 && b[n-1] >= 0x80 {
		wide = [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	}
	copy(wide[:], b)
	m.push(int64(binary.LittleEndian.Uint64(wide[:])))
}

// text passes by strings that are too long for one that matters.
func text(m *machine, size int) {
	n := m.count(size)
	if n > maxText {
		m.skip(n)
		m.push(&object{how: "a very long str"})
		return
	}
	m.push(string(m.take(int(n))))
}

func blob(m *machine, size int) {
	m.skip(m.count(size))
	m.push(&object{how: "bytes"})
}

func tuple(m *machine, n int) {
	items := make([]any, n)
	for i := n - 1; i >= 0; i-- {
		items[i] = m.pop()
	}
	m.push(newSeq('(', items))
}

func newDict(m *machine) {
	items := m.popMark()
	m.push(&dict{})
	setItems(m, items)
}

// extend adds items to the list or set on top.
func extend(m *machine, items []any) {
	switch v := m.top().(type) {
	case *seq:
		if v.kind == '(' {
			m.fail("items for a tuple")
		}
		v.append(items)
	case *object: // an instance of a subclass
		v.take(items)
	default:
		m.fail("items for %s", describe(v))
	}
}

func setItem(m *machine) {
	value := m.pop()
	key := m.pop()
	setItems(m, []any{key, value})
}

// setItems sets keys and values, alternating, of the dict on top.
func setItems(m *machine, items []any) {
	if len(items)%2 != 0 {
		m.fail("a key without a value")
		return
	}
	switch v := m.top().(type) {
	case *dict:
		for i := 0; i < len(items); i += 2 {
			if !v.set(items[i], items[i+1]) {
				m.fail("key %.200q appears twice in a dict", items[i])
			}
		}
	case *object: // an instance of a subclass
		v.take(items)
	default:
		m.fail("keys for %s", describe(v))
	}
}

func recall(m *machine, size int) {
	n := uint32(m.count(size))
	v, ok := m.memo[n]
	if !ok {
		m.fail("nothing was stored under %d", n)
	}
	m.push(v)
}

func pushGlobal(m *machine, module, name string) {
	if len(module) > maxGlobal || len(name) > maxGlobal {
		m.fail("a name of more than %d bytes", maxGlobal)
		return
	}
	m.push(&global{name: module + "." + name})
}

func stackGlobal(m *machine) {
	name, ok1 := m.pop().(string)
	module, ok2 := m.pop().(string)
	if !ok1 || !ok2 {
		m.fail("a class wants two strings")
	}
	pushGlobal(m, module, name)
}

// extension names a class by a number that only the writer's registry knows.
func extension(m *machine, size int) {
	m.count(size)
	m.push(&global{name: "an extension class"})
}

func reduce(m *machine) {
	args := m.popTuple()
	m.push(m.call(m.pop(), args))
}

func newObjEx(m *machine) {
	kwargs, args := m.pop(), m.popTuple()
	o := &object{how: "an instance of no known class", tensors: args.tensors || holds(kwargs)}
	if g, ok := m.pop().(*global); ok {
		o.how, o.of = "an instance of ", g
	}
	m.push(o)
}

func inst(m *machine) {
	pushGlobal(m, m.line(), m.line())
	class := m.pop()
	m.push(m.call(class, newSeq('(', m.popMark())))
}

func obj(m *machine) {
	args := m.popMark()
	if len(args) == 0 {
		m.fail("no class to make an instance of")
		return
	}
	m.push(m.call(args[0], newSeq('(', args[1:])))
}

// build sets the state of what is on top. That of a dict is its attributes,
// such as the _metadata of a state dict; that of a tensor would change it.
func build(m *machine) {
	state := m.pop()
	switch v := m.top().(type) {
	case *object:
		v.take([]any{state})
	case *tensor:
		v.foreign = "a tensor whose state was set after it was built"
	}
}
