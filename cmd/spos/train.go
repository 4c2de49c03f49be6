package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"spos/cmd/internal/cli"
	"spos/internal/arch"
	"spos/internal/ckpt"
	"spos/internal/config"
	"spos/internal/data"
	"spos/internal/report"
	"spos/internal/runs"
	"spos/internal/train"
	"spos/supernet"
)

type trainOptions struct {
	workDir string
	sets    []string
	json    bool
	machineFlags
}

func newTrainCommand() *cobra.Command {
	var o trainOptions
	cmd := &cobra.Command{
		Use:   "train CONFIG --work-dir DIR",
		Short: "Train a supernet, or one net from scratch",
		Long: `Train what CONFIG describes: the supernet of its space, or one net where it names
an arch. The same command goes on where an interrupted run stopped, to the same
weights.`,
		Example: `  spos train configs/spos_supernet_shufflenetv2_8xb128_in1k.yaml --work-dir work/supernet
  spos train configs/spos_subnet_shufflenetv2_8xb128_in1k.yaml \
      --set arch=work/search/best.yaml --work-dir work/subnet`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return trainFunc(cmd, args[0], o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.workDir, "work-dir", "", "folder of the run")
	f.StringArrayVar(&o.sets, "set", nil, "override a key of CONFIG: key.sub=value")
	f.BoolVar(&o.json, "json", false, "print the outcome as JSON")
	o.machineFlags.add(cmd)
	_ = cmd.MarkFlagRequired("work-dir")
	_ = cmd.MarkFlagDirname("work-dir")
	return cmd
}

func trainFunc(cmd *cobra.Command, path string, o trainOptions) error {
	cfg, err := config.Load(path, config.DefaultTrain(), append(o.sets, o.machineFlags.sets(cmd, "device", "seed")...))
	if err != nil {
		return err
	}
	p, err := cli.NewProgress(cmd)
	if err != nil {
		return err
	}
	out, err := trainRun(cmd.Context(), cfg, o.workDir, p)
	p.Close()
	if err != nil {
		return resumeHint(cmd.Context(), err, cmd.CommandPath())
	}
	if o.json {
		return cli.PrintJSON(cmd, out)
	}
	return out.write(cmd.OutOrStdout())
}

// trainOutcome is what a finished run says about itself, in outcome.json.
type trainOutcome struct {
	Dir        string    `json:"dir"`
	Checkpoint string    `json:"checkpoint"`
	Space      string    `json:"space"`
	Arch       arch.Arch `json:"arch,omitempty"`
	Steps      int64     `json:"steps"`
	// Seconds of training and ImagesPerSecond leave evaluation out.
	Seconds         float64 `json:"seconds"`
	ImagesPerSecond float64 `json:"images_per_second"`
	// ValTop1 is a net's accuracy on held-out training images, or the mean
	// over a few paths of a supernet; TestTop1 is a single net's only.
	ValTop1  float64  `json:"val_top1"`
	TestTop1 *float64 `json:"test_top1,omitempty"`

	Confusion [][]int `json:"confusion,omitempty"` // on the test images: [label][prediction]
}

const outcomeFile = "outcome.json"

func (o *trainOutcome) write(w io.Writer) error {
	what := "supernet of " + o.Space
	if o.Arch != "" {
		what = fmt.Sprintf("net %s of %s", o.Arch, o.Space)
	}
	_, err := fmt.Fprintf(w, "%s: %d steps in %.0f s, %.0f images/s\nvalidation top-1 %.2f %%\n", what, o.Steps, o.Seconds, o.ImagesPerSecond, 100*o.ValTop1)
	if err == nil && o.TestTop1 != nil {
		_, err = fmt.Fprintf(w, "test top-1 %.2f %%\n", 100**o.TestTop1)
	}
	if err == nil {
		_, err = fmt.Fprintf(w, "checkpoint %s\n", o.Checkpoint)
	}
	return err
}

// trainer is one training run at work.
type trainer struct {
	*setup
	run   *runs.Run
	model *supernet.Supernet
	total int64
	task  *cli.Task
	out   trainOutcome
}

// trainRun trains what cfg describes in dir, from the newest checkpoint there.
func trainRun(ctx context.Context, cfg config.Train, dir string, p *cli.Progress) (_ *trainOutcome, err error) {
	s, err := openSetup(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer s.sets.Close()
	for _, b := range s.sets.Skipped {
		p.Log.Warn("image left out", "err", b.Err)
	}
	t := &trainer{setup: s}
	if t.model, err = s.model(); err != nil {
		return nil, err
	}
	defer t.model.Close()
	loop, err := t.loop()
	if err != nil {
		return nil, err
	}
	// Nothing is written before everything that can be wrong was looked at.
	if t.run, err = openRun(dir, "train", cfg, cfg.Seed); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, t.run.Close()) }()
	if out, ok := readOutcome(dir); ok {
		p.Log.Info("training is complete", "dir", dir)
		return out, nil
	}
	from, err := t.begin()
	if err != nil {
		return nil, err
	}
	t.task = p.Task("train", int(t.total), int(from))
	defer t.task.End()
	p.Log.Info("training", "space", s.space.Name, "arch", cfg.Arch, "images", s.sets.Train.Len(), "steps", t.total, "from", from, "device", cfg.Device)
	if err := loop.Run(ctx, from); err != nil {
		return nil, err
	}
	return t.finish(ctx)
}

