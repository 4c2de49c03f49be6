package page

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Chart is numbers in a plane. Marks are drawn in their order; those with a
// name are in the legend below.
type Chart struct {
	Title   string // what it shows, in words, for those who do not see it
	Caption string // above it
	X, Y    Axis
	Marks   []Mark
	Large   bool // for a column of its own rather than a card
}

// Axis is a direction of a chart.
type Axis struct {
	Label string // with the unit
	// Lo and Hi are where it ends; equal: where the data end. Dots beyond are
	// drawn as arrows at the edge.
	Lo, Hi float64
	// Names are what the numbers 1, 2, … stand for: of an ordinate, which then
	// counts downwards.
	Names []string
}

// Tone is a colour that can be told from the others by everybody.
type Tone string

// The tones.
const (
	Blue   Tone = "blue"
	Orange Tone = "orange"
	Green  Tone = "green"
	Red    Tone = "red"
	Purple Tone = "purple"
	Grey   Tone = "grey"
	Pale   Tone = "pale" // for what does not count
)

// drawing is a chart in coordinates of its picture.
type drawing struct {
	Title, Caption string
	Width, Height  int
	Shapes         []shape
	Labels         []label
	Keys           []key
}

type shape struct{ Class, D, Title string }

type label struct {
	Class, Anchor, Text string
	X, Y                string
	Turned              bool
}

type key struct {
	Name   string
	Shapes []shape
}

// plane is where marks draw: data in, coordinates out.
type plane struct {
	x, y                     scale
	left, top, right, bottom float64
	shapes                   []shape
	labels                   []label
}

type scale struct{ lo, hi, from, to float64 }

// at is the place of v, which for a value that is no number is none.
func (s scale) at(v float64) float64 { return s.from + (v-s.lo)/(s.hi-s.lo)*(s.to-s.from) }

func (s scale) has(v float64) bool { return v >= min(s.lo, s.hi) && v <= max(s.lo, s.hi) }

func (c Chart) draw() drawing {
	d := drawing{Title: c.Title, Caption: c.Caption, Width: 380, Height: 220}
	if c.Large {
		d.Width, d.Height = 440, 290
	}
	x, y := newExtent(), newExtent()
	for _, m := range c.Marks {
		m.reach(&x, &y)
	}
	p := plane{left: 50, top: 10, right: float64(d.Width) - 12, bottom: float64(d.Height) - 38}
	p.x.lo, p.x.hi = c.X.limits(x, 0.02)
	p.y.lo, p.y.hi = c.Y.limits(y, 0.05)
	yTicks, yLabels := ticks(p.y.lo, p.y.hi, 5)
	if n := len(c.Y.Names); n > 0 {
		p.bottom = max(p.bottom, p.top+18*float64(n))
		d.Height = int(p.bottom) + 38
		p.y.lo, p.y.hi = float64(n)+0.5, 0.5
		yTicks, yLabels = named(c.Y.Names)
	}
	for _, l := range yLabels {
		p.left = max(p.left, 28+6.2*float64(utf8.RuneCountInString(l)))
	}
	p.x.from, p.x.to, p.y.from, p.y.to = p.left, p.right, p.bottom, p.top
	p.axes(c, yTicks, yLabels)
	for _, m := range c.Marks {
		m.draw(&p)
		if name, shapes := m.key(); name != "" {
			d.Keys = append(d.Keys, key{name, shapes})
		}
	}
	d.Shapes, d.Labels = p.shapes, p.labels
	return d
}

// named are the places of names, cut to what there is room for.
func named(names []string) (at []float64, labels []string) {
	const most = 24
	for i, name := range names {
		if r := []rune(name); len(r) > most {
			name = string(r[:most/2]) + "…" + string(r[len(r)-most/2+1:])
		}
		at, labels = append(at, float64(i+1)), append(labels, name)
	}
	return at, labels
}

func (a Axis) limits(e extent, pad float64) (lo, hi float64) {
	if finite(a.Lo) && finite(a.Hi) && a.Lo < a.Hi {
		return a.Lo, a.Hi
	}
	return e.pad(pad)
}

