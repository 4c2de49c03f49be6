package configs_test

import (
	"cmp"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"spos/configs"
	"spos/internal/arch"
	"spos/internal/config"
	"spos/internal/train"
)

// recipe is what a published training configuration says.
type recipe struct {
	space, preset        string
	steps                int64
	batch                int
	lr, momentum         float64
	decay                float64
	schedule             train.Decay
	smoothing            float64
	recalibration        int
	evaluate, checkpoint int64
	dropout              float64
	affine               bool // norms of what is trained
	arch                 string
	decayed              string
	clipNorm, clipValue  float64
}

// TestPublishedTraining holds the shipped configurations against the authors'
// code (megvii-model/SinglePathOneShot: src/Supernet/train.py,
// src/Evaluation/template/train.py), mmrazor's branch 0.x (configs/nas/spos,
// configs/_base_) and megvii-model/AngleNAS (SPOS/searching, SPOS/training).
func TestPublishedTraining(t *testing.T) {
	official := recipe{
		space: "shufflenetv2-spos", preset: "official", steps: 150_000, batch: 1024, lr: 0.5, momentum: 0.9, decay: 4e-5,
		schedule: train.Linear, smoothing: 0.1, evaluate: 0, checkpoint: 10_000, dropout: 0.1, decayed: "weights",
	}
	subnet := official
	subnet.steps, subnet.evaluate, subnet.recalibration, subnet.affine, subnet.arch = 300_000, 10_000, 1_280_000, true, "21012020202300003233"
	shuffle := official
	shuffle.space, shuffle.preset, shuffle.schedule, shuffle.dropout, shuffle.affine = "shufflenetv2-mmrazor", "mmrazor", train.Poly, 0, true
	shuffle.evaluate, shuffle.checkpoint = 1_000, 1_000
	shuffleSubnet := shuffle
	shuffleSubnet.steps, shuffleSubnet.arch = 300_000, "20203110010103122013"
	mobile := shuffle
	mobile.space, mobile.evaluate, mobile.checkpoint = "mobilenet-proxylessgpu-mmrazor", 10_000, 30_000
	mobileSubnet := mobile
	mobileSubnet.steps, mobileSubnet.arch = 300_000, "116006605622002142224"

	angle := official
	angle.space, angle.preset, angle.steps, angle.batch, angle.lr = "mobilenet-proxylessgpu-anglenas", "anglenas", 240_400, 512, 0.25
	angle.dropout, angle.affine, angle.decayed, angle.clipValue = 0, true, "head", 5
	angleSubnet := angle
	angleSubnet.steps, angleSubnet.batch, angleSubnet.lr, angleSubnet.dropout, angleSubnet.arch = 300_000, 1024, 0.5, 0.2, "anglenas-spos"
	angleSubnet.decayed, angleSubnet.clipValue, angleSubnet.clipNorm, angleSubnet.evaluate = "convolutions", 0, 5, 10_000

	for file, want := range map[string]recipe{
		"anglenas_supernet_mobilenet_proxyless_gpu_in1k.yaml":    angle,
		"anglenas_subnet_mobilenet_proxyless_gpu_in1k.yaml":      angleSubnet,
		"official_supernet_shufflenetv2_in1k.yaml":               official,
		"official_subnet_shufflenetv2_in1k.yaml":                 subnet,
		"spos_supernet_shufflenetv2_8xb128_in1k.yaml":            shuffle,
		"spos_subnet_shufflenetv2_8xb128_in1k.yaml":              shuffleSubnet,
		"spos_supernet_mobilenet_proxyless_gpu_8xb128_in1k.yaml": mobile,
		"spos_subnet_mobilenet_proxyless_gpu_8xb128_in1k.yaml":   mobileSubnet,
	} {
		t.Run(file, func(t *testing.T) {
			c := read(t, file, config.DefaultTrain())
			if diff := gocmp.Diff(want, recipeOf(t, c), gocmp.AllowUnexported(recipe{})); diff != "" {
				t.Errorf("-published +ours:\n%s", diff)
			}
			if c.Optimizer.Nesterov || c.Schedule.WarmupSteps != 0 || c.Schedule.MinLR != 0 {
				t.Errorf("%+v %+v: the published recipes have no Nesterov momentum, warm-up or least rate", c.Optimizer, c.Schedule)
			}
		})
	}
}

