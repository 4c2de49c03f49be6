package config

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"spos/internal/arch"
	"spos/internal/data"
	"spos/internal/imaging"
	"spos/internal/train"
)

// Train is what "spos train" is told: a supernet, or one net from scratch.
// [DefaultTrain] has the paper's values.
type Train struct {
	// Space is the name of a shipped search space or the path of its YAML file.
	Space string `yaml:"space"`
	// Arch is the net to train: its digits, the name of a published network, or
	// the path of a best.yaml or of a file in another form that `spos arch
	// convert` knows. Empty: the supernet is trained.
	Arch string `yaml:"arch,omitempty"`
	// Data are the images. The network gets one logit for each class there.
	Data Data `yaml:"data"`
	// BatchSize is the number of images in a step, over all processes.
	BatchSize int `yaml:"batch_size"`
	// Schedule is the length of training and the learning rate along it.
	Schedule  train.Schedule `yaml:"schedule"`
	Optimizer Optimizer      `yaml:"optimizer"`
	// LabelSmoothing is the share of each label that is spread over all
	// classes.
	LabelSmoothing float64 `yaml:"label_smoothing"`
	// Sampler draws a supernet's path at each step.
	Sampler train.Sampling `yaml:"sampler,omitempty"`
	// BNRecalibration is the number of training images that recompute a net's
	// batch-norm statistics, as an exact mean, after the last step. Zero:
	// none. The official retraining uses one epoch. A supernet has no use for
	// it: its statistics are recomputed for each candidate.
	BNRecalibration int `yaml:"bn_recalibration,omitempty"`
	// EvalEvery, CheckpointEvery and LogEvery count steps. Zero: at the end
	// only.
	EvalEvery       int64 `yaml:"eval_every"`
	CheckpointEvery int64 `yaml:"checkpoint_every"`
	LogEvery        int64 `yaml:"log_every"`
	// KeepCheckpoints is how many checkpoints stay on the disk. Zero: all.
	KeepCheckpoints int `yaml:"keep_checkpoints"`
	// InitFrom is a checkpoint whose weights training starts from. Empty: the
	// space's own initialisation.
	InitFrom string `yaml:"init_from,omitempty"`
	Machine  `yaml:",inline"`
}

// Machine is where and with how much a verb runs.
type Machine struct {
	// Seed draws initial weights, paths, the order of images and augmentation.
	Seed uint64 `yaml:"seed"`
	// Device is cpu or cuda, or cuda:1 for one of several.
	Device string `yaml:"device"`
	// Threads compute on a CPU. Zero: one for each processor that this process
	// may use, which a container's quota bounds.
	Threads int `yaml:"threads,omitempty"`
	// Workers decode and augment images. Zero: as of Threads.
	Workers int `yaml:"workers,omitempty"`
}

// Validate reports the first field that makes no sense.
func (m Machine) Validate() error {
	switch {
	case !IsTorchDevice(m.Device):
		return fmt.Errorf("device: %q is none of cpu, cuda, cuda:N", m.Device)
	case m.Threads < 0:
		return fmt.Errorf("threads: %d is negative", m.Threads)
	case m.Workers < 0:
		return fmt.Errorf("workers: %d is negative", m.Workers)
	}
	return nil
}

// IsTorchDevice tells whether a name is one that [Machine.Device] takes: where
// tensors live, and no device to measure latency on.
func IsTorchDevice(device string) bool {
	if device == "cpu" || device == "cuda" {
		return true
	}
	var n uint8
	_, err := fmt.Sscanf(device, "cuda:%d", &n)
	return err == nil && device == fmt.Sprintf("cuda:%d", n)
}

// Optimizer is stochastic gradient descent.
type Optimizer struct {
	LR          float64 `yaml:"lr"` // before the schedule
	Momentum    float64 `yaml:"momentum"`
	Nesterov    bool    `yaml:"nesterov,omitempty"`
	WeightDecay float64 `yaml:"weight_decay"`
	// Decay says what WeightDecay applies to: weights (of convolutions and
	// linear layers, depthwise ones too: the official code, mmrazor 0.x), dense
	// (these without depthwise ones: mmrazor 1.x), convolutions (AngleNAS from
	// scratch), head (convolutions, and weight and bias of the linear layer:
	// AngleNAS's supernets) or all. Empty: weights.
	Decay string `yaml:"decay,omitempty"`
	// ClipNorm bounds the norm of all gradients together, ClipValue each
	// element of them, before that. Zero: no bound.
	ClipNorm  float64 `yaml:"clip_norm,omitempty"`
	ClipValue float64 `yaml:"clip_value,omitempty"`
}

// decays are the values of Optimizer.Decay.
var decays = []string{"weights", "dense", "convolutions", "head", "all"}

// Validate reports the first field that makes no sense.
func (o Optimizer) Validate() error {
	switch {
	case !(o.LR > 0 && o.LR < math.Inf(1)):
		return fmt.Errorf("lr: %v is not above 0", o.LR)
	case !(o.Momentum >= 0 && o.Momentum < 1):
		return fmt.Errorf("momentum: %v is outside 0..1", o.Momentum)
	case o.Nesterov && o.Momentum == 0:
		return errors.New("nesterov: needs a momentum above 0")
	case !(o.WeightDecay >= 0 && o.WeightDecay < 1):
		return fmt.Errorf("weight_decay: %v is outside 0..1", o.WeightDecay)
	case o.Decay != "" && !slices.Contains(decays, o.Decay):
		return fmt.Errorf("decay: %q is none of %s%s", o.Decay, strings.Join(decays, ", "), suggest(o.Decay, decays))
	case !(o.ClipNorm >= 0 && o.ClipNorm < math.Inf(1)):
		return fmt.Errorf("clip_norm: %v is negative", o.ClipNorm)
	case !(o.ClipValue >= 0 && o.ClipValue < math.Inf(1)):
		return fmt.Errorf("clip_value: %v is negative", o.ClipValue)
	}
	return nil
}

