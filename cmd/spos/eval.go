package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"spos/cmd/internal/cli"
	"spos/internal/arch"
	"spos/internal/config"
	"spos/internal/data"
	"spos/internal/report"
)

type evalOptions struct {
	arch   string
	split  string
	data   string
	device string
	json   bool
}

func newEvalCommand() *cobra.Command {
	var o evalOptions
	cmd := &cobra.Command{
		Use:   "eval RUN_OR_CKPT",
		Short: "Measure the accuracy of a checkpoint",
		Long: `Measure the accuracy of a checkpoint on the test images, or on the held-out
training images. Of a supernet, --arch names the net, whose batch-norm statistics
are recomputed on training images first.`,
		Example: `  spos eval work/subnet
  spos eval work/supernet --arch work/search/best.yaml --split val --json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return evalFunc(cmd, args[0], o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.arch, "arch", "", "net of a supernet: digits, a file, or the name of a published network")
	f.StringVar(&o.split, "split", "test", "images: test or val")
	f.StringVar(&o.data, "data", "", "data set (default: the one trained on)")
	f.StringVar(&o.device, "device", "", "cpu, cuda or cuda:N (default: the one trained on)")
	f.BoolVar(&o.json, "json", false, "print JSON")
	_ = cmd.RegisterFlagCompletionFunc("split", cobra.FixedCompletions([]string{"test", "val"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

type evalOutcome struct {
	Checkpoint string    `json:"checkpoint"`
	Space      string    `json:"space"`
	Arch       arch.Arch `json:"arch"`
	Split      string    `json:"split"`
	Images     int       `json:"images"`
	Top1       float64   `json:"top1"`
	Top5       float64   `json:"top5"`
	Loss       *float64  `json:"loss"` // null where it overflowed
	Confusion  [][]int   `json:"confusion,omitempty"`
}

func evalFunc(cmd *cobra.Command, path string, o evalOptions) error {
	ctx := cmd.Context()
	r, err := restore(ctx, path, func(c *config.Train) {
		if o.data != "" {
			c.Data.Path = o.data
		}
		if o.device != "" {
			c.Device = o.device
		}
	})
	if err != nil {
		return err
	}
	defer r.sets.Close()
	images := r.sets.Test
	switch o.split {
	case "test":
	case "val":
		images = r.sets.Val
	default:
		return fmt.Errorf("--split %q: want test or val", o.split)
	}
	m, err := r.load()
	if err != nil {
		return err
	}
	defer m.Close()
	n, stats, err := r.chosen(ctx, m, o.arch)
	if err != nil {
		return err
	}
	a, err := m.Evaluate(ctx, n, stats, r.evalLoader(images, evalBatch(r.space.In)).Batches(ctx, data.Position{}))
	if err != nil {
		return err
	}
	out := evalOutcome{r.ckpt.Path, r.space.Name, n.Arch, o.split, a.N, a.Top1, a.Top5, nil, a.Confusion}
	if finite(a.Loss) {
		out.Loss = &a.Loss
	}
	if o.json {
		return cli.PrintJSON(cmd, out)
	}
	w := cmd.OutOrStdout()
	fmt.Fprintf(w, "%s, %s of %s, %d %s images\ntop-1 %.2f %%, top-5 %.2f %%, loss %.4f\n", out.Checkpoint, out.Arch, out.Space, out.Images, out.Split, 100*out.Top1, 100*out.Top5, a.Loss)
	if a.Confusion != nil {
		fmt.Fprintf(w, "\n%s", confusion("", r.sets.Classes, a.Confusion).PairsTable(5))
	}
	return nil
}

// confusion makes the report's form of a table [label][prediction].
func confusion(title string, classes []string, table [][]int) *report.Confusion {
	c := report.NewConfusion(title, classes)
	for truth, row := range table {
		for predicted, n := range row {
			for range n {
				c.Add(truth, predicted)
			}
		}
	}
	return c
}
