package page

import "math"

// Mark is a layer of a chart: [Dots], [Line], [Spans], [Band], [Rule] or
// [Bars].
type Mark interface {
	reach(x, y *extent)
	draw(p *plane)
	key() (name string, shapes []shape)
}

// Form is what a dot looks like.
type Form string

// The forms.
const (
	Dot     Form = "dot"
	Speck   Form = "speck" // for many
	Ring    Form = "ring"
	Cross   Form = "cross"
	Diamond Form = "diamond"
)

// Dots are points, those of one form in one colour. Points that are no numbers
// are left out.
type Dots struct {
	Name string
	Tone Tone
	Form Form // "" is Dot
	X, Y []float64
	// Low and High are intervals of Y, Left and Right of X, and Titles what a
	// reader is told who points at a dot; each nil or one a dot.
	Low, High   []float64
	Left, Right []float64
	Titles      []string
}

func (d Dots) reach(x, y *extent) {
	x.add(d.X...)
	y.add(d.Y...)
	y.add(d.Low...)
	y.add(d.High...)
	x.add(d.Left...)
	x.add(d.Right...)
}

func (d Dots) draw(p *plane) {
	var whiskers, all, arrows path
	for i, x := range d.X {
		y := d.Y[i]
		if !finite(x, y) || !p.x.has(x) {
			continue
		}
		if d.Low != nil && finite(d.Low[i], d.High[i]) {
			whiskers.move(p.x.at(x), p.y.at(max(d.Low[i], p.y.lo)))
			whiskers.v(p.y.at(min(d.High[i], p.y.hi)))
		}
		if d.Left != nil && finite(d.Left[i], d.Right[i]) {
			whiskers.move(p.x.at(max(d.Left[i], p.x.lo)), p.y.at(y))
			whiskers.h(p.x.at(min(d.Right[i], p.x.hi)))
		}
		if !p.y.has(y) {
			arrow(&arrows, p, x, y)
			continue
		}
		if d.Titles == nil {
			d.one(&all, p.x.at(x), p.y.at(y))
		}
	}
	p.shape("whisker "+string(d.Tone), whiskers, "")
	p.shape("arrow "+string(d.Tone), arrows, "beyond the axis")
	p.shape(d.class(), all, "")
	if d.Titles == nil {
		return
	}
	for i, x := range d.X {
		if y := d.Y[i]; finite(x, y) && p.x.has(x) && p.y.has(y) {
			var one path
			d.one(&one, p.x.at(x), p.y.at(y))
			p.shape(d.class(), one, d.Titles[i])
		}
	}
}

// arrow points from the edge to where y would be.
func arrow(to *path, p *plane, x, y float64) {
	if y > p.y.hi {
		to.move(p.x.at(x), p.top)
		to.rel("l-3.5 7h7z")
	} else {
		to.move(p.x.at(x), p.bottom)
		to.rel("l-3.5 -7h7z")
	}
}

func (d Dots) class() string {
	form := d.Form
	if form == "" {
		form = Dot
	}
	return string(form) + " " + string(d.Tone)
}

func (d Dots) one(to *path, x, y float64) {
	switch d.Form {
	case Ring:
		to.move(x-3.2, y)
		to.rel("a3.2 3.2 0 1 0 6.4 0a3.2 3.2 0 1 0 -6.4 0z")
	case Cross:
		to.move(x-3, y-3)
		to.rel("l6 6m0 -6l-6 6")
	case Diamond:
		to.move(x, y-4.5)
		to.rel("l4.5 4.5l-4.5 4.5l-4.5 -4.5z")
	default: // a line of no length with round ends
		to.move(x, y)
		to.rel("h0")
	}
}

func (d Dots) key() (string, []shape) {
	var one path
	d.one(&one, 10, 5)
	return d.Name, []shape{{Class: d.class(), D: one.String()}}
}

// Line joins points in their order; a point that is no number is a gap.
type Line struct {
	Name   string
	Tone   Tone
	X, Y   []float64
	Dashed bool
}

func (l Line) reach(x, y *extent) {
	x.add(l.X...)
	y.add(l.Y...)
}

// draw cuts nothing: a line's ends are its maker's, who knows the axes.
func (l Line) draw(p *plane) {
	var d path
	gap := true
	for i, x := range l.X {
		if !finite(x, l.Y[i]) {
			gap = true
			continue
		}
		at := clamp(l.Y[i], p.y)
		if gap {
			d.move(p.x.at(clamp(x, p.x)), p.y.at(at))
		} else {
			d.line(p.x.at(clamp(x, p.x)), p.y.at(at))
		}
		gap = false
	}
	p.shape(stroke(l.Dashed)+" "+string(l.Tone), d, "")
}

func clamp(v float64, s scale) float64 { return min(max(v, min(s.lo, s.hi)), max(s.lo, s.hi)) }

