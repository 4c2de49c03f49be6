package pth

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Limits of a pickle. One of a supernet has some 300 kilobytes and 150,000
// opcodes; what an opcode may allocate is small, so their number bounds the
// memory that a pickle can cost.
const (
	maxPickle = 64 << 20 // bytes
	maxOps    = 2 << 20
	maxText   = 4096 // bytes of a string that is kept; longer ones name nothing
	maxGlobal = 255  // bytes of a module's or a class's name
)

// machine runs one pickle. It is a loop over opcodes without recursion, and
// its only effects are the values that it builds. The first error ends it;
// until the loop sees it, what an opcode reads and pops is zero.
type machine struct {
	r        *bufio.Reader
	at, left int64 // bytes read, and bytes that the pickle may still have
	ops      int
	err      error
	stack    []any
	marks    []int // where each open mark is in the stack
	memo     map[uint32]any
	storages map[string]*storage
}

// unpickle builds the value of the pickle that begins at byte at of r and ends
// before byte end. The machine that built it knows its storages and how many
// bytes it took.
func unpickle(r io.ReaderAt, at, end int64) (any, *machine, error) {
	n := min(end-at, maxPickle)
	m := &machine{
		r:        bufio.NewReaderSize(io.NewSectionReader(r, at, n), 1<<14),
		left:     n,
		memo:     map[uint32]any{},
		storages: map[string]*storage{},
	}
	for {
		at := m.at
		op := m.take(1)[0]
		do := opcodes[op]
		switch {
		case m.err != nil:
		case op == '.':
			if v := m.pop(); m.err == nil {
				return v, m, nil
			}
		case do == nil:
			m.fail("unknown opcode")
		default:
			m.spend(1)
			do(m)
		}
		if m.err != nil {
			return nil, nil, fmt.Errorf("pickle, byte %d, opcode %#02x: %w", at, op, m.err)
		}
	}
}

func (m *machine) fail(msg string, args ...any) {
	if m.err == nil {
		m.err = corrupt(msg, args...)
	}
}

// spend counts work that an opcode asks for.
func (m *machine) spend(n int) {
	if m.ops += n; m.ops > maxOps {
		m.fail("a pickle of more than %d operations", maxOps)
	}
}

// take reads n bytes, at most maxText, valid until the next read.
func (m *machine) take(n int) []byte {
	b, err := m.r.Peek(int(min(int64(n), m.left)))
	m.skip(uint64(n))
	if err != nil || m.err != nil {
		return make([]byte, n)
	}
	return b
}

// skip passes n bytes by.
func (m *machine) skip(n uint64) {
	if n > uint64(m.left) {
		m.fail("%d bytes wanted, %d are left", n, m.left)
		return
	}
	_, err := m.r.Discard(int(n))
	switch {
	case errors.Is(err, io.EOF):
		m.fail("cut short")
	case err != nil && m.err == nil:
		m.err = fmt.Errorf("read: %w", err)
	}
	m.at += int64(n)
	m.left -= int64(n)
}

// count reads a little-endian number of size bytes, at most 8.
func (m *machine) count(size int) uint64 {
	var wide [8]byte
	copy(wide[:], m.take(size))
	return binary.LittleEndian.Uint64(wide[:])
}

// line reads a name up to the next newline.
func (m *machine) line() string {
	b, _ := m.r.Peek(int(min(m.left, maxGlobal+1))) // an error comes again
	n := bytes.IndexByte(b, '\n')
	if n < 0 {
		m.skip(uint64(len(b)) + 1)
		m.fail("no name of at most %d bytes", maxGlobal)
		return ""
	}
	s := string(b[:n])
	m.skip(uint64(n) + 1)
	return s
}

func (m *machine) push(v any) { m.stack = append(m.stack, v) }

// top is the uppermost value above the last mark.
func (m *machine) top() any {
	floor := 0
	if len(m.marks) > 0 {
		floor = m.marks[len(m.marks)-1]
	}
	if len(m.stack) <= floor {
		m.fail("the stack is empty")
		return nil
	}
	return m.stack[len(m.stack)-1]
}

func (m *machine) pop() any {
	v := m.top()
	if m.err == nil {
		m.stack = m.stack[:len(m.stack)-1]
	}
	return v
}

// popTuple pops what must be a tuple.
func (m *machine) popTuple() *seq {
	v := m.pop()
	if t, ok := v.(*seq); ok && t.kind == '(' {
		return t
	}
	m.fail("a tuple of arguments wanted, not %s", describe(v))
	return &seq{kind: '('}
}

// popMark pops the values above the last mark, and the mark. The slice is part
// of the stack: it is valid until the next push.
func (m *machine) popMark() []any {
	if len(m.marks) == 0 {
		m.fail("no mark on the stack")
		return nil
	}
	at := m.marks[len(m.marks)-1]
	m.marks = m.marks[:len(m.marks)-1]
	items := m.stack[at:]
	m.stack = m.stack[:at]
	return items
}
