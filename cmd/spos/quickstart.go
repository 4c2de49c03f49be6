package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"spos/cmd/internal/cli"
	"spos/configs"
	"spos/export"
	"spos/internal/arch"
	"spos/internal/config"
	"spos/internal/data"
	"spos/latency"
	"spos/search"
)

type quickstartOptions struct {
	workDir string
	data    string
	seed    uint64
	json    bool
}

func newQuickstartCommand() *cobra.Command {
	var o quickstartOptions
	cmd := &cobra.Command{
		Use:   "quickstart --work-dir DIR",
		Short: "Go the whole way once: train, search, retrain, export and serve on Fashion-MNIST",
		Long: `Go the whole way once, on Fashion-MNIST and this machine's processor: train a small
supernet, search it under a latency limit that about half of the space meets,
retrain the winner, export it, serve it and send it the test images. The images
are looked for at --data, at $SPOS_DATA and where Debian's package
dataset-fashion-mnist puts them; the package is installed where that is possible,
and else the files are downloaded from the data set's home. The same command goes
on where an interrupted one stopped.`,
		Example: "  spos quickstart --work-dir work/quickstart",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return quickstartFunc(cmd, o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.workDir, "work-dir", "", "folder for everything that is made")
	f.StringVar(&o.data, "data", "", "folder of Fashion-MNIST's four files")
	f.Uint64Var(&o.seed, "seed", 0, "seed of every draw")
	f.BoolVar(&o.json, "json", false, "print the summary as JSON")
	_ = cmd.MarkFlagRequired("work-dir")
	_ = cmd.MarkFlagDirname("work-dir")
	_ = cmd.MarkFlagDirname("data")
	return cmd
}

func quickstartFunc(cmd *cobra.Command, o quickstartOptions) error {
	p, err := cli.NewProgress(cmd)
	if err != nil {
		return err
	}
	q := &quickstart{quickstartOptions: o, p: p}
	err = q.run(cmd.Context())
	p.Close()
	if err != nil {
		return resumeHint(cmd.Context(), err, cmd.CommandPath())
	}
	if o.json {
		err = cli.PrintJSON(cmd, q.sum)
	} else {
		err = q.write(cmd.OutOrStdout())
	}
	return errors.Join(err, q.unproved)
}

// quickstart is the whole path, each stage a run of its own below the work
// directory that goes on by itself.
type quickstart struct {
	quickstartOptions
	p      *cli.Progress
	path   string // of the images
	meter  *cli.Meter
	subnet *trainOutcome
	sum    summary

	unproved error // the exported file's latency, where it does not keep to the limit
}

func (q *quickstart) dir(parts ...string) string {
	return filepath.Join(append([]string{q.workDir}, parts...)...)
}

func (q *quickstart) run(ctx context.Context) error {
	if err := os.MkdirAll(q.workDir, 0o755); err != nil {
		return err
	}
	for _, stage := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"find the images", q.obtain},
		{"train the supernet", q.trainSupernet},
		{"choose a latency limit", q.chooseLimit},
		{"search", q.search},
		{"retrain the winner", q.trainSubnet},
		{"export", q.export},
		{"serve", q.serve},
	} {
		start := time.Now()
		q.p.Log.Info("stage begins", "stage", stage.name)
		if err := stage.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", stage.name, err)
		}
		q.p.Log.Info("stage is done", "stage", stage.name, "seconds", round(time.Since(start).Seconds()))
	}
	return q.save()
}

func (q *quickstart) obtain(ctx context.Context) error {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = "" // nothing is downloaded
	} else {
		cache = filepath.Join(cache, "spos")
	}
	f := data.Finder{Dir: q.data, Env: os.Getenv("SPOS_DATA"), Cache: cache, Log: q.p.Log}
	q.path, err = f.Obtain(ctx)
	return err
}

