package config

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// positioned is an error that knows its place in the text.
type positioned struct {
	line, column int
	message      string
	source       string // the lines around, marked
}

func (p *positioned) Error() string {
	if p.source == "" {
		return p.message
	}
	return p.message + "\n" + p.source
}

func at(tk *token.Token, format string, args ...any) error {
	p := &positioned{message: fmt.Sprintf(format, args...)}
	if tk == nil {
		return p
	}
	p.line, p.column = tk.Position.Line, tk.Position.Column
	// The YAML package prints the lines around a token for its own errors.
	printed := (&yaml.SyntaxError{Message: "", Token: tk}).FormatError(false, true)
	if _, source, ok := strings.Cut(printed, "\n"); ok {
		p.source = strings.TrimRight(source, "\n ")
	}
	return p
}

// fromYAML gives an error of the YAML package the form of ours.
func fromYAML(err error) error {
	if e, ok := errors.AsType[yaml.Error](err); ok && e.GetToken() != nil {
		return at(e.GetToken(), "%s", e.GetMessage())
	}
	return err
}

// check walks a node beside the type that it will be decoded into, and
// refuses what the decoder would accept in silence; see also [asWritten].
func check(n ast.Node, t reflect.Type, key string) error {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if reflect.PointerTo(t).Implements(reflect.TypeFor[yaml.BytesUnmarshaler]()) ||
		reflect.PointerTo(t).Implements(reflect.TypeFor[yaml.InterfaceUnmarshaler]()) {
		return nil
	}
	switch n := n.(type) {
	case *ast.AnchorNode, *ast.AliasNode, *ast.MergeKeyNode, *ast.TagNode:
		return at(n.GetToken(), "%sanchors, aliases and tags are not supported: write the value out", prefix(key))
	case *ast.NullNode:
		if t.Kind() == reflect.Struct {
			return nil // a section with everything in it commented out
		}
		return at(n.GetToken(), "%sno value: leave the key out for its default, or write one", prefix(key))
	}
	switch t.Kind() {
	case reflect.Struct:
		return checkStruct(n, t, key)
	case reflect.Slice, reflect.Array:
		return checkList(n, t, key)
	case reflect.Map:
		return checkMap(n, t, key)
	default:
		return checkScalar(n, t, key)
	}
}

func prefix(key string) string {
	if key == "" {
		return ""
	}
	return key + ": "
}

// members are the entries of a mapping, which the parser spells in two ways.
func members(n ast.Node) ([]*ast.MappingValueNode, bool) {
	switch n := n.(type) {
	case *ast.MappingNode:
		return n.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}, true
	}
	return nil, false
}

func checkMap(n ast.Node, t reflect.Type, key string) error {
	values, ok := members(n)
	if !ok {
		return at(n.GetToken(), "%skeys with values are wanted", prefix(key))
	}
	for _, v := range values {
		if err := check(v.Value, t.Elem(), strings.TrimPrefix(key+"."+v.Key.GetToken().Value, ".")); err != nil {
			return err
		}
	}
	return nil
}

func checkStruct(n ast.Node, t reflect.Type, key string) error {
	values, ok := members(n)
	if !ok {
		return at(n.GetToken(), "%sa section with keys is wanted: %s", prefix(key), strings.Join(keysOf(t), ", "))
	}
	fields := fieldsOf(t)
	seen := map[string]bool{}
	for _, v := range values {
		name := v.Key.GetToken().Value
		full := name
		if key != "" {
			full = key + "." + name
		}
		if v.Key.Type() == ast.MergeKeyType || v.Key.Type() == ast.AnchorType || v.Key.Type() == ast.AliasType {
			return at(v.Key.GetToken(), "%sanchors and aliases are not supported: write the value out", prefix(key))
		}
		ft, ok := fields[name]
		if !ok {
			return at(v.Key.GetToken(), "%s: no such key%s; there are %s", full, suggest(name, keysOf(t)), strings.Join(keysOf(t), ", "))
		}
		if seen[name] {
			return at(v.Key.GetToken(), "%s: given twice", full)
		}
		seen[name] = true
		if err := check(v.Value, ft, full); err != nil {
			return err
		}
		v.Value = asWritten(v.Value, ft)
	}
	return nil
}

func indirect(t reflect.Type) reflect.Type {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t
}

// asWritten mends scalars that YAML 1.2 and the decoder take for something
// else than was meant: 0123 where a string is wanted, 330e6 where a whole
// number is.
func asWritten(n ast.Node, t reflect.Type) ast.Node {
	t, tk := indirect(t), n.GetToken()
	switch n := n.(type) {
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		if t.Kind() == reflect.String {
			return ast.String(token.New(tk.Value, tk.Origin, tk.Position))
		}
	case *ast.StringNode:
		if v, ok := number(n); ok && isInteger(t) {
			whole := token.New(strconv.FormatFloat(v, 'f', 0, 64), tk.Origin, tk.Position)
			whole.Type = token.IntegerType
			return ast.Integer(whole)
		}
	}
	return n
}

