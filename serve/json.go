package serve

import (
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth bounds the nesting of a request's JSON.
const maxDepth = 100

// jsonReader reads one JSON document from memory, in one pass and without building it. It is strict: RFC 8259, valid
// UTF-8, nothing after the value. The exception are the bare tokens NaN, Infinity and -Infinity where a tensor's
// floating-point numbers stand, which this protocol's clients write and read.
type jsonReader struct {
	b     []byte
	i     int
	depth int
}

func (r *jsonReader) errorf(format string, args ...any) error {
	return badRequest("JSON, byte "+strconv.Itoa(r.i)+": "+format, args...)
}

// peek skips white space and returns the next byte, or 0 at the end.
func (r *jsonReader) peek() byte {
	for ; r.i < len(r.b); r.i++ {
		switch c := r.b[r.i]; c {
		case ' ', '\t', '\n', '\r':
		default:
			return c
		}
	}
	return 0
}

func (r *jsonReader) unexpected(want string) error {
	if r.i >= len(r.b) {
		return r.errorf("the document ends where %s was expected", want)
	}
	return r.errorf("%q where %s was expected", r.b[r.i], want)
}

// end reports anything after the document.
func (r *jsonReader) end() error {
	if r.peek() != 0 || r.i < len(r.b) {
		return r.errorf("something follows the document")
	}
	return nil
}

func (r *jsonReader) enter() error {
	if r.depth++; r.depth > maxDepth {
		return r.errorf("nested more than %d deep", maxDepth)
	}
	r.i++
	return nil
}

// object calls member for every key with the reader at its value. It does not look for duplicate keys.
func (r *jsonReader) object(what string, member func(key string) error) error {
	if r.peek() != '{' {
		return r.unexpected(what + ", an object,")
	}
	if err := r.enter(); err != nil {
		return err
	}
	for first := true; ; first = false {
		switch c := r.peek(); {
		case c == '}' && first:
			r.i++
			r.depth--
			return nil
		case c != '"':
			return r.unexpected("a key")
		}
		key, err := r.text()
		if err != nil {
			return err
		}
		if r.peek() != ':' {
			return r.unexpected("a colon")
		}
		r.i++
		if err := member(key); err != nil {
			return err
		}
		switch r.peek() {
		case ',':
			r.i++
		case '}':
			r.i++
			r.depth--
			return nil
		default:
			return r.unexpected("a comma or }")
		}
	}
}

// array calls element with the reader at every element.
func (r *jsonReader) array(what string, element func() error) error {
	if r.peek() != '[' {
		return r.unexpected(what + ", an array,")
	}
	if err := r.enter(); err != nil {
		return err
	}
	if r.peek() == ']' {
		r.i++
		r.depth--
		return nil
	}
	for {
		if err := element(); err != nil {
			return err
		}
		switch r.peek() {
		case ',':
			r.i++
		case ']':
			r.i++
			r.depth--
			return nil
		default:
			return r.unexpected("a comma or ]")
		}
	}
}

// skip reads any value and forgets it.
func (r *jsonReader) skip() error {
	switch c := r.peek(); {
	case c == '{':
		return r.object("a value", func(string) error { return r.skip() })
	case c == '[':
		return r.array("a value", r.skip)
	case c == '"':
		_, err := r.text()
		return err
	case c == '-' && r.word("-Infinity"):
		return nil
	case c == '-' || c >= '0' && c <= '9':
		_, err := r.number()
		return err
	}
	for _, word := range [...]string{"true", "false", "null", "NaN", "Infinity"} {
		if r.word(word) {
			return nil
		}
	}
	return r.unexpected("a value")
}

// word consumes exactly this token.
func (r *jsonReader) word(w string) bool {
	if len(r.b)-r.i < len(w) || string(r.b[r.i:r.i+len(w)]) != w {
		return false
	}
	if end := r.i + len(w); end < len(r.b) && isWord(r.b[end]) {
		return false
	}
	r.i += len(w)
	return true
}

func isWord(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_'
}

func (r *jsonReader) bool(what string) (bool, error) {
	r.peek()
	if r.word("true") {
		return true, nil
	}
	if r.word("false") {
		return false, nil
	}
	return false, r.unexpected(what + ", true or false,")
}

// string reads a string for the field that is called what.
func (r *jsonReader) string(what string) (string, error) {
	if r.peek() != '"' {
		return "", r.unexpected(what + ", a string,")
	}
	return r.text()
}

// text reads the string that starts here.
func (r *jsonReader) text() (string, error) {
	raw, escaped, err := r.quoted()
	if err != nil {
		return "", err
	}
	if !escaped {
		return string(raw), nil
	}
	b, err := r.unescape(make([]byte, 0, len(raw)), raw)
	return string(b), err
}

// quoted consumes a string and returns what is between its quotes, checked except for its escapes.
func (r *jsonReader) quoted() (raw []byte, escaped bool, err error) {
	start := r.i + 1
	ascii := true
	for i := start; i < len(r.b); i++ {
		switch c := r.b[i]; {
		case c == '"':
			raw, r.i = r.b[start:i], i+1
			if !ascii && !utf8.Valid(raw) {
				return nil, false, r.errorf("the string before is not valid UTF-8")
			}
			return raw, escaped, nil
		case c == '\\':
			escaped = true
			i++
		case c < ' ':
			r.i = i
			return nil, false, r.errorf("a control character in a string")
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	r.i = len(r.b)
	return nil, false, r.errorf("a string does not end")
}

// unescape appends the meaning of raw, which a call of quoted has just consumed.
func (r *jsonReader) unescape(dst, raw []byte) ([]byte, error) {
	const from, to = `"\/bfnrt`, "\"\\/\b\f\n\r\t"
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			dst = append(dst, raw[i])
			continue
		}
		i++ // quoted saw to it that a byte follows
		if raw[i] == 'u' {
			c, n := escapedRune(raw[i+1:])
			if n == 0 {
				return nil, r.errorf("the string before holds a broken \\u escape")
			}
			dst, i = utf8.AppendRune(dst, c), i+n
			continue
		}
		known := false
		for j := range len(from) {
			if from[j] == raw[i] {
				dst, known = append(dst, to[j]), true
			}
		}
		if !known {
			return nil, r.errorf("the string before holds the unknown escape \\%c", raw[i])
		}
	}
	return dst, nil
}

// escapedRune decodes the digits after \u, and the second half of a surrogate pair. n is the bytes used, 0 on error.
func escapedRune(b []byte) (c rune, n int) {
	hi, ok := hex4(b)
	switch {
	case !ok:
		return 0, 0
	case !utf16.IsSurrogate(hi):
		return hi, 4
	case len(b) < 10 || b[4] != '\\' || b[5] != 'u':
		return 0, 0
	}
	lo, ok := hex4(b[6:])
	if c = utf16.DecodeRune(hi, lo); !ok || c == utf8.RuneError {
		return 0, 0
	}
	return c, 10
}

func hex4(b []byte) (rune, bool) {
	if len(b) < 4 {
		return 0, false
	}
	v, err := strconv.ParseUint(string(b[:4]), 16, 16)
	return rune(v), err == nil
}