func recipeOf(t *testing.T, c config.Train) recipe {
	s, err := configs.Space(c.Space)
	if err != nil {
		t.Fatal(err)
	}
	head := s.Spec().Head
	dropout := head.Dropout
	if c.Arch == "" && head.SupernetDropout != nil {
		dropout = *head.SupernetDropout
	}
	return recipe{
		space: c.Space, preset: c.Data.Preset, steps: c.Schedule.Steps, batch: c.BatchSize,
		lr: c.Optimizer.LR, momentum: c.Optimizer.Momentum, decay: c.Optimizer.WeightDecay,
		schedule: c.Schedule.Kind, smoothing: c.LabelSmoothing, recalibration: c.BNRecalibration,
		evaluate: c.EvalEvery, checkpoint: c.CheckpointEvery, dropout: dropout,
		decayed: cmp.Or(c.Optimizer.Decay, "weights"), clipNorm: c.Optimizer.ClipNorm, clipValue: c.Optimizer.ClipValue,
		affine: c.Arch != "" || s.Spec().Norm.SupernetAffine, arch: c.Arch,
	}
}

// TestPublishedSampling: the official supernet draws a FLOPs bin first, mmrazor
// does not.
func TestPublishedSampling(t *testing.T) {
	c := read(t, "official_supernet_shufflenetv2_in1k.yaml", config.DefaultTrain())
	want := train.Sampling{Kind: "uniform-constrained", Min: 290e6, Width: 10e6, Bins: 7, Counter: arch.MACs, Tries: 500}
	if c.Sampler != want {
		t.Errorf("official: %+v, want %+v", c.Sampler, want)
	}
	c = read(t, "spos_supernet_shufflenetv2_8xb128_in1k.yaml", config.DefaultTrain())
	if c.Sampler.Kind != "uniform" {
		t.Errorf("mmrazor: %+v, want uniform", c.Sampler)
	}
}

// TestPublishedSearch holds the evolutions: the authors' (src/Search/search.py)
// and mmrazor's, which evaluates the random population as the first of 20.
func TestPublishedSearch(t *testing.T) {
	for file, want := range map[string]struct {
		evaluations int
		flops       int64
		counter     arch.Counter
	}{
		"official_search_shufflenetv2_in1k.yaml":                                  {1050, 330_000_000, arch.MACs},
		"spos_evolution_search_shufflenetv2_8xb2048_in1k.yaml":                    {1000, 329_999_999, arch.MMCV},
		"spos_evolution_search_mobilenet_proxyless_gpu_flops465_8xb512_in1k.yaml": {1000, 464_999_999, arch.MMCV},
	} {
		t.Run(file, func(t *testing.T) {
			c := read(t, file, config.DefaultSearch())
			if c.Method != "evolution" || c.Population != 50 || c.Parents != 10 || c.MaxTriesFactor != 10 ||
				c.Mutation != (config.Mutation{Count: 25, Prob: 0.1}) || c.Crossover != (config.Crossover{Count: 25}) {
				t.Errorf("not the published evolution: %+v", c)
			}
			if c.Evaluations() != want.evaluations || c.Limits.FLOPs != want.flops || c.Limits.Counter != want.counter {
				t.Errorf("%d evaluations within %d %s, want %+v", c.Evaluations(), c.Limits.FLOPs, c.Limits.Counter, want)
			}
		})
	}
}

func read[T interface{ Validate() error }](t *testing.T, file string, def T) T {
	t.Helper()
	f, err := configs.Files().Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c, err := config.Read(f, file, def, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
