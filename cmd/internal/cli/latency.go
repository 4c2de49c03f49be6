package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"spos/export"
	"spos/latency"
)

// NewLatencyCommand is `latency`.
func NewLatencyCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "latency", Short: "Latency on this device: measure ONNX models"}
	cmd.AddCommand(newLatencyChildCommand(), newLatencyDevicesCommand(), newLatencyMeasureCommand(), newLatencyCompareCommand(),
		newLatencyReportCommand(), newLatencyVerifyCommand())
	cmd.AddCommand(newLatencyPredictCommand(), newLatencyTableCommand())
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
	dims     map[string]int64
	limit    float64
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
interval of a repeat, and warnings in words about what was wrong with the machine.

With --limit the models that it leaves undecided get more sessions; the exit status is
then 0 where all stay below it, 3 where one does not, 4 where one stays undecided.

With --store the result is kept in each file's metadata: spos serve shows it beside
the latency that it serves, and says when this is not the machine it was measured on.`,
		Example: `  spos latency measure a.onnx b.onnx
  spos latency measure model.onnx --mode paced --gap 20ms --json
  spos latency measure model.onnx --device pi5 --fleet nats://host:4222
  spos latency measure text.onnx --dim length=128 --limit 8
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
	f.Float64Var(&o.limit, "limit", 0, "milliseconds to stay below: measure until that is decided")
	f.BoolVar(&o.store, "store", false, "keep the result in the files' metadata")
	o.addSettings(cmd)
	o.device.Add(cmd, false)
	return cmd
}

// addSettings gives a command the flags of how a model is run.
func (o *measureOptions) addSettings(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.mode, "mode", string(latency.Hot), "between runs: hot (back to back), paced (idle for --gap), cold (caches overwritten)")
	f.DurationVar(&o.gap, "gap", 10*time.Millisecond, "idle time of mode paced")
	f.IntVar(&o.threads, "threads", 1, "threads of an operator")
	f.IntVar(&o.batch, "batch", 1, "extent of a free first dimension")
	f.Var(dimsValue{&o.dims}, "dim", "NAME=EXTENT of a free dimension; may be repeated (default 1)")
	f.IntVar(&o.runs, "runs", 0, "timed runs of a session, at least (default: the protocol's)")
	f.IntVar(&o.sessions, "sessions", 0, "sessions of a model (default: the protocol's)")
	f.BoolVar(&o.noPin, "no-pin", false, "do not bind threads to processors")
	f.BoolVar(&o.noSpin, "no-spin", false, "idle threads sleep, as they do under spos serve")
	o.provider.Add(cmd)
	_ = cmd.RegisterFlagCompletionFunc("mode", cobra.FixedCompletions([]string{"hot", "paced", "cold"}, cobra.ShellCompDirectiveNoFileComp))
}

// dimsValue is a flag of extents by name.
type dimsValue struct{ to *map[string]int64 }

func (d dimsValue) String() string { return "" }
func (d dimsValue) Type() string   { return "name=extent" }

func (d dimsValue) Set(text string) error {
	name, extent, ok := strings.Cut(text, "=")
	n, err := strconv.ParseInt(extent, 10, 64)
	if !ok || name == "" || err != nil || n < 1 {
		return errors.New("want NAME=EXTENT, such as length=128")
	}
	if *d.to == nil {
		*d.to = map[string]int64{}
	}
	(*d.to)[name] = n
	return nil
}

func (o measureOptions) protocol() (latency.Protocol, error) {
	p := latency.Confirmation()
	if o.quick {
		p = latency.Screening()
	}
	p.Mode, p.Gap, p.Threads, p.Batch, p.Pin = latency.Mode(o.mode), o.gap, o.threads, o.batch, !o.noPin
	p.Dims = o.dims
	if o.noSpin && o.threads > 1 { // one thread waits for none
		p.Session.Spinning = new(false)
	}
	if o.runs > 0 {
		p.Runs = o.runs
	}
	if o.sessions > 0 {
		p.Sessions, p.Redo = o.sessions, min(p.Redo, o.sessions)
	}
	err := o.provider.Apply(&p)
	return p, err
}

