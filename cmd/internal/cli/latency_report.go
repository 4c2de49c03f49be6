package cli

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

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
latency table wrote, the latency.jsonl of a search, or the directory of a run, with the
measurements of every device. "-" is standard input.`,
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
	var inputs []latencyreport.Input
	for _, arg := range args {
		more, err := openReportInputs(arg, cmd.InOrStdin())
		if err != nil {
			return err
		}
		inputs = append(inputs, more...)
	}
	report := latencyreport.New(o.title, inputs)
	report.Foot = "Written by spos " + Version + ". Intervals hold a repeat's median in 95 of 100 cases."
	var b bytes.Buffer
	if err := page.Write(&b, report); err != nil {
		return err
	}
	if err := renameio.WriteFile(o.output, b.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// openReportInputs reads a file, standard input, or the journals of a run.
func openReportInputs(arg string, stdin io.Reader) ([]latencyreport.Input, error) {
	if arg == "-" {
		text, err := io.ReadAll(stdin)
		if err != nil {
			return nil, fmt.Errorf("read standard input: %w", err)
		}
		in, err := latencyreport.Read("standard input", text)
		return []latencyreport.Input{in}, err
	}
	paths := []string{arg}
	if info, err := os.Stat(arg); err == nil && info.IsDir() {
		if paths, err = journals(arg); err != nil {
			return nil, err
		}
	}
	inputs := make([]latencyreport.Input, len(paths))
	for i, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read measurements: %w", err)
		}
		if inputs[i], err = latencyreport.Read(filepath.ToSlash(path), text); err != nil {
			return nil, err
		}
	}
	return inputs, nil
}

// journals are those that [Gauges.Remember] makes in a run's directory.
func journals(dir string) (paths []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read run: %w", err)
	}
	for _, e := range entries {
		if name := e.Name(); name == latencyreport.Journal || strings.HasPrefix(name, "latency-") && strings.HasSuffix(name, ".jsonl") {
			paths = append(paths, filepath.Join(dir, name))
		}
	}
	if len(paths) == 0 {
		return nil, WithHint(fmt.Errorf("%s: no measurements: it has no %s", dir, latencyreport.Journal),
			"give the directory of a search, what spos latency measure --json --samples printed, or a latency table")
	}
	slices.Sort(paths)
	return paths, nil
}
