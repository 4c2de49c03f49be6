package config_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"spos/internal/arch"
	"spos/internal/config"
	"spos/internal/imaging"
	"spos/internal/train"

	"github.com/google/go-cmp/cmp"
)

type sub struct {
	A int            `yaml:"a"`
	B []int          `yaml:"b"`
	C *float64       `yaml:"c,omitempty"`
	M map[string]int `yaml:"m,omitempty"`
}

type Base struct{ Seed uint64 }

type example struct {
	Name     string        `yaml:"name"`
	Names    []string      `yaml:"names"`
	Rate     float64       `yaml:"rate"`
	On       bool          `yaml:"on"`
	Wait     time.Duration `yaml:"wait"`
	Pair     [2]float64    `yaml:"pair"`
	Section  sub           `yaml:"section"`
	Optional *sub          `yaml:"optional,omitempty"`
	Base     `yaml:",inline"`
}

func start() example {
	return example{Name: "default", Rate: 0.5, Section: sub{A: 7, B: []int{1, 2}}}
}

func read(t *testing.T, text string, sets ...string) (example, error) {
	t.Helper()
	return config.Read(strings.NewReader(text), "x.yaml", start(), sets)
}

func TestRead(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		sets []string
		want func(*example)
	}{
		"nothing":            {"", nil, func(*example) {}},
		"comments":           {"# a: b\n\n", nil, func(*example) {}},
		"empty section":      {"section:\n  # a: 1\n", nil, func(*example) {}},
		"nested":             {"section: {a: 3}", nil, func(e *example) { e.Section.A = 3 }},
		"list replaced":      {"section:\n  b: [9]\n", nil, func(e *example) { e.Section.B = []int{9} }},
		"optional":           {"optional: {a: 1}", nil, func(e *example) { e.Optional = &sub{A: 1} }},
		"optional, empty":    {"optional: {}", nil, func(e *example) { e.Optional = &sub{} }},
		"map":                {"section: {m: {x: 1}}", nil, func(e *example) { e.Section.M = map[string]int{"x": 1} }},
		"whole float":        {"section: {a: 330e6}", nil, func(e *example) { e.Section.A = 330_000_000 }},
		"underscores":        {"section: {a: 1_000}", nil, func(e *example) { e.Section.A = 1000 }},
		"exponent":           {"rate: 4e-5", nil, func(e *example) { e.Rate = 4e-5 }},
		"integer rate":       {"rate: 1", nil, func(e *example) { e.Rate = 1 }},
		"duration":           {"wait: 3ms", nil, func(e *example) { e.Wait = 3 * time.Millisecond }},
		"pair":               {"pair: [0.1, 1]", nil, func(e *example) { e.Pair = [2]float64{0.1, 1} }},
		"digits are text":    {"name: 20203110010103122013", nil, func(e *example) { e.Name = "20203110010103122013" }},
		"zeros are text":     {"name: 0123", nil, func(e *example) { e.Name = "0123" }},
		"all zeros":          {"name: 000", nil, func(e *example) { e.Name = "000" }},
		"binary is text":     {"name: 0b10", nil, func(e *example) { e.Name = "0b10" }},
		"exponent is text":   {"name: 1e5", nil, func(e *example) { e.Name = "1e5" }},
		"listed digits":      {"names: [012, 1.50, true]", nil, func(e *example) { e.Names = []string{"012", "1.50", "true"} }},
		"set":                {"rate: 2", []string{"rate=3", "section.a=4"}, func(e *example) { e.Rate = 3; e.Section.A = 4 }},
		"set, last wins":     {"", []string{"rate=3", "rate=4"}, func(e *example) { e.Rate = 4 }},
		"set digits":         {"", []string{"name=0123"}, func(e *example) { e.Name = "0123" }},
		"set path":           {"", []string{"name=work/search/best.yaml"}, func(e *example) { e.Name = "work/search/best.yaml" }},
		"set to empty":       {"name: x", []string{"name="}, func(e *example) { e.Name = "" }},
		"set list":           {"", []string{"section.b=[4, 5]"}, func(e *example) { e.Section.B = []int{4, 5} }},
		"set keeps siblings": {"section: {a: 1, b: [8]}", []string{"section.a=2"}, func(e *example) { e.Section = sub{A: 2, B: []int{8}} }},
		"set optional":       {"optional: {a: 1}", []string{"optional.b=[1]"}, func(e *example) { e.Optional = &sub{A: 1, B: []int{1}} }},
		"set with equals":    {"", []string{"name=a=b"}, func(e *example) { e.Name = "a=b" }},
		"inline":             {"seed: 18446744073709551615", nil, func(e *example) { e.Seed = 1<<64 - 1 }},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := read(t, c.text, c.sets...)
			if err != nil {
				t.Fatal(err)
			}
			want := start()
			c.want(&want)
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

func TestReadRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		sets []string
		want []string
	}{
		"unknown key":      {"rate: 1\nsection:\n  aa: 3\n", nil, []string{"x.yaml:3:3: section.aa: no such key", "did you mean a?", "there are a, b, c, m", ">  3 |   aa: 3"}},
		"unknown, far":     {"zzzzzz: 1", nil, []string{"x.yaml:1:1: zzzzzz", "no such key; there are name, names"}},
		"unknown in set":   {"", []string{"section.aa=3"}, []string{"--set section.aa=3: section.aa: no such key", "did you mean a?"}},
		"twice":            {"rate: 1\nrate: 2", nil, []string{"x.yaml:2:1", `"rate" already defined`}},
		"fraction, exp":    {"section: {a: 15e-1}", nil, []string{"section.a: 15e-1 is no whole number"}},
		"beyond integers":  {"section: {a: 1e300}", nil, []string{"section.a: 1e300 is no whole number"}},
		"too much":         {"rate: 1e400", nil, []string{`rate: "1e400" is no number`}},
		"block text":       {"rate: |\n  1\n", nil, []string{"rate: one line is wanted"}},
		"fraction":         {"section: {a: 1.5}", nil, []string{"x.yaml:1:14: section.a: 1.5 is no whole number"}},
		"text":             {"rate: fast", nil, []string{`x.yaml:1:7: rate: "fast" is no number`}},
		"quoted number":    {"rate: '1'", nil, []string{`rate: "1" is no number`}},
		"yes":              {"on: yes", nil, []string{`on: "yes" is no true or false`}},
		"one":              {"on: 1", nil, []string{"x.yaml:1:5", "bool"}},
		"text in set":      {"", []string{"rate=fast"}, []string{`--set rate=fast: rate: "fast" is no number`}},
		"NaN":              {"rate: .nan", nil, []string{"rate: .nan is no number"}},
		"overflow":         {"section: {a: 99999999999999999999}", nil, []string{"x.yaml:1:14"}},
		"negative":         {"seed: -1", nil, []string{"x.yaml:1:7"}},
		"no value":         {"rate:\non: true", nil, []string{"x.yaml:1:6: rate: no value"}},
		"null in set":      {"", []string{"rate=null"}, []string{"rate: no value"}},
		"section wanted":   {"section: 3", nil, []string{"x.yaml:1:10: section: a section with keys is wanted: a, b, c, m"}},
		"value wanted":     {"name: [a]", nil, []string{"x.yaml:1:7: name: one value is wanted"}},
		"list wanted":      {"names: a", nil, []string{"names: a list is wanted"}},
		"list element":     {"section: {b: [1, x]}", nil, []string{`section.b[1]: "x" is no whole number`}},
		"pair of three":    {"pair: [1, 2, 3]", nil, []string{"pair: 3 values, and 2 are wanted"}},
		"map value":        {"section: {m: {x: y}}", nil, []string{`section.m.x: "y" is no whole number`}},
		"no unit":          {"wait: 3", nil, []string{"x.yaml:1:7"}},
		"list on top":      {"- a", nil, []string{"x.yaml:1:1: a section with keys"}},
		"scalar on top":    {"5", nil, []string{"x.yaml:1:1: a section with keys"}},
		"two documents":    {"rate: 1\n---\nrate: 2", nil, []string{"more than one YAML document"}},
		"alias":            {"rate: &x 1\nname: *x", nil, []string{"x.yaml:1:7: rate: anchors"}},
		"merge":            {"section: {a: 1}\noptional:\n  <<: {a: 1}", nil, []string{"x.yaml:3:3"}},
		"tag":              {"name: !!str 5", nil, []string{"name: anchors, aliases and tags"}},
		"syntax":           {"rate: [1", nil, []string{"x.yaml:1:"}},
		"set without =":    {"", []string{"rate"}, []string{"--set rate: not of the form key=value"}},
		"set two lines":    {"", []string{"rate=1\non: true"}, []string{"more than one line"}},
		"set no key":       {"", []string{"a b.c=1"}, []string{`"a b.c" is no key`}},
		"set into a value": {"", []string{"rate.x=1"}, []string{"rate: one value is wanted"}},
		"set whole":        {"", []string{"section=1"}, []string{"section: a section with keys"}},
		"deep flow":        {strings.Repeat("[", 1000), nil, []string{"line 1 nests more than"}},
		"deep block":       {strings.Repeat("- ", 1000), nil, []string{"line 1 nests more than"}},
		"long line":        {"name: " + strings.Repeat("a", 5000), nil, []string{"line 1 is longer"}},
		"large":            {strings.Repeat("# x\n", 20_000), nil, []string{"more than 65536 bytes"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := read(t, c.text, c.sets...)
			if !errors.Is(err, config.ErrInvalid) {
				t.Fatalf("got %v", err)
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q is not in:\n%v", w, err)
				}
			}
		})
	}
}

