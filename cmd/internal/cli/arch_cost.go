package cli

import (
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"spos/internal/arch"
	"spos/internal/archfile"
)

type costEntry struct {
	Name  string    `json:"name,omitempty"` // of a published network
	Space string    `json:"space"`
	Arch  arch.Arch `json:"arch"`
	arch.Cost
	Reported []archfile.Report `json:"reported,omitempty"`
}

func (n *network) cost() costEntry {
	return costEntry{n.name, n.space.Name, n.net.Arch, n.net.Cost(), n.reported}
}

func newArchCostCommand() *cobra.Command {
	var asJSON, layers bool
	cmd := &cobra.Command{
		Use:   "cost NAME | FILE | SPACE ARCH",
		Short: "Count parameters, FLOPs under each published counter, and activation memory",
		Long: `Count parameters, FLOPs under each published counter, and activation memory.

The counters: macs, multiply-accumulates of convolutions and linear layer
(official SPOS and the paper); mmcv, which adds norms, activations and pool
(mmcv and mmrazor); thop, with (2·in−1)·out for the linear layer (AngleNAS).
What others report of a published network is shown with it.`,
		Example: `  spos arch cost spos-official
  spos arch cost shufflenetv2-mmrazor 20203110010103122013 --json
  spos arch cost anglenas-spos --layers
  spos arch cost work/search/best.yaml`,
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: completeNetwork,
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := loadNetwork(args)
			if err != nil {
				return err
			}
			return archCostFunc(cmd, n, layers, asJSON)
		},
	}
	jsonFlag(cmd, &asJSON)
	cmd.Flags().BoolVar(&layers, "layers", false, "count each layer that has weights as well")
	return cmd
}

// layerEntry is one layer with weights.
type layerEntry struct {
	Op      string     `json:"op"`
	Kind    string     `json:"kind"`
	Kernel  int        `json:"kernel,omitempty"`
	Stride  int        `json:"stride,omitempty"`
	Groups  int        `json:"groups"`
	In      int        `json:"in"`
	Out     int        `json:"out"`
	OutSize [2]int     `json:"out_size"` // height, width
	Weights int        `json:"weights"`
	Params  int64      `json:"params"` // with bias and norm
	FLOPs   arch.FLOPs `json:"flops"`
}

func layersOf(n *arch.Net) []layerEntry {
	var all []layerEntry
	for i := range n.Ops {
		o := &n.Ops[i]
		if o.Weight == nil {
			continue
		}
		c := o.Cost()
		all = append(all, layerEntry{
			o.Name, o.Kind.String(), o.Kernel, o.Stride, max(o.Groups, 1), o.In.C, o.Out.C, [2]int{o.Out.H, o.Out.W},
			o.Weight.Numel(), c.Params, c.FLOPs,
		})
	}
	return all
}

func archCostFunc(cmd *cobra.Command, n *network, layers, asJSON bool) error {
	var all []layerEntry
	if layers {
		all = layersOf(n.net)
	}
	if asJSON {
		return PrintJSON(cmd, struct {
			costEntry
			Layers []layerEntry `json:"layers,omitempty"`
		}{n.cost(), all})
	}
	out := cmd.OutOrStdout()
	if layers {
		w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
		fmt.Fprintln(w, "OP\tKIND\tK\tS\tGROUPS\tIN\tOUT\tHOUT\tMACS\tWEIGHTS")
		for _, l := range all {
			k, s := "-", "-"
			if l.Kernel > 0 {
				k, s = strconv.Itoa(l.Kernel), strconv.Itoa(l.Stride)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\n", l.Op, l.Kind, k, s, l.Groups, l.In, l.Out, l.OutSize[0], l.FLOPs.MACs, l.Weights)
		}
		if err := w.Flush(); err != nil {
			return err
		}
		fmt.Fprintln(out)
	}
	return writeCost(out, n.cost())
}

// writeCost prints our numbers, and those of others beside them.
func writeCost(out io.Writer, e costEntry) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	if e.Name != "" {
		fmt.Fprintf(w, "name\t%s\n", e.Name)
	}
	fmt.Fprintf(w, "space\t%s\narch\t%s\n", e.Space, e.Arch)
	fmt.Fprintf(w, "parameters\t%d\nMACs\t%d\nFLOPs (mmcv)\t%d\nFLOPs (thop)\t%d\nactivations\t%d bytes\n",
		e.Params, e.MACs, e.FLOPs.MMCV, e.FLOPs.Thop, e.ActivationBytes)
	if err := w.Flush(); err != nil {
		return err
	}
	for _, r := range e.Reported {
		fmt.Fprintf(out, "\nreported by %s\n", r.Source)
		line := func(what, text string) {
			if text != "" {
				fmt.Fprintf(w, "  %s\t%s\n", what, text)
			}
		}
		line("parameters", beside(r.Params, e.Params))
		if r.Counter == "" && r.FLOPs != 0 {
			line("FLOPs", published(r.FLOPs)+" (by a counter that it does not name)")
		} else {
			line(fmt.Sprintf("FLOPs (%s)", r.Counter), beside(r.FLOPs, e.FLOPs.Of(r.Counter)))
		}
		line("top-1", percent(r.Top1))
		line("top-5", percent(r.Top5))
		line("data", r.Dataset)
		line("metrics", r.Metrics)
		line("note", r.Note)
		line("see", r.URL)
		if err := w.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// beside is a published number and ours; empty where nothing is published.
func beside(theirs, ours int64) string {
	if theirs == 0 {
		return ""
	}
	return fmt.Sprintf("%s (ours %d)", published(theirs), ours)
}

// published keeps the digits that a number was published with.
func published(n int64) string {
	return strconv.FormatFloat(float64(n)/1e6, 'f', -1, 64) + " M"
}

func percent(fraction float64) string {
	if fraction == 0 {
		return ""
	}
	return strconv.FormatFloat(100*fraction, 'f', 2, 64) + " %"
}