func stroke(dashed bool) string {
	if dashed {
		return "dash"
	}
	return "line"
}

func (l Line) key() (string, []shape) {
	return l.Name, []shape{{Class: stroke(l.Dashed) + " " + string(l.Tone), D: "M0 5H20"}}
}

// Spans are vertical strokes from Low to High: what many values between them
// come to where there is room for one.
type Spans struct {
	Name         string
	Tone         Tone
	X, Low, High []float64
}

func (s Spans) reach(x, y *extent) {
	x.add(s.X...)
	y.add(s.Low...)
	y.add(s.High...)
}

func (s Spans) draw(p *plane) {
	var d, arrows path
	for i, x := range s.X {
		if !finite(x, s.Low[i], s.High[i]) || !p.x.has(x) || s.Low[i] > p.y.hi || s.High[i] < p.y.lo {
			continue
		}
		d.move(p.x.at(x), p.y.at(max(s.Low[i], p.y.lo)))
		d.v(p.y.at(min(s.High[i], p.y.hi)))
		if s.High[i] > p.y.hi {
			arrow(&arrows, p, x, s.High[i])
		}
	}
	p.shape("thin "+string(s.Tone), d, "")
	p.shape("arrow "+string(s.Tone), arrows, "beyond the axis")
}

func (s Spans) key() (string, []shape) {
	return s.Name, []shape{{Class: "thin " + string(s.Tone), D: "M10 0V10"}}
}

// Band is the stretch of an axis from Low to High.
type Band struct {
	Name      string
	Tone      Tone
	Low, High float64
	OnX       bool // of the abscissa; else of the ordinate
}

func (b Band) reach(x, y *extent) {
	if b.OnX {
		x.add(b.Low, b.High)
	} else {
		y.add(b.Low, b.High)
	}
}

func (b Band) draw(p *plane) {
	var d path
	switch {
	case !finite(b.Low, b.High):
	case b.OnX:
		d.box(p.x.at(clamp(b.Low, p.x)), p.top, p.x.at(clamp(b.High, p.x)), p.bottom)
	default:
		d.box(p.left, p.y.at(clamp(b.Low, p.y)), p.right, p.y.at(clamp(b.High, p.y)))
	}
	p.shape("fill band "+string(b.Tone), d, "")
}

func (b Band) key() (string, []shape) {
	return b.Name, []shape{{Class: "fill band " + string(b.Tone), D: "M0 0H20V10H0z"}}
}

// Rule is a line across the chart at a value of an axis.
type Rule struct {
	Name   string
	Tone   Tone
	At     float64
	OnX    bool
	Dashed bool
}

func (r Rule) reach(x, y *extent) { Band{Low: r.At, High: r.At, OnX: r.OnX}.reach(x, y) }

func (r Rule) draw(p *plane) {
	var d path
	switch {
	case r.OnX && p.x.has(r.At):
		d.move(p.x.at(r.At), p.top)
		d.v(p.bottom)
	case !r.OnX && p.y.has(r.At):
		d.move(p.left, p.y.at(r.At))
		d.h(p.right)
	}
	p.shape(stroke(r.Dashed)+" "+string(r.Tone), d, "")
}

func (r Rule) key() (string, []shape) {
	d := "M0 5H20"
	if r.OnX {
		d = "M10 -1V11"
	}
	return r.Name, []shape{{Class: stroke(r.Dashed) + " " + string(r.Tone), D: d}}
}

// Bars are a histogram: Count values from Edges[i] to Edges[i+1].
type Bars struct {
	Name   string
	Tone   Tone
	Edges  []float64
	Counts []int
}

// Histogram counts values in n equal bins from lo to hi; those outside are in
// none.
func Histogram(values []float64, lo, hi float64, n int) Bars {
	b := Bars{Edges: make([]float64, n+1), Counts: make([]int, n)}
	for i := range b.Edges {
		b.Edges[i] = lo + (hi-lo)*float64(i)/float64(n)
	}
	for _, v := range values {
		if v >= lo && v <= hi && hi > lo {
			b.Counts[min(n-1, int(math.Floor((v-lo)/(hi-lo)*float64(n))))]++
		}
	}
	return b
}

func (b Bars) reach(x, y *extent) {
	x.add(b.Edges...)
	y.add(0)
	for _, n := range b.Counts {
		y.add(float64(n))
	}
}

func (b Bars) draw(p *plane) {
	var d path
	for i, n := range b.Counts {
		if n > 0 {
			d.box(p.x.at(b.Edges[i])+0.3, p.y.at(0), p.x.at(b.Edges[i+1])-0.3, p.y.at(float64(n)))
		}
	}
	p.shape("fill bar "+string(b.Tone), d, "")
}

func (b Bars) key() (string, []shape) {
	return b.Name, []shape{{Class: "fill bar " + string(b.Tone), D: "M5 0H15V10H5z"}}
}
