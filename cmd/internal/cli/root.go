// Package cli holds what both programs share: the root command, the verbs
// that need no training, logging, progress and the way errors are shown.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// Version is stamped by the build.
var Version = "dev"

// NewRoot is a program's root command with the flags that every verb has.
func NewRoot(name, short string) *cobra.Command {
	cmd := &cobra.Command{
		Use:           name,
		Short:         short,
		Version:       Version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	cmd.PersistentFlags().String("log-format", "text", "format of log lines on stderr: text or json")
	cmd.PersistentFlags().BoolP("verbose", "v", false, "log details as well")
	_ = cmd.RegisterFlagCompletionFunc("log-format", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// StatusError is an answer that is told by the exit status, of which nothing
// is printed.
type StatusError struct{ Status int }

func (e *StatusError) Error() string { return fmt.Sprintf("exit status %d", e.Status) }

// Run executes a program's command line until it ends or a signal asks it to
// stop, prints the error with its hints, and returns the exit status: 0, 1 for
// an error, 130 where a signal stopped it, or that of a [StatusError].
func Run(root *cobra.Command) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if answer, ok := errors.AsType[*StatusError](err); ok {
		return answer.Status
	}
	PrintError(root.ErrOrStderr(), root.Name(), err)
	if ctx.Err() != nil {
		return 130
	}
	return 1
}

// HintError is an error with the way out of it, shown on lines of their own.
type HintError struct {
	Err   error
	Hints []string
}

func (e *HintError) Error() string { return e.Err.Error() }
func (e *HintError) Unwrap() error { return e.Err }

// WithHint attaches hints to an error that is not nil.
func WithHint(err error, hints ...string) error {
	if err == nil {
		return nil
	}
	return &HintError{err, hints}
}

// PrintError writes an error the way a person reads it.
func PrintError(w io.Writer, program string, err error) {
	fmt.Fprintf(w, "%s: %v\n", program, err)
	for {
		hint, ok := errors.AsType[*HintError](err)
		if !ok {
			return
		}
		for _, h := range hint.Hints {
			fmt.Fprintf(w, "  hint: %s\n", h)
		}
		err = hint.Err
	}
}

// Logger is the verb's logger: stderr, in the format that was asked for.
// Writing goes through w, so that progress bars can make room for lines.
func Logger(cmd *cobra.Command, w io.Writer) (*slog.Logger, error) {
	format, err := cmd.Flags().GetString("log-format")
	if err != nil {
		return nil, err
	}
	level := slog.LevelInfo
	if verbose, _ := cmd.Flags().GetBool("verbose"); verbose {
		level = slog.LevelDebug
	}
	opts := &slog.HandlerOptions{Level: level}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	default:
		return nil, fmt.Errorf("--log-format %q: want text or json", format)
	}
}

// PrintJSON writes v as indented JSON on the command's standard output.
func PrintJSON(cmd *cobra.Command, v any) error {
	e := json.NewEncoder(cmd.OutOrStdout())
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// jsonFlag adds --json.
func jsonFlag(cmd *cobra.Command, to *bool) {
	cmd.Flags().BoolVar(to, "json", false, "print JSON")
}