func latencyMeasureFunc(cmd *cobra.Command, paths []string, o measureOptions) error {
	p, err := o.protocol()
	if err != nil {
		return err
	}
	if !(o.limit >= 0) {
		return fmt.Errorf("--limit %v is not a latency in milliseconds", o.limit)
	}
	models, err := readModels(paths)
	if err != nil {
		return err
	}
	results, err := measureModels(cmd, models, p, o)
	if err != nil {
		return err
	}
	if o.store {
		if err := storeLatency(paths, models, results, p, o); err != nil {
			return err
		}
	}
	if o.json {
		if !o.samples {
			for i := range results {
				results[i].Samples = nil
			}
		}
		err = PrintJSON(cmd, results)
	} else {
		err = latency.Write(cmd.OutOrStdout(), results)
	}
	if err != nil || o.limit == 0 {
		return err
	}
	return judge(cmd, results, o)
}

func readModels(paths []string) ([]latency.Model, error) {
	models := make([]latency.Model, len(paths))
	for i, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read model: %w", err)
		}
		models[i] = latency.Model{Name: filepath.ToSlash(path), Bytes: text}
	}
	return models, nil
}

// measureModels measures all in turns, and goes on with those of which a limit
// leaves open whether they meet it.
func measureModels(cmd *cobra.Command, models []latency.Model, p latency.Protocol, o measureOptions) (results []latency.Result, err error) {
	progress, err := NewProgress(cmd)
	if err != nil {
		return nil, err
	}
	defer progress.Close()
	devices, closeAll, err := o.device.Open(cmd.Context(), "", progress.Log)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, closeAll()) }()
	task := progress.Task("sessions", len(models)*p.Sessions, 0)
	defer task.End()
	r := &counted{Runner: devices[0], task: task}
	if results, err = latency.MeasureAll(cmd.Context(), r, models, p); err != nil || o.limit == 0 {
		return results, err
	}
	for i, m := range models {
		if results[i], _, err = latency.GoOn(cmd.Context(), devices[0], m, limitOf(o), results[i], p); err != nil {
			return nil, err
		}
	}
	return results, nil
}

// counted tells a task of each session.
type counted struct {
	latency.Runner
	task *Task
	done atomic.Int64
}

func (c *counted) Width() int { return latency.Width(c.Runner) }

// Planned implements [latency.Planner].
func (c *counted) Planned(sessions int) { c.task.Extend(int(c.done.Load()) + sessions) }

func (c *counted) Time(ctx context.Context, t latency.Task) (latency.Sample, error) {
	s, err := c.Runner.Time(ctx, t)
	if err == nil {
		c.task.Set(int(c.done.Add(1)), "")
	}
	return s, err
}

func limitOf(o measureOptions) time.Duration {
	return time.Duration(o.limit * float64(time.Millisecond))
}

// judge tells which models are below the limit, and by the exit status whether
// all are.
func judge(cmd *cobra.Command, results []latency.Result, o measureOptions) error {
	status := 0
	for _, r := range results {
		v := r.Decide(limitOf(o))
		switch {
		case v == latency.NotMet:
			status = StatusNo
		case v == latency.Undecided && status == 0:
			status = StatusUndecided
		}
		if !o.json {
			fmt.Fprintf(cmd.OutOrStdout(), "limit %g ms: %s: %s\n", o.limit, r.Model, v)
		}
	}
	if status != 0 {
		return &StatusError{Status: status}
	}
	return nil
}

// storeLatency writes the results into the files that were measured.
func storeLatency(paths []string, models []latency.Model, results []latency.Result, p latency.Protocol, o measureOptions) error {
	for i, path := range paths {
		file, err := Promise(models[i].Bytes, o.device.Names[0], results[i], p, limitOf(o))
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if err := export.Write(path, file); err != nil {
			return err
		}
	}
	return nil
}
