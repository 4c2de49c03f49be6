// Package walls holds the tests of the project's architecture: which package
// may import which, how large a file and a function may grow, what every
// package must say about itself. docs/architecture.md is the picture of what
// it checks. It reads source text with go/parser and asks no build system, so
// that a change of any file runs the tests again.
package walls

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// module is the path that the project's own imports begin with.
const module = "spos"

// Violation is one place that breaks a rule.
type Violation struct {
	File string // relative to the project's root
	Line int    // 0: the file or the package as a whole
	Rule string
	Text string // what is there, and what to do instead
}

func (v Violation) String() string {
	return fmt.Sprintf("%s:%d: %s (%s)", v.File, v.Line, v.Text, v.Rule)
}

// file is a parsed Go file.
type file struct {
	name      string // relative to the root
	syntax    *ast.File
	lines     int
	test      bool
	generated bool
}

// pkg is a directory of Go files, its external tests included.
type pkg struct {
	dir   string // relative to the root
	files []*file
}

// tree is the project's source.
type tree struct {
	fset *token.FileSet
	pkgs []*pkg // by directory
	// native is the C++ source: path and number of lines.
	native map[string]int
}

// load reads the project under fsys. Nested modules, hidden folders, testdata
// and what builds and runs leave behind are no part of it.
func load(fsys fs.FS) (*tree, error) {
	t := &tree{fset: token.NewFileSet(), native: map[string]int{}}
	byDir := map[string]*pkg{}
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name != "." && skipped(fsys, name) {
				return fs.SkipDir
			}
			return nil
		}
		switch path.Ext(name) {
		case ".cc", ".h":
			text, err := fs.ReadFile(fsys, name)
			if err != nil {
				return err
			}
			t.native[name] = strings.Count(string(text), "\n")
		case ".go":
			f, err := t.parse(fsys, name)
			if err != nil {
				return err
			}
			dir := path.Dir(name)
			if byDir[dir] == nil {
				byDir[dir] = &pkg{dir: dir}
				t.pkgs = append(t.pkgs, byDir[dir])
			}
			byDir[dir].files = append(byDir[dir].files, f)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the project's source: %w", err)
	}
	slices.SortFunc(t.pkgs, func(a, b *pkg) int { return strings.Compare(a.dir, b.dir) })
	return t, nil
}

func skipped(fsys fs.FS, dir string) bool {
	base := path.Base(dir)
	if strings.HasPrefix(base, ".") || base == "testdata" || dir == "bin" || dir == "work" {
		return true
	}
	_, err := fs.Stat(fsys, path.Join(dir, "go.mod"))
	return err == nil
}

func (t *tree) parse(fsys fs.FS, name string) (*file, error) {
	text, err := fs.ReadFile(fsys, name)
	if err != nil {
		return nil, err
	}
	syntax, err := parser.ParseFile(t.fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	return &file{
		name:      name,
		syntax:    syntax,
		lines:     strings.Count(string(text), "\n"),
		test:      strings.HasSuffix(name, "_test.go"),
		generated: ast.IsGenerated(syntax),
	}, nil
}

func (t *tree) line(n ast.Node) int { return t.fset.Position(n.Pos()).Line }

// importsOf lists the files' imports, each with the line that holds it.
func (t *tree) importsOf(f *file) map[string]int {
	found := map[string]int{}
	for _, spec := range f.syntax.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err == nil { // the parser accepted it
			found[p] = t.line(spec)
		}
	}
	return found
}

// dirOf turns one of the project's own import paths into a directory.
func dirOf(importPath string) (string, bool) {
	if importPath == module {
		return ".", true
	}
	return strings.CutPrefix(importPath, module+"/")
}

// within says whether dir is one of roots or below one.
func within(dir string, roots ...string) bool {
	return slices.ContainsFunc(roots, func(root string) bool {
		return dir == root || strings.HasPrefix(dir, root+"/")
	})
}
