package cli

import (
	"errors"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"spos/internal/native"
)

// NewDoctorCommand is `doctor`.
func NewDoctorCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "doctor",
		Short:   "Show what was found on this machine, and how to mend what is missing",
		Example: "  spos doctor --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return doctorFunc(cmd, asJSON)
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

func doctorFunc(cmd *cobra.Command, asJSON bool) error {
	r := native.Examine()
	if i := slices.IndexFunc(r.Items, func(it native.Item) bool { return it.Name == "onnxruntime" && it.Found }); i >= 0 {
		examineRuntime(&r.Items[i])
	}
	var err error
	if asJSON {
		err = PrintJSON(cmd, r)
	} else {
		err = r.Write(cmd.OutOrStdout())
	}
	if err == nil && !r.Healthy() {
		err = errors.New("something is missing: see the lines above")
	}
	return err
}

// examineRuntime opens the library: whether it loads here, and what it can run on.
func examineRuntime(it *native.Item) {
	rt, err := OpenRuntime()
	if err != nil {
		it.Problem = err.Error()
		return
	}
	it.Version = rt.Version()
	if has, err := rt.Providers(); err == nil {
		it.Detail = "providers: " + strings.Join(has, ", ")
	}
}
