package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"spos/cmd/internal/cli"
	"spos/configs"
	"spos/export"
	"spos/internal/arch"
	"spos/internal/ckpt"
	"spos/internal/config"
	"spos/internal/data"
	"spos/search"
	"spos/supernet"
)

type exportOptions struct {
	random   cli.ExportRandom
	pth      cli.ExportPTH
	out      string
	data     string
	images   int
	noVerify bool
	json     bool

	log *slog.Logger
	// resolve sets the flags against what the search promised; nil: the file
	// is not measured.
	resolve func(*ckpt.Promise) (cli.Pledges, error)
}

func newExportCommand() *cobra.Command {
	var o exportOptions
	cmd := &cobra.Command{
		Use:   "export RUN_OR_CKPT -o FILE.onnx",
		Short: "Export a trained net to ONNX and prove the file equal to it",
		Long: `Export a trained net to ONNX: batch norm folded, preprocessing, labels and lineage
as metadata. Before the file appears, its logits in ONNX Runtime are compared with
libtorch's on images of the data set. Of a supernet, --arch names the net, whose
batch-norm statistics are recomputed. With --space the graph gets random weights.
With --latency the file is measured and says how fast it is. Where the search that
chose the net had a latency limit, or --limit gives one, and the file does not
surely keep to it, the file is written, says so, and the command fails.

With --pth the weights of a net or of a whole supernet are written for PyTorch
instead, under the names of a published code base, which loads them.`,
		Example: `  spos export work/subnet -o models/shufflenet/1/model.onnx --latency
  spos export work/subnet --pth subnet.pth --dialect mmrazor1
  spos export --space shufflenetv2-spos --arch 21012020202300003233 -o net.onnx`,
		Args: func(cmd *cobra.Command, args []string) error {
			if o.random.Space != "" {
				return cobra.NoArgs(cmd, args)
			}
			return cobra.ExactArgs(1)(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.pth.File != "" {
				return o.pth.Run(cmd, args[0], o.json)
			}
			if o.random.Space != "" {
				return o.random.Run(cmd, o.out)
			}
			return exportFunc(cmd, args[0], o)
		},
	}
	o.random.Flags(cmd)
	o.pth.Flags(cmd)
	f := cmd.Flags()
	f.StringVarP(&o.out, "output", "o", "", "ONNX file to write")
	f.StringVar(&o.data, "data", "", "data set to verify on (default: the one trained on; noise for an imported net)")
	f.IntVar(&o.images, "images", 256, "images to verify on")
	f.BoolVar(&o.noVerify, "no-verify", false, "write the file without comparing it with libtorch")
	f.BoolVar(&o.json, "json", false, "print the outcome as JSON")
	cmd.MarkFlagsOneRequired("output", "pth")
	cmd.MarkFlagsMutuallyExclusive("output", "pth")
	cmd.MarkFlagsMutuallyExclusive("space", "pth")
	cmd.MarkFlagsMutuallyExclusive("latency", "pth")
	return cmd
}

// exported is what an export did.
type exported struct {
	Path  string    `json:"path"`
	Space string    `json:"space"`
	Arch  arch.Arch `json:"arch"`
	Bytes int       `json:"bytes"`
	*verification
	LatencyMS *search.Interval `json:"latency_ms,omitempty"` // of the first device
	Devices   []cli.Promised   `json:"devices,omitempty"`
}

func exportFunc(cmd *cobra.Command, from string, o exportOptions) error {
	var (
		out exported
		err error
	)
	if o.log, err = cli.Logger(cmd, cmd.ErrOrStderr()); err != nil {
		return err
	}
	o.resolve = func(p *ckpt.Promise) (cli.Pledges, error) {
		return o.random.Promise.Resolve(cmd, p, o.random.Batch, o.log)
	}
	if o.noVerify {
		out, err = exportUnverified(cmd.Context(), from, o)
	} else {
		out, err = exportVerified(cmd.Context(), from, o)
	}
	if err != nil && !errors.Is(err, cli.ErrPromise) {
		return err
	}
	if o.json {
		return errors.Join(cli.PrintJSON(cmd, out), err)
	}
	w := cmd.OutOrStdout()
	fmt.Fprintf(w, "%s: %s of %s, %d bytes\n", out.Path, out.Arch, out.Space, out.Bytes)
	if out.verification != nil {
		what := "images"
		if out.Noise {
			what = "images of noise (--data DIR names real ones)"
		}
		fmt.Fprintf(w, "logits within %.2g of libtorch's on %d %s, same class on %.2f %%\n", out.MaxAbs, out.Images, what, 100*out.Agree)
	}
	cli.WritePromised(w, out.Devices)
	return err
}

// build makes the ONNX file of a checkpoint's net.
func (o exportOptions) build(c *ckpt.Checkpoint, n *arch.Net, stats export.Stats) ([]byte, error) {
	f, err := c.Model()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	digest, err := ckpt.Digest(c.ModelPath())
	if err != nil {
		return nil, err
	}
	m, err := export.Model(n, f, export.Options{
		Batch: o.random.Batch, Opset: o.random.Opset, Stats: stats, Version: cli.Version,
		Preprocess: c.State.Recipe, Labels: c.State.Labels,
		Lineage: map[string]string{
			"checkpoint_sha256": digest, "step": fmt.Sprint(c.State.Step), "seed": fmt.Sprint(c.State.Lineage.Seed),
			"trained_by": c.State.Lineage.Code, "exported_by": cli.Version,
		},
	})
	if err != nil {
		return nil, err
	}
	return export.Marshal(m)
}

// promised is what the search that chose the net promised.
func (o exportOptions) promised(c *ckpt.Checkpoint) *ckpt.Promise {
	if p := cli.PromiseOf(o.random.Arch); p != nil {
		return p
	}
	return c.State.Lineage.Promise
}

// pledges is known before anything is computed, for what cannot be meant to
// be said at once.
func (o exportOptions) pledges(c *ckpt.Checkpoint) (cli.Pledges, error) {
	if o.resolve == nil {
		return cli.Pledges{}, nil
	}
	return o.resolve(o.promised(c))
}

// write measures the file where that was asked for, and writes it. A file
// that misses its limit is written too, with an error that wraps
// [cli.ErrPromise].
func (o exportOptions) write(ctx context.Context, n *arch.Net, file []byte, v *verification, pledges cli.Pledges) (exported, error) {
	out := exported{Path: o.out, Space: n.Space, Arch: n.Arch, verification: v}
	var broken error
	if pledges.Measures() {
		stamped, found, err := pledges.Prove(ctx, o.random.Promise.Devices, o.out, file, o.log)
		if broken = err; stamped == nil {
			return exported{}, err
		}
		file, out.Devices, out.LatencyMS = stamped, found, &found[0].Latency
	}
	out.Bytes = len(file)
	if err := os.MkdirAll(filepath.Dir(o.out), 0o755); err != nil {
		return exported{}, err
	}
	if err := export.Write(o.out, file); err != nil {
		return exported{}, err
	}
	return out, broken
}

func exportUnverified(ctx context.Context, from string, o exportOptions) (exported, error) {
	c, err := ckpt.Find(from)
	if err != nil {
		return exported{}, err
	}
	if c.State.Arch == "" {
		return exported{}, errors.New("a net of a supernet needs batch-norm statistics of its own, from images: leave out --no-verify")
	}
	space, err := configs.ParseSpace([]byte(c.State.Space.Text), c.Path)
	if err != nil {
		return exported{}, err
	}
	n, err := space.Net(arch.Arch(c.State.Arch))
	if err != nil {
		return exported{}, err
	}
	pledges, err := o.pledges(c)
	if err != nil {
		return exported{}, err
	}
	file, err := o.build(c, n, nil)
	if err != nil {
		return exported{}, err
	}
	return o.write(ctx, n, file, nil, pledges)
}

func exportVerified(ctx context.Context, from string, o exportOptions) (exported, error) {
	r, err := restoreFor(ctx, from, o)
	if errors.Is(err, data.ErrNotFound) {
		return exported{}, cli.WithHint(err, "name the images with --data DIR, or write the file unproved with --no-verify")
	}
	if err != nil {
		return exported{}, err
	}
	if r.sets != nil {
		defer r.sets.Close()
	}
	m, err := r.load()
	if err != nil {
		return exported{}, err
	}
	defer m.Close()
	n, stats, err := r.chosen(ctx, m, o.random.Arch)
	if err != nil {
		return exported{}, err
	}
	return exportModel(ctx, r, m, n, stats, o)
}

// restoreFor opens the checkpoint with images to verify on, or without any
// where it is one net that was imported and nobody names a data set.
func restoreFor(ctx context.Context, from string, o exportOptions) (*restored, error) {
	c, err := ckpt.Find(from)
	if err == nil && c.State.Config == "" && c.State.Arch != "" && o.data == "" {
		return restoreAlone(c)
	}
	return restore(ctx, from, func(c *config.Train) {
		if o.data != "" {
			c.Data.Path = o.data
		}
		c.Device = "cpu" // what ONNX Runtime is compared with
	})
}

// chosen is the checkpoint's own net, or one of a supernet with statistics.
func (r *restored) chosen(ctx context.Context, m *supernet.Supernet, digits string) (*arch.Net, supernet.Stats, error) {
	if r.net != nil {
		if digits != "" && digits != string(r.net.Arch) {
			return nil, nil, fmt.Errorf("--arch %s: %s holds the single net %s", digits, r.ckpt.Path, r.net.Arch)
		}
		return r.net, nil, nil
	}
	if digits == "" {
		return nil, nil, cli.WithHint(fmt.Errorf("%s is a supernet: say which net of it", r.ckpt.Path), "--arch with the digits or a best.yaml")
	}
	a, err := configs.Arch(r.space, digits)
	if err != nil {
		return nil, nil, err
	}
	n, err := r.space.Path(a)
	if err != nil {
		return nil, nil, err
	}
	j := newJudge(r.setup, m, config.DefaultSearch().Calibration, config.Images{})
	stats, err := m.Calibrate(ctx, n, j.calibrationBatches(ctx))
	return n, stats, err
}

func exportModel(ctx context.Context, r *restored, m *supernet.Supernet, n *arch.Net, stats supernet.Stats, o exportOptions) (exported, error) {
	pledges, err := o.pledges(r.ckpt)
	if err != nil {
		return exported{}, err
	}
	rt, err := cli.OpenRuntime()
	if err != nil {
		return exported{}, err
	}
	var override export.Stats
	if stats != nil {
		override = moments(stats)
	}
	text, err := o.build(r.ckpt, n, override)
	if err != nil {
		return exported{}, err
	}
	on, err := openONNX(rt, text, n, o.random.Batch)
	if err != nil {
		return exported{}, err
	}
	defer on.session.Close()
	size := max(o.random.Batch, 1) * max(1, 32/max(o.random.Batch, 1))
	images := max(o.images/size, 1) * size
	var batches iter.Seq2[data.Batch, error]
	if r.sets == nil {
		batches = noise(*r.cfg.Data.Recipe, n.In, images, size, r.cfg.Seed)
	} else {
		batches = r.evalLoader(subset(r.sets.Val, images, r.cfg.Seed), size).Batches(ctx, data.Position{})
	}
	v, err := verify(ctx, on, m, n, stats, batches)
	if err != nil {
		return exported{}, err
	}
	v.Noise = r.sets == nil
	return o.write(ctx, n, text, &v, pledges)
}

// moments lets export read a supernet's statistics.
type moments supernet.Stats

// Moments implements [export.Stats].
func (m moments) Moments(op string) (mean, variance []float32, ok bool) {
	s, ok := m[op]
	return s.Mean, s.Var, ok
}
