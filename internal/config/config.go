// Package config reads the configurations of the verbs: strict YAML over
// defaults, then --set overrides, then validation. A key that does not exist,
// a value of another type, a key given twice, NaN or an empty value are
// errors that name the file, the line and the key. It knows what a verb can
// be told, and nothing of how it is done.
package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// Limits that keep the YAML parser, whose time grows with the square of some
// shapes of input, within milliseconds.
const (
	maxFile  = 64 << 10 // bytes
	maxLine  = 4 << 10  // bytes
	maxDepth = 32       // nested collections
)

// ErrInvalid is wrapped by every error about the content of a configuration.
var ErrInvalid = errors.New("config: invalid")

// Load reads the YAML file at path over the values of base, applies sets
// ("key.sub=value", the value in YAML) in order, and calls the result's
// Validate method if it has one. An empty path reads no file. Fields that
// neither mentions keep base's values; a list is replaced as a whole.
func Load[T any](path string, base T, sets []string) (T, error) {
	if path == "" {
		return Read(strings.NewReader(""), "defaults", base, sets)
	}
	f, err := os.Open(path)
	if err != nil {
		var zero T
		return zero, fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close()
	return Read(f, path, base, sets)
}

// Read is [Load] from a reader; name is how errors call it.
func Read[T any](r io.Reader, name string, base T, sets []string) (T, error) {
	var zero T
	text, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return zero, fmt.Errorf("read configuration %s: %w", name, err)
	}
	v := base
	if err := decode(text, &v); err != nil {
		return zero, invalid(name, err)
	}
	for _, set := range sets {
		if err := override(&v, set); err != nil {
			return zero, invalid("--set "+set, err)
		}
	}
	if c, ok := any(&v).(interface{ Validate() error }); ok {
		if err := c.Validate(); err != nil {
			return zero, invalid(name, err)
		}
	}
	return v, nil
}

// problem is an error and where it is. It is ErrInvalid without saying so:
// its last lines show the source.
type problem struct {
	where string
	err   error
}

func (p *problem) Error() string   { return p.where + ": " + p.err.Error() }
func (p *problem) Unwrap() []error { return []error{p.err, ErrInvalid} }

// invalid puts where the problem is first: file:line:column where there is
// one.
func invalid(where string, err error) error {
	if at, ok := errors.AsType[*positioned](err); ok && at.line > 0 && !strings.HasPrefix(where, "--set") {
		where = fmt.Sprintf("%s:%d:%d", where, at.line, at.column)
	}
	return &problem{where, err}
}

// Dump writes v as YAML that [Read] reads back to the same value.
func Dump(w io.Writer, v any) error {
	text, err := yaml.MarshalWithOptions(v, yaml.Indent(2), yaml.UseSingleQuote(true))
	if err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	if _, err := w.Write(text); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	return nil
}

// decode reads text into what v points to.
func decode(text []byte, v any) error {
	if err := bounded(text); err != nil {
		return err
	}
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		return fromYAML(err)
	}
	if len(file.Docs) > 1 {
		return errors.New("more than one YAML document")
	}
	// The decoder would reset v for an empty document.
	if len(file.Docs) == 0 || file.Docs[0].Body == nil || file.Docs[0].Body.Type() == ast.NullType {
		return nil
	}
	body := file.Docs[0].Body
	if err := check(body, reflect.TypeOf(v).Elem(), ""); err != nil {
		return err
	}
	if err := yaml.NodeToValue(body, v, yaml.Strict()); err != nil {
		return fromYAML(err)
	}
	return nil
}

// bounded refuses text on which the parser would spend its time, before it
// sees it.
func bounded(text []byte) error {
	if len(text) > maxFile {
		return fmt.Errorf("more than %d bytes", maxFile)
	}
	depth := 0
	for i, line := range strings.Split(string(text), "\n") {
		if len(line) > maxLine {
			return fmt.Errorf("line %d is longer than %d bytes", i+1, maxLine)
		}
		inner := strings.TrimLeft(line, " -?\t")
		if marks := strings.Count(line[:len(line)-len(inner)], "-") + strings.Count(line[:len(line)-len(inner)], "?"); marks > maxDepth {
			return fmt.Errorf("line %d nests more than %d deep", i+1, maxDepth)
		}
		for _, c := range line {
			switch c {
			case '[', '{':
				depth++
			case ']', '}':
				depth--
			}
			if depth > maxDepth {
				return fmt.Errorf("line %d nests more than %d deep", i+1, maxDepth)
			}
		}
	}
	return nil
}

// override applies one "key.sub=value" to what v points to, as if it were a
// file of its own: types and keys are checked alike.
func override(v any, set string) error {
	key, value, ok := strings.Cut(set, "=")
	if !ok || key == "" {
		return errors.New(`not of the form key=value`)
	}
	if strings.ContainsAny(set, "\n\r") {
		return errors.New("more than one line")
	}
	if strings.TrimSpace(value) == "" {
		value = `""`
	}
	var text strings.Builder
	parts := strings.Split(key, ".")
	for i, part := range parts {
		if part == "" || strings.ContainsAny(part, " :#[]{},&*!|>'\"%@`") {
			return fmt.Errorf("%q is no key", key)
		}
		fmt.Fprintf(&text, "\n%*s%s:", 2*i, "", part)
	}
	text.WriteString(" " + value)
	return decode([]byte(text.String()[1:]), v)
}