// number reads 4e-5, which the parser leaves as a string. Quoted text is none.
func number(n *ast.StringNode) (float64, bool) {
	if n.Token.Type != token.StringType || strings.ContainsAny(n.Value, "xXpP_iInN") {
		return 0, false
	}
	v, err := strconv.ParseFloat(n.Value, 64)
	return v, err == nil
}

func checkList(n ast.Node, t reflect.Type, key string) error {
	s, ok := n.(*ast.SequenceNode)
	if !ok {
		return at(n.GetToken(), "%sa list is wanted, as in [a, b]", prefix(key))
	}
	if t.Kind() == reflect.Array && len(s.Values) != t.Len() {
		return at(n.GetToken(), "%s%d values, and %d are wanted", prefix(key), len(s.Values), t.Len())
	}
	for i, v := range s.Values {
		if err := check(v, t.Elem(), key+"["+strconv.Itoa(i)+"]"); err != nil {
			return err
		}
		s.Values[i] = asWritten(v, t.Elem())
	}
	return nil
}

func checkScalar(n ast.Node, t reflect.Type, key string) error {
	switch n := n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode, *ast.SequenceNode:
		return at(n.GetToken(), "%sone value is wanted", prefix(key))
	case *ast.FloatNode:
		return whole(n.Value, n.GetToken(), t, key)
	case *ast.NanNode, *ast.InfinityNode:
		if t.Kind() != reflect.String {
			return at(n.GetToken(), "%s%s is no number that means something here", prefix(key), n.GetToken().Value)
		}
	case *ast.StringNode, *ast.LiteralNode:
		if t.Kind() == reflect.String || t == durationType {
			return nil
		}
		s, _ := n.(*ast.StringNode)
		if s == nil {
			return at(n.GetToken(), "%sone line is wanted", prefix(key))
		}
		if v, ok := number(s); ok && t.Kind() != reflect.Bool {
			return whole(v, s.Token, t, key)
		}
		return at(n.GetToken(), "%s%q is no %s", prefix(key), n.GetToken().Value, plainName(t))
	}
	return nil
}

func whole(v float64, tk *token.Token, t reflect.Type, key string) error {
	const exact = 1 << 53 // float64 holds every whole number up to here
	if isInteger(t) && (v != math.Trunc(v) || math.Abs(v) > exact) {
		return at(tk, "%s%s is no whole number", prefix(key), tk.Value)
	}
	return nil
}

// fieldsOf are the keys of a struct and the types of their values.
func fieldsOf(t reflect.Type) map[string]reflect.Type {
	fields := map[string]reflect.Type{}
	for _, f := range reflect.VisibleFields(t) {
		if name, ok := keyOf(f); ok {
			fields[name] = f.Type
		}
	}
	return fields
}

// keysOf are the same keys in the order of declaration.
func keysOf(t reflect.Type) []string {
	var keys []string
	for _, f := range reflect.VisibleFields(t) {
		if name, ok := keyOf(f); ok {
			keys = append(keys, name)
		}
	}
	return keys
}

// keyOf is a field's YAML key. Inlined structs have none of their own; their
// fields are visible.
func keyOf(f reflect.StructField) (string, bool) {
	name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
	if !f.IsExported() || name == "-" || slices.Contains(strings.Split(options, ","), "inline") {
		return "", false
	}
	if name == "" {
		name = strings.ToLower(f.Name)
	}
	return name, true
}

// suggest names the key that was probably meant.
func suggest(name string, keys []string) string {
	best, least := "", 3 // at most two edits
	for _, k := range keys {
		d := distance(name, k)
		if strings.HasPrefix(k, name) || strings.HasPrefix(name, k) {
			d = min(d, 1)
		}
		if d < least {
			best, least = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %s?)", best)
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			d := diagonal
			if a[i] != b[j] {
				d++
			}
			diagonal = row[j+1]
			row[j+1] = min(d, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

var durationType = reflect.TypeFor[time.Duration]()

func isInteger(t reflect.Type) bool {
	return t.Kind() >= reflect.Int && t.Kind() <= reflect.Uint64 && t != durationType
}

func plainName(t reflect.Type) string {
	switch {
	case t.Kind() == reflect.Bool:
		return "true or false"
	case isInteger(t):
		return "whole number"
	default:
		return "number"
	}
}
