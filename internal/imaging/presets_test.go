package imaging

import (
	"encoding/json"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// published is what the original pipelines made of small pictures.
type published struct {
	Train, Eval []result
	Sizes       []struct {
		W, H              int
		Official, MMRazor [2]int
	}
	Normalise [3][256]float32
}

// result is where an original pipeline's result is, and what it was told in
// place of what it would have drawn.
type result struct {
	Preset, Source string
	Index, Row     int
	Train          bool
	Part           [4]int
	Jitter         []step
	Flip           bool
	Light          [3]float64
}

type step struct{ change }

func (s *step) UnmarshalJSON(b []byte) error {
	var op string
	if err := json.Unmarshal(b, &[]any{&op, &s.factor}); err != nil {
		return err
	}
	s.kind = map[string]changeKind{"brightness": brightness, "contrast": contrast, "saturation": saturation}[op]
	return nil
}

func (r result) variant() variant {
	v := variant{part: rect{r.Part[0], r.Part[1], r.Part[2], r.Part[3]}, flip: r.Flip, light: r.Light}
	for i, s := range r.Jitter {
		v.jitter[i] = s.change
	}
	return v
}

// input is what the preset makes of the image, as the result was made.
func (r result) input(t *testing.T, img *Image, rec Recipe, train bool) []float32 {
	t.Helper()
	_, a, err := Preset(r.Preset)
	if err != nil {
		t.Fatal(err)
	}
	dst := make([]float32, rec.Shape().Numel())
	if train {
		a.render(r.variant(), img, rec, dst)
	} else if err := rec.Apply(img, dst); err != nil {
		t.Fatal(err)
	}
	return dst
}

func preset(t *testing.T, name string) Recipe {
	t.Helper()
	rec, _, err := Preset(name)
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

// levels undoes the normalisation: the picture behind an input, in its own
// levels, not rounded.
func levels(rec Recipe, input []float32) func(x, y, c int) float64 {
	return func(x, y, c int) float64 {
		k := c
		if rec.Color == BGR {
			k = 2 - c
		}
		scale, shift := rec.affine(k)
		return (float64(input[(k*rec.Height+y)*rec.Width+x]) - float64(shift)) / float64(scale)
	}
}

// With the same decisions, training and evaluation make the very pixels of
// the original pipelines.
func TestPresetsAreTheOriginals(t *testing.T) {
	want := readGolden[published](t, "presets.json")
	for _, train := range []bool{true, false} {
		results := want.Eval
		if train {
			results = want.Train
		}
		for i, r := range results {
			rec := preset(t, r.Preset)
			rec.Width, rec.Height, rec.ShortSide = 40, 40, 46
			got := levels(rec, r.input(t, load(t, r.Source), rec, train))
			strip := load(t, r.Preset+".png")
			var off, most float64
			for y := range 40 {
				for x := range 40 {
					for c := range 3 {
						d := math.Abs(got(x, y, c) - float64(strip.Pix[((r.Row+y)*40+x)*3+c]))
						if d > 1e-4 {
							off++
						}
						most = max(most, d)
					}
				}
			}
			if off > 0 {
				t.Errorf("%s of %s, train %v, case %d: %v values differ, by up to %v levels", r.Preset, r.Source, train, i, off, most)
			}
		}
	}
}

func TestMMRazorNormalises(t *testing.T) {
	want := readGolden[published](t, "presets.json").Normalise
	ramp := NewImage(256, 1, 1)
	for i := range ramp.Pix {
		ramp.Pix[i] = uint8(i)
	}
	rec := MMRazor()
	rec.Width, rec.Height, rec.ShortSide = 256, 1, 0
	got := make([]float32, 3*256)
	if err := rec.Apply(ramp, got); err != nil {
		t.Fatal(err)
	}
	for i, v := range got {
		// A division there is a multiplication here, as in mmcls 0.x.
		if d := math.Abs(float64(v - want[i/256][i%256])); d > 1e-6 {
			t.Errorf("channel %d, level %d: %v, want %v", i/256, i%256, v, want[i/256][i%256])
		}
	}
}

func TestLongSideRoundsAsTheOriginals(t *testing.T) {
	for _, c := range readGolden[published](t, "presets.json").Sizes {
		for name, want := range map[string][2]int{"official": c.Official, "anglenas": c.Official, "mmrazor": c.MMRazor} {
			w, h := preset(t, name).scaled(c.W, c.H)
			if got := [2]int{w, h}; got != want {
				t.Errorf("%s: %d×%d becomes %v, want %v", name, c.W, c.H, got, want)
			}
		}
	}
}

// replay gives out what an original's generators said: a number for each
// Float64, a number and its bound for each IntN.
type replay struct {
	t     *testing.T
	draws []any
}

func (r *replay) next() any {
	if len(r.draws) == 0 {
		r.t.Fatal("draws more than the original")
	}
	d := r.draws[0]
	r.draws = r.draws[1:]
	return d
}

func (r *replay) Float64() float64 {
	d, ok := r.next().(float64)
	if !ok {
		r.t.Fatal("draws a number where the original draws an offset")
	}
	return d
}

func (r *replay) IntN(n int) int {
	d, ok := r.next().([]any)
	if !ok || len(d) != 2 || d[1] != float64(n) {
		r.t.Fatalf("draws an offset below %d, the original %v", n, d)
	}
	return int(d[0].(float64))
}

// From the same random numbers follow the same parts, fallbacks included.
func TestPartsAreTheOriginals(t *testing.T) {
	type crop struct {
		Preset string
		W, H   int
		Draws  []any
		Part   [4]int
	}
	fellBack := map[string]int{}
	for i, c := range readGolden[[]crop](t, "crops.json") {
		_, a, err := Preset(c.Preset)
		if err != nil {
			t.Fatal(err)
		}
		if len(c.Draws) >= 20 {
			fellBack[c.Preset]++
		}
		dice := &replay{t, c.Draws}
		p := a.drawPart(dice, c.W, c.H)
		if got := [4]int{p.x, p.y, p.w, p.h}; got != c.Part || len(dice.draws) > 0 {
			t.Errorf("case %d, %s of %d×%d: %v, want %v; %d draws left", i, c.Preset, c.W, c.H, got, c.Part, len(dice.draws))
		}
	}
	for _, name := range Presets() {
		if fellBack[name] == 0 {
			t.Errorf("%s: no case falls back", name)
		}
	}
}

// Whole pipelines on photographs, decoder included. The decoders differ by a
// level or two in a sample (see [TestDecodeAgreesWithLibjpeg]), resizing
// averages that, and jitter multiplies it by up to 1.4 a step.
func TestPresetsOnPhotographs(t *testing.T) {
	all := Photographs(t)
	rows := []int{0, 44, 89, 134, 179, 223}
	strip := load(t, "photographs.png")
	for _, r := range readGolden[[]result](t, "photographs.json") {
		img, err := Decode(all[r.Index], Limits{})
		if err != nil {
			t.Fatal(err)
		}
		rec := preset(t, r.Preset)
		got := levels(rec, r.input(t, img, rec, r.Train))
		var most, sum float64
		for i, y := range rows {
			for x := range 224 {
				for c := range 3 {
					d := math.Abs(got(x, y, c) - float64(strip.Pix[((r.Row+i)*224+x)*3+c]))
					most, sum = max(most, d), sum+d
				}
			}
		}
		mean := sum / float64(len(rows)*224*3)
		if most > 6 || mean > 0.15 {
			t.Errorf("photograph %d, %s, train %v: differs by up to %.2f levels, %.3f in the mean", r.Index, r.Preset, r.Train, most, mean)
		}
		t.Logf("photograph %d, %s, train %v: differs by up to %.2f levels, %.3f in the mean", r.Index, r.Preset, r.Train, most, mean)
	}
}

func TestPresetNames(t *testing.T) {
	if d := cmp.Diff([]string{"official", "mmrazor", "anglenas"}, Presets()); d != "" {
		t.Error(d)
	}
	for _, name := range Presets() {
		rec, a, err := Preset(name)
		if err != nil || rec.Validate() != nil || a.Validate() != nil {
			t.Errorf("%s: %v, %v, %v", name, err, rec.Validate(), a.Validate())
		}
	}
	if _, _, err := Preset("offical"); err == nil || err.Error() != `"offical" is none of official, mmrazor, anglenas` {
		t.Errorf("got %v", err)
	}
}

func TestSizedKeepsTheShare(t *testing.T) {
	for _, c := range []struct{ in, short int }{{224, 256}, {192, 219}, {160, 183}, {128, 146}, {32, 37}} {
		got := OfficialSPOS().Sized(c.in, c.in)
		if got.Height != c.in || got.Width != c.in || got.ShortSide != c.short || got.Validate() != nil {
			t.Errorf("%d: %+v, %v", c.in, got, got.Validate())
		}
	}
	if got := OfficialSPOS().Sized(100, 224); got.ShortSide != 256 || got.Height != 100 || got.Width != 224 {
		t.Errorf("a wide input: %+v", got)
	}
	if got := (Recipe{}).Sized(7, 9); got.Height != 7 || got.Width != 9 || got.ShortSide != 0 {
		t.Errorf("a plain recipe: %+v", got)
	}
}
