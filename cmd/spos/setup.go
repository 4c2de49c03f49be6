package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"spos/cmd/internal/cli"
	"spos/configs"
	"spos/internal/arch"
	"spos/internal/ckpt"
	"spos/internal/config"
	"spos/internal/data"
	"spos/internal/imaging"
	"spos/internal/runs"
	"spos/supernet"
)

// setup is a training configuration made real: its data opened, its space
// fitted to the images.
type setup struct {
	cfg   config.Train
	data  config.Data // recipe and augmentation filled in
	sets  *data.Sets
	space *arch.Space
	net   *arch.Net // nil for a supernet
	// promise is what the search that chose the net promised; nil for nothing.
	promise *ckpt.Promise
}

// openSetup opens what cfg names. The caller closes sets.
func openSetup(ctx context.Context, cfg config.Train) (*setup, error) {
	space, err := configs.Space(cfg.Space)
	if err != nil {
		return nil, fmt.Errorf("space: %w", err)
	}
	return openSetupIn(ctx, cfg, space)
}

func openSetupIn(ctx context.Context, cfg config.Train, space *arch.Space) (_ *setup, err error) {
	if cfg.Data.Path == "" {
		return nil, cli.WithHint(errors.New("data.path: no data set is given"), "name it in the configuration, with --set data.path=DIR, or with --data DIR")
	}
	sets, err := data.Open(ctx, cfg.Data.Spec)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, sets.Close())
		}
	}()
	s := &setup{cfg: cfg, sets: sets}
	if s.space, err = space.With(inputOf(cfg.Data, sets, space), len(sets.Classes)); err != nil {
		return nil, err
	}
	if s.data, err = cfg.Data.For(s.space.In); err != nil {
		return nil, err
	}
	if cfg.Arch != "" {
		a, err := configs.Arch(s.space, cfg.Arch)
		if err != nil {
			return nil, err
		}
		if s.net, err = s.space.Net(a); err != nil {
			return nil, err
		}
		s.promise = cli.PromiseOf(cfg.Arch)
	}
	return s, nil
}

// inputOf is the shape that the network reads: the recipe's where it gives a
// size, else that of the images where they have one, else the space's.
func inputOf(d config.Data, sets *data.Sets, space *arch.Space) arch.Shape {
	switch {
	case d.Recipe != nil && d.Recipe.Height > 0:
		return d.Recipe.Shape()
	case sets.Shape.H > 0:
		return sets.Shape
	default:
		return space.In
	}
}

// params are the tensors that training needs.
func (s *setup) params() []arch.Param {
	if s.net == nil {
		return s.space.Params()
	}
	var ps []arch.Param
	for v := range s.net.Views() {
		ps = append(ps, v.Param)
	}
	return ps
}

// decays are the configuration's words for what is decayed.
var decays = map[string]supernet.Decay{
	"": supernet.DecayWeights, "weights": supernet.DecayWeights, "dense": supernet.DecayDense,
	"convolutions": supernet.DecayKernels, "head": supernet.DecayHead, "all": supernet.DecayAll,
}

// model makes the tensors on the configured device.
func (s *setup) model() (*supernet.Supernet, error) {
	device, err := supernet.ParseDevice(s.cfg.Device)
	if err != nil {
		return nil, err
	}
	o := s.cfg.Optimizer
	return supernet.New(s.params(), supernet.Options{
		Device: device, Threads: s.cfg.Threads, Seed: s.cfg.Seed,
		Momentum: &o.Momentum, Nesterov: o.Nesterov, WeightDecay: &o.WeightDecay, Decay: decays[o.Decay],
		LabelSmoothing: &s.cfg.LabelSmoothing, ClipNorm: o.ClipNorm, ClipValue: o.ClipValue,
	})
}

// trainLoader yields augmented batches without end.
func (s *setup) trainLoader(d data.Dataset, size int) *data.Loader {
	return &data.Loader{
		Data: d, Recipe: *s.data.Recipe, Augment: *s.data.Augment, Size: size,
		Train: true, Seed: s.cfg.Seed, Workers: s.cfg.Workers,
	}
}

// evalLoader yields every image once, in order.
func (s *setup) evalLoader(d data.Dataset, size int) *data.Loader {
	return &data.Loader{Data: d, Recipe: *s.data.Recipe, Size: size, Workers: s.cfg.Workers}
}

// state describes a checkpoint of this setup.
func (s *setup) state(step int64) (ckpt.State, error) {
	text, err := configs.SpaceText(s.space)
	if err != nil {
		return ckpt.State{}, err
	}
	var cfg bytes.Buffer
	if err := config.Dump(&cfg, s.cfg); err != nil {
		return ckpt.State{}, err
	}
	recipe, err := json.Marshal(s.data.Recipe.Explicit())
	if err != nil {
		return ckpt.State{}, err
	}
	st := ckpt.State{
		Space: ckpt.Space{Name: s.space.Name, Text: string(text)}, Step: step,
		Config: cfg.String(), Recipe: recipe, Labels: s.sets.Classes,
		Lineage: ckpt.Lineage{Code: cli.Version, Data: s.sets.Fingerprint, Seed: s.cfg.Seed, Promise: s.promise},
	}
	if s.net != nil {
		st.Arch = string(s.net.Arch)
	}
	return st, nil
}