func readOutcome(dir string) (*trainOutcome, bool) {
	text, err := os.ReadFile(filepath.Join(dir, outcomeFile))
	if err != nil {
		return nil, false
	}
	var o trainOutcome
	if json.Unmarshal(text, &o) != nil {
		return nil, false
	}
	return &o, true
}

// loop wires the parts of training together.
func (t *trainer) loop() (*train.Loop, error) {
	loader := t.trainLoader(t.sets.Train, t.cfg.BatchSize)
	perEpoch := loader.PerEpoch()
	if perEpoch == 0 {
		return nil, fmt.Errorf("batch_size: %d training images do not fill a batch of %d", t.sets.Train.Len(), t.cfg.BatchSize)
	}
	t.total = t.cfg.Schedule.Total(int64(perEpoch))
	if w := t.cfg.Schedule.WarmupSteps; w >= t.total {
		return nil, fmt.Errorf("schedule.warmup_steps: %d is not below the %d steps of this training", w, t.total)
	}
	paths := train.PathSampler(train.Fixed{Net: t.net})
	if t.net == nil {
		var err error
		if paths, err = t.cfg.Sampler.Sampler(t.space, t.cfg.Seed); err != nil {
			return nil, err
		}
	}
	return &train.Loop{
		Step: func(ctx context.Context, n *arch.Net, b data.Batch, lr float64) (train.StepResult, error) {
			r, err := t.model.Step(ctx, n, b, lr)
			return train.StepResult(r), err
		},
		Paths: paths,
		Batches: func(ctx context.Context, from int64) iter.Seq2[data.Batch, error] {
			return loader.Batches(ctx, loader.At(int(from)))
		},
		LR:    func(step int64) float64 { return t.cfg.Schedule.LR(t.cfg.Optimizer.LR, step, t.total) },
		Steps: t.total,

		Report: t.report, ReportEvery: t.cfg.LogEvery,
		Evaluate: t.evaluate, EvaluateEvery: t.cfg.EvalEvery,
		Checkpoint: t.checkpoint, CheckpointEvery: t.cfg.CheckpointEvery,
	}, nil
}

func (t *trainer) report(p train.Progress) error {
	t.task.Set(int(p.Step), fmt.Sprintf("loss %.3f  top-1 %.1f %%  %.0f img/s", p.Loss, 100*p.Top1, p.ImagesPerSecond),
		"loss", round(p.Loss), "top1", round(p.Top1), "lr", round(p.LR), "images_per_second", int(p.ImagesPerSecond))
	t.out.Seconds += p.Elapsed.Seconds()
	return t.run.Record(runs.Metric{Step: p.Step, Time: time.Now(), Values: map[string]float64{
		"train/loss": p.Loss, "train/top1": p.Top1, "train/lr": p.LR,
		"train/images_per_second": p.ImagesPerSecond, "train/seconds": t.out.Seconds,
	}})
}

// round keeps the digits of a number that a person reads in a log.
func round(x float64) float64 {
	var v float64
	_, _ = fmt.Sscanf(fmt.Sprintf("%.4g", x), "%g", &v)
	return v
}

// pathsEvaluated is how many random paths stand for a supernet.
const pathsEvaluated = 8

func (t *trainer) evaluate(ctx context.Context, step int64) error {
	if t.net != nil && step == t.total && t.cfg.BNRecalibration > 0 {
		if err := t.recalibrate(ctx); err != nil {
			return err
		}
	}
	var (
		top1 float64
		err  error
	)
	if t.net != nil {
		var a supernet.Accuracy
		a, err = t.accuracy(ctx, t.sets.Val)
		top1 = a.Top1
	} else {
		top1, err = t.pathMean(ctx)
	}
	if err != nil {
		return err
	}
	t.out.ValTop1 = top1
	return t.run.Record(runs.Metric{Step: step, Time: time.Now(), Values: map[string]float64{"val/top1": top1}})
}

