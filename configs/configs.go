// Package configs holds everything that ships as data: search spaces,
// networks and the configurations of the published recipes.
package configs

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"spos/internal/arch"
	"spos/internal/config"
)

//go:embed *.yaml arch/*.yaml space/*.yaml
var files embed.FS

// Files is the shipped tree, read-only.
func Files() fs.FS { return files }

// maxSpaceFile is more than the reader of configurations accepts.
const maxSpaceFile = 1 << 20

// Spaces names the shipped search spaces, sorted.
func Spaces() []string { return names("space") }

func names(dir string) []string {
	entries, err := files.ReadDir(dir)
	if err != nil {
		panic(err) // embedded
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = strings.TrimSuffix(e.Name(), ".yaml")
	}
	slices.Sort(names) // a-b comes after a, and not before a.yaml
	return names
}

// ErrUnknownSpace is wrapped by the error about a name that is neither a
// shipped space nor a file.
var ErrUnknownSpace = errors.New("no such search space")

// Space returns a shipped search space by its name, or one of the user's own
// by the path of its YAML file (a name with a separator or ending in .yaml).
func Space(name string) (*arch.Space, error) {
	text, err := spaceText(name)
	if err != nil {
		return nil, err
	}
	return ParseSpace(text, name)
}

// IsPath tells a file of the user's own from the name of what ships.
func IsPath(name string) bool {
	return strings.ContainsAny(name, "/\\") || slices.Contains([]string{".yaml", ".yml", ".txt"}, path.Ext(name))
}

func spaceText(name string) ([]byte, error) {
	if IsPath(name) {
		f, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("read space: %w", err)
		}
		defer f.Close()
		return io.ReadAll(io.LimitReader(f, maxSpaceFile+1)) // longer ones are refused by their reader
	}
	text, err := files.ReadFile(path.Join("space", name+".yaml"))
	if err != nil {
		return nil, fmt.Errorf("%q: %w; shipped are %s; a file of your own is given by its path", name, ErrUnknownSpace, strings.Join(Spaces(), ", "))
	}
	return text, nil
}

// ParseSpace decodes a space's YAML text; from names it in errors. An unknown
// key is an error that shows the line.
func ParseSpace(text []byte, from string) (*arch.Space, error) {
	spec, err := config.Read(bytes.NewReader(text), from, arch.Spec{}, nil)
	if err != nil {
		return nil, fmt.Errorf("space: %w", err)
	}
	s, err := arch.NewSpace(spec)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", from, err)
	}
	return s, nil
}

// SpaceText is a space's YAML text, which a checkpoint carries to explain
// itself; [ParseSpace] reads it back.
func SpaceText(s *arch.Space) ([]byte, error) {
	var text bytes.Buffer
	if err := config.Dump(&text, s.Spec()); err != nil {
		return nil, fmt.Errorf("space %s: %w", s.Name, err)
	}
	return text.Bytes(), nil
}