// restored is a checkpoint with the setup it was trained under.
type restored struct {
	*setup
	ckpt *ckpt.Checkpoint
}

// restore finds a checkpoint and opens the data it was trained on, or other
// data where the caller gives some. adjust may change the configuration
// before anything is opened.
func restore(ctx context.Context, path string, adjust func(*config.Train)) (*restored, error) {
	c, err := ckpt.Find(path)
	if errors.Is(err, ckpt.ErrNone) {
		return nil, cli.WithHint(err, "train one first: spos train CONFIG --work-dir DIR")
	}
	if err != nil {
		return nil, err
	}
	cfg, err := configOf(c, adjust)
	if err != nil {
		return nil, err
	}
	space, err := configs.ParseSpace([]byte(c.State.Space.Text), c.Path+": space")
	if err != nil {
		return nil, err
	}
	s, err := openSetupIn(ctx, cfg, space)
	if err != nil {
		return nil, err
	}
	return &restored{s, c}, nil
}

// configOf is the configuration that a checkpoint was trained under, changed
// by adjust, to nothing that training would refuse. One that was imported has none, only its preprocessing, which
// holds for other data too.
func configOf(c *ckpt.Checkpoint, adjust func(*config.Train)) (config.Train, error) {
	cfg, imported := config.DefaultTrain(), c.State.Config == ""
	if !imported {
		var err error
		if cfg, err = config.Read(strings.NewReader(c.State.Config), c.Path+": configuration", cfg, nil); err != nil {
			return cfg, err
		}
	}
	if adjust != nil {
		adjust(&cfg)
	}
	if err := cfg.Machine.Validate(); err != nil {
		return cfg, err
	}
	if imported && cfg.Data.Recipe == nil {
		recipe, err := imaging.ParseRecipe(c.State.Recipe)
		if err != nil {
			return cfg, fmt.Errorf("%s: %w", c.Path, err)
		}
		cfg.Data.Recipe = &recipe
	}
	cfg.Arch = c.State.Arch
	return cfg, nil
}

// load makes the model with the checkpoint's weights.
func (r *restored) load() (*supernet.Supernet, error) {
	m, err := r.model()
	if err != nil {
		return nil, err
	}
	f, err := r.ckpt.Model()
	if err != nil {
		m.Close()
		return nil, err
	}
	defer f.Close()
	if err := m.Load(f); err != nil {
		m.Close()
		return nil, fmt.Errorf("load %s: %w", r.ckpt.ModelPath(), err)
	}
	return m, nil
}

// openRun begins a run in dir, or goes on with the one that is there if its
// configuration is the same.
func openRun(dir, verb string, cfg any, seed uint64, inputs ...runs.Input) (*runs.Run, error) {
	var text bytes.Buffer
	if err := config.Dump(&text, cfg); err != nil {
		return nil, err
	}
	run, err := runs.Resume(dir, text.Bytes(), time.Now())
	switch {
	case errors.Is(err, runs.ErrNoRun):
		host, _ := os.Hostname() // for people only
		return runs.Create(dir, text.Bytes(), runs.Lineage{
			Verb: verb, Args: os.Args[1:], Code: cli.Version, Host: host, Seed: seed, Inputs: inputs, Created: time.Now(),
		})
	case errors.Is(err, runs.ErrConfig):
		return nil, cli.WithHint(err, "the run goes on only under the configuration it began with: restore it, or give another --work-dir")
	default:
		return run, err
	}
}

// machineFlags override where a verb runs.
type machineFlags struct {
	device string
	seed   uint64
}

func (m *machineFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&m.device, "device", "", "cpu, cuda or cuda:N (default: the configuration's)")
	_ = cmd.RegisterFlagCompletionFunc("device", cobra.FixedCompletions([]string{"cpu", "cuda", "cuda:0"}, cobra.ShellCompDirectiveNoFileComp))
	m.addSeed(cmd)
}

func (m *machineFlags) addSeed(cmd *cobra.Command) {
	cmd.Flags().Uint64Var(&m.seed, "seed", 0, "seed of every draw (default: the configuration's)")
}

// sets are the flags, of those names, that were given, as --set overrides.
func (m *machineFlags) sets(cmd *cobra.Command, names ...string) []string {
	var sets []string
	for _, name := range names {
		if cmd.Flags().Changed(name) {
			sets = append(sets, name+"="+cmd.Flags().Lookup(name).Value.String())
		}
	}
	return sets
}

// resumeHint tells how an interrupted run goes on.
func resumeHint(ctx context.Context, err error, verb string) error {
	if ctx.Err() == nil {
		return err
	}
	return cli.WithHint(err, "nothing is lost: the same `"+verb+"` command goes on from here")
}