// axes draws the grid, the numbers and what they are.
func (p *plane) axes(c Chart, yTicks []float64, yLabels []string) {
	var grid path
	for i, v := range yTicks {
		grid.move(p.left, p.y.at(v))
		grid.h(p.right)
		p.label("tick", "end", p.left-5, p.y.at(v)+4, yLabels[i])
	}
	xTicks, xLabels := ticks(p.x.lo, p.x.hi, 6)
	for i, v := range xTicks {
		p.label("tick", "middle", p.x.at(v), p.bottom+14, xLabels[i])
		grid.move(p.x.at(v), p.bottom)
		grid.v(p.bottom + 3)
	}
	p.shape("grid", grid, "")
	var frame path
	frame.move(p.left, p.bottom)
	frame.h(p.right)
	p.shape("frame", frame, "")
	p.label("axis", "middle", (p.left+p.right)/2, p.bottom+32, c.X.Label)
	p.labels = append(p.labels, label{"axis", "middle", c.Y.Label, number(13), number((p.top + p.bottom) / 2), true})
}

func (p *plane) label(class, anchor string, x, y float64, text string) {
	p.labels = append(p.labels, label{class, anchor, text, number(x), number(y), false})
}

func (p *plane) shape(class string, d path, title string) {
	if d.Len() > 0 {
		p.shapes = append(p.shapes, shape{class, d.String(), title})
	}
}

// path is the outline of a shape in SVG's terms, to a tenth of a unit.
type path struct{ strings.Builder }

func (p *path) move(x, y float64) { p.WriteString("M" + number(x) + " " + number(y)) }
func (p *path) line(x, y float64) { p.WriteString("L" + number(x) + " " + number(y)) }
func (p *path) h(x float64)       { p.WriteString("H" + number(x)) }
func (p *path) v(y float64)       { p.WriteString("V" + number(y)) }

// rel adds a text of relative commands.
func (p *path) rel(text string) { p.WriteString(text) }

func (p *path) box(x0, y0, x1, y1 float64) {
	p.move(x0, y0)
	p.h(x1)
	p.v(y1)
	p.h(x0)
	p.rel("z")
}

func number(v float64) string {
	return strconv.FormatFloat(math.Round(10*v)/10+0, 'f', -1, 64)
}

// ticks are about n multiples of 1, 2 or 5 times a power of ten between lo and
// hi, and how they are written: with equal decimals.
func ticks(lo, hi float64, n int) (at []float64, labels []string) {
	step := math.Pow(10, math.Floor(math.Log10((hi-lo)/float64(n))))
	for _, m := range []float64{1, 2, 5, 10} {
		if (hi-lo)/(m*step) <= float64(n)+1 {
			step *= m
			break
		}
	}
	decimals := max(0, int(-math.Floor(math.Log10(step)+1e-9)))
	first := math.Ceil(lo/step - 1e-9)
	for i := range 2*n + 2 {
		v := (first + float64(i)) * step
		if v > hi+1e-9*step {
			break
		}
		at = append(at, v)
		labels = append(labels, strconv.FormatFloat(v+0, 'f', decimals, 64))
	}
	return at, labels
}

// extent is the range of values; those that are no numbers are left out.
type extent struct{ lo, hi float64 }

func newExtent() extent { return extent{math.Inf(1), math.Inf(-1)} }

func (e *extent) add(vs ...float64) {
	for _, v := range vs {
		if finite(v) {
			e.lo, e.hi = min(e.lo, v), max(e.hi, v)
		}
	}
}

// pad widens the range by a share of itself on each side; an empty one becomes
// 0 to 1.
func (e extent) pad(share float64) (lo, hi float64) {
	if e.lo > e.hi {
		return 0, 1
	}
	w := share * (e.hi - e.lo)
	if w == 0 {
		w = max(0.05*math.Abs(e.hi), 1e-3)
	}
	return e.lo - w, e.hi + w
}

func finite(vs ...float64) bool {
	return !slices.ContainsFunc(vs, func(v float64) bool { return v-v != 0 })
}
