package cli

import (
	"fmt"
	"io"
	"math/rand/v2"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"spos/configs"
	"spos/internal/arch"
)

// NewArchCommand is `arch`: one point of a space and what follows from it.
func NewArchCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "arch", Short: "Architectures: show one, count it, draw samples"}
	cmd.AddCommand(newArchShowCommand(), newArchCostCommand(), newArchSampleCommand())
	return cmd
}

func loadNet(space, digits string) (*arch.Net, error) {
	s, err := configs.Space(space)
	if err != nil {
		return nil, err
	}
	a, err := s.Parse(digits)
	if err != nil {
		return nil, err
	}
	return s.Net(a)
}

type costEntry struct {
	Space string    `json:"space"`
	Arch  arch.Arch `json:"arch"`
	arch.Cost
}

func newArchCostCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:               "cost SPACE ARCH",
		Short:             "Count parameters, FLOPs under each published counter, and activation memory",
		Example:           "  spos arch cost shufflenetv2-mmrazor 20203110010103122013 --json",
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: completeSpace,
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := loadNet(args[0], args[1])
			if err != nil {
				return err
			}
			e := costEntry{n.Space, n.Arch, n.Cost()}
			if asJSON {
				return PrintJSON(cmd, e)
			}
			return writeCost(cmd.OutOrStdout(), e)
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

func writeCost(out io.Writer, e costEntry) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "space\t%s\narch\t%s\n", e.Space, e.Arch)
	fmt.Fprintf(w, "parameters\t%d\nMACs\t%d\nFLOPs (mmcv)\t%d\nFLOPs (thop)\t%d\nactivations\t%d bytes\n",
		e.Params, e.MACs, e.FLOPs.MMCV, e.FLOPs.Thop, e.ActivationBytes)
	return w.Flush()
}

func newArchShowCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:               "show SPACE ARCH",
		Short:             "Spell an architecture out, op by op",
		Example:           "  spos arch show shufflenetv2-spos 21012020202300003233",
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: completeSpace,
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := loadNet(args[0], args[1])
			if err != nil {
				return err
			}
			if asJSON {
				return PrintJSON(cmd, netEntry(n))
			}
			return writeNet(cmd.OutOrStdout(), n)
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
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

func netEntry(n *arch.Net) any {
	var ops []opEntry
	for i := range n.Ops {
		o := &n.Ops[i]
		c := o.Cost()
		e := opEntry{
			Name: o.Name, Kind: o.Kind.String(), Block: o.Block, Out: [3]int{o.Out.C, o.Out.H, o.Out.W},
			Kernel: o.Kernel, Stride: o.Stride, Groups: o.Groups, Params: c.Params, MACs: c.MACs,
		}
		if o.Act != arch.None {
			e.Act = o.Act.String()
		}
		for _, in := range o.Inputs {
			e.Inputs = append(e.Inputs, valueName(n, in))
		}
		ops = append(ops, e)
	}
	return struct {
		costEntry
		Ops []opEntry `json:"ops"`
	}{costEntry{n.Space, n.Arch, n.Cost()}, ops}
}

func valueName(n *arch.Net, v int) string {
	if v == arch.Input {
		return "input"
	}
	return n.Ops[v].Name
}

func writeNet(out io.Writer, n *arch.Net) error {
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
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(out)
	return writeCost(out, costEntry{n.Space, n.Arch, n.Cost()})
}

func newArchSampleCommand() *cobra.Command {
	var (
		asJSON bool
		count  int
		seed   uint64
	)
	cmd := &cobra.Command{
		Use:               "sample SPACE",
		Short:             "Draw architectures uniformly",
		Example:           "  spos arch sample shufflenetv2-spos -n 5 --seed 7",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeSpace,
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := configs.Space(args[0])
			if err != nil {
				return err
			}
			return archSampleFunc(cmd, s, count, rand.New(rand.NewPCG(seed, 0)), asJSON)
		},
	}
	jsonFlag(cmd, &asJSON)
	cmd.Flags().IntVarP(&count, "count", "n", 1, "how many")
	cmd.Flags().Uint64Var(&seed, "seed", 0, "seed of the draw")
	return cmd
}

func archSampleFunc(cmd *cobra.Command, s *arch.Space, count int, r *rand.Rand, asJSON bool) error {
	if count < 1 {
		return fmt.Errorf("--count %d: want at least one", count)
	}
	list := make([]costEntry, count)
	for i := range list {
		n, err := s.Net(s.Sample(r))
		if err != nil {
			return err
		}
		list[i] = costEntry{s.Name, n.Arch, n.Cost()}
	}
	if asJSON {
		return PrintJSON(cmd, list)
	}
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "ARCH\tPARAMS\tMACS")
	for _, e := range list {
		fmt.Fprintf(w, "%s\t%d\t%d\n", e.Arch, e.Params, e.MACs)
	}
	return w.Flush()
}
