package report

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"golang.org/x/image/font"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Point is one net: what it costs and how accurate it is.
type Point struct {
	Cost      float64 // on the abscissa, in the unit of [Tradeoff.Cost]
	Low, High float64 // the interval of Cost; both 0 where it is exact
	// Accuracy is a fraction; NaN where the net was measured and never
	// evaluated.
	Accuracy float64
	Feasible bool
}

// Cloud is the nets of one search.
type Cloud struct {
	Name   string
	Points []Point
	// Best is the index of the point to label, with BestLabel; an empty
	// BestLabel labels none.
	Best      int
	BestLabel string
}

// Tradeoff is the picture of a search: accuracy against latency or MACs of
// every net, the limit, the Pareto front of all clouds together and the best
// of each. Nets that missed the limit are grey; those without accuracy are
// ticks along the bottom.
type Tradeoff struct {
	Title string
	Cost  string // the label of the abscissa with its unit: "latency, ms"
	// Limit on Cost, drawn as a line; 0 is none. LimitLabel defaults to
	// "limit" and the number.
	Limit      float64
	LimitLabel string
	Clouds     []Cloud
}

func (t Tradeoff) size() (w, h vg.Length) { return width, height }

func (t Tradeoff) draw(c draw.Canvas) error {
	if len(t.Clouds) > len(palette) {
		return fmt.Errorf("%d clouds in one picture, at most %d can be told apart", len(t.Clouds), len(palette))
	}
	for _, cl := range t.Clouds {
		for i, pt := range cl.Points {
			if !finite(pt.Cost, pt.Low, pt.High) || math.IsInf(pt.Accuracy, 0) {
				return fmt.Errorf("cloud %q: point %d is %+v, which has no place", cl.Name, i, pt)
			}
		}
	}
	p := axes(t.Cost, "top-1 accuracy, %")
	x, y := newExtent(), newExtent()
	missed := false
	for _, cl := range t.Clouds {
		for _, pt := range cl.Points {
			x.add(pt.Cost)
			y.add(100 * pt.Accuracy)
			missed = missed || !pt.Feasible
		}
	}
	if t.Limit != 0 {
		x.add(t.Limit)
	}
	p.X.Min, p.X.Max = x.pad(0.03, 0.05)
	p.Y.Min, p.Y.Max = y.pad(0.08, 0.12)

	front := t.front()
	p.Add(layer(t.shadeBeyond), layer(t.drawMissed), layer(t.drawClouds))
	p.Add(layer(func(c draw.Canvas, x, y func(float64) vg.Length) { drawFront(c, front, x, y) }))
	p.Add(layer(t.drawLimit), layer(t.drawBest))
	p.Draw(frame(c, t.Title, t.keys(front, missed)))
	return nil
}

var (
	frontStyle = draw.LineStyle{Color: ink, Width: 1.5}
	limitStyle = draw.LineStyle{Color: vermilion, Width: 1.25, Dashes: []vg.Length{5, 3}}
)

func dot(i int) draw.GlyphStyle {
	return draw.GlyphStyle{Color: fade(palette[i], 0xb0), Radius: 2.75, Shape: shapes[i]}
}

func (t Tradeoff) keys(front []Point, missed bool) []key {
	var keys []key
	for i, cl := range t.Clouds {
		keys = append(keys, glyphKey(cl.Name, dot(i)))
	}
	if missed {
		keys = append(keys, key{"over the limit", 8, func(c draw.Canvas) {
			c.StrokeLine2(draw.LineStyle{Color: pale, Width: 1}, c.Center().X, c.Min.Y, c.Center().X, c.Max.Y)
		}})
	}
	if len(front) > 1 {
		keys = append(keys, lineKey("Pareto front", frontStyle))
	}
	if t.Limit != 0 {
		name := cmp.Or(t.LimitLabel, fmt.Sprintf("limit %.4g", t.Limit))
		keys = append(keys, lineKey(name, limitStyle))
	}
	return keys
}

// front is the feasible points that no other is at once cheaper than and more
// accurate than, by rising cost.
func (t Tradeoff) front() []Point {
	var ps []Point
	for _, cl := range t.Clouds {
		for _, p := range cl.Points {
			if p.Feasible && !math.IsNaN(p.Accuracy) {
				ps = append(ps, p)
			}
		}
	}
	slices.SortStableFunc(ps, func(a, b Point) int {
		return cmp.Or(cmp.Compare(a.Cost, b.Cost), cmp.Compare(b.Accuracy, a.Accuracy))
	})
	var front []Point
	for _, p := range ps {
		if len(front) == 0 || p.Accuracy > front[len(front)-1].Accuracy {
			front = append(front, p)
		}
	}
	return front
}

