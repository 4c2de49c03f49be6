package cli

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"spos/cmd/internal/latencyreport"
	"spos/internal/report/page"
)

type reportOptions struct {
	output, title string
}

func newLatencyReportCommand() *cobra.Command {
	var o reportOptions
	cmd := &cobra.Command{
		Use:   "report INPUT… -o FILE.html",
		Short: "Draw measurements, tables and the device's drift as one HTML file",
		Long: `Draw what other verbs have left as one HTML file that needs nothing else: every run
in the order it ran, distributions, the device's drift, predicted against measured.

An INPUT is what spos latency measure --json --samples printed, a table that spos
latency table wrote, the latency.jsonl of a search, or the directory of the run that
has one. "-" is standard input.`,
		Example: `  spos latency measure --json --samples *.onnx > lat.json
  spos latency report lat.json -o lat.html
  spos latency report runs/search1 -o search1.html --title "Camera, limit 8 ms"`,
		Args: cobra.MinimumNArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return []string{"json", "jsonl"}, cobra.ShellCompDirectiveFilterFileExt
		},
		RunE: func(cmd *cobra.Command, args []string) error { return latencyReportFunc(cmd, args, o) },
	}
	f := cmd.Flags()
	f.StringVarP(&o.output, "output", "o", "", "file to write")
	f.StringVar(&o.title, "title", "Latency", "the report's heading")
	_ = cmd.MarkFlagRequired("output")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"html"}, cobra.ShellCompDirectiveFilterFileExt))
	return cmd
}

func latencyReportFunc(cmd *cobra.Command, args []string, o reportOptions) error {
	inputs := make([]latencyreport.Input, len(args))
	for i, arg := range args {
		var err error
		if inputs[i], err = openReportInput(arg, cmd.InOrStdin()); err != nil {
			return err
		}
	}
	report := latencyreport.New(o.title, inputs)
	report.Foot = "Written by spos " + Version + ". Intervals are 95 % intervals of the median."
	var b bytes.Buffer
	if err := page.Write(&b, report); err != nil {
		return err
	}
	if err := renameio.WriteFile(o.output, b.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// openReportInput reads a file, standard input, or a run's journal.
func openReportInput(arg string, stdin io.Reader) (latencyreport.Input, error) {
	if arg == "-" {
		text, err := io.ReadAll(stdin)
		if err != nil {
			return latencyreport.Input{}, fmt.Errorf("read standard input: %w", err)
		}
		return latencyreport.Read("standard input", text)
	}
	path := arg
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		path = filepath.Join(path, latencyreport.Journal)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return latencyreport.Input{}, WithHint(fmt.Errorf("read measurements: %w", err),
			"give what spos latency measure --json --samples printed, a latency table, or a "+latencyreport.Journal)
	}
	return latencyreport.Read(filepath.ToSlash(arg), text)
}
