package cli

import "github.com/spf13/cobra"

// AddVerbs gives a program the verbs that need no libtorch.
func AddVerbs(root *cobra.Command) {
	root.AddCommand(
		NewAgentCommand(), NewArchCommand(), NewDoctorCommand(), NewFleetCommand(), NewImportCommand(), NewInferCommand(), NewInspectCommand(),
		NewLatencyCommand(), NewServeCommand(), NewSpaceCommand(),
	)
}
