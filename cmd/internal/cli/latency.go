package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"spos/export"
	"spos/latency"
)

// NewLatencyCommand is `latency`.
func NewLatencyCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "latency", Short: "Latency on this device: measure ONNX models"}
	cmd.AddCommand(newLatencyChildCommand(), newLatencyDevicesCommand(), newLatencyMeasureCommand(), newLatencyReportCommand(),
		newLatencyVerifyCommand())
	return cmd
}

type measureOptions struct {
	json     bool
	quick    bool
	samples  bool
	mode     string
	gap      time.Duration
	threads  int
	batch    int
	runs     int
	sessions int
	noPin    bool
	noSpin   bool
	store    bool
	device   DeviceFlags
	provider ProviderFlags
}

func newLatencyMeasureCommand() *cobra.Command {
	var o measureOptions
	cmd := &cobra.Command{
		Use:   "measure FILE.onnx…",
		Short: "Measure models with ONNX Runtime, with an interval and what disturbed it",
		Long: `Measure models with ONNX Runtime as this machine would serve them: warmed up until
times settle, sessions of all models in turn so that drift hits all alike, a 95 %
interval, and warnings in words about what was wrong with the machine.

With --store the result is kept in each file's metadata: spos serve shows it beside
the latency that it serves, and says when this is not the machine it was measured on.`,
		Example: `  spos latency measure a.onnx b.onnx
  spos latency measure model.onnx --mode paced --gap 20ms --json
  spos latency measure model.onnx --device pi5 --fleet nats://host:4222
  spos latency measure model.onnx --provider openvino --provider-option device_type=GPU
  spos latency measure models/shufflenet/1/model.onnx --store`,
		Args: cobra.MinimumNArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return []string{"onnx"}, cobra.ShellCompDirectiveFilterFileExt
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return latencyMeasureFunc(cmd, args, o)
		},
	}
	f := cmd.Flags()
	jsonFlag(cmd, &o.json)
	f.BoolVar(&o.quick, "quick", false, "one session a model, as a search screens its candidates")
	f.BoolVar(&o.samples, "samples", false, "with --json: every raw run as well")
	f.StringVar(&o.mode, "mode", string(latency.Hot), "between runs: hot (back to back), paced (idle for --gap), cold (caches overwritten)")
	f.DurationVar(&o.gap, "gap", 10*time.Millisecond, "idle time of mode paced")
	f.IntVar(&o.threads, "threads", 1, "threads of an operator")
	f.IntVar(&o.batch, "batch", 1, "extent of a free first dimension")
	f.IntVar(&o.runs, "runs", 0, "timed runs of a session, at least (default: the protocol's)")
	f.IntVar(&o.sessions, "sessions", 0, "sessions of a model (default: the protocol's)")
	f.BoolVar(&o.noPin, "no-pin", false, "do not bind threads to processors")
	f.BoolVar(&o.noSpin, "no-spin", false, "idle threads sleep, as they do under spos serve")
	f.BoolVar(&o.store, "store", false, "keep the result in the files' metadata")
	o.provider.Add(cmd)
	o.device.Add(cmd, false)
	_ = cmd.RegisterFlagCompletionFunc("mode", cobra.FixedCompletions([]string{"hot", "paced", "cold"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (o measureOptions) protocol() (latency.Protocol, error) {
	p := latency.Confirmation()
	if o.quick {
		p = latency.Screening()
	}
	p.Mode, p.Gap, p.Threads, p.Batch, p.Pin = latency.Mode(o.mode), o.gap, o.threads, o.batch, !o.noPin
	if o.noSpin && o.threads > 1 { // one thread waits for none
		p.Session.Spinning = new(false)
	}
	if o.runs > 0 {
		p.Runs = o.runs
	}
	if o.sessions > 0 {
		p.Sessions = o.sessions
	}
	err := o.provider.Apply(&p)
	return p, err
}

func latencyMeasureFunc(cmd *cobra.Command, paths []string, o measureOptions) error {
	p, err := o.protocol()
	if err != nil {
		return err
	}
	log, err := Logger(cmd, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	devices, release, err := o.device.Open(cmd.Context(), "", log)
	if err != nil {
		return err
	}
	defer release()
	models := make([]latency.Model, len(paths))
	for i, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("read model: %w", err)
		}
		models[i] = latency.Model{Name: filepath.ToSlash(path), Bytes: text}
	}
	results, err := latency.MeasureAll(cmd.Context(), devices[0], models, p)
	if err != nil {
		return err
	}
	if o.store {
		if err := storeLatency(paths, models, results); err != nil {
			return err
		}
	}
	if !o.json {
		return latency.Write(cmd.OutOrStdout(), results)
	}
	if !o.samples {
		for i := range results {
			results[i].Samples = nil
		}
	}
	return PrintJSON(cmd, results)
}

// storeLatency writes the results into the files that were measured.
func storeLatency(paths []string, models []latency.Model, results []latency.Result) error {
	for i, path := range paths {
		file, err := Promise(models[i].Bytes, results[i], 0)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if err := export.Write(path, file); err != nil {
			return err
		}
	}
	return nil
}
