package cli

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"text/tabwriter"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"spos/internal/arch"
	"spos/internal/archdraw"
)

func newArchShowCommand() *cobra.Command {
	var (
		asJSON, ops bool
		svg         string
	)
	cmd := &cobra.Command{
		Use:   "show NAME | FILE | SPACE ARCH",
		Short: "Draw an architecture, block by block, or spell it out op by op",
		Long: `Draw an architecture: a line a block, with its shape, its parameters and a bar
for its share of the MACs. --svg draws the same as a picture. --ops lists every
op instead, under the names that its tensors have in checkpoints; --json has
both.`,
		Example: `  spos arch show spos-official
  spos arch show anglenas-spos --svg net.svg
  spos arch show shufflenetv2-spos 21012020202300003233 --ops`,
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: completeNetwork,
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := loadNetwork(args)
			if err != nil {
				return err
			}
			return archShowFunc(cmd, n, ops, asJSON, svg)
		},
	}
	jsonFlag(cmd, &asJSON)
	cmd.Flags().BoolVar(&ops, "ops", false, "list every op instead of drawing blocks")
	cmd.Flags().StringVar(&svg, "svg", "", "draw into this file as well")
	_ = cmd.MarkFlagFilename("svg", "svg")
	return cmd
}

func archShowFunc(cmd *cobra.Command, n *network, ops, asJSON bool, svg string) error {
	if ext := filepath.Ext(svg); svg != "" && ext != ".svg" {
		return WithHint(errors.New("--svg "+svg+": the picture is an SVG"), "give it a name that ends in .svg")
	}
	rows, err := archdraw.Rows(n.space, n.net)
	if err != nil {
		return err
	}
	if svg != "" {
		c := n.net.Cost()
		lines := []string{
			fmt.Sprintf("%s %s, input %v, %d classes", n.space.Name, n.net.Arch, n.net.In, n.net.Classes()),
			fmt.Sprintf("%d parameters, %d MACs", c.Params, c.MACs),
		}
		if err := renameio.WriteFile(svg, archdraw.SVG(n.title(), lines, rows), 0o644); err != nil {
			return fmt.Errorf("draw %s: %w", svg, err)
		}
	}
	out := cmd.OutOrStdout()
	switch {
	case asJSON:
		return PrintJSON(cmd, netEntry(n, rows))
	case ops:
		err = writeOps(out, n.net)
	default:
		err = archdraw.Text(out, rows)
	}
	if err != nil {
		return err
	}
	fmt.Fprintln(out)
	return writeCost(out, n.cost())
}

type rowEntry struct {
	Part   string `json:"part"`
	Block  *int   `json:"block,omitempty"`
	Name   string `json:"name"`
	Stride int    `json:"stride"`
	Out    [3]int `json:"out"`
	Params int64  `json:"params"`
	MACs   int64  `json:"macs"`
}

type opEntry struct {
	Name   string   `json:"name"`
	Kind   string   `json:"kind"`
	Block  int      `json:"block"`
	Inputs []string `json:"inputs"`
	Out    [3]int   `json:"out"`
	Kernel int      `json:"kernel,omitempty"`
	Stride int      `json:"stride,omitempty"`
	Groups int      `json:"groups,omitempty"`
	Act    string   `json:"act,omitempty"`
	Params int64    `json:"params"`
	MACs   int64    `json:"macs"`
}

func extent(s arch.Shape) [3]int { return [3]int{s.C, s.H, s.W} }

func netEntry(n *network, rows []archdraw.Row) any {
	var blocks []rowEntry
	for _, r := range rows {
		e := rowEntry{r.Part, nil, r.Name, r.Stride, extent(r.Out), r.Cost.Params, r.Cost.MACs}
		if r.Block >= 0 {
			e.Block = new(r.Block)
		}
		blocks = append(blocks, e)
	}
	var ops []opEntry
	for i := range n.net.Ops {
		o := &n.net.Ops[i]
		c := o.Cost()
		e := opEntry{
			Name: o.Name, Kind: o.Kind.String(), Block: o.Block, Out: extent(o.Out),
			Kernel: o.Kernel, Stride: o.Stride, Groups: o.Groups, Params: c.Params, MACs: c.MACs,
		}
		if o.Act != arch.None {
			e.Act = o.Act.String()
		}
		for _, in := range o.Inputs {
			e.Inputs = append(e.Inputs, valueName(n.net, in))
		}
		ops = append(ops, e)
	}
	return struct {
		costEntry
		Rows []rowEntry `json:"rows"`
		Ops  []opEntry  `json:"ops"`
	}{n.cost(), blocks, ops}
}

func valueName(n *arch.Net, v int) string {
	if v == arch.Input {
		return "input"
	}
	return n.Ops[v].Name
}

func writeOps(out io.Writer, n *arch.Net) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "OP\tKIND\tK\tS\tGROUPS\tACT\tOUT\tPARAMS\tMACS")
	for i := range n.Ops {
		o := &n.Ops[i]
		c := o.Cost()
		switch o.Kind {
		case arch.Conv:
			fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%s\t%v\t%d\t%d\n", o.Name, o.Kind, o.Kernel, o.Stride, o.Groups, o.Act, o.Out, c.Params, c.MACs)
		default:
			fmt.Fprintf(w, "%s\t%s\t\t\t\t\t%v\t%d\t%d\n", o.Name, o.Kind, o.Out, c.Params, c.MACs)
		}
	}
	return w.Flush()
}
