// Package report turns results into pictures and into text for terminals. It
// knows numbers and names only: who measured them is not its business.
//
// Pictures are deterministic, so that a report of the same run is the same
// file. Colours are those of Okabe and Ito, which people with any common kind
// of colour blindness can tell apart; shape or dash says the same a second
// time.
package report

import (
	"bytes"
	"fmt"
	"image/color"
	"math"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"

	"github.com/google/renameio/v2"
	"golang.org/x/image/font"
	"gonum.org/v1/plot"
	plotfont "gonum.org/v1/plot/font"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Picture is something that can be drawn: [Tradeoff], [Anytime], [Training]
// or [Confusion].
type Picture interface {
	size() (w, h vg.Length)
	draw(c draw.Canvas) error
}

// Format is a file format of pictures.
type Format string

// The formats.
const (
	PNG Format = "png"
	SVG Format = "svg"
)

// dpi makes a PNG sharp at twice the width of a text column.
const dpi = 144

// Render draws p.
func Render(p Picture, f Format) ([]byte, error) {
	w, h := p.size()
	var canvas vg.CanvasWriterTo
	switch f {
	case PNG:
		canvas = vgimg.PngCanvas{Canvas: vgimg.NewWith(vgimg.UseWH(w, h), vgimg.UseDPI(dpi))}
	case SVG:
		canvas = vgsvg.New(w, h)
	default:
		return nil, fmt.Errorf("picture format %q is neither %s nor %s", f, PNG, SVG)
	}
	c := draw.NewCanvas(canvas, w, h)
	c.SetColor(color.White)
	c.Fill(c.Rectangle.Path())
	if err := p.draw(draw.Crop(c, margin, -margin, margin, -margin)); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if _, err := canvas.WriteTo(&b); err != nil {
		return nil, fmt.Errorf("encode picture: %w", err)
	}
	return b.Bytes(), nil
}

// Save draws p into a file, in the format of its extension, atomically.
func Save(path string, p Picture) error {
	b, err := Render(p, Format(strings.TrimPrefix(filepath.Ext(path), ".")))
	if err != nil {
		return fmt.Errorf("picture %s: %w", path, err)
	}
	if err := renameio.WriteFile(path, b, 0o644); err != nil {
		return fmt.Errorf("picture %s: %w", path, err)
	}
	return nil
}

// The sizes, in points.
const (
	width    = 8 * vg.Inch
	height   = 5 * vg.Inch
	margin   = 12
	textSize = 11
	tickSize = 10
	headSize = 14
)

// The colours of data, in the order in which series take them, and of ink.
var (
	blue      = color.NRGBA{0x00, 0x72, 0xb2, 0xff}
	orange    = color.NRGBA{0xe6, 0x9f, 0x00, 0xff}
	green     = color.NRGBA{0x00, 0x9e, 0x73, 0xff}
	purple    = color.NRGBA{0xcc, 0x79, 0xa7, 0xff}
	vermilion = color.NRGBA{0xd5, 0x5e, 0x00, 0xff}
	ink       = color.NRGBA{0x22, 0x22, 0x22, 0xff}
	pale      = color.NRGBA{0xa0, 0xa0, 0xa0, 0xff}
	hairline  = color.NRGBA{0xe4, 0xe4, 0xe4, 0xff}
	palette   = []color.NRGBA{blue, orange, green, purple}
	shapes    = []draw.GlyphDrawer{draw.CircleGlyph{}, draw.PyramidGlyph{}, draw.BoxGlyph{}, draw.CrossGlyph{}}
	dashes    = [][]vg.Length{nil, {6, 3}, {2, 2}, {8, 3, 2, 3}}
)

func fade(c color.NRGBA, alpha uint8) color.NRGBA { c.A = alpha; return c }

// style is text of a size; weight is [font.WeightBold] or normal.
func style(size vg.Length, weight font.Weight, c color.Color, x text.XAlignment, y text.YAlignment) draw.TextStyle {
	f := plotfont.From(plotfont.Font{Typeface: "Liberation", Variant: "Sans", Weight: weight}, size)
	return draw.TextStyle{Color: c, Font: f, XAlign: x, YAlign: y, Handler: plot.DefaultTextHandler}
}

// key is one entry of a legend.
type key struct {
	name  string
	width vg.Length
	thumb func(c draw.Canvas) // draws into the whole canvas
}

// frame writes the title and the legend along the top, where no data can be,
// and returns what is left.
func frame(c draw.Canvas, title string, keys []key) draw.Canvas {
	if title != "" {
		sty := style(headSize, font.WeightBold, ink, draw.XLeft, draw.YTop)
		c.FillText(sty, vg.Point{X: c.Min.X, Y: c.Max.Y}, printable(title))
		c.Max.Y -= headSize + 8
	}
	if len(keys) == 0 {
		return c
	}
	const gap, row = 18, textSize + 6
	sty := style(textSize, font.WeightNormal, ink, draw.XLeft, draw.YCenter)
	x, y := c.Min.X, c.Max.Y-row/2
	for _, k := range keys {
		w := k.width + 5 + sty.Width(printable(k.name))
		if x > c.Min.X && x+w > c.Max.X {
			x, y = c.Min.X, y-row
		}
		k.thumb(draw.Canvas{Canvas: c.Canvas, Rectangle: vg.Rectangle{
			Min: vg.Point{X: x, Y: y - 5}, Max: vg.Point{X: x + k.width, Y: y + 5},
		}})
		c.FillText(sty, vg.Point{X: x + k.width + 5, Y: y}, printable(k.name))
		x += w + gap
	}
	c.Max.Y = y - row/2 - 6
	return c
}

func lineKey(name string, s draw.LineStyle) key {
	return key{name, 22, func(c draw.Canvas) { c.StrokeLine2(s, c.Min.X, c.Center().Y, c.Max.X, c.Center().Y) }}
}

func glyphKey(name string, s draw.GlyphStyle) key {
	return key{name, 8, func(c draw.Canvas) { c.DrawGlyph(s, c.Center()) }}
}

// axes is an empty plot in the house style.
func axes(x, y string) *plot.Plot {
	p := plot.New()
	p.BackgroundColor = nil
	for _, a := range []*plot.Axis{&p.X, &p.Y} {
		a.LineStyle = draw.LineStyle{Color: pale, Width: 0.75}
		a.Tick.LineStyle = a.LineStyle
		a.Tick.Length = 4
		a.Padding = 0
		a.Tick.Marker = ticker{6}
	}
	p.X.Tick.Label = style(tickSize, font.WeightNormal, ink, draw.XCenter, draw.YTop)
	p.Y.Tick.Label = style(tickSize, font.WeightNormal, ink, draw.XRight, draw.YCenter)
	p.X.Label.TextStyle = style(textSize, font.WeightNormal, ink, draw.XCenter, draw.YBottom)
	p.Y.Label.TextStyle = p.X.Label.TextStyle
	p.X.Label.Text, p.Y.Label.Text = printable(x), printable(y)
	p.X.Label.Padding, p.Y.Label.Padding = 4, 4
	p.Add(grid{})
	return p
}

// ticker puts about n labels at multiples of 1, 2 or 5 times a power of ten.
type ticker struct{ n float64 }

func (t ticker) Ticks(lo, hi float64) []plot.Tick {
	step := math.Pow(10, math.Floor(math.Log10((hi-lo)/t.n)))
	for _, m := range []float64{1, 2, 5, 10} {
		if (hi-lo)/(m*step) <= t.n+1 {
			step *= m
			break
		}
	}
	decimals := max(0, int(-math.Floor(math.Log10(step)+1e-9)))
	var ticks []plot.Tick
	first := math.Ceil(lo/step - 1e-9)
	for i := range int(t.n) + 2 {
		v := (first + float64(i)) * step
		if v > hi+1e-9*step {
			break
		}
		ticks = append(ticks, plot.Tick{Value: v, Label: strconv.FormatFloat(v+0, 'f', decimals, 64)})
	}
	return ticks
}

// grid is thin lines behind the data.
type grid struct{}

func (grid) Plot(c draw.Canvas, p *plot.Plot) {
	tx, ty := p.Transforms(&c)
	sty := draw.LineStyle{Color: hairline, Width: 0.75}
	for _, t := range p.Y.Tick.Marker.Ticks(p.Y.Min, p.Y.Max) {
		if y := ty(t.Value); !t.IsMinor() && c.ContainsY(y) {
			c.StrokeLine2(sty, c.Min.X, y, c.Max.X, y)
		}
	}
	for _, t := range p.X.Tick.Marker.Ticks(p.X.Min, p.X.Max) {
		if x := tx(t.Value); !t.IsMinor() && c.ContainsX(x) {
			c.StrokeLine2(sty, x, c.Min.Y, x, c.Max.Y)
		}
	}
}

// layer draws data on top of a plot's axes.
type layer func(c draw.Canvas, x, y func(float64) vg.Length)

func (l layer) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	l(c, x, y)
}

