package walls

import (
	"cmp"
	"fmt"
	"go/ast"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
)

const (
	maxFileLines     = 450 // of a file, tests and generated code apart
	maxFunctionLines = 70  // of a function, from func to its last brace
)

// rooms never import one another: they speak arch and meet in cmd.
var rooms = []string{"supernet", "search", "export", "serve", "latency"}

// places are where a package may lie. A new room is a decision.
var places = append([]string{"cmd", "configs", "internal"}, rooms...)

// doors are the modules that one part of the project only may import.
var doors = []struct {
	prefix string
	only   []string
}{
	{"github.com/wangkuiyi/gotorch", []string{"supernet"}},
	{"github.com/yalue/onnxruntime_go", []string{"internal/ort"}},
	{"github.com/owulveryck/onnx-go", []string{"export"}},
	{"github.com/nats-io", []string{"internal/fleet"}},
}

// banned are packages that nobody imports, and what to use instead.
var banned = map[string]string{
	"log":       "take a *slog.Logger",
	"math/rand": "take a *rand.Rand of math/rand/v2",
	"io/ioutil": "use io and os",
}

// vague are package names that say nothing of what is inside.
var vague = []string{"base", "common", "helper", "helpers", "manager", "misc", "shared", "util", "utils"}

// Check returns every place under root that breaks a rule, in order of files.
func Check(root fs.FS) ([]Violation, error) {
	t, err := load(root)
	if err != nil {
		return nil, err
	}
	var found []Violation
	for _, rule := range []func(*tree) []Violation{
		checkPlaces, checkArrows, checkDoors, checkEdge, checkBanned, checkCalls, checkSizes, checkComments,
	} {
		found = append(found, rule(t)...)
	}
	slices.SortStableFunc(found, func(a, b Violation) int {
		return cmp.Or(strings.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
	})
	return found, nil
}

func checkPlaces(t *tree) []Violation {
	var found []Violation
	for _, p := range t.pkgs {
		if !within(p.dir, places...) {
			found = append(found, Violation{p.files[0].name, 0, "places", fmt.Sprintf("%s is no known place: move it, or decide on a new room here and in docs/architecture.md", p.dir)})
		}
		if slices.Contains(vague, path.Base(p.dir)) {
			found = append(found, Violation{p.files[0].name, 0, "places", fmt.Sprintf("%q says nothing: name the package after what it is for", path.Base(p.dir))})
		}
	}
	return found
}

// checkArrows looks at the project's own imports: between rooms, up from a
// lower floor, and out of internal/arch, which may reach nothing.
func checkArrows(t *tree) []Violation {
	var found []Violation
	for _, p := range t.pkgs {
		for _, f := range p.files {
			for _, imp := range slices.Sorted(maps.Keys(t.importsOf(f))) {
				if text := arrow(p.dir, imp, f.test); text != "" {
					found = append(found, Violation{f.name, t.importsOf(f)[imp], "arrows", text})
				}
			}
		}
	}
	return found
}

// arrow says what is wrong with an import of a file in dir; empty: nothing.
// Tests of internal/arch may read the shipped spaces and use go-cmp.
func arrow(dir, imp string, test bool) string {
	if within(dir, "internal/arch") && !test && strings.Contains(imp, ".") {
		return fmt.Sprintf("internal/arch imports the standard library only, and not %s", imp)
	}
	to, ours := dirOf(imp)
	if !ours {
		return ""
	}
	switch {
	case within(dir, "internal/arch") && !test && !within(to, "internal/arch"):
		return fmt.Sprintf("internal/arch imports the standard library only, and not %s", to)
	case within(to, "cmd") && !within(dir, "cmd"):
		return fmt.Sprintf("%s imports %s: nothing below cmd knows a command", dir, to)
	case within(dir, "internal", "configs") && within(to, rooms...):
		return fmt.Sprintf("%s imports %s: arrows between floors only go down", dir, to)
	case within(dir, rooms...) && within(to, rooms...) && room(dir) != room(to):
		return fmt.Sprintf("%s imports %s: rooms meet in cmd only", dir, to)
	}
	return ""
}

func room(dir string) string {
	name, _, _ := strings.Cut(dir, "/")
	return name
}

func checkDoors(t *tree) []Violation {
	var found []Violation
	for _, p := range t.pkgs {
		for _, f := range p.files {
			for imp, line := range t.importsOf(f) {
				for _, door := range doors {
					if (imp == door.prefix || strings.HasPrefix(imp, door.prefix+"/")) && !within(p.dir, door.only...) {
						found = append(found, Violation{f.name, line, "doors", fmt.Sprintf("%s is imported in %s only", imp, strings.Join(door.only, ", "))})
					}
				}
			}
		}
	}
	return found
}

// checkEdge walks what cmd/spos-edge reaches: never the package supernet.
func checkEdge(t *tree) []Violation {
	byDir := map[string]*pkg{}
	for _, p := range t.pkgs {
		byDir[p.dir] = p
	}
	var found []Violation
	from := map[string]string{"cmd/spos-edge": ""} // how each directory was reached
	for queue := []string{"cmd/spos-edge"}; len(queue) > 0; queue = queue[1:] {
		p := byDir[queue[0]]
		if p == nil {
			continue
		}
		for _, f := range p.files {
			if f.test {
				continue
			}
			for imp, line := range t.importsOf(f) {
				to, ours := dirOf(imp)
				if _, seen := from[to]; !ours || seen {
					continue
				}
				from[to] = p.dir
				queue = append(queue, to)
				if within(to, "supernet") {
					found = append(found, Violation{f.name, line, "edge", "spos-edge reaches libtorch: " + trail(from, to)})
				}
			}
		}
	}
	return found
}

func trail(from map[string]string, to string) string {
	var steps []string
	for ; to != ""; to = from[to] {
		steps = append(steps, to)
	}
	slices.Reverse(steps)
	return strings.Join(steps, " → ")
}

func checkBanned(t *tree) []Violation {
	var found []Violation
	for _, p := range t.pkgs {
		for _, f := range p.files {
			for imp, line := range t.importsOf(f) {
				if instead, bad := banned[imp]; bad && !f.generated {
					found = append(found, Violation{f.name, line, "banned", fmt.Sprintf("do not import %s: %s", imp, instead)})
				}
			}
		}
	}
	return found
}

// checkCalls finds output that nobody handed in, and random numbers of the
// process and not of a seed. A file that renames these imports goes unseen;
// the compiler's type information is not worth that.
func checkCalls(t *tree) []Violation {
	var found []Violation
	for _, p := range t.pkgs {
		for _, f := range p.files {
			if f.test || f.generated {
				continue
			}
			imports := t.importsOf(f)
			ast.Inspect(f.syntax, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				if text := badCall(call, imports); text != "" {
					found = append(found, Violation{f.name, t.line(call), "calls", text})
				}
				return true
			})
		}
	}
	return found
}

