package imaging_test

import (
	"math/rand/v2"
	"testing"

	"spos/internal/imaging"
)

func TestPhotographs(t *testing.T) {
	all := imaging.Photographs(t)
	if len(all) != 50 {
		t.Fatalf("%d photographs, want 50", len(all))
	}
	for i, b := range all {
		if i%5 > 0 { // ten are enough for a test
			continue
		}
		m, err := imaging.Decode(b, imaging.Limits{})
		if err != nil {
			t.Errorf("photograph %d: %v", i, err)
			continue
		}
		for _, rec := range []imaging.Recipe{imaging.OfficialSPOS(), imaging.MMRazor()} {
			dst := make([]float32, rec.Shape().Numel())
			if err := rec.Apply(m, dst); err != nil {
				t.Errorf("photograph %d: %v", i, err)
			}
			// A photograph has contrast: a decoder that went astray may not.
			lo, hi := dst[0], dst[0]
			for _, v := range dst {
				lo, hi = min(lo, v), max(hi, v)
			}
			if hi-lo < 1.5 {
				t.Errorf("photograph %d: values from %v to %v", i, lo, hi)
			}
		}
	}
}

func perImage(b *testing.B, n int) {
	b.Helper()
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "img/s")
}

func BenchmarkDecode(b *testing.B) {
	all := imaging.Photographs(b)
	i := 0
	for b.Loop() {
		if _, err := imaging.Decode(all[i%len(all)], imaging.Limits{}); err != nil {
			b.Fatal(err)
		}
		i++
	}
	perImage(b, 1)
}

func BenchmarkTrainPhoto(b *testing.B) {
	all := imaging.Photographs(b)
	rec := imaging.MMRazor()
	dst := make([]float32, rec.Shape().Numel())
	r := rand.New(rand.NewPCG(testSeed, 0))
	for _, interpolation := range []imaging.Interpolation{imaging.Bilinear, imaging.BilinearAntialias} {
		b.Run(string(interpolation), func(b *testing.B) {
			a := imaging.SPOSAugment()
			a.Interpolation = interpolation
			i := 0
			for b.Loop() {
				m, err := imaging.Decode(all[i%len(all)], imaging.Limits{})
				if err != nil {
					b.Fatal(err)
				}
				if err := a.Apply(r, m, rec, dst); err != nil {
					b.Fatal(err)
				}
				i++
			}
			perImage(b, 1)
		})
	}
}

func BenchmarkPresets(b *testing.B) {
	m, err := imaging.Decode(imaging.Photographs(b)[0], imaging.Limits{})
	if err != nil {
		b.Fatal(err)
	}
	for _, name := range imaging.Presets() {
		b.Run(name, func(b *testing.B) {
			rec, a, err := imaging.Preset(name)
			if err != nil {
				b.Fatal(err)
			}
			dst := make([]float32, rec.Shape().Numel())
			r := rand.New(rand.NewPCG(testSeed, 0))
			for b.Loop() {
				if err := a.Apply(r, m, rec, dst); err != nil {
					b.Fatal(err)
				}
			}
			perImage(b, 1)
		})
	}
}

func BenchmarkApplyPhoto(b *testing.B) {
	m, err := imaging.Decode(imaging.Photographs(b)[0], imaging.Limits{})
	if err != nil {
		b.Fatal(err)
	}
	rec := imaging.MMRazor()
	dst := make([]float32, rec.Shape().Numel())
	for b.Loop() {
		_ = rec.Apply(m, dst)
	}
	perImage(b, 1)
}

func BenchmarkAugmentTiny(b *testing.B) {
	for _, c := range []int{1, 3} {
		b.Run([]string{1: "gray28", 3: "rgb32"}[c], func(b *testing.B) {
			side := 26 + 2*c
			m := imaging.NewImage(side, side, c)
			rec := imaging.Recipe{Height: side, Width: side, Mean: []float32{.28}, Std: []float32{.35}}
			if c == 1 {
				rec.Color = imaging.Gray
			}
			a := imaging.Augment{PadCrop: 4, Flip: .5}
			dst := make([]float32, rec.Shape().Numel())
			r := rand.New(rand.NewPCG(testSeed, 0))
			b.ReportAllocs()
			for b.Loop() {
				_ = a.Apply(r, m, rec, dst)
			}
			perImage(b, 1)
		})
	}
}