// halo writes text that stays readable on top of data.
func halo(c draw.Canvas, sty draw.TextStyle, at vg.Point, s string) {
	s = printable(s)
	under := sty
	under.Color = color.NRGBA{0xff, 0xff, 0xff, 0xe0}
	for _, d := range []vg.Point{{X: -1}, {X: 1}, {Y: -1}, {Y: 1}, {X: -1, Y: -1}, {X: 1, Y: 1}, {X: -1, Y: 1}, {X: 1, Y: -1}} {
		c.FillText(under, at.Add(d), s)
	}
	c.FillText(sty, at, s)
}

func finite(vs ...float64) bool {
	for _, v := range vs {
		if v-v != 0 { // NaN for either infinity and NaN itself
			return false
		}
	}
	return true
}

// printable replaces what neither a terminal nor XML can show. Names of
// classes come from folders, so anything occurs.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}

// extent is the range of values; NaNs and infinities are left out.
type extent struct{ lo, hi float64 }

func newExtent() extent { return extent{1, -1} }

func (e extent) empty() bool { return e.lo > e.hi }

func (e *extent) add(vs ...float64) {
	for _, v := range vs {
		switch {
		case !finite(v):
		case e.empty():
			e.lo, e.hi = v, v
		default:
			e.lo, e.hi = min(e.lo, v), max(e.hi, v)
		}
	}
}

// pad widens the range by shares of itself; an empty one becomes 0 to 1.
func (e extent) pad(below, above float64) (lo, hi float64) {
	if e.empty() {
		return 0, 1
	}
	w := e.hi - e.lo
	if w == 0 {
		w = max(0.1*math.Abs(e.hi), 1e-3)
	}
	return e.lo - below*w, e.hi + above*w
}
