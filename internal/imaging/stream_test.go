package imaging_test

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"testing"

	"spos/internal/imaging"
)

// What a seed draws is a promise: a run resumed after an update must see the
// images that it would have seen. The values were written by the first
// version, in which drawing and applying were one.
func TestSeedsKeepTheirMeaning(t *testing.T) {
	small := imaging.Recipe{Height: 24, Width: 20, Range: imaging.Bytes}
	gray := imaging.Recipe{Color: imaging.Gray, Range: imaging.Bytes}
	jitter := imaging.SPOSAugment()
	all := jitter
	all.Area, all.Aspect, all.Cutout = [2]float64{0.2, 0.9}, [2]float64{0.5, 2}, 7
	for _, c := range []struct {
		name    string
		augment imaging.Augment
		recipe  imaging.Recipe
		w, h    int
		want    string
	}{
		{"spos", jitter, small, 61, 47, "877d152e01c34882"},
		{"all", all, small, 47, 61, "7cb1d87c2b89bf4b"},
		{"falls back", all, small, 200, 9, "62927ae5b5a7d09f"},
		{"small images", imaging.Augment{PadCrop: 4, Flip: 0.5, Cutout: 8}, gray, 28, 28, "ce9485b61184f013"},
		{"one change", imaging.Augment{ColorJitter: imaging.ColorJitter{Contrast: 0.8}}, small, 20, 24, "9bbe74376cdf9e02"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := imaging.NewImage(c.w, c.h, 3)
			for i := range m.Pix {
				m.Pix[i] = uint8(i*i/7 ^ i*31)
			}
			n := c.recipe.Shape().Numel()
			if n == 0 {
				n = c.w * c.h
			}
			sum := fnv.New64a()
			r := rand.New(rand.NewPCG(testSeed, 0))
			for range 20 {
				for _, v := range apply(t, c.augment, r, m, c.recipe, n) {
					// Whole levels: the arithmetic behind them is pinned elsewhere.
					_ = binary.Write(sum, binary.LittleEndian, int16(v))
				}
			}
			if got := fmt.Sprintf("%016x", sum.Sum64()); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}