// trainConfig is a shipped configuration on the images at hand.
func (q *quickstart) trainConfig(name string, sets ...string) (config.Train, error) {
	text, err := configs.Files().Open(name)
	if err != nil {
		return config.Train{}, err
	}
	defer text.Close()
	return config.Read(text, name, config.DefaultTrain(), append([]string{"data.path=" + q.path, fmt.Sprintf("seed=%d", q.seed)}, sets...))
}

func (q *quickstart) trainSupernet(ctx context.Context) error {
	cfg, err := q.trainConfig("fashion_supernet.yaml")
	if err != nil {
		return err
	}
	out, err := trainRun(ctx, cfg, q.dir("supernet"), q.p)
	if err != nil {
		return err
	}
	q.sum.Space = out.Space
	q.sum.Supernet = supernetSummary{Seconds: out.Seconds, ImagesPerSecond: out.ImagesPerSecond, ValTop1Mean: out.ValTop1}
	return nil
}

// The limit is the latency that this share of the space surely meets: a
// quantile of the upper ends of the intervals of this many random nets.
const (
	limitQuantile = 0.6
	limitNets     = 24
)

// chooseLimit measures a sample of the space, once: the limit is kept.
func (q *quickstart) chooseLimit(ctx context.Context) error {
	rt, err := cli.OpenRuntime()
	if err != nil {
		return err
	}
	r, err := restore(ctx, q.dir("supernet"), nil)
	if err != nil {
		return err
	}
	defer r.sets.Close()
	q.sum.Dataset = datasetSummary{r.sets.Name, r.sets.Train.Len(), r.sets.Val.Len(), r.sets.Test.Len()}
	if q.meter, err = cli.NewMeter(r.space, cli.LocalDevice(rt, nil), config.Latency{}, q.p.Log); err != nil {
		return err
	}
	file := q.dir("latency_limit.json")
	if text, err := os.ReadFile(file); err == nil {
		return json.Unmarshal(text, &q.sum.LatencyLimitMS)
	}
	// A screening beside a neighbour is too wide to take a limit from.
	confirm := func(ctx context.Context, nets []*arch.Net, _ int) ([]search.Interval, error) {
		return q.meter.Nets(ctx, nets, cli.Confirmation)
	}
	found, err := search.MeasureSome(ctx, r.space, search.Limits{}, newRand(q.seed, 4), limitNets, confirm)
	if err != nil {
		return err
	}
	upper := make([]float64, len(found.Values))
	for i, v := range found.Values {
		upper[i] = v.High
	}
	q.sum.LatencyLimitMS = round(search.Quantile(limitQuantile, upper))
	q.p.Log.Info("latency limit", "ms", q.sum.LatencyLimitMS, "fastest", found.Quantile(0), "median", found.Quantile(0.5), "slowest", found.Quantile(1))
	return renameio.WriteFile(file, fmt.Appendf(nil, "%g\n", q.sum.LatencyLimitMS), 0o644)
}

func (q *quickstart) search(ctx context.Context) error {
	text, err := configs.Files().Open("fashion_search.yaml")
	if err != nil {
		return err
	}
	defer text.Close()
	cfg, err := config.Read(text, "fashion_search.yaml", config.DefaultSearch(), []string{
		fmt.Sprintf("seed=%d", q.seed), fmt.Sprintf("limits.latency_ms=%g", q.sum.LatencyLimitMS),
	})
	if err != nil {
		return err
	}
	out, err := searchRun(ctx, cfg, q.dir("supernet"), q.dir("search"), cli.DeviceFlags{}, q.p)
	if err != nil {
		return err
	}
	q.sum.Search = searchSummary{Evaluated: out.Evaluated, Seconds: out.Seconds, Best: candidate(out.Best)}
	if out.Random != nil {
		q.sum.Search.Random = new(candidate(*out.Random))
	}
	return nil
}

