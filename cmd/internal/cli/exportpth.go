package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"spos/configs"
	"spos/internal/arch"
	"spos/internal/ckpt"
	"spos/internal/dialect"
	"spos/internal/pth"
)

// ExportPTH is `export --pth FILE --dialect D`: a checkpoint as a PyTorch file
// of another code base.
type ExportPTH struct {
	File    string
	Dialect string
}

// Flags adds the flags that name the file and the code base.
func (o *ExportPTH) Flags(cmd *cobra.Command) {
	var names []string
	for _, d := range dialect.All() {
		names = append(names, d.Name)
	}
	cmd.Flags().StringVar(&o.File, "pth", "", "write a PyTorch file instead, with the tensor names of --dialect")
	cmd.Flags().StringVar(&o.Dialect, "dialect", "", "whose tensor names the PyTorch file gets: "+strings.Join(names, ", "))
	_ = cmd.RegisterFlagCompletionFunc("dialect", cobra.FixedCompletions(names, cobra.ShellCompDirectiveNoFileComp))
}

// exportedPTH is what an export to PyTorch did.
type exportedPTH struct {
	Path      string    `json:"path"`
	Dialect   string    `json:"dialect"`
	Space     string    `json:"space"`
	Arch      arch.Arch `json:"arch,omitempty"`
	Tensors   int       `json:"tensors"`
	Reordered int       `json:"reordered"`
}

// Run writes the file.
func (o *ExportPTH) Run(cmd *cobra.Command, from string, asJSON bool) error {
	if o.Dialect == "" {
		return errors.New("--pth needs --dialect: whose tensor names the file gets")
	}
	d, err := dialect.Find(o.Dialect)
	if err != nil {
		return fmt.Errorf("--dialect: %w", err)
	}
	c, err := ckpt.Find(from)
	if err != nil {
		return err
	}
	space, err := configs.ParseSpace([]byte(c.State.Space.Text), c.Path)
	if err != nil {
		return err
	}
	t := dialect.Target{Space: space, Arch: arch.Arch(c.State.Arch)}
	entries, err := d.Export(t)
	if err != nil {
		return fmt.Errorf("export %v: %w", t, err)
	}
	if err := writePTH(o.File, c, d, entries); err != nil {
		return err
	}
	out := exportedPTH{o.File, d.Name, space.Name, t.Arch, len(entries), 0}
	for _, e := range entries {
		if e.Order.Rows != nil || e.Order.Cols != nil {
			out.Reordered++
		}
	}
	if asJSON {
		return PrintJSON(cmd, out)
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %v, %d tensors in the names of %s, %d reordered\n", out.Path, t, out.Tensors, d.Name, out.Reordered)
	return err
}

func writePTH(path string, c *ckpt.Checkpoint, d *dialect.Dialect, entries []dialect.Entry) error {
	f, err := c.Model()
	if err != nil {
		return err
	}
	defer f.Close()
	tensors, counters := make([]ckpt.Tensor, len(entries)), map[string]bool{}
	for i, e := range entries {
		if e.Name == "" {
			tensors[i], counters[e.Key] = ckpt.Tensor{Data: []float32{0}}, true
			continue
		}
		t, err := f.Tensor(e.Name)
		if err != nil {
			return err
		}
		if !slices.Equal(t.Shape, e.Shape) {
			return fmt.Errorf("tensor %s has the shape %v, and the space says %v: %w", e.Name, t.Shape, e.Shape, ckpt.ErrCorrupt)
		}
		tensors[i] = ckpt.Tensor{Shape: t.Shape, Data: e.Order.Apply(t.Shape, t.Data)}
	}
	o := pth.Options{Int64: func(name string) bool { return counters[name] }}
	if d.Wrapped {
		o.Meta = map[string]string{"exported_by": "spos " + Version, "space": c.State.Space.Name, "arch": c.State.Arch}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return pth.Write(path, func(yield func(string, ckpt.Tensor) bool) {
		for i, e := range entries {
			if !yield(e.Key, tensors[i]) {
				return
			}
		}
	}, o)
}