// shadeBeyond greys what lies beyond the limit.
func (t Tradeoff) shadeBeyond(c draw.Canvas, x, _ func(float64) vg.Length) {
	if t.Limit == 0 {
		return
	}
	c.SetColor(fade(pale, 0x20))
	c.Fill(vg.Rectangle{Min: vg.Point{X: x(t.Limit), Y: c.Min.Y}, Max: c.Max}.Path())
}

// drawMissed draws the nets over the limit, behind everything.
func (t Tradeoff) drawMissed(c draw.Canvas, x, y func(float64) vg.Length) {
	grey := draw.GlyphStyle{Color: fade(pale, 0x90), Radius: 2.25, Shape: draw.CircleGlyph{}}
	tick := draw.LineStyle{Color: fade(pale, 0xb0), Width: 0.75}
	for _, cl := range t.Clouds {
		for _, p := range cl.Points {
			switch {
			case p.Feasible:
			case math.IsNaN(p.Accuracy):
				c.StrokeLine2(tick, x(p.Cost), c.Min.Y+1, x(p.Cost), c.Min.Y+9)
			default:
				c.DrawGlyph(grey, vg.Point{X: x(p.Cost), Y: y(100 * p.Accuracy)})
			}
		}
	}
}

func (t Tradeoff) drawClouds(c draw.Canvas, x, y func(float64) vg.Length) {
	for i, cl := range slices.Backward(t.Clouds) { // the first one on top
		bar := draw.LineStyle{Color: fade(palette[i], 0x60), Width: 0.6}
		for _, p := range cl.Points {
			if !p.Feasible || math.IsNaN(p.Accuracy) {
				continue
			}
			at := vg.Point{X: x(p.Cost), Y: y(100 * p.Accuracy)}
			if p.High > p.Low {
				c.StrokeLine2(bar, max(x(p.Low), c.Min.X), at.Y, min(x(p.High), c.Max.X), at.Y)
			}
			c.DrawGlyph(dot(i), at)
		}
	}
}

// drawFront draws the accuracy that is to be had for at most a given cost.
func drawFront(c draw.Canvas, front []Point, x, y func(float64) vg.Length) {
	if len(front) < 2 {
		return
	}
	var line []vg.Point
	for i, p := range front {
		at := vg.Point{X: x(p.Cost), Y: y(100 * p.Accuracy)}
		if i > 0 {
			line = append(line, vg.Point{X: at.X, Y: line[len(line)-1].Y})
		}
		line = append(line, at)
	}
	c.StrokeLines(frontStyle, line)
}

func (t Tradeoff) drawLimit(c draw.Canvas, x, _ func(float64) vg.Length) {
	if t.Limit != 0 {
		c.StrokeLine2(limitStyle, x(t.Limit), c.Min.Y, x(t.Limit), c.Max.Y)
	}
}

// drawBest marks and labels the best of each cloud: the first above its
// point, where nothing can be, the others below theirs and to the right,
// where least is. The first is drawn last, on top.
func (t Tradeoff) drawBest(c draw.Canvas, x, y func(float64) vg.Length) {
	for i, cl := range slices.Backward(t.Clouds) {
		if cl.BestLabel == "" || cl.Best < 0 || cl.Best >= len(cl.Points) || math.IsNaN(cl.Points[cl.Best].Accuracy) {
			continue
		}
		p := cl.Points[cl.Best]
		at := vg.Point{X: x(p.Cost), Y: y(100 * p.Accuracy)}
		if p.High > p.Low {
			bar := draw.LineStyle{Color: ink, Width: 1}
			lo, hi := max(x(p.Low), c.Min.X), min(x(p.High), c.Max.X)
			c.StrokeLine2(bar, lo, at.Y, hi, at.Y)
			c.StrokeLine2(bar, lo, at.Y-3, lo, at.Y+3)
			c.StrokeLine2(bar, hi, at.Y-3, hi, at.Y+3)
		}
		c.DrawGlyph(draw.GlyphStyle{Color: ink, Radius: 6, Shape: shapes[i]}, at)
		c.DrawGlyph(draw.GlyphStyle{Color: palette[i], Radius: 4.5, Shape: shapes[i]}, at)

		sty := style(textSize, font.WeightBold, ink, draw.XLeft, draw.YTop)
		label := at.Add(vg.Point{X: 8, Y: -7})
		if i == 0 {
			sty.YAlign, label.Y = draw.YBottom, at.Y+7
			if at.X > c.Center().X {
				sty.XAlign, label.X = draw.XRight, at.X+8
			}
		}
		if w := sty.Width(printable(cl.BestLabel)); sty.XAlign == draw.XLeft && label.X+w > c.Max.X {
			label.X = c.Max.X - w
		}
		halo(c, sty, label, cl.BestLabel)
	}
}
