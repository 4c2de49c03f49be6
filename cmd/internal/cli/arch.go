package cli

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"spos/configs"
	"spos/internal/arch"
	"spos/internal/archfile"
)

// NewArchCommand is `arch`: one point of a space and what follows from it.
func NewArchCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "arch",
		Short: "Architectures: list the published, show, count and convert one, draw samples",
		Long: `Architectures: list the published ones, show, count and convert one, draw samples.

An architecture is given as SPACE ARCH, where ARCH is its digits or a file in
any format that arch convert knows, or by one word: the NAME of a published
network (arch list), or a best.yaml, which both say what space they are of.`,
	}
	cmd.AddCommand(newArchListCommand(), newArchShowCommand(), newArchCostCommand(), newArchConvertCommand(), newArchSampleCommand())
	return cmd
}

// network is an architecture that a user named, spelled out.
type network struct {
	space    *arch.Space
	net      *arch.Net
	name     string            // of a published one, or empty
	about    string            // likewise
	reported []archfile.Report // likewise
}

// loadNetwork reads NAME, FILE or SPACE ARCH.
func loadNetwork(args []string) (*network, error) {
	var (
		s    *arch.Space
		a    arch.Arch
		file archfile.File
		err  error
	)
	if len(args) == 1 {
		if file, err = configs.Network(args[0]); err != nil {
			return nil, hintNetwork(args[0], err)
		}
		s, a, err = configs.SpaceOf(file)
	} else {
		if s, err = configs.Space(args[0]); err != nil {
			return nil, err
		}
		if a, err = configs.Arch(s, args[1]); err == nil {
			file, err = publishedAs(s.Name, a)
		}
	}
	if err != nil {
		return nil, err
	}
	n, err := s.Net(a)
	if err != nil {
		return nil, err
	}
	return &network{s, n, file.Name, file.About, file.Reported}, nil
}

// hintNetwork tells what else one word could have meant.
func hintNetwork(word string, err error) error {
	switch {
	case slices.Contains(configs.Spaces(), word):
		return WithHint(fmt.Errorf("%s is a search space: say which architecture of it", word), "give its digits, too; `spos arch sample "+word+"` draws some")
	case errors.Is(err, configs.ErrUnknownNetwork):
		return WithHint(err, "digits follow the name of their space: SPACE ARCH")
	case errors.Is(err, archfile.ErrText):
		return WithHint(err, "a file that does not say its space follows the name of one: SPACE FILE")
	default:
		return err
	}
}

// publishedAs is the published network that an arch is, or an empty file.
func publishedAs(space string, a arch.Arch) (archfile.File, error) {
	for _, name := range configs.Networks() {
		f, err := configs.Network(name)
		if err != nil || f.Space == space && f.Arch == a {
			return f, err
		}
	}
	return archfile.File{}, nil
}

func loadNet(space, text string) (*arch.Net, error) {
	n, err := loadNetwork([]string{space, text})
	if err != nil {
		return nil, err
	}
	return n.net, nil
}

// title is how a drawing calls a network.
func (n *network) title() string {
	if n.name != "" {
		return n.name
	}
	return n.space.Name + " " + string(n.net.Arch)
}

// completeNetwork offers networks and spaces as the first word.
func completeNetwork(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	switch {
	case len(args) == 0:
		return append(configs.Networks(), configs.Spaces()...), cobra.ShellCompDirectiveDefault
	case len(args) == 1 && slices.Contains(configs.Spaces(), args[0]):
		return networksOf(args[0]), cobra.ShellCompDirectiveDefault
	default:
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
}

// networksOf names the published networks of a space.
func networksOf(space string) []string {
	var names []string
	for _, name := range configs.Networks() {
		if f, err := configs.Network(name); err == nil && f.Space == space {
			names = append(names, name)
		}
	}
	return names
}

// flagSpace completes a flag that names a space.
func flagSpace(cmd *cobra.Command, flag string) {
	_ = cmd.RegisterFlagCompletionFunc(flag, func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return configs.Spaces(), cobra.ShellCompDirectiveDefault
	})
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
		list[i] = costEntry{Space: s.Name, Arch: n.Arch, Cost: n.Cost()}
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

// oneOf names words in a sentence.
func oneOf[T ~string](words []T) string {
	all := make([]string, len(words))
	for i, w := range words {
		all[i] = string(w)
	}
	return strings.Join(all, ", ")
}