func (t *trainer) accuracy(ctx context.Context, d data.Dataset) (supernet.Accuracy, error) {
	return t.model.Evaluate(ctx, t.net, nil, t.evalLoader(d, evalBatch(t.space.In)).Batches(ctx, data.Position{}))
}

// evalBatch is a batch for evaluation: large, but no more floats than 32
// images of 224×224.
func evalBatch(s arch.Shape) int { return max(1, min(512, 32*3*224*224/s.Numel())) }

// pathMean is the mean accuracy of a few random paths, each with batch-norm
// statistics of its own.
func (t *trainer) pathMean(ctx context.Context) (float64, error) {
	size := evalBatch(t.space.In)
	j := newJudge(t.setup, t.model, config.Images{Images: 2000, Batch: size}, config.Images{Batch: size})
	uniform := train.Uniform{Space: t.space, Seed: t.cfg.Seed + 1} // not the paths of training
	sum := 0.0
	for i := range int64(pathsEvaluated) {
		n, err := uniform.Path(i)
		if err != nil {
			return 0, err
		}
		a, err := j.accuracy(ctx, n.Arch)
		if err != nil {
			return 0, err
		}
		sum += a.Top1
	}
	return sum / pathsEvaluated, nil
}

// recalibrate replaces the net's running statistics by the exact mean over
// training images.
func (t *trainer) recalibrate(ctx context.Context) error {
	d := subset(t.sets.Train, t.cfg.BNRecalibration, t.cfg.Seed)
	stats, err := t.model.Calibrate(ctx, t.net, oneEpoch(ctx, t.trainLoader(d, min(t.cfg.BatchSize, d.Len()))))
	if err != nil {
		return err
	}
	tensors, err := t.model.Extract(t.net, stats)
	if err != nil {
		return err
	}
	return t.model.Load(bag(tensors))
}

func (t *trainer) checkpoint(_ context.Context, step int64) error {
	state, err := t.state(step)
	if err != nil {
		return err
	}
	state.Lineage.Time = time.Now()
	path, err := ckpt.Save(t.run.Path(ckpt.Dir), ckpt.Snapshot{
		State: state, Model: t.model.Tensors(), Optimizer: t.model.OptimizerState(), Replace: true,
	}, t.cfg.KeepCheckpoints)
	t.out.Checkpoint = path
	return err
}

// finish evaluates on the test images, draws the curve and writes the outcome.
func (t *trainer) finish(ctx context.Context) (*trainOutcome, error) {
	t.out.Dir, t.out.Space, t.out.Steps = t.run.Dir, t.space.Name, t.total
	if t.out.Seconds > 0 {
		t.out.ImagesPerSecond = float64(t.total) * float64(t.cfg.BatchSize) / t.out.Seconds
	}
	if t.out.Checkpoint == "" {
		c, err := ckpt.Latest(t.run.Path(ckpt.Dir))
		if err != nil {
			return nil, err
		}
		t.out.Checkpoint = c.Path
	}
	if t.net != nil {
		t.out.Arch = t.net.Arch
		a, err := t.accuracy(ctx, t.sets.Test)
		if err != nil {
			return nil, err
		}
		t.out.TestTop1, t.out.Confusion = &a.Top1, a.Confusion
	}
	if err := t.curve(); err != nil {
		return nil, err
	}
	text, err := json.MarshalIndent(t.out, "", "  ")
	if err != nil {
		return nil, err
	}
	return &t.out, renameio.WriteFile(t.run.Path(outcomeFile), append(text, '\n'), 0o644)
}

// curve draws the run's metrics.
func (t *trainer) curve() error {
	ms, err := runs.ReadMetrics(t.run.Dir)
	if err != nil {
		return err
	}
	series := func(name, key string) report.Series {
		s := report.Series{Name: name}
		for _, m := range ms {
			if v, ok := m.Values[key]; ok {
				s.X, s.Y = append(s.X, float64(m.Step)), append(s.Y, v)
			}
		}
		return s
	}
	return report.Save(t.run.Path("training.png"), report.Training{
		Title: "Training of " + t.space.Name, X: "step",
		Loss:     []report.Series{series("train", "train/loss")},
		Accuracy: []report.Series{series("train", "train/top1"), series("validation", "val/top1")},
	})
}
