package cli

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"spos/configs"
	"spos/internal/arch"
)

// NewSpaceCommand is `space`: what may be searched.
func NewSpaceCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "space", Short: "Search spaces: list them, show one, count and weigh what is in it"}
	cmd.AddCommand(newSpaceListCommand(), newSpaceShowCommand(), newSpaceStatsCommand(), newSpaceLatencyCommand())
	return cmd
}

func newSpaceListCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the shipped search spaces",
		Example: "  spos space list --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return spaceListFunc(cmd, asJSON)
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

type spaceEntry struct {
	Name    string  `json:"name"`
	About   string  `json:"about"`
	Blocks  int     `json:"blocks"`
	Size    float64 `json:"size"`
	Params  int64   `json:"supernet_params"`
	Input   [3]int  `json:"input"`
	Classes int     `json:"classes"`
}

func spaceListFunc(cmd *cobra.Command, asJSON bool) error {
	var list []spaceEntry
	for _, name := range configs.Spaces() {
		s, err := configs.Space(name)
		if err != nil {
			return err
		}
		spec := s.Spec()
		params, _ := s.SupernetParams()
		list = append(list, spaceEntry{name, spec.About, s.Len(), s.Size(), params, spec.Input, spec.Classes})
	}
	if asJSON {
		return PrintJSON(cmd, list)
	}
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tBLOCKS\tARCHITECTURES\tSUPERNET\tINPUT\tCLASSES\tABOUT")
	for _, e := range list {
		fmt.Fprintf(w, "%s\t%d\t%.4g\t%.1fM\t%d×%d×%d\t%d\t%s\n", e.Name, e.Blocks, e.Size, float64(e.Params)/1e6, e.Input[0], e.Input[1], e.Input[2], e.Classes, e.About)
	}
	return w.Flush()
}

func newSpaceShowCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:               "show SPACE",
		Short:             "Show a space: its blocks and what each candidate costs",
		Example:           "  spos space show shufflenetv2-spos\n  spos space show my-space.yaml --json",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeSpace,
		RunE: func(cmd *cobra.Command, args []string) error {
			return spaceShowFunc(cmd, args[0], asJSON)
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

type candidateEntry struct {
	Choice int    `json:"choice"`
	Name   string `json:"name"`
	Params int64  `json:"params"`
	MACs   int64  `json:"macs"`
	MMCV   int64  `json:"mmcv"`
}

type blockEntry struct {
	Block      int              `json:"block"`
	Stage      int              `json:"stage"`
	Candidates []candidateEntry `json:"candidates"`
}

func spaceShowFunc(cmd *cobra.Command, name string, asJSON bool) error {
	s, err := configs.Space(name)
	if err != nil {
		return err
	}
	var blocks []blockEntry
	for i := range s.Len() {
		b := blockEntry{Block: i, Stage: s.Stage(i)}
		for j, c := range s.Candidates(i) {
			cost := s.BlockCost(i, j)
			b.Candidates = append(b.Candidates, candidateEntry{j, c, cost.Params, cost.MACs, cost.FLOPs.MMCV})
		}
		blocks = append(blocks, b)
	}
	if asJSON {
		return PrintJSON(cmd, struct {
			Spec  arch.Spec    `json:"spec"`
			Size  float64      `json:"size"`
			Fixed arch.Cost    `json:"fixed"`
			Block []blockEntry `json:"blocks"`
		}{s.Spec(), s.Size(), s.FixedCost(), blocks})
	}
	return writeSpace(cmd.OutOrStdout(), s, blocks)
}

func writeSpace(out io.Writer, s *arch.Space, blocks []blockEntry) error {
	fixed := s.FixedCost()
	params, _ := s.SupernetParams()
	fmt.Fprintf(out, "%s: %s\n%d choice blocks, %v architectures", s.Name, s.Spec().About, s.Len(), s.Count())
	if distinct := s.CanonicalCount(); distinct.Cmp(s.Count()) != 0 {
		fmt.Fprintf(out, " (%v distinct networks)", distinct)
	}
	fmt.Fprintf(out, ", input %v, %d classes\nsupernet: %d parameters\n", s.In, s.Classes, params)
	fmt.Fprintf(out, "stem, tail and head: %d parameters, %d MACs, %d mmcv FLOPs\n\n", fixed.Params, fixed.MACs, fixed.FLOPs.MMCV)
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "BLOCK\tSTAGE\tCHOICE\tCANDIDATE\tPARAMS\tMACS\tMMCV\t")
	for _, b := range blocks {
		for _, c := range b.Candidates {
			fmt.Fprintf(w, "%d\t%d\t%d\t%s\t%d\t%d\t%d\t\n", b.Block, b.Stage, c.Choice, c.Name, c.Params, c.MACs, c.MMCV)
		}
	}
	return w.Flush()
}

func completeSpace(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return configs.Spaces(), cobra.ShellCompDirectiveDefault
}
