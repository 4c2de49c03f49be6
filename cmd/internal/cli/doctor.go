package cli

import (
	"errors"

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
