package cli

import (
	"cmp"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"spos/configs"
)

func newArchListCommand() *cobra.Command {
	var (
		asJSON bool
		space  string
	)
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the published networks with their reported numbers",
		Long: `List the published networks with the numbers of their first source. The name
stands for the network wherever an architecture is wanted.`,
		Example: "  spos arch list\n  spos arch list --space shufflenetv2-spos --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return archListFunc(cmd, space, asJSON)
		},
	}
	jsonFlag(cmd, &asJSON)
	cmd.Flags().StringVar(&space, "space", "", "only those of this search space")
	flagSpace(cmd, "space")
	return cmd
}

type listEntry struct {
	costEntry
	About string `json:"about"`
}

func archListFunc(cmd *cobra.Command, space string, asJSON bool) error {
	if space != "" {
		if _, err := configs.Space(space); err != nil {
			return err
		}
	}
	list := []listEntry{}
	for _, name := range configs.Networks() {
		n, err := loadNetwork([]string{name})
		if err != nil {
			return err
		}
		if space == "" || n.space.Name == space {
			list = append(list, listEntry{n.cost(), n.about})
		}
	}
	if asJSON {
		return PrintJSON(cmd, list)
	}
	if len(list) == 0 {
		return WithHint(fmt.Errorf("no published network is of %s", space), "spos arch list shows all of them")
	}
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tSPACE\tARCH\tPARAMS\tFLOPS\tCOUNTER\tTOP-1\tDATA\tOTHER")
	for _, e := range list {
		r := e.Reported[0]
		params, flops, counter, top1 := "-", "-", "-", "-"
		if r.Params != 0 {
			params = published(r.Params)
		}
		if r.FLOPs != 0 {
			flops, counter = published(r.FLOPs), cmp.Or(string(r.Counter), "?")
		}
		if r.Top1 != 0 {
			top1 = percent(r.Top1)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", e.Name, e.Space, e.Arch, params, flops, counter, top1, r.Dataset, r.Metrics)
	}
	return w.Flush()
}
