package imaging

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// golden is what testdata/golden.py wrote with Pillow, OpenCV and mmcv.
type golden struct {
	Resize []struct {
		Source, Want string
		W, H         int
		Filter       Interpolation
	}
	Jitter []struct {
		Source, Want, Op string
		Factor           float64
		Arithmetic       Arithmetic
		Row              int // of Want, where it has the results of many
	}
	Decode []struct{ Source, Want string }
}

func readGolden[T any](t *testing.T, name string) (v T) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "golden", name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return v
}

func load(t *testing.T, name string) *Image {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "golden", name))
	if err != nil {
		t.Fatal(err)
	}
	m, err := Decode(b, Limits{})
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return m
}

// difference is the largest and the mean difference of two images.
func difference(t *testing.T, got, want *Image) (most int, mean float64) {
	t.Helper()
	if got.W != want.W || got.H != want.H || got.C != want.C {
		t.Fatalf("got %d×%d×%d, want %d×%d×%d", got.W, got.H, got.C, want.W, want.H, want.C)
	}
	sum := 0
	for i := range got.Pix {
		d := int(got.Pix[i]) - int(want.Pix[i])
		if d < 0 {
			d = -d
		}
		most = max(most, d)
		sum += d
	}
	return most, float64(sum) / float64(len(got.Pix))
}

func TestResizeAgreesWithPillowAndOpenCV(t *testing.T) {
	for _, c := range readGolden[golden](t, "cases.json").Resize {
		t.Run(c.Want, func(t *testing.T) {
			m := load(t, c.Source)
			v := resize(m.view(), c.W, c.H, c.Filter, 0, 0, c.W, c.H)
			got := place(v, placement{w: c.W, h: c.H})
			if most, mean := difference(t, got, load(t, c.Want)); most > 0 {
				t.Errorf("differs by up to %d levels, %.3f in the mean", most, mean)
			}
		})
	}
}

func TestJitterAgreesWithPillowAndOpenCV(t *testing.T) {
	kinds := map[string]changeKind{"brightness": brightness, "contrast": contrast, "saturation": saturation}
	for _, c := range readGolden[golden](t, "cases.json").Jitter {
		t.Run(fmt.Sprintf("%s %s %v %s", c.Source, c.Op, c.Factor, c.Arithmetic), func(t *testing.T) {
			got, want := load(t, c.Source), load(t, c.Want)
			change{kinds[c.Op], c.Factor}.apply(got, c.Arithmetic)
			if c.Arithmetic == OpenCV {
				got = got.rgb()
				want = place(want.view().cut(0, c.Row, got.W, got.H), placement{w: got.W, h: got.H})
			}
			if most, mean := difference(t, got, want); most > 0 {
				t.Errorf("differs by up to %d levels, %.3f in the mean", most, mean)
			}
		})
	}
}

func TestDecodeAgreesWithLibjpeg(t *testing.T) {
	for _, c := range readGolden[golden](t, "cases.json").Decode {
		t.Run(c.Source, func(t *testing.T) {
			most, mean := difference(t, load(t, c.Source), load(t, c.Want))
			// The inverse cosine transforms of image/jpeg and libjpeg round
			// differently: a level or two a sample, and up to twice that in
			// blue, which chroma weighs by 1.77.
			if most > 4 || mean > 0.5 {
				t.Errorf("differs by up to %d levels, %.3f in the mean", most, mean)
			}
			t.Logf("differs by up to %d levels, %.3f in the mean", most, mean)
		})
	}
}
