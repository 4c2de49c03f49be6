package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// Setting is a key of a flat file and its value as a flag would take it: the items of a list, and the entries of a
// mapping as key=value, have commas between.
type Setting struct {
	Key, Value string
	// Where is file:line:column, for errors.
	Where string
}

// Flat reads a YAML file that names flags of a command, in its order. It is as strict as [Load]: a key that is not
// among the known ones or comes twice, an empty value, or a list in a list is an error that wraps [ErrInvalid].
func Flat(path string, known []string) ([]Setting, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration %s: %w", path, err)
	}
	all, err := flat(text, known)
	if err != nil {
		return nil, invalid(path, err)
	}
	for i := range all {
		all[i].Where = path + ":" + all[i].Where
	}
	return all, nil
}

func flat(text []byte, known []string) ([]Setting, error) {
	if err := bounded(text); err != nil {
		return nil, err
	}
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		return nil, fromYAML(err)
	}
	if len(file.Docs) > 1 {
		return nil, errors.New("more than one YAML document")
	}
	if len(file.Docs) == 0 || file.Docs[0].Body == nil || file.Docs[0].Body.Type() == ast.NullType {
		return nil, nil
	}
	values, ok := members(file.Docs[0].Body)
	if !ok {
		return nil, at(file.Docs[0].Body.GetToken(), "keys with values are wanted: %s", strings.Join(known, ", "))
	}
	var all []Setting
	for _, v := range values {
		tk := v.Key.GetToken()
		key := tk.Value
		switch {
		case v.Key.Type() != ast.StringType || !slices.Contains(known, key):
			return nil, at(tk, "%s: no such key%s; there are %s", key, suggest(key, known), strings.Join(known, ", "))
		case slices.ContainsFunc(all, func(s Setting) bool { return s.Key == key }):
			return nil, at(tk, "%s: given twice", key)
		}
		value, err := flatValue(v.Value, key)
		if err != nil {
			return nil, err
		}
		all = append(all, Setting{key, value, fmt.Sprintf("%d:%d", tk.Position.Line, tk.Position.Column)})
	}
	return all, nil
}

// flatValue spells a value, one level deep.
func flatValue(n ast.Node, key string) (string, error) {
	var items []string
	if list, ok := n.(*ast.SequenceNode); ok {
		for _, v := range list.Values {
			item, err := flatItem(v, key)
			if err != nil {
				return "", err
			}
			items = append(items, item)
		}
		return strings.Join(items, ","), nil
	}
	if values, ok := members(n); ok {
		for _, v := range values {
			item, err := flatItem(v.Value, key)
			if err != nil {
				return "", err
			}
			items = append(items, v.Key.GetToken().Value+"="+item)
		}
		return strings.Join(items, ","), nil
	}
	return flatScalar(n, key)
}

// flatItem is a scalar between commas.
func flatItem(n ast.Node, key string) (string, error) {
	text, err := flatScalar(n, key)
	if err == nil && strings.ContainsAny(text, ",\"\n") {
		return "", at(n.GetToken(), "%s: an item holds no comma, quote or end of line", key)
	}
	return text, err
}

func flatScalar(n ast.Node, key string) (string, error) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, nil
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return n.GetToken().Value, nil
	case *ast.NullNode:
		return "", at(n.GetToken(), "%s: no value: leave the key out for its default, or write one", key)
	}
	return "", at(n.GetToken(), "%s: one value, a list or key: value pairs are wanted", key)
}
