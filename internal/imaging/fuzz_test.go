package imaging_test

import (
	"encoding/json"
	"errors"
	"image"
	"image/color"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"spos/internal/imaging"
)

func FuzzDecode(f *testing.F) {
	files, err := filepath.Glob("testdata/golden/*_3x2.jpg")
	if err != nil || len(files) == 0 {
		f.Fatal("no seeds", err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:len(b)/2])
	}
	f.Add(encodePNG(f, image.NewPaletted(image.Rect(0, 0, 3, 3), color.Palette{color.Black, color.White})))
	f.Add(encodePNG(f, image.NewNRGBA64(image.Rect(0, 0, 3, 3))))
	f.Add(hollowPNG(6000, 6000))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := imaging.Decode(data, imaging.Limits{Pixels: 1 << 16})
		if err != nil {
			if !errors.Is(err, imaging.ErrImage) {
				t.Fatalf("%v does not wrap ErrImage", err)
			}
			return
		}
		rec := imaging.Recipe{Height: 8, Width: 8, ShortSide: 9}
		if err := rec.Apply(m, make([]float32, rec.Shape().Numel())); err != nil {
			t.Fatalf("%d×%d×%d decoded, but: %v", m.W, m.H, m.C, err)
		}
	})
}

func FuzzParseRecipe(f *testing.F) {
	f.Add([]byte(`{"color":"bgr","height":224,"width":224,"short_side":256,"range":"0-255","mean":[1,2,3],"std":[4]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := imaging.ParseRecipe(data)
		if err != nil || r.Height*r.Width > 1<<16 || r.ShortSide > 512 {
			return
		}
		img := imaging.NewImage(3, 2, 3)
		n := r.Shape().Numel()
		if r.Height == 0 {
			n = r.Channels() * 6
		}
		if err := r.Apply(img, make([]float32, n)); err != nil {
			t.Fatalf("%+v is valid, but: %v", r, err)
		}
	})
}

// Whatever is valid is drawn and applied without reaching outside of an image.
func FuzzAugment(f *testing.F) {
	f.Add(uint64(1), uint8(61), uint8(47), uint8(3), []byte(`{"random_resized_crop":true,"color_jitter":{"contrast":0.4,"arithmetic":"opencv"}}`))
	f.Add(uint64(2), uint8(1), uint8(200), uint8(1), []byte(`{"random_resized_crop":true,"aspect":[1,1],"fallback":"pad","lighting":0.1,"flip":0.5}`))
	f.Add(uint64(3), uint8(1), uint8(1), uint8(3), []byte(`{"random_resized_crop":true,"area":[0.001,0.001],"fallback":"pad"}`))
	f.Add(uint64(4), uint8(9), uint8(8), uint8(1), []byte(`{"pad_crop":9,"cutout":20,"flip":1}`))
	f.Fuzz(func(t *testing.T, seed uint64, w, h, channels uint8, text []byte) {
		var a imaging.Augment
		if json.Unmarshal(text, &a) != nil || a.Validate() != nil || a.PadCrop > 100 {
			return
		}
		img := imaging.NewImage(int(w)+1, int(h)+1, 1+2*int(channels%2))
		r := rand.New(rand.NewPCG(seed, 0))
		for _, color := range []imaging.Color{imaging.Gray, imaging.BGR} {
			rec := imaging.Recipe{Color: color, Height: 5, Width: 6}
			if err := a.Apply(r, img, rec, make([]float32, rec.Shape().Numel())); err != nil {
				t.Fatal(err)
			}
		}
	})
}