// Data says where images are and how they become a network's input.
type Data struct {
	data.Spec `yaml:",inline"`
	// Preset names a published pipeline (official, mmrazor, anglenas), which
	// gives Recipe and Augment where they are absent.
	Preset string `yaml:"preset,omitempty"`
	// Recipe is the preprocessing of evaluation and serving, and what of it
	// training shares. Absent: see [Data.For].
	Recipe *imaging.Recipe `yaml:"recipe,omitempty"`
	// Augment is the random part of training; {} for none. Absent: see
	// [Data.For].
	Augment *imaging.Augment `yaml:"augment,omitempty"`
}

// Validate reports the first field that makes no sense.
func (d Data) Validate() error {
	if err := d.Spec.Validate(); err != nil {
		return err
	}
	if d.Preset != "" {
		if _, _, err := imaging.Preset(d.Preset); err != nil {
			return fmt.Errorf("preset: %w%s", err, suggest(d.Preset, imaging.Presets()))
		}
	}
	if d.Recipe != nil {
		if err := d.Recipe.Validate(); err != nil {
			return fmt.Errorf("recipe: %w", err)
		}
	}
	if d.Augment != nil {
		if err := d.Augment.Validate(); err != nil {
			return fmt.Errorf("augment: %w", err)
		}
	}
	return nil
}

// For fills in what is absent for a network of this input: from the preset
// where one is named, sized to the input (see [imaging.Recipe.Sized]). Without
// one it is, at 3×224×224, the preset official, else a resize to the input's size with values
// in 0..1, and a random flip. A recipe that is there gets the input's size
// where it has none, and must agree with it.
func (d Data) For(in arch.Shape) (Data, error) {
	recipe, augment, err := d.defaults(in)
	if err != nil {
		return Data{}, err
	}
	key := "data.recipe"
	if d.Recipe != nil {
		recipe = *d.Recipe
	} else if d.Preset != "" {
		key = "data.preset"
	}
	if d.Augment != nil {
		augment = *d.Augment
	}
	if recipe.Height == 0 && recipe.Width == 0 {
		recipe.Height, recipe.Width = in.H, in.W
	}
	if got := (arch.Shape{C: recipe.Channels(), H: recipe.Height, W: recipe.Width}); got != in {
		return Data{}, fmt.Errorf("%s: makes images of %v, and the space takes %v: set data.recipe.color, height and width, or choose another space: %w", key, got, in, ErrInvalid)
	}
	d.Recipe, d.Augment = &recipe, &augment
	return d, nil
}

// defaults are the recipe and the augmentation of a configuration that has
// neither.
func (d Data) defaults(in arch.Shape) (imaging.Recipe, imaging.Augment, error) {
	switch {
	case d.Preset != "":
		recipe, augment, err := imaging.Preset(d.Preset)
		if err != nil {
			return recipe, augment, fmt.Errorf("data.preset: %w: %w", err, ErrInvalid)
		}
		return recipe.Sized(in.H, in.W), augment, nil
	case in == arch.Shape{C: 3, H: 224, W: 224}:
		return imaging.OfficialSPOS(), imaging.OfficialSPOSAugment(), nil
	case in.C == 1:
		return imaging.Recipe{Color: imaging.Gray}, imaging.Augment{Flip: 0.5}, nil
	}
	return imaging.Recipe{}, imaging.Augment{Flip: 0.5}, nil
}

// DefaultTrain is the paper's supernet as the official code trains it: 150,000 steps
// of 1,024 images, SGD, a linear decay from 0.5.
func DefaultTrain() Train {
	return Train{
		Space:     "shufflenetv2-spos",
		BatchSize: 1024,
		Schedule:  train.Schedule{Kind: train.Linear},
		Optimizer: Optimizer{LR: 0.5, Momentum: 0.9, WeightDecay: 4e-5},

		LabelSmoothing: 0.1,
		Sampler:        train.Sampling{Kind: "uniform"},

		EvalEvery: 10_000, CheckpointEvery: 1_000, LogEvery: 20, KeepCheckpoints: 2,
		Machine: Machine{Device: "cpu"},
	}
}

// Validate reports the first field that makes no sense. It does not look at
// the disk.
func (t Train) Validate() error {
	for _, part := range []struct {
		key string
		err error
	}{
		{"data", t.Data.Validate()},
		{"schedule", t.Schedule.Validate()},
		{"optimizer", t.Optimizer.Validate()},
		{"sampler", t.Sampler.Validate()},
	} {
		if part.err != nil {
			return fmt.Errorf("%s.%w", part.key, part.err)
		}
	}
	switch {
	case t.Space == "":
		return errors.New("space: none given")
	case t.Data.Path == "":
		return errors.New("data.path: none given: the folder or archive of the images")
	case t.BatchSize < 1:
		return fmt.Errorf("batch_size: %d is below 1", t.BatchSize)
	case !(t.LabelSmoothing >= 0 && t.LabelSmoothing < 1):
		return fmt.Errorf("label_smoothing: %v is outside 0..1", t.LabelSmoothing)
	case t.BNRecalibration < 0:
		return fmt.Errorf("bn_recalibration: %d is negative", t.BNRecalibration)
	case t.EvalEvery < 0 || t.CheckpointEvery < 0 || t.LogEvery < 0 || t.KeepCheckpoints < 0:
		return errors.New("eval_every, checkpoint_every, log_every, keep_checkpoints: none may be negative")
	}
	return t.Machine.Validate()
}