func (q *quickstart) trainSubnet(ctx context.Context) error {
	cfg, err := q.trainConfig("fashion_subnet.yaml", "arch="+quote(q.dir("search", "best.yaml")))
	if err != nil {
		return err
	}
	if q.subnet, err = trainRun(ctx, cfg, q.dir("subnet"), q.p); err != nil {
		return err
	}
	if q.subnet.TestTop1 == nil {
		return errors.New("the run has no test accuracy: remove " + q.dir("subnet"))
	}
	q.sum.Subnet = subnetSummary{TestTop1: *q.subnet.TestTop1, Seconds: q.subnet.Seconds}
	return nil
}

// quote makes a path a YAML string.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// modelName is what the served model is called.
const modelName = "fashion"

func (q *quickstart) export(ctx context.Context) error {
	r, err := restore(ctx, q.dir("subnet"), nil)
	if err != nil {
		return err
	}
	defer r.sets.Close()
	m, err := r.load()
	if err != nil {
		return err
	}
	defer m.Close()
	o := exportOptions{out: q.dir("models", modelName, "1", "model.onnx"), images: r.sets.Val.Len()}
	out, err := exportModel(ctx, r, m, r.net, nil, o)
	if err != nil {
		return err
	}
	m.Close() // its threads and memory are no part of what is measured
	q.sum.ONNX = onnxSummary{Path: out.Path, Bytes: out.Bytes, MaxAbsDiff: out.MaxAbs}
	return q.proveFile(ctx, r)
}

// proveFile measures the accuracy and the latency of the file itself.
func (q *quickstart) proveFile(ctx context.Context, r *restored) error {
	text, err := os.ReadFile(q.sum.ONNX.Path)
	if err != nil {
		return err
	}
	rt, err := cli.OpenRuntime()
	if err != nil {
		return err
	}
	on, err := openONNX(rt, text, r.net, 0)
	if err != nil {
		return err
	}
	defer on.session.Close()
	q.sum.ONNX.TestTop1, err = on.top1(ctx, r.evalLoader(r.sets.Test, evalBatch(r.space.In)).Batches(ctx, data.Position{}))
	if err != nil {
		return err
	}
	return q.proveLatency(ctx, text)
}

// proveLatency measures the file, again after a pause while it is too slow:
// other work on the machine passes, a slow file does not.
func (q *quickstart) proveLatency(ctx context.Context, text []byte) error {
	limit := time.Duration(q.sum.LatencyLimitMS * float64(time.Millisecond))
	p := q.meter.Protocol(cli.Confirmation)
	for round := range confirmRounds {
		res, verdict, err := latency.Settle(ctx, q.meter.Runner(), latency.Model{Name: q.sum.ONNX.Path, Bytes: text}, limit, p, p)
		if err != nil {
			return err
		}
		q.sum.ONNX.LatencyMS = cli.Interval(res.Estimate)
		if err := q.promise(text, res, p, limit); err != nil {
			return err
		}
		if verdict == latency.Met {
			q.unproved = nil
			return nil
		}
		q.unproved = cli.WithHint(fmt.Errorf("the exported file takes %v ms, the limit is %g ms: %v", q.sum.ONNX.LatencyMS, q.sum.LatencyLimitMS, verdict),
			"if other work slows the machine, the same command measures again when it is quiet")
		q.p.Log.Warn("the exported file is too slow now", "latency_ms", q.sum.ONNX.LatencyMS.String(), "limit_ms", q.sum.LatencyLimitMS, "warnings", res.Warnings)
		if round+1 < confirmRounds {
			if err := pause(ctx, betweenSlowing); err != nil {
				return err
			}
		}
	}
	return nil
}

// promise keeps the latency that was measured in the file.
func (q *quickstart) promise(text []byte, res latency.Result, p latency.Protocol, limit time.Duration) error {
	text, err := cli.Promise(text, cli.ThisDevice, res, p, limit)
	if err != nil {
		return err
	}
	q.sum.ONNX.Bytes = len(text)
	return export.Write(q.sum.ONNX.Path, text)
}
