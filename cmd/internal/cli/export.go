package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"spos/export"
)

// ExportRandom is `export --space S --arch A`: the graph with random weights,
// for measuring a net that nobody has trained.
type ExportRandom struct {
	Space string
	Arch  string
	Seed  uint64
	Batch int
	Opset int
	// Promise is what the file is to say of its latency.
	Promise PromiseFlags
}

// Flags adds the flags that choose the net, the shape of the graph and what
// the file says of itself.
func (o *ExportRandom) Flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.Space, "space", "", "search space, to export a net of it with random weights")
	f.StringVar(&o.Arch, "arch", "", "architecture of --space: digits, a file, or the name of a published network")
	f.Uint64Var(&o.Seed, "seed", 0, "seed of random weights")
	f.IntVar(&o.Batch, "batch", 0, "images a run (default: any number)")
	f.IntVar(&o.Opset, "opset", export.DefaultOpset, "ONNX operator set")
	o.Promise.Add(cmd)
	flagSpace(cmd, "space")
	_ = cmd.RegisterFlagCompletionFunc("arch", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return networksOf(o.Space), cobra.ShellCompDirectiveDefault
	})
}

// Run writes the file.
func (o *ExportRandom) Run(cmd *cobra.Command, out string) error {
	if o.Space == "" || o.Arch == "" {
		return errors.New("random weights need both --space and --arch")
	}
	n, err := loadNet(o.Space, o.Arch)
	if err != nil {
		return err
	}
	m, err := export.Model(n, export.Random(n, o.Seed), export.Options{Batch: o.Batch, Opset: o.Opset, Version: Version})
	if err != nil {
		return err
	}
	file, err := export.Marshal(m)
	if err != nil {
		return err
	}
	log, err := Logger(cmd, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	pledges, err := o.Promise.Resolve(cmd, PromiseOf(o.Arch), o.Batch, log)
	if err != nil {
		return err
	}
	var found []Promised
	var broken error
	if pledges.Measures() {
		file, found, err = pledges.Prove(cmd.Context(), o.Promise.Devices, out, file, log)
		if broken = err; file == nil {
			return err
		}
	}
	if err := export.Write(out, file); err != nil {
		return err
	}
	w := cmd.OutOrStdout()
	fmt.Fprintf(w, "%s: %s of %s with random weights\n", out, n.Arch, n.Space)
	WritePromised(w, found)
	return broken
}

// NewExportCommand is spos-edge's `export`: random weights only.
func NewExportCommand() *cobra.Command {
	var (
		o   ExportRandom
		out string
	)
	cmd := &cobra.Command{
		Use:     "export --space SPACE --arch ARCH -o FILE.onnx",
		Short:   "Export a net of a space with random weights, for measuring",
		Example: "  spos-edge export --space shufflenetv2-spos --arch 21012020202300003233 -o net.onnx",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.Run(cmd, out)
		},
	}
	o.Flags(cmd)
	cmd.Flags().StringVarP(&out, "output", "o", "", "file to write")
	_ = cmd.MarkFlagRequired("output")
	return cmd
}
