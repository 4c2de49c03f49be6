// Package npy reads and writes NumPy's array files (.npy), versions 1 to 3: numbers and booleans of any shape. It must
// never know what an array is for.
package npy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"slices"
	"strconv"
	"strings"
)

// ErrFormat is wrapped by the errors about files that are no arrays, or none that can be read.
var ErrFormat = errors.New("npy: not a readable array file")

// Array is an array in row-major order, without padding.
type Array struct {
	// Type is NumPy's kind and size in bytes, without the byte order: "f4", "i8", "u1", "b1".
	Type  string
	Shape []int64
	Data  []byte // little-endian
}

const (
	magic     = "\x93NUMPY"
	maxHeader = 64 << 10
	maxRank   = 64 // NumPy's own
)

// types are the known ones and the sizes of their elements.
var types = map[string]int64{
	"b1": 1, "u1": 1, "u2": 2, "u4": 4, "u8": 8, "i1": 1, "i2": 2, "i4": 4, "i8": 8, "f2": 2, "f4": 4, "f8": 8,
}

// Is reports content that begins as array files do.
func Is(content []byte) bool { return bytes.HasPrefix(content, []byte(magic)) }

// Parse reads the content of a file. Data may share its memory. Errors wrap [ErrFormat].
func Parse(content []byte) (Array, error) {
	a, err := parse(content)
	if err != nil {
		return Array{}, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return a, nil
}

func parse(content []byte) (a Array, err error) {
	if !Is(content) || len(content) < 10 {
		return a, errors.New("it does not begin as one")
	}
	major, rest := content[6], content[8:]
	var size int
	switch {
	case major == 1:
		size, rest = int(binary.LittleEndian.Uint16(rest)), rest[2:]
	case (major == 2 || major == 3) && len(rest) >= 4:
		size, rest = int(min(binary.LittleEndian.Uint32(rest), maxHeader+1)), rest[4:]
	default:
		return a, fmt.Errorf("version %d of the format is not known", major)
	}
	if size > maxHeader || size > len(rest) {
		return a, errors.New("its header is cut or too long")
	}
	order, fortran, err := a.readHeader(string(rest[:size]))
	if err != nil {
		return a, err
	}
	width, ok := types[a.Type]
	if !ok {
		return a, fmt.Errorf("elements of type %q are not numbers that can be sent", a.Type)
	}
	if fortran && len(a.Shape) > 1 {
		return a, errors.New("its elements are in column order: save np.ascontiguousarray of it")
	}
	want := uint64(width)
	for _, d := range a.Shape {
		hi, lo := bits.Mul64(want, uint64(d))
		if want = lo; hi != 0 {
			return a, fmt.Errorf("its shape %v is too large", a.Shape)
		}
	}
	if a.Data = rest[size:]; uint64(len(a.Data)) != want {
		return a, fmt.Errorf("%d bytes of data for shape %v of %s, which are %d", len(a.Data), a.Shape, a.Type, want)
	}
	if order == '>' && width > 1 {
		a.Data = slices.Clone(a.Data)
		for element := range slices.Chunk(a.Data, int(width)) {
			slices.Reverse(element)
		}
	}
	return a, nil
}

// readHeader reads the literal of a Python dictionary that describes an array.
func (a *Array) readHeader(text string) (order byte, fortran bool, err error) {
	s := &scanner{rest: text}
	s.want("{")
	seen := map[string]bool{}
	for s.err == nil && !s.skip("}") {
		key := s.quoted()
		if s.want(":"); seen[key] {
			s.failf("%s twice", key)
		}
		seen[key] = true
		switch key {
		case "descr":
			if s.peek() != '\'' && s.peek() != '"' {
				return 0, false, errors.New("its elements are records")
			}
			descr := s.quoted()
			if len(descr) < 3 || !strings.Contains("<>|=", descr[:1]) {
				s.failf("type %q", descr)
				break
			}
			order, a.Type = descr[0], descr[1:]
		case "fortran_order":
			if fortran = s.skip("True"); !fortran {
				s.want("False")
			}
		case "shape":
			a.Shape = s.tuple()
		default:
			s.failf("unknown key %q", key)
		}
		if !s.skip(",") {
			s.want("}")
			break
		}
	}
	if s.err == nil && (len(seen) != 3 || strings.TrimSpace(s.rest) != "") {
		s.failf("keys missing, or more after it")
	}
	return order, fortran, s.err
}

type scanner struct {
	rest string
	err  error
}

func (s *scanner) failf(format string, args ...any) {
	if s.err == nil {
		s.err = fmt.Errorf("its header: "+format, args...)
	}
}

func (s *scanner) peek() byte {
	s.rest = strings.TrimLeft(s.rest, " \t\n")
	if s.rest == "" {
		return 0
	}
	return s.rest[0]
}

func (s *scanner) skip(token string) bool {
	s.peek()
	rest, ok := strings.CutPrefix(s.rest, token)
	s.rest = rest
	return ok
}

func (s *scanner) want(token string) {
	if !s.skip(token) {
		s.failf("%s expected", token)
	}
}

func (s *scanner) quoted() string {
	quote := s.peek()
	if quote != '\'' && quote != '"' {
		s.failf("a quoted word expected")
		return ""
	}
	text, rest, ok := strings.Cut(s.rest[1:], string(quote))
	if !ok {
		s.failf("a quotation without end")
	}
	s.rest = rest
	return text
}

func (s *scanner) tuple() []int64 {
	shape := []int64{}
	s.want("(")
	for s.err == nil && !s.skip(")") {
		s.peek()
		digits := len(s.rest) - len(strings.TrimLeft(s.rest, "0123456789"))
		d, err := strconv.ParseInt(s.rest[:digits], 10, 64)
		if err != nil || len(shape) == maxRank {
			s.failf("its shape")
			return nil
		}
		s.rest = s.rest[digits:]
		shape = append(shape, d)
		if !s.skip(",") {
			s.want(")")
			break
		}
	}
	return shape
}

// Write writes a file of version 1.
func Write(w io.Writer, a Array) error {
	width, ok := types[a.Type]
	if !ok {
		return fmt.Errorf("npy: elements of type %q cannot be written", a.Type)
	}
	order := "<"
	if width == 1 {
		order = "|"
	}
	dims := strings.Join(strings.Fields(strings.Trim(fmt.Sprint(a.Shape), "[]")), ", ")
	if len(a.Shape) == 1 {
		dims += ","
	}
	header := fmt.Sprintf("{'descr': '%s%s', 'fortran_order': False, 'shape': (%s), }", order, a.Type, dims)
	const prefix, align = len(magic) + 4, 64 // as NumPy pads
	header += strings.Repeat(" ", align-1-(prefix+len(header))%align) + "\n"
	b := append([]byte(magic), 1, 0)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(header)))
	if _, err := w.Write(append(b, header...)); err != nil {
		return err
	}
	_, err := w.Write(a.Data)
	return err
}
