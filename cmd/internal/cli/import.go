package cli

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"spos/configs"
	"spos/internal/arch"
	"spos/internal/ckpt"
	"spos/internal/dialect"
	"spos/internal/pth"
)

// importOptions is what `import` is told.
type importOptions struct {
	space   string
	arch    string
	dialect string
	weights string
	out     string
	json    bool
}

// NewImportCommand is `import`.
func NewImportCommand() *cobra.Command {
	var o importOptions
	var names, about []string
	for _, d := range dialect.All() {
		names = append(names, d.Name)
		about = append(about, fmt.Sprintf("  %-15s %s", d.Name, d.About))
	}
	cmd := &cobra.Command{
		Use:   "import FILE.pth",
		Short: "Turn a PyTorch checkpoint of a published code base into one of ours",
		Long: `Read the weights of a supernet or of one network from a PyTorch file, translate their
names, reorder channels where the space is wired otherwise, and write a checkpoint.
Which space and network they are of follows from names and shapes where it is not
given. Nothing in the file is executed, and nothing is written unless every tensor is
there with its shape and no other. Names that are understood:

` + strings.Join(about, "\n"),
		Example: `  spos import checkpoint-latest.pth.tar -o work/official
  spos import subnet.pth --space shufflenetv2-mmrazor --arch spos-mmrazor -o work/razor
  spos eval work/razor --data imagenet`,
		Args: cobra.ExactArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return []string{"pth", "pt", "tar"}, cobra.ShellCompDirectiveFilterFileExt
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return importFunc(cmd, args[0], o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.space, "space", "", "search space, shipped or a YAML file (default: the shipped one that fits)")
	f.StringVar(&o.arch, "arch", "", "the file holds this network alone: digits, a file, or a published network's name (default: found out)")
	f.StringVar(&o.dialect, "dialect", "", "whose names the file has (default: those that fit)")
	f.StringVar(&o.weights, "weights", "", "key of the dict of weights in the file, where there are several")
	f.StringVarP(&o.out, "output", "o", "", "folder of the checkpoint (default: FILE without its extension)")
	jsonFlag(cmd, &o.json)
	_ = cmd.RegisterFlagCompletionFunc("space", cobra.FixedCompletions(configs.Spaces(), cobra.ShellCompDirectiveDefault))
	_ = cmd.RegisterFlagCompletionFunc("dialect", cobra.FixedCompletions(names, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// imported is what an import did.
type imported struct {
	File       string         `json:"file"`
	SHA256     string         `json:"sha256"`
	Key        string         `json:"key"`    // of the dict of weights
	Prefix     string         `json:"prefix"` // of all names
	Dialect    string         `json:"dialect"`
	Space      string         `json:"space"`
	Found      bool           `json:"space_found"` // and not given
	Arch       arch.Arch      `json:"arch,omitempty"`
	Inferred   bool           `json:"arch_found,omitempty"` // and not given
	Classes    int            `json:"classes"`
	Tensors    int            `json:"tensors"`
	Reordered  int            `json:"reordered"`
	Params     int64          `json:"params"`
	Checkpoint string         `json:"checkpoint"`
	Seconds    float64        `json:"seconds"`
	match      *dialect.Match // for people
}

func importFunc(cmd *cobra.Command, path string, o importOptions) error {
	start := time.Now()
	if o.out == "" {
		o.out = importFolder(path)
	}
	out, err := importFile(path, o)
	if err != nil {
		return importHints(err, path, o)
	}
	out.Seconds = time.Since(start).Seconds()
	if o.json {
		return PrintJSON(cmd, out)
	}
	return out.write(cmd.OutOrStdout(), o.out)
}

// importFolder is FILE without its extension, in the current folder.
func importFolder(path string) string {
	name := filepath.Base(path)
	for _, ext := range []string{".tar", ".pth", ".pt"} {
		name = strings.TrimSuffix(name, ext)
	}
	if name == filepath.Base(path) {
		name += ".imported"
	}
	return name
}

func importFile(path string, o importOptions) (*imported, error) {
	if slices.Contains(configs.Networks(), o.arch) && o.space == "" {
		n, err := configs.Network(o.arch)
		if err != nil {
			return nil, err
		}
		o.space = n.Space
	}
	targets, err := importTargets(o)
	if err != nil {
		return nil, err
	}
	var dialects []*dialect.Dialect
	if o.dialect != "" {
		d, err := dialect.Find(o.dialect)
		if err != nil {
			return nil, fmt.Errorf("--dialect: %w", err)
		}
		dialects = []*dialect.Dialect{d}
	}
	f, err := pth.Open(path, o.weights)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	file := make([]dialect.Tensor, 0, len(f.Names()))
	for _, name := range f.Names() {
		shape, err := f.Shape(name)
		if err != nil {
			return nil, err
		}
		file = append(file, dialect.Tensor{Name: name, Shape: shape})
	}
	m, err := dialect.Detect(file, targets, dialects)
	inferred := false
	if _, mismatch := errors.AsType[*dialect.MismatchError](err); mismatch && o.arch == "" {
		if n, netErr := dialect.DetectNet(file, importSpaces(o), dialects); netErr == nil {
			m, err, inferred = n, nil, true
		}
	}
	if errors.Is(err, dialect.ErrNoTarget) {
		return nil, fmt.Errorf("--arch %s: no shipped space has such a network: %w", o.arch, err)
	}
	if err != nil {
		return nil, fmt.Errorf("import %s: %w", path, err)
	}
	out := &imported{
		File: path, Key: f.Key(), Prefix: pth.Prefix(f.Names()), match: m, Dialect: m.Dialect.Name,
		Space: m.Space.Name, Found: o.space == "", Arch: m.Arch, Inferred: inferred, Classes: m.Space.Classes,
		Tensors: len(m.Entries), Reordered: m.Moved(),
	}
	for _, e := range m.Entries {
		if e.Role.Trainable() {
			out.Params += int64(e.Numel())
		}
	}
	if out.SHA256, err = ckpt.Digest(path); err != nil {
		return nil, err
	}
	out.Checkpoint, err = saveImported(f, m, out.SHA256, o.out)
	return out, err
}

// importTargets are what the file may hold: the supernet or the net of one
// space, or of each that ships. A space lives only while it is looked at.
func importTargets(o importOptions) (iter.Seq[dialect.Target], error) {
	if o.space != "" {
		t, err := importTarget(o.space, o.arch)
		return slices.Values([]dialect.Target{t}), err
	}
	return func(yield func(dialect.Target) bool) {
		for _, name := range configs.Spaces() {
			t, err := importTarget(name, o.arch)
			if err == nil && !yield(t) { // an arch is no arch of most spaces
				return
			}
		}
	}, nil
}

// importSpaces are those of the targets.
func importSpaces(o importOptions) iter.Seq[*arch.Space] {
	return func(yield func(*arch.Space) bool) {
		names := configs.Spaces()
		if o.space != "" {
			names = []string{o.space}
		}
		for _, name := range names {
			s, err := configs.Space(name)
			if err == nil && !yield(s) { // one that does not load has been refused already
				return
			}
		}
	}
}

func importTarget(space, a string) (t dialect.Target, err error) {
	if t.Space, err = configs.Space(space); err != nil {
		return t, fmt.Errorf("--space: %w", err)
	}
	if a != "" {
		if t.Arch, err = configs.Arch(t.Space, a); err != nil {
			return t, fmt.Errorf("--arch: %w", err)
		}
	}
	return t, nil
}

// saveImported writes the checkpoint, tensor by tensor. A file that turns out
// to be damaged on the way leaves nothing behind.
func saveImported(f *pth.File, m *dialect.Match, digest, dir string) (string, error) {
	text, err := configs.SpaceText(m.Space)
	if err != nil {
		return "", err
	}
	recipe, err := json.Marshal(m.Dialect.RecipeFor(m.Space.In).Explicit())
	if err != nil {
		return "", err
	}
	_, err = os.Stat(dir)
	created := errors.Is(err, fs.ErrNotExist)
	path, err := ckpt.Save(dir, ckpt.Snapshot{
		State: ckpt.State{
			Space: ckpt.Space{Name: m.Space.Name, Text: string(text)}, Arch: string(m.Arch), Recipe: recipe,
			Lineage: ckpt.Lineage{Parent: digest, Code: Version, Time: time.Now()},
		},
		Model: func(yield func(string, ckpt.Tensor) bool) {
			for _, e := range m.Entries {
				load := func() ([]float32, error) {
					t, err := f.Tensor(e.Key)
					if err != nil {
						return nil, err
					}
					return e.Order.Apply(e.Shape, t.Data), nil
				}
				if !yield(e.Name, ckpt.Tensor{Shape: e.Shape, Load: load}) {
					return
				}
			}
		},
	}, 0)
	if err != nil && created {
		_ = os.Remove(dir) // if it is empty
	}
	return path, err
}

func (m *imported) write(out io.Writer, dir string) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	where := "its outermost dict"
	if m.Key != pth.Root {
		where = fmt.Sprintf("%q", m.Key)
	}
	if m.Prefix != "" {
		where += fmt.Sprintf(", all names under %q", m.Prefix)
	}
	fmt.Fprintf(w, "read\t%s, %s\n", m.File, where)
	fmt.Fprintf(w, "names\t%s: %s\n", m.Dialect, m.match.Dialect.About)
	found := ""
	switch {
	case m.Found && m.Inferred:
		found = ", the smallest shipped space that has what the file holds"
	case m.Found:
		found = ", the only shipped space that fits"
	case m.Inferred:
		found = ", by its tensors"
	}
	fmt.Fprintf(w, "holds\t%v%s, %d classes\n", m.match.Target, found, m.Classes)
	order := "channels in their order"
	if m.Reordered > 0 {
		order = fmt.Sprintf("%d reordered from wiring %s to %s", m.Reordered, m.match.Dialect.Wiring, m.match.Space.Spec().Shuffle.Wiring)
	}
	fmt.Fprintf(w, "tensors\t%d, %d parameters, %s\n", m.Tensors, m.Params, order)
	fmt.Fprintf(w, "wrote\t%s in %.2f s, from SHA-256 %s\n", m.Checkpoint, m.Seconds, m.SHA256)
	if err := w.Flush(); err != nil {
		return err
	}
	net := ""
	if m.Arch == "" {
		net = " --arch ARCH --data DIR"
	}
	_, err := fmt.Fprintf(out, "\nnext:\n  spos eval %s%s\n  spos export %s%s -o model.onnx\n", dir, cmp.Or(net, " --data DIR"), dir, net)
	return err
}

// importHints names the way out.
func importHints(err error, path string, o importOptions) error {
	_, mismatch := errors.AsType[*dialect.MismatchError](err)
	switch {
	case mismatch && o.arch == "":
		return WithHint(err,
			"a file of one network is read with --arch DIGITS, a published network's name or a file",
			"`spos space list` lists spaces, `spos import --help` whose names are understood")
	case mismatch:
		return WithHint(err,
			"a file of a supernet is read without --arch",
			fmt.Sprintf("shapes that differ in one block are those of another candidate there: `spos arch show SPACE %s` shows ours", o.arch))
	case errors.Is(err, dialect.ErrAmbiguous), errors.Is(err, dialect.ErrNoTarget):
		return WithHint(err, "name the space with --space; `spos space list` lists them")
	case errors.Is(err, pth.ErrChoice):
		return WithHint(err, "name it with --weights KEY")
	case errors.Is(err, pth.ErrCorrupt):
		return WithHint(err, "copy or download "+path+" again")
	case errors.Is(err, pth.ErrFormat):
		return WithHint(err, "save the state dict in Python: torch.save(model.state_dict(), FILE)")
	case errors.Is(err, fs.ErrExist):
		return WithHint(err, "write to another folder with -o DIR, or remove that one")
	}
	return err
}
