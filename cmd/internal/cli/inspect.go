package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"spos/export"
	"spos/latency"
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
			if err := s.Write(cmd.OutOrStdout()); err != nil {
				return err
			}
			return writePromise(cmd, s.Metadata)
		},
	}
	jsonFlag(cmd, &asJSON)
	return cmd
}

// writePromise prints the latencies that a file's metadata holds, if it does.
func writePromise(cmd *cobra.Command, metadata map[string]string) error {
	w := cmd.OutOrStdout()
	for _, key := range latencyKeys(metadata) {
		fmt.Fprintln(w)
		m, err := latency.ParseManifest(metadata[key])
		if err != nil {
			_, err = fmt.Fprintf(w, "latency      not understood: %v\n", err)
		} else {
			err = m.Write(w)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
