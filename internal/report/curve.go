package report

import (
	"fmt"
	"image/color"
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Progress is one search method's accuracies in the order of evaluation, one
// slice a run, as fractions.
type Progress struct {
	Name string
	Runs [][]float64
}

// Anytime is the picture of how good the best net so far is after each
// evaluation: the mean over the runs of a method, and a band of one standard
// error where there are several.
type Anytime struct {
	Title   string
	Methods []Progress
}

func (a Anytime) size() (w, h vg.Length) { return width, 0.8 * height }

func (a Anytime) draw(c draw.Canvas) error {
	if len(a.Methods) > len(palette) {
		return fmt.Errorf("%d methods in one picture, at most %d can be told apart", len(a.Methods), len(palette))
	}
	p := axes("nets evaluated", "best top-1 accuracy so far, %")
	x, y := newExtent(), newExtent()
	var keys []key
	var layers []plot.Plotter
	for i, m := range a.Methods {
		mean, se := bestSoFar(m.Runs)
		x.add(1, float64(len(mean)))
		for j := range mean {
			// The first few nets are chance and would take all the height.
			if j >= len(mean)/50 {
				y.add(mean[j]-se[j], mean[j]+se[j])
			}
		}
		sty := draw.LineStyle{Color: palette[i], Width: 2, Dashes: dashes[i]}
		keys = append(keys, lineKey(m.Name, sty))
		layers = append(layers, band{mean, se, fade(palette[i], 0x38)}, steps(mean, sty))
	}
	p.X.Min, p.X.Max = x.pad(0, 0.01)
	p.Y.Min, p.Y.Max = y.pad(0.05, 0.08)
	p.Add(layers...)
	p.Draw(frame(c, a.Title, keys))
	return nil
}

// bestSoFar is the running maximum in per cent, averaged over the runs as far
// as the shortest goes, and its standard error.
func bestSoFar(runs [][]float64) (mean, se []float64) {
	if len(runs) == 0 {
		return nil, nil
	}
	n := len(runs[0])
	for _, r := range runs {
		n = min(n, len(r))
	}
	mean, se = make([]float64, n), make([]float64, n)
	best := make([]float64, len(runs))
	for i := range n {
		for k, r := range runs {
			if i == 0 {
				best[k] = 100 * r[0]
			}
			best[k] = max(best[k], 100*r[i])
			mean[i] += best[k] / float64(len(runs))
		}
		if k := float64(len(runs)); k > 1 {
			for _, b := range best {
				se[i] += (b - mean[i]) * (b - mean[i])
			}
			se[i] = math.Sqrt(se[i] / (k - 1) / k)
		}
	}
	return mean, se
}

// band is mean ± se, filled.
type band struct {
	mean, se []float64
	color    color.Color
}

func (b band) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	var top, bottom []vg.Point
	spread := false
	for i := range b.mean {
		spread = spread || b.se[i] > 0
		at := x(float64(i + 1))
		top = append(top, vg.Point{X: at, Y: y(b.mean[i] + b.se[i])})
		bottom = append(bottom, vg.Point{X: at, Y: y(b.mean[i] - b.se[i])})
	}
	if !spread {
		return
	}
	for i := len(bottom) - 1; i >= 0; i-- {
		top = append(top, bottom[i])
	}
	c.FillPolygon(b.color, c.ClipPolygonXY(top))
}

// steps is a staircase through the values at 1, 2, ….
func steps(v []float64, sty draw.LineStyle) layer {
	return func(c draw.Canvas, x, y func(float64) vg.Length) {
		var line []vg.Point
		for i := range v {
			if i > 0 {
				line = append(line, vg.Point{X: x(float64(i + 1)), Y: y(v[i-1])})
			}
			line = append(line, vg.Point{X: x(float64(i + 1)), Y: y(v[i])})
		}
		c.StrokeLines(sty, c.ClipLinesXY(line)...)
	}
}

// Series is a named curve.
type Series struct {
	Name string
	X, Y []float64 // of one length; a NaN in Y breaks the line
}

// Training is the picture of a training run: loss above, accuracy below, over
// one abscissa. Accuracies are fractions.
type Training struct {
	Title    string
	X        string // label of the abscissa: "step", "epoch"
	Loss     []Series
	Accuracy []Series
}

func (t Training) size() (w, h vg.Length) { return width, 1.1 * height }

func (t Training) draw(c draw.Canvas) error {
	var plots [][]*plot.Plot
	var keys []key
	taken := map[string]int{} // one style a name, in both panels
	x := newExtent()
	for _, panel := range []struct {
		label  string
		series []Series
		scale  float64
	}{{"loss", t.Loss, 1}, {"top-1 accuracy, %", t.Accuracy, 100}} {
		if len(panel.series) == 0 {
			continue
		}
		p, y := axes("", panel.label), newExtent()
		p.Y.Tick.Marker = ticker{4}
		for _, s := range panel.series {
			i, known := taken[s.Name]
			if !known {
				i = len(taken)
				taken[s.Name] = i
				if i >= len(palette) {
					return fmt.Errorf("more than %d curves in one picture cannot be told apart", len(palette))
				}
				keys = append(keys, lineKey(s.Name, curveStyle(i)))
			}
			if len(s.X) != len(s.Y) {
				return fmt.Errorf("series %q: %d abscissae, %d ordinates", s.Name, len(s.X), len(s.Y))
			}
			x.add(s.X...)
			for _, v := range s.Y {
				y.add(panel.scale * v)
			}
			p.Add(curve(s, panel.scale, curveStyle(i)))
		}
		p.Y.Min, p.Y.Max = y.pad(0.05, 0.08)
		plots = append(plots, []*plot.Plot{p})
	}
	if len(plots) == 0 {
		return fmt.Errorf("training picture %q: no curves", t.Title)
	}
	for _, row := range plots {
		row[0].X.Min, row[0].X.Max = x.pad(0, 0.01)
	}
	plots[len(plots)-1][0].X.Label.Text = printable(t.X)
	c = frame(c, t.Title, keys)
	tiles := plot.Align(plots, draw.Tiles{Rows: len(plots), Cols: 1, PadY: 14}, c)
	for i, row := range plots {
		row[0].Draw(tiles[i][0])
	}
	return nil
}

func curveStyle(i int) draw.LineStyle {
	return draw.LineStyle{Color: palette[i], Width: 1.75, Dashes: dashes[i]}
}

func curve(s Series, scale float64, sty draw.LineStyle) layer {
	const dotted = 40 // points up to which each is marked
	return func(c draw.Canvas, x, y func(float64) vg.Length) {
		var line []vg.Point
		flush := func() {
			if len(line) == 1 || len(s.X) <= dotted {
				for _, at := range line {
					c.DrawGlyph(draw.GlyphStyle{Color: sty.Color, Radius: 2.5, Shape: draw.CircleGlyph{}}, at)
				}
			}
			c.StrokeLines(sty, c.ClipLinesXY(line)...)
			line = nil
		}
		for i := range s.X {
			if !finite(s.X[i], s.Y[i]) {
				flush()
				continue
			}
			line = append(line, vg.Point{X: x(s.X[i]), Y: y(scale * s.Y[i])})
		}
		flush()
	}
}
