package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"spos/serve/keys"
)

// newTokenCommand is `serve token`.
func newTokenCommand() *cobra.Command {
	var scopes string
	cmd := &cobra.Command{
		Use:   "token NAME",
		Short: "Make a token for clients of a server",
		Long: `Make a token that admits clients to a server that was started with --tokens FILE.
The line for that file goes to standard output and holds a hash; the token itself
goes to standard error, once. A running server takes the line up within a second.`,
		Example: `  spos serve token ci --scopes infer,metrics >> tokens`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return tokenFunc(cmd, args[0], scopes)
		},
	}
	cmd.Flags().StringVar(&scopes, "scopes", "infer", "what the token allows, with commas between: infer, admin, metrics")
	_ = cmd.RegisterFlagCompletionFunc("scopes", cobra.FixedCompletions([]string{"infer", "admin", "metrics"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func tokenFunc(cmd *cobra.Command, name, scopes string) error {
	set, err := keys.ParseScope(scopes)
	if err != nil {
		return err
	}
	secret, line, err := keys.NewToken(name, set)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(cmd.OutOrStdout(), line); err != nil {
		return err
	}
	_, err = fmt.Fprintf(cmd.ErrOrStderr(), "token: %s\n", secret)
	return err
}
