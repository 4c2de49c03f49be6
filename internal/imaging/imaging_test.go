package imaging_test

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"encoding/json"
	"errors"
	"hash/crc32"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"math"
	"runtime"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"

	"spos/internal/imaging"
)

func encodePNG(tb testing.TB, m image.Image) []byte {
	tb.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

func encodeJPEG(tb testing.TB, w, h int) []byte {
	tb.Helper()
	m := image.NewRGBA(image.Rect(0, 0, w, h))
	for i := range m.Pix {
		m.Pix[i] = uint8(i*7 ^ i>>5)
	}
	var b bytes.Buffer
	if err := jpeg.Encode(&b, m, nil); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

// hollowPNG claims a size and holds next to nothing.
func hollowPNG(w, h uint32) []byte {
	b := bytes.NewBufferString("\x89PNG\r\n\x1a\n")
	chunk := func(kind string, data []byte) {
		_ = binary.Write(b, binary.BigEndian, uint32(len(data)))
		body := append([]byte(kind), data...)
		b.Write(body)
		_ = binary.Write(b, binary.BigEndian, crc32.ChecksumIEEE(body))
	}
	head := binary.BigEndian.AppendUint32(nil, w)
	head = binary.BigEndian.AppendUint32(head, h)
	chunk("IHDR", append(head, 8, 6, 0, 0, 0))
	var z bytes.Buffer
	zw := zlib.NewWriter(&z)
	_, _ = zw.Write(make([]byte, 600))
	_ = zw.Close()
	chunk("IDAT", z.Bytes())
	chunk("IEND", nil)
	return b.Bytes()
}

func TestDecodeConvertsByRule(t *testing.T) {
	box := image.Rect(0, 0, 2, 1)
	set := func(m interface {
		image.Image
		Set(x, y int, c color.Color)
	}, a, b color.Color,
	) image.Image {
		m.Set(0, 0, a)
		m.Set(1, 0, b)
		return m
	}
	none, half := color.NRGBA{200, 100, 50, 0}, color.NRGBA{200, 100, 50, 128}
	tests := map[string]struct {
		in   image.Image
		want imaging.Image
	}{
		"gray":             {set(image.NewGray(box), color.Gray{7}, color.Gray{250}), imaging.Image{C: 1, Pix: []uint8{7, 250}}},
		"gray, 16 bits":    {set(image.NewGray16(box), color.Gray16{0x07ff}, color.Gray16{0xfa00}), imaging.Image{C: 1, Pix: []uint8{7, 250}}},
		"opaque":           {set(image.NewRGBA(box), color.RGBA{1, 2, 3, 255}, color.RGBA{4, 5, 6, 255}), imaging.Image{C: 3, Pix: []uint8{1, 2, 3, 4, 5, 6}}},
		"alpha on black":   {set(image.NewNRGBA(box), none, half), imaging.Image{C: 3, Pix: []uint8{0, 0, 0, 100, 50, 25}}},
		"16 bits of color": {set(image.NewRGBA64(box), color.RGBA64{0x1ff, 0x200, 0x300, 0xffff}, color.Black), imaging.Image{C: 3, Pix: []uint8{1, 2, 3, 0, 0, 0}}},
		"16 bits, alpha":   {set(image.NewNRGBA64(box), color.NRGBA64{0xffff, 0x8000, 0x100, 0x8000}, color.NRGBA64{0xffff, 1, 2, 0}), imaging.Image{C: 3, Pix: []uint8{128, 64, 0, 0, 0, 0}}},
		"palette":          {set(image.NewPaletted(box, color.Palette{color.RGBA{9, 8, 7, 255}, half}), color.RGBA{9, 8, 7, 255}, half), imaging.Image{C: 3, Pix: []uint8{9, 8, 7, 100, 50, 25}}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := imaging.Decode(encodePNG(t, tt.in), imaging.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			tt.want.W, tt.want.H = 2, 1
			if d := cmp.Diff(&tt.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestEncodePNGIsLossless(t *testing.T) {
	for _, c := range []int{1, 3} {
		want := imaging.NewImage(5, 4, c)
		for i := range want.Pix {
			want.Pix[i] = uint8(i * 37)
		}
		var b bytes.Buffer
		if err := want.EncodePNG(&b); err != nil {
			t.Fatal(err)
		}
		got, err := imaging.Decode(b.Bytes(), imaging.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	whole := encodePNG(t, image.NewGray(image.Rect(0, 0, 50, 40)))
	photo := encodeJPEG(t, 64, 64)
	huge := bytes.Clone(photo)
	i := bytes.Index(huge, []byte{0xff, 0xc0}) // the frame header: height and width follow
	copy(huge[i+5:], []byte{0xff, 0xff, 0xff, 0xff})
	tests := map[string]struct {
		data   []byte
		limits imaging.Limits
		want   error
	}{
		"nothing":              {nil, imaging.Limits{}, imaging.ErrFormat},
		"text":                 {[]byte("<svg></svg>"), imaging.Limits{}, imaging.ErrFormat},
		"gif":                  {[]byte("GIF89a\x01\x00\x01\x00\x00"), imaging.Limits{}, imaging.ErrFormat},
		"magic only":           {whole[:8], imaging.Limits{}, imaging.ErrImage},
		"truncated png":        {whole[:len(whole)-20], imaging.Limits{}, imaging.ErrImage},
		"truncated jpeg":       {photo[:len(photo)/2], imaging.Limits{}, imaging.ErrImage},
		"jpeg without its end": {photo[:len(photo)-2], imaging.Limits{}, imaging.ErrImage},
		"too many bytes":       {whole, imaging.Limits{Bytes: 20}, imaging.ErrTooLarge},
		"too many pixels":      {whole, imaging.Limits{Pixels: 1999}, imaging.ErrTooLarge},
		"too long":             {whole, imaging.Limits{Side: 49}, imaging.ErrTooLarge},
		"claims 3.6 GP":        {hollowPNG(60000, 60000), imaging.Limits{}, imaging.ErrTooLarge},
		"claims 36 MP":         {hollowPNG(6000, 6000), imaging.Limits{}, imaging.ErrImage},
		"jpeg claims 4 GP":     {huge, imaging.Limits{}, imaging.ErrTooLarge},
		"no width":             {hollowPNG(0, 7), imaging.Limits{}, imaging.ErrImage},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m, err := imaging.Decode(tt.data, tt.limits)
			if !errors.Is(err, tt.want) || !errors.Is(err, imaging.ErrImage) || m != nil {
				t.Errorf("got %v, %v; want an error that wraps %v", m, err, tt.want)
			}
		})
	}
}

// A few hundred bytes may not make the decoder allocate what they claim.
func TestDecodeAllocatesNothingForAClaim(t *testing.T) {
	for _, side := range []uint32{6000, 60000} {
		data := hollowPNG(side, side)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := imaging.Decode(data, imaging.Limits{})
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; err == nil || n > 1<<20 {
			t.Errorf("%d×%d in %d bytes: %d bytes allocated, err %v", side, side, len(data), n, err)
		}
	}
}

func TestRecipeAppliesColorRangeAndMoments(t *testing.T) {
	rgb := &imaging.Image{W: 1, H: 2, C: 3, Pix: []uint8{255, 0, 51, 10, 20, 30}}
	gray := &imaging.Image{W: 1, H: 2, C: 1, Pix: []uint8{0, 255}}
	tests := map[string]struct {
		img    *imaging.Image
		recipe imaging.Recipe
		want   []float32
	}{
		"default":      {rgb, imaging.Recipe{}, []float32{1, 10. / 255, 0, 20. / 255, .2, 30. / 255}},
		"bgr, 0-255":   {rgb, imaging.Recipe{Color: imaging.BGR, Range: imaging.Bytes}, []float32{51, 30, 0, 20, 255, 10}},
		"gray of rgb":  {rgb, imaging.Recipe{Color: imaging.Gray, Range: imaging.Bytes}, []float32{82, 18}},
		"gray to rgb":  {gray, imaging.Recipe{}, []float32{0, 1, 0, 1, 0, 1}},
		"one moment":   {gray, imaging.Recipe{Color: imaging.Gray, Mean: []float32{.5}, Std: []float32{.25}}, []float32{-2, 2}},
		"each its own": {gray, imaging.Recipe{Range: imaging.Bytes, Mean: []float32{0, 5, 255}, Std: []float32{1, 5, 2}}, []float32{0, 255, -1, 50, -127.5, 0}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if err := tt.recipe.Validate(); err != nil {
				t.Fatal(err)
			}
			got := make([]float32, len(tt.want))
			if err := tt.recipe.Apply(tt.img, got); err != nil {
				t.Fatal(err)
			}
			for i := range got {
				if math.Abs(float64(got[i]-tt.want[i])) > 1e-5 {
					t.Fatalf("got %v, want %v", got, tt.want)
				}
			}
			if err := tt.recipe.Apply(tt.img, got[1:]); err == nil {
				t.Error("wrote to a slice that is too short")
			}
		})
	}
}

func TestPublishedRecipes(t *testing.T) {
	// A gradient along the longer side shows where the centre crop lies.
	img := imaging.NewImage(500, 375, 3)
	for i := range img.Pix {
		img.Pix[i] = uint8(i / 3 % 500 / 2)
	}
	for name, r := range map[string]imaging.Recipe{"official": imaging.OfficialSPOS(), "mmrazor": imaging.MMRazor()} {
		if err := r.Validate(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		dst := make([]float32, r.Shape().Numel())
		if err := r.Apply(img, dst); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		// Column 0 of the crop is column 58 or 58.5 of 341, thus about 85 of
		// 500, whose value is 42.
		got := float64(dst[0])
		if name == "mmrazor" {
			got = got*58.395 + 123.675
		}
		if math.Abs(got-42) > 1 {
			t.Errorf("%s: first value %v, want about 42", name, got)
		}
	}
}

func TestConstantStaysConstant(t *testing.T) {
	for _, size := range [][2]int{{1, 1}, {1, 4000}, {13, 7}, {256, 300}, {1000, 31}} {
		for _, f := range []imaging.Interpolation{imaging.Bilinear, imaging.BilinearAntialias} {
			img := imaging.NewImage(size[0], size[1], 3)
			for i := range img.Pix {
				img.Pix[i] = [3]uint8{3, 128, 255}[i%3]
			}
			for _, short := range []int{0, 40} {
				r := imaging.Recipe{Height: 32, Width: 24, ShortSide: short, Interpolation: f, Range: imaging.Bytes}
				dst := make([]float32, r.Shape().Numel())
				if err := r.Apply(img, dst); err != nil {
					t.Fatal(err)
				}
				for i, v := range dst {
					if want := [3]float32{3, 128, 255}[i/(32*24)]; v != want {
						t.Fatalf("%v %s short %d: value %d is %v, want %v", size, f, short, i, v, want)
					}
				}
			}
		}
	}
}

func TestValidateNamesTheField(t *testing.T) {
	recipes := map[string]imaging.Recipe{
		"color":         {Color: "cmyk"},
		"height":        {Height: -1, Width: 3},
		"width":         {Height: 3},
		"short_side":    {Height: 224, Width: 224, ShortSide: 223},
		"short_side: n": {ShortSide: 256},
		"long_side":     {LongSide: "up"},
		"interpolation": {Interpolation: "bicubic"},
		"range":         {Range: "0..1"},
		"mean":          {Mean: []float32{1, 2}},
		"std: 0":        {Std: []float32{0}},
		"std":           {Std: []float32{float32(math.NaN())}},
	}
	for field, r := range recipes {
		if err := r.Validate(); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%+v: error %v does not name %s", r, err, field)
		}
	}
	augments := map[string]imaging.Augment{
		"pad_crop":      {PadCrop: -1},
		"one or":        {PadCrop: 4, RandomResizedCrop: true},
		"area":          {Area: [2]float64{.5, .1}},
		"aspect":        {Aspect: [2]float64{0, 1}},
		"flip":          {Flip: math.NaN()},
		"color_jitter":  {ColorJitter: imaging.ColorJitter{Contrast: -1}},
		"cutout":        {Cutout: -3},
		"arithmetic":    {ColorJitter: imaging.ColorJitter{Arithmetic: "numpy"}},
		"fallback":      {Fallback: "mirror"},
		"lighting":      {Lighting: math.Inf(1)},
		"interpolation": {Interpolation: "lanczos"},
	}
	for field, a := range augments {
		if err := a.Validate(); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%+v: error %v does not name %s", a, err, field)
		}
	}
	for _, err := range []error{imaging.Recipe{}.Validate(), imaging.Augment{}.Validate(), imaging.SPOSAugment().Validate()} {
		if err != nil {
			t.Error(err)
		}
	}
}

func TestRecipeSurvivesJSONAndYAML(t *testing.T) {
	for _, want := range []imaging.Recipe{imaging.MMRazor(), imaging.Recipe{}.Explicit(), imaging.OfficialSPOS().Explicit()} {
		b, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := imaging.ParseRecipe(b)
		if err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
		if b, err = yaml.Marshal(want); err != nil {
			t.Fatal(err)
		}
		got = imaging.Recipe{}
		if err := yaml.UnmarshalWithOptions(b, &got, yaml.Strict()); err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	}
	for _, bad := range []string{`{"colour":"rgb"}`, `{"color":"x"}`, `{} {}`, `[`, ``} {
		if _, err := imaging.ParseRecipe([]byte(bad)); err == nil {
			t.Errorf("%s: accepted", bad)
		}
	}
	for _, a := range []imaging.Augment{imaging.SPOSAugment(), imaging.MMRazorAugment(), imaging.AngleNASAugment()} {
		b, err := yaml.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		var back imaging.Augment
		if err := yaml.UnmarshalWithOptions(b, &back, yaml.Strict()); err != nil || back != a {
			t.Errorf("%s: got %+v, %v", b, back, err)
		}
	}
}
