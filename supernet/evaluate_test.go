package supernet

import (
	"math"
	"testing"
)

func TestTiesGoToTheLowerClass(t *testing.T) {
	var a Accuracy
	a.add([]float32{1, 1, 0, 0, 0, 0, 0}, []int64{1}, 7)
	if a.Top1 != 0 || a.Top5 != 1 {
		t.Errorf("second of two equal logits: %+v", a)
	}
	a = Accuracy{}
	a.add([]float32{0, 0, 0, 0, 0, 0, 0}, []int64{5}, 7)
	if a.Top5 != 0 {
		t.Errorf("sixth of seven equal logits: %+v", a)
	}
}

func TestStrangeLogits(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for name, c := range map[string]struct {
		row        []float32
		top1, top5 float64
		loss       float64 // not finite: NaN
	}{
		"none is a number":      {[]float32{nan, nan, nan, nan, nan, nan, nan}, 0, 0, math.NaN()},
		"own is none":           {[]float32{0, 1, nan, 3, 4, 5, 6}, 0, 0, math.NaN()},
		"another is none":       {[]float32{nan, 1, 7, 3, 4, 5, 6}, 0, 1, math.NaN()},
		"another is infinite":   {[]float32{0, 1, 7, inf, 4, 5, 6}, 0, 1, math.NaN()},
		"far below the largest": {[]float32{0, 0, -1000, 1000, 0, 0, 0}, 0, 0, 2000},
		"far above the others":  {[]float32{0, 0, 3e38, 0, 0, 0, -3e38}, 1, 1, 0},
	} {
		var a Accuracy
		a.add(c.row, []int64{2}, len(c.row))
		finite := !math.IsNaN(a.Loss) && !math.IsInf(a.Loss, 0)
		if a.Top1 != c.top1 || a.Top5 != c.top5 || finite != !math.IsNaN(c.loss) || finite && a.Loss != c.loss {
			t.Errorf("%s: %+v", name, a)
		}
	}
}
