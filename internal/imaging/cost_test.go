package imaging_test

import (
	"bytes"
	"errors"
	"image"
	"image/color"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"spos/internal/imaging"
)

// scans is a JPEG whose one scan is repeated.
func scans(t *testing.T, w, h, n int) []byte {
	t.Helper()
	one := encodeJPEG(t, w, h)
	at := bytes.Index(one, []byte{0xff, 0xda})
	end := len(one) - 2
	b := bytes.Clone(one[:at])
	for range n {
		b = append(b, one[at:end]...)
	}
	return append(b, one[end:]...)
}

// progressive is a grey JPEG of passes that each visit every pixel for a few
// bytes: the run of blocks without coefficients is as long as it can be.
func progressive(w, h uint16, passes int) []byte {
	b := []byte{0xff, 0xd8}
	for left := int(w) * int(h) / 512; left > 0; left -= 60_000 { // as long as such a picture has to be
		b = append(append(b, 0xff, 0xfe, 60_000>>8, 60_000&0xff), make([]byte, 60_000-2)...)
	}
	b = append(b, 0xff, 0xc2, 0, 11, 8, byte(h>>8), byte(h), byte(w>>8), byte(w), 1, 1, 0x11, 0)
	b = append(b, 0xff, 0xdb, 0, 67, 0)
	b = append(b, bytes.Repeat([]byte{1}, 64)...)
	// One code, of one bit: a run of 2^14 to 2^15−1 blocks.
	b = append(b, 0xff, 0xc4, 0, 20, 0x10, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xe0)
	runs := int(w)/8*int(h)/8/(1<<14) + 2
	for range passes {
		b = append(b, 0xff, 0xda, 0, 8, 1, 1, 0, 1, 63, 0)
		b = append(b, make([]byte, (15*runs+7)/8)...)
	}
	return append(b, 0xff, 0xd9)
}

func TestScansAreBounded(t *testing.T) {
	for name, tt := range map[string]struct {
		data []byte
		ok   bool
	}{
		"one":                       {scans(t, 64, 48, 1), true},
		"a hundred":                 {scans(t, 64, 48, 100), true},
		"one more":                  {scans(t, 64, 48, 101), false},
		"progressive":               {progressive(640, 480, 15), true},
		"progressive, many":         {progressive(640, 480, 101), false},
		"fewer, of many pixels":     {progressive(8000, 5000, 16), false},
		"bytes in front of a scan":  {bytes.Replace(scans(t, 64, 48, 101), []byte{0xff, 0xda}, []byte{7, 0, 0xff, 0, 0xff, 0xff, 0xff, 0xda}, 60), false},
		"scans behind the end":      {append(scans(t, 64, 48, 1), scans(t, 64, 48, 200)...), true},
		"cut in front of its scans": {scans(t, 64, 48, 101)[:300], false},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := imaging.Decode(tt.data, imaging.Limits{})
			if (err == nil) != tt.ok || err != nil && !errors.Is(err, imaging.ErrImage) {
				t.Errorf("%v", err)
			}
		})
	}
	t.Run("16 MB of them cost nothing", func(t *testing.T) {
		data := progressive(6000, 6000, 300_000)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := imaging.Probe(data, imaging.Limits{Bytes: 64 << 20})
		runtime.ReadMemStats(&after)
		if grown := after.TotalAlloc - before.TotalAlloc; !errors.Is(err, imaging.ErrImage) || grown > 1<<20 {
			t.Errorf("%v, %d bytes allocated", err, grown)
		}
	})
}

// TestMemory holds what Probe promises against what Decode allocates.
func TestMemory(t *testing.T) {
	files, err := filepath.Glob("testdata/golden/*.jpg")
	if err != nil || len(files) == 0 {
		t.Fatal("no images", err)
	}
	all := map[string][]byte{
		"progressive":       progressive(640, 480, 2),
		"progressive, thin": progressive(16000, 1, 2),
		"jpeg, thin":        encodeJPEG(t, 1, 16000),
	}
	for _, name := range files {
		if all[filepath.Base(name)], err = os.ReadFile(name); err != nil {
			t.Fatal(err)
		}
	}
	box := image.Rect(0, 0, 700, 600)
	for name, img := range map[string]image.Image{
		"gray": image.NewGray(box), "gray16": image.NewGray16(box), "nrgba": image.NewNRGBA(box), "nrgba64": image.NewNRGBA64(box),
		"rgba64": image.NewRGBA64(box), "palette": image.NewPaletted(box, color.Palette{color.Black, color.White}),
	} {
		all[name] = encodePNG(t, img)
	}
	for name, data := range all {
		e, err := imaging.Probe(data, imaging.Limits{})
		if err != nil {
			t.Fatal(name, err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		m, err := e.Decode()
		runtime.ReadMemStats(&after)
		if err != nil || m.W != e.W || m.H != e.H {
			t.Fatalf("%s: %v", name, err)
		}
		if grown := int64(after.TotalAlloc - before.TotalAlloc); grown > e.Memory {
			t.Errorf("%s of %d×%d: %d bytes allocated, %d promised", name, e.W, e.H, grown, e.Memory)
		} else if e.Memory > 20*int64(e.W)*int64(e.H)+4<<20 {
			t.Errorf("%s of %d×%d: %d bytes promised", name, e.W, e.H, e.Memory)
		}
	}
}