// A failed Read must not have changed the defaults that it was given.
func TestReadLeavesBase(t *testing.T) {
	b := start()
	b.Section.B = []int{1, 2}
	if _, err := config.Read(strings.NewReader("section: {b: [9, 9]}"), "x", b, []string{"bad"}); err == nil {
		t.Fatal("no error")
	}
	if !cmp.Equal(b.Section.B, []int{1, 2}) {
		t.Errorf("base changed to %v", b.Section.B)
	}
}

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(path, []byte("rate: 3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if e, err := config.Load(path, start(), nil); err != nil || e.Rate != 3 {
		t.Errorf("%+v, %v", e, err)
	}
	if e, err := config.Load("", start(), []string{"rate=4"}); err != nil || e.Rate != 4 {
		t.Errorf("%+v, %v", e, err)
	}
	if _, err := config.Load(path+"x", start(), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

const trainYAML = `
space: shufflenetv2-small
arch: 012301230
data:
  kind: idx
  path: /usr/share/datasets/fashion-mnist
  val_fraction: 0.1
  recipe: {color: gray, height: 28, width: 28, mean: [0.286], std: [0.353]}
  augment: {pad_crop: 2, flip: 0.5}
batch_size: 128
schedule: {kind: cosine, epochs: 3, warmup_steps: 100}
optimizer:
  lr: 0.1
  weight_decay: 5e-4
`

func TestTrain(t *testing.T) {
	got, err := config.Read(strings.NewReader(trainYAML), "t.yaml", config.DefaultTrain(), []string{"schedule.epochs=4", "device=cuda:1"})
	if err != nil {
		t.Fatal(err)
	}
	if got.Arch != "012301230" || got.Schedule.Kind != train.Cosine || got.Schedule.Epochs != 4 || got.Optimizer.Momentum != 0.9 ||
		got.Data.Recipe.Mean[0] != 0.286 || got.Data.Augment.PadCrop != 2 || got.Device != "cuda:1" || got.LabelSmoothing != 0.1 {
		t.Errorf("read %+v", got)
	}
	var text bytes.Buffer
	if err := config.Dump(&text, got); err != nil {
		t.Fatal(err)
	}
	again, err := config.Read(&text, "dump", config.Train{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(got, again); d != "" {
		t.Errorf("after Dump (-want +got):\n%s", d)
	}
}

func TestSearch(t *testing.T) {
	const text = "limits: {flops: 330e6, counter: mmcv, latency_ms: 4.2}\ndata: {path: x}\n"
	got, err := config.Read(strings.NewReader(text), "s.yaml", config.DefaultSearch(), []string{"population=10", "mutation.count=5", "crossover.count=5"})
	if err != nil {
		t.Fatal(err)
	}
	want := config.DefaultSearch()
	want.Limits = config.Limits{FLOPs: 330_000_000, Counter: arch.MMCV, LatencyMS: 4.2}
	want.Population, want.Mutation.Count, want.Crossover.Count = 10, 5, 5
	want.Data = &config.Data{}
	want.Data.Path = "x"
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	var dump bytes.Buffer
	if err := config.Dump(&dump, got); err != nil {
		t.Fatal(err)
	}
	if again, err := config.Read(&dump, "dump", config.Search{}, nil); err != nil || !cmp.Equal(got, again) {
		t.Errorf("after Dump: %v\n%s", err, cmp.Diff(got, again))
	}
	// The official search evaluates 50 + 20×50 nets.
	if n := config.DefaultSearch().Evaluations(); n != 1050 {
		t.Errorf("%d evaluations by default, want 1,050", n)
	}
}

// Every check of a Validate method, by the one setting that trips it.
func TestValidate(t *testing.T) {
	for set, want := range map[string]string{
		"space=":                                  "space: none",
		"data.path=":                              "data.path: none",
		"data.kind=zip":                           "data.kind",
		"data.recipe.color=cmyk":                  "data.recipe",
		"data.augment.flip=2":                     "data.augment",
		"batch_size=0":                            "batch_size",
		"schedule.kind=sine":                      "schedule.kind",
		"schedule.warmup_steps=-1":                "schedule.warmup_steps",
		"optimizer.lr=0":                          "optimizer.lr",
		"optimizer.momentum=1":                    "optimizer.momentum",
		"optimizer.weight_decay=-1":               "optimizer.weight_decay",
		"optimizer.clip_norm=-1":                  "optimizer.clip_norm",
		"label_smoothing=1":                       "label_smoothing",
		"sampler.kind=fair":                       "sampler.kind",
		"bn_recalibration=-1":                     "bn_recalibration",
		"eval_every=-1":                           "eval_every",
		"device=tpu":                              "device",
		"device=cuda:x":                           "device",
		"threads=-1":                              "threads",
		"workers=-1":                              "workers",
		"optimizer={momentum: 0, nesterov: true}": "optimizer.nesterov",
	} {
		_, err := config.Read(strings.NewReader(trainYAML), "t.yaml", config.DefaultTrain(), []string{set})
		if !errors.Is(err, config.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", set, err, want)
		}
	}
	for set, want := range map[string]string{
		"method=hill":                              "method",
		"population=0":                             "population",
		"population=40":                            "mutation.count, crossover.count",
		"parents=0":                                "parents",
		"mutation.prob=0":                          "mutation.prob",
		"max_tries_factor=0":                       "max_tries_factor",
		"limits.counter=flops":                     "limits.counter",
		"limits.flops=-1":                          "limits.flops",
		"limits.params=-1":                         "limits.params",
		"limits.latency_ms=-1":                     "limits.latency_ms",
		"limits.latency=[{device: pi5}]":           "limits.latency[0].ms",
		"limits.latency=[{ms: 4}]":                 "limits.latency[0].device",
		"limits.latency=[{device: pi5, ms: .inf}]": "limits.latency[0].ms",
		"limits.latency=[{device: a, ms: 4}, {device: a, ms: 5}]":   "limits.latency[1].device: a has a limit already",
		"limits={latency_ms: 4, latency: [{device: local, ms: 4}]}": "limits.latency_ms: limits.latency limits local",
		"limits.latency=[{device: a, ms: 4, until: 5}]":             "until",
		"latency.devices=[a, a]":                                    "latency.devices[1]",
		"calibration.batch=0":                                       "calibration",
		"validation.images=-1":                                      "validation",
		"latency.mode=fast":                                         "latency.mode",
		"latency.runs=-1":                                           "latency",
		"data.val_fraction=1":                                       "data.val_fraction",
		"data.preset=offical":                                       `data.preset: "offical" is none of official, mmrazor, anglenas (did you mean official?)`,
		"device=":                                                   "device",
	} {
		_, err := config.Load("", config.DefaultSearch(), []string{set})
		if !errors.Is(err, config.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", set, err, want)
		}
	}
}

func TestDataFor(t *testing.T) {
	big, small := arch.Shape{C: 3, H: 224, W: 224}, arch.Shape{C: 1, H: 28, W: 28}
	d, err := config.Data{}.For(big)
	if err != nil || !cmp.Equal(*d.Recipe, imaging.OfficialSPOS()) || !cmp.Equal(*d.Augment, imaging.OfficialSPOSAugment()) {
		t.Errorf("224: %+v, %v", d, err)
	}
	d, err = config.Data{}.For(small)
	if err != nil || !cmp.Equal(*d.Recipe, imaging.Recipe{Color: imaging.Gray, Height: 28, Width: 28}) || !cmp.Equal(*d.Augment, imaging.Augment{Flip: 0.5}) {
		t.Errorf("28: %+v, %v", d, err)
	}
	d, err = config.Data{Recipe: &imaging.Recipe{Color: imaging.BGR, Range: imaging.Bytes}, Augment: &imaging.Augment{}}.For(big)
	if err != nil || d.Recipe.Height != 224 || d.Recipe.Color != imaging.BGR || *d.Augment != (imaging.Augment{}) {
		t.Errorf("given: %+v, %v", d, err)
	}
	if _, err := (config.Data{Recipe: &imaging.Recipe{}}).For(small); !errors.Is(err, config.ErrInvalid) || !strings.Contains(err.Error(), "data.recipe") {
		t.Errorf("colour for a gray space: %v", err)
	}
}

func TestDataForPreset(t *testing.T) {
	big, low, small := arch.Shape{C: 3, H: 224, W: 224}, arch.Shape{C: 3, H: 192, W: 192}, arch.Shape{C: 1, H: 28, W: 28}
	for _, name := range imaging.Presets() {
		recipe, augment, err := imaging.Preset(name)
		if err != nil {
			t.Fatal(err)
		}
		d, err := config.Data{Preset: name}.For(big)
		if err != nil || !cmp.Equal(*d.Recipe, recipe) || *d.Augment != augment || d.Preset != name {
			t.Errorf("%s: %+v, %+v, %v", name, d.Recipe, d.Augment, err)
		}
		d, err = config.Data{Preset: name}.For(low)
		if err != nil || !cmp.Equal(*d.Recipe, recipe.Sized(192, 192)) || d.Recipe.ShortSide != 219 {
			t.Errorf("%s at 192: %+v, %v", name, d.Recipe, err)
		}
		if _, err = (config.Data{Preset: name}).For(small); !errors.Is(err, config.ErrInvalid) || !strings.Contains(err.Error(), "data.preset: makes images of") {
			t.Errorf("%s for a gray space: %v", name, err)
		}
	}
	// What is written out replaces the preset's.
	recipe, augment := imaging.Recipe{Color: imaging.BGR}, imaging.Augment{Flip: 1}
	d, err := config.Data{Preset: "mmrazor", Recipe: &recipe}.For(big)
	if err != nil || d.Recipe.Color != imaging.BGR || d.Recipe.ShortSide != 0 || *d.Augment != imaging.MMRazorAugment() {
		t.Errorf("a recipe: %+v, %+v, %v", d.Recipe, d.Augment, err)
	}
	d, err = config.Data{Preset: "mmrazor", Augment: &augment}.For(big)
	if err != nil || !cmp.Equal(*d.Recipe, imaging.MMRazor()) || *d.Augment != augment {
		t.Errorf("an augmentation: %+v, %+v, %v", d.Recipe, d.Augment, err)
	}
	if _, err := (config.Data{Preset: "no"}).For(big); !errors.Is(err, config.ErrInvalid) {
		t.Errorf("an unknown preset: %v", err)
	}
}

// Whatever the text, Read returns an error or a value that Dump can write and
// Read reads back.
func FuzzRead(f *testing.F) {
	f.Add(trainYAML, "optimizer.lr=1")
	f.Add("a: &x [1]\nb: *x", "x=y")
	f.Add("space: 0123\nseed: 5e-1\n", "arch=000")
	f.Add("? a\n: b", "a.b.c=[1, {")
	f.Fuzz(func(t *testing.T, text, set string) {
		got, err := config.Read(strings.NewReader(text), "fuzz", config.DefaultTrain(), []string{set})
		if err != nil {
			if !errors.Is(err, config.ErrInvalid) {
				t.Fatalf("not ErrInvalid: %v", err)
			}
			return
		}
		var dump bytes.Buffer
		if err := config.Dump(&dump, got); err != nil {
			t.Fatal(err)
		}
		written := dump.String()
		again, err := config.Read(&dump, "dump", config.Train{}, nil)
		if err != nil {
			t.Fatalf("%v\n%s", err, written)
		}
		if d := cmp.Diff(got, again); d != "" {
			t.Fatalf("-want +got:\n%s\n%s", d, written)
		}
	})
}

func TestMeasuredOn(t *testing.T) {
	type limits = []config.DeviceLimit
	for text, want := range map[string]limits{
		"":                        {{"local", 0}},
		"limits: {latency_ms: 4}": {{"local", 4}},
		"limits: {latency_ms: 4}\nlatency: {devices: [pi5]}":                                 {{"pi5", 4}},
		"limits: {latency_ms: 4, latency: [{device: pi5, ms: 8}]}":                           {{"local", 4}, {"pi5", 8}},
		"limits: {latency: [{device: pi5, ms: 8}, {device: local, ms: 4}]}":                  {{"pi5", 8}, {"local", 4}},
		"limits: {latency: [{device: pi5, ms: 8}]}\nlatency: {devices: [local, phone]}":      {{"local", 0}, {"phone", 0}, {"pi5", 8}},
		"limits: {latency_ms: 3, latency: [{device: a, ms: 8}]}\nlatency: {devices: [b, a]}": {{"b", 3}, {"a", 8}},
	} {
		s, err := config.Read(strings.NewReader(text), "s.yaml", config.DefaultSearch(), nil)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if d := cmp.Diff(want, s.MeasuredOn()); d != "" {
			t.Errorf("%s (-want +got):\n%s", text, d)
		}
	}
}
