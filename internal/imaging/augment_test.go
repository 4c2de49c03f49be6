package imaging_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"spos/internal/imaging"
)

const testSeed = 20

// numbered is an image whose pixels all differ, counted from 1.
func numbered(w, h int) *imaging.Image {
	m := imaging.NewImage(w, h, 1)
	for i := range m.Pix {
		m.Pix[i] = uint8(i + 1)
	}
	return m
}

var gray255 = imaging.Recipe{Color: imaging.Gray, Range: imaging.Bytes}

func apply(t *testing.T, a imaging.Augment, r *rand.Rand, m *imaging.Image, rec imaging.Recipe, n int) []float32 {
	t.Helper()
	if err := a.Validate(); err != nil {
		t.Fatal(err)
	}
	dst := make([]float32, n)
	if err := a.Apply(r, m, rec, dst); err != nil {
		t.Fatal(err)
	}
	return dst
}

func TestNoAugmentationIsEvaluation(t *testing.T) {
	m := numbered(12, 10)
	r := rand.New(rand.NewPCG(testSeed, 0))
	rec := imaging.Recipe{Color: imaging.RGB, Height: 6, Width: 5, ShortSide: 8}
	want := make([]float32, rec.Shape().Numel())
	if err := rec.Apply(m, want); err != nil {
		t.Fatal(err)
	}
	if got := apply(t, imaging.Augment{}, r, m, rec, len(want)); !slices.Equal(got, want) {
		t.Error("the zero augmentation changes the image")
	}
}

// Every output of pad-crop and flip is a shifted, perhaps mirrored image with
// black beyond it, and every shift occurs about equally often.
func TestPadCropAndFlip(t *testing.T) {
	const w, h, pad, draws = 6, 5, 2, 5000
	m := numbered(w, h)
	r := rand.New(rand.NewPCG(testSeed, 1))
	a := imaging.Augment{PadCrop: pad, Flip: 0.5}
	at := func(x, y int) float32 {
		if x < 0 || y < 0 || x >= w || y >= h {
			return 0
		}
		return float32(m.Pix[y*w+x])
	}
	seen := map[[3]int]int{}
	for range draws {
		got := apply(t, a, r, m, gray255, w*h)
		found := 0
		for dx := -pad; dx <= pad; dx++ {
			for dy := -pad; dy <= pad; dy++ {
				for flip := range 2 {
					same := true
					for i, v := range got {
						x, y := i%w, i/w
						if flip == 1 {
							x = w - 1 - x
						}
						same = same && v == at(x+dx, y+dy)
					}
					if same {
						seen[[3]int{dx, dy, flip}]++
						found++
					}
				}
			}
		}
		if found != 1 {
			t.Fatalf("%v is no shifted image (%d matches)", got, found)
		}
	}
	// 50 variants, 100 each: a count outside 50..150 is 5 deviations away.
	if len(seen) != 50 {
		t.Errorf("%d variants seen, want 50", len(seen))
	}
	for k, n := range seen {
		if n < 50 || n > 150 {
			t.Errorf("variant %v seen %d times of about 100", k, n)
		}
	}
}

// The part that a random resized crop shows is measured on two gradients.
func TestRandomResizedCropDrawsItsRange(t *testing.T) {
	const w, h = 250, 200
	x, y := imaging.NewImage(w, h, 1), imaging.NewImage(w, h, 1)
	for i := range x.Pix {
		x.Pix[i], y.Pix[i] = uint8(i%w), uint8(i/w)
	}
	rec := imaging.Recipe{Color: imaging.Gray, Range: imaging.Bytes, Height: 50, Width: 50}
	a := imaging.Augment{RandomResizedCrop: true}
	lo, hi := 1., 0.
	for i := range uint64(400) {
		gx := apply(t, a, rand.New(rand.NewPCG(testSeed, i)), x, rec, 2500)
		gy := apply(t, a, rand.New(rand.NewPCG(testSeed, i)), y, rec, 2500)
		cw := float64(gx[49]-gx[0]) * 50 / 49
		ch := float64(gy[49*50]-gy[0]) * 50 / 49
		area, aspect := cw*ch/(w*h), cw/ch
		lo, hi = min(lo, area), max(hi, area)
		if area < 0.07 || area > 1.01 || aspect < 0.72 || aspect > 1.39 {
			t.Fatalf("draw %d: a part of %.1f×%.1f: area %.3f, aspect %.3f", i, cw, ch, area, aspect)
		}
	}
	if lo > 0.12 || hi < 0.85 {
		t.Errorf("areas from %.2f to %.2f only", lo, hi)
	}
}

func TestRandomResizedCropFallsBack(t *testing.T) {
	// No part of a 300×2 image has an allowed aspect and more than 8 % of it.
	m := imaging.NewImage(300, 2, 1)
	for i := range m.Pix {
		m.Pix[i] = uint8(i % 300 / 2)
	}
	rec := imaging.Recipe{Color: imaging.Gray, Range: imaging.Bytes, Height: 4, Width: 4}
	got := apply(t, imaging.Augment{RandomResizedCrop: true}, rand.New(rand.NewPCG(testSeed, 0)), m, rec, 16)
	for _, v := range got {
		if math.Abs(float64(v)-74) > 2 {
			t.Fatalf("the fallback is not the centre: %v", got)
		}
	}
}

func TestAugmentationDependsOnTheSeedAlone(t *testing.T) {
	m := imaging.NewImage(90, 70, 3)
	for i := range m.Pix {
		m.Pix[i] = uint8(i * 31)
	}
	before := slices.Clone(m.Pix)
	rec := imaging.Recipe{Height: 32, Width: 32}
	a := imaging.SPOSAugment()
	a.Cutout = 8
	draw := func(seed uint64) []float32 {
		return apply(t, a, rand.New(rand.NewPCG(seed, 0)), m, rec, 3*32*32)
	}
	if !slices.Equal(draw(1), draw(1)) {
		t.Error("one seed gave two variants")
	}
	if slices.Equal(draw(1), draw(2)) {
		t.Error("two seeds gave one variant")
	}
	if !slices.Equal(before, m.Pix) {
		t.Error("the image itself was changed")
	}
}

func TestCutoutZeroesASquare(t *testing.T) {
	m := numbered(12, 12)
	rec := imaging.Recipe{Color: imaging.Gray, Range: imaging.Bytes, Mean: []float32{-1000}}
	most := 0
	for i := range uint64(100) {
		zeros := 0
		for _, v := range apply(t, imaging.Augment{Cutout: 4}, rand.New(rand.NewPCG(testSeed, i)), m, rec, 144) {
			if v == 0 {
				zeros++
			}
		}
		most = max(most, zeros)
		if zeros < 4 || zeros > 16 {
			t.Fatalf("%d zeros", zeros)
		}
	}
	if most != 16 {
		t.Errorf("never a whole square: %d", most)
	}
}
