package cli

import (
	"github.com/spf13/cobra"

	"spos/export"
)

// NewInspectCommand is `inspect`.
func NewInspectCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "inspect FILE.onnx",
		Short: "Read an ONNX file back: its operators, parameters and multiply-accumulates",
		Long: `Read any ONNX file back through a reader that had no part in writing it, and print
its operators, parameters and multiply-accumulates. Files that spos exported are
compared with the net they say they hold.`,
		Example: "  spos inspect models/shufflenet/1/model.onnx --json",
		Args:    cobra.ExactArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return []string{"onnx"}, cobra.ShellCompDirectiveFilterFileExt
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := export.InspectFile(args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return PrintJSON(cmd, s)
			}
			return s.Write(cmd.OutOrStdout())
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}