func badCall(call *ast.CallExpr, imports map[string]int) string {
	switch fun := call.Fun.(type) {
	case *ast.Ident:
		if fun.Name == "print" || fun.Name == "println" {
			return fun.Name + " writes where nobody asked: take an io.Writer or a *slog.Logger"
		}
	case *ast.SelectorExpr:
		from, ok := fun.X.(*ast.Ident)
		if !ok {
			return ""
		}
		if _, yes := imports["fmt"]; yes && from.Name == "fmt" && strings.HasPrefix(fun.Sel.Name, "Print") {
			return "fmt." + fun.Sel.Name + " writes where nobody asked: take an io.Writer or a *slog.Logger"
		}
		if _, yes := imports["math/rand/v2"]; yes && from.Name == "rand" && fun.Sel.IsExported() && !strings.HasPrefix(fun.Sel.Name, "New") {
			return "rand." + fun.Sel.Name + " draws from the process's generator: take a *rand.Rand"
		}
	}
	return ""
}

func checkSizes(t *tree) []Violation {
	var found []Violation
	long := func(name string, lines int) {
		if lines >= maxFileLines {
			found = append(found, Violation{name, 0, "sizes", fmt.Sprintf("%d lines: split the file before it has %d", lines, maxFileLines)})
		}
	}
	for name, lines := range t.native {
		long(name, lines)
	}
	for _, p := range t.pkgs {
		for _, f := range p.files {
			if f.test || f.generated {
				continue
			}
			long(f.name, f.lines)
			for _, decl := range f.syntax.Decls {
				fn, ok := decl.(*ast.FuncDecl)
				if !ok {
					continue
				}
				if n := t.fset.Position(fn.End()).Line - t.line(fn) + 1; n > maxFunctionLines {
					found = append(found, Violation{f.name, t.line(fn), "sizes", fmt.Sprintf("%s has %d lines: %d fit a screen", fn.Name.Name, n, maxFunctionLines)})
				}
			}
		}
	}
	return found
}

func checkComments(t *tree) []Violation {
	var found []Violation
	for _, p := range t.pkgs {
		var name string
		documented := false
		for _, f := range p.files {
			if f.test {
				continue
			}
			name = f.syntax.Name.Name
			documented = documented || f.syntax.Doc != nil && opens(f.syntax.Doc.Text(), name, path.Base(p.dir))
		}
		if name != "" && !documented {
			found = append(found, Violation{p.files[0].name, 0, "comments", fmt.Sprintf("no file opens with a comment that says what package %s is for", name)})
		}
	}
	return found
}

// opens says whether a package comment begins the way Go's own do.
func opens(doc, name, dir string) bool {
	if name == "main" {
		return strings.HasPrefix(doc, "Command "+dir)
	}
	return strings.HasPrefix(doc, "Package "+name+" ")
}
