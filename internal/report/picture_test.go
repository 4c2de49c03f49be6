package report_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"spos/internal/report"
)

func pictures() map[string]report.Picture {
	return map[string]report.Picture{
		"tradeoff": tradeoff(), "anytime": anytime(), "training": training(), "confusion": confusion(fashion...),
	}
}

// words is the text of an SVG; it fails on one that is not well-formed.
func words(t *testing.T, svg []byte) string {
	t.Helper()
	var text strings.Builder
	for d := xml.NewDecoder(bytes.NewReader(svg)); ; {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			return text.String()
		}
		if err != nil {
			t.Fatalf("SVG is not well-formed: %v", err)
		}
		if s, ok := tok.(xml.CharData); ok {
			text.Write(s)
			text.WriteByte('\n')
		}
	}
}

func render(t *testing.T, p report.Picture, f report.Format) []byte {
	t.Helper()
	b, err := report.Render(p, f)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestPicturesRender(t *testing.T) {
	says := map[string][]string{
		"tradeoff":  {"Search of shufflenetv2-small", "top-1 accuracy, %", "ms (ONNX", "Pareto front", "limit 1.4 ms", "over the limit", "evolution: 91.2 %", "random: 91.2 %"},
		"anytime":   {"nets evaluated", "so far, %", "evolution", "random", "300"},
		"training":  {"loss", "top-1 accuracy, %", "step", "training", "validation"},
		"confusion": append([]string{"true class", "predicted class", "192"}, fashion...),
	}
	for name, p := range pictures() {
		t.Run(name, func(t *testing.T) {
			img, err := png.Decode(bytes.NewReader(render(t, p, report.PNG)))
			if err != nil {
				t.Fatal(err)
			}
			if b := img.Bounds(); b.Dx() < 800 || b.Dy() < 500 || b.Dx() > 2000 {
				t.Errorf("PNG is %v", b)
			}
			svg := render(t, p, report.SVG)
			text := words(t, svg)
			for _, want := range says[name] {
				if !strings.Contains(text, want) {
					t.Errorf("the picture does not say %q", want)
				}
			}
			if !bytes.Equal(svg, render(t, p, report.SVG)) {
				t.Error("two renderings differ")
			}
		})
	}
}

// near counts pixels close to c in the right part of a picture, below the
// legend.
func near(t *testing.T, p report.Picture, c color.NRGBA) int {
	t.Helper()
	img, err := png.Decode(bytes.NewReader(render(t, p, report.PNG)))
	if err != nil {
		t.Fatal(err)
	}
	rgba, ok := img.(*image.RGBA)
	if !ok {
		t.Fatalf("PNG decodes as %T", img)
	}
	n, b := 0, img.Bounds()
	dist := func(a, b uint8) int { return max(int(a), int(b)) - min(int(a), int(b)) }
	for y := b.Dy() / 10; y < b.Dy(); y++ {
		for x := 7 * b.Dx() / 10; x < b.Dx(); x++ {
			p := rgba.Pix[rgba.PixOffset(x, y):]
			if dist(p[0], c.R)+dist(p[1], c.G)+dist(p[2], c.B) < 40 {
				n++
			}
		}
	}
	return n
}

func TestTradeoffDrawsWhatItIsGiven(t *testing.T) {
	blue, vermilion := color.NRGBA{0, 0x72, 0xb2, 0xff}, color.NRGBA{0xd5, 0x5e, 0, 0xff}
	pic := report.Tradeoff{Cost: "ms", Clouds: []report.Cloud{{Name: "a", Points: []report.Point{
		{Cost: 1, Accuracy: 0.5, Feasible: true}, {Cost: 2, Accuracy: 0.6, Feasible: true}, {Cost: 3, Accuracy: 0.9},
	}}}}
	if near(t, pic, vermilion) > 0 {
		t.Error("a limit is drawn where there is none")
	}
	if n := near(t, pic, blue); n > 0 {
		t.Errorf("%d blue pixels where the one net misses the limit", n)
	}
	pic.Clouds[0].Points[2].Feasible = true
	pic.Clouds[0].BestLabel, pic.Clouds[0].Best = "winner", 2
	pic.Limit = 3.2
	if near(t, pic, blue) == 0 {
		t.Error("a feasible net is not blue")
	}
	if near(t, pic, vermilion) == 0 {
		t.Error("the limit is not drawn")
	}
}

// Whatever folders are called, the SVG stays one.
func TestHostileNames(t *testing.T) {
	m := confusion("<script>alert(1)</script>", "a&b", "nul\x00esc\x1b[31m", strings.Repeat("long ", 100), "猫")
	text := words(t, render(t, m, report.SVG))
	if !strings.Contains(text, "<script>") || !strings.Contains(text, "a&b") {
		t.Errorf("names are lost: %q", text)
	}
	if s := m.PerClass().String(); strings.ContainsAny(s, "\x00\x1b") {
		t.Errorf("control characters reach the terminal: %q", s)
	}
}

func TestExtremePictures(t *testing.T) {
	nan := math.NaN()
	many := make([]string, 300)
	for i := range many {
		many[i] = fmt.Sprint(i)
	}
	for name, p := range map[string]report.Picture{
		"no nets":      report.Tradeoff{Clouds: []report.Cloud{{Name: "none"}}},
		"one net":      report.Tradeoff{Clouds: []report.Cloud{{Points: []report.Point{{Cost: 1, Accuracy: 0.5, Feasible: true}}}}},
		"none passed":  report.Tradeoff{Limit: 1, Clouds: []report.Cloud{{BestLabel: "x", Points: []report.Point{{Cost: 2, Accuracy: nan}}}}},
		"huge costs":   report.Tradeoff{Clouds: []report.Cloud{{Points: []report.Point{{Cost: 1e17, Accuracy: 0.5, Feasible: true}, {Cost: 1e17 + 64, Accuracy: 0.6, Feasible: true}}}}},
		"no runs":      report.Anytime{Methods: []report.Progress{{Name: "a"}}},
		"one run":      report.Anytime{Methods: []report.Progress{{Name: "a", Runs: [][]float64{{0.5}}}}},
		"broken lines": report.Training{Loss: []report.Series{{X: []float64{1, 2, 3, nan, 5}, Y: []float64{nan, 1, math.Inf(1), 1, 2}}}},
		"300 classes":  confusion(many...),
	} {
		t.Run(name, func(t *testing.T) {
			svg := render(t, p, report.SVG)
			words(t, svg)
			if bytes.Contains(svg, []byte("NaN")) || bytes.Contains(svg, []byte("Inf")) {
				t.Error("coordinates are not numbers")
			}
			if len(svg) > 4<<20 {
				t.Errorf("SVG of %d bytes", len(svg))
			}
		})
	}
}

func TestImpossiblePictures(t *testing.T) {
	for name, c := range map[string]struct {
		p     report.Picture
		names string
	}{
		"five clouds":   {report.Tradeoff{Clouds: make([]report.Cloud, 5)}, "5 clouds"},
		"cost NaN":      {report.Tradeoff{Clouds: []report.Cloud{{Name: "a", Points: []report.Point{{Cost: math.NaN()}}}}}, `cloud "a": point 0`},
		"five methods":  {report.Anytime{Methods: make([]report.Progress, 5)}, "5 methods"},
		"no curves":     {report.Training{}, "no curves"},
		"uneven series": {report.Training{Loss: []report.Series{{Name: "l", X: []float64{1}}}}, `"l": 1 abscissae, 0`},
		"no images":     {report.NewConfusion("m", fashion), "0 images"},
	} {
		if _, err := report.Render(c.p, report.SVG); err == nil || !strings.Contains(err.Error(), c.names) {
			t.Errorf("%s: error %v, want one that says %q", name, err, c.names)
		}
	}
}

func TestSave(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a.png", "a.svg"} {
		path := filepath.Join(dir, name)
		if err := report.Save(path, anytime()); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Size() == 0 || info.Mode().Perm() != 0o644 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	bad := filepath.Join(dir, "a.gif")
	if err := report.Save(bad, anytime()); err == nil || !strings.Contains(err.Error(), bad) {
		t.Errorf("saving a GIF: %v", err)
	}
	if err := report.Save(filepath.Join(dir, "b.png"), report.Training{}); err == nil {
		t.Error("an impossible picture is saved")
	}
	if files, _ := os.ReadDir(dir); len(files) != 2 {
		t.Errorf("%d files are left, want 2", len(files))
	}
}
