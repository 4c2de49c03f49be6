package report

import (
	"cmp"
	"fmt"
	"image/color"
	"math"
	"slices"
	"strconv"

	"golang.org/x/image/font"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Confusion counts how often class i was taken for class j. It is a
// [Picture], and text through [Confusion.Pairs] and [Confusion.PerClass].
type Confusion struct {
	Title   string
	Classes []string
	counts  []int // rows are true classes
}

// NewConfusion is an empty one.
func NewConfusion(title string, classes []string) *Confusion {
	return &Confusion{Title: title, Classes: classes, counts: make([]int, len(classes)*len(classes))}
}

// Add counts one image. It panics on a class that is not there, as a slice
// does.
func (m *Confusion) Add(truth, predicted int) {
	n := len(m.Classes)
	if truth < 0 || truth >= n || predicted < 0 || predicted >= n {
		panic(fmt.Sprintf("report: class %d taken for %d, there are %d", truth, predicted, n))
	}
	m.counts[truth*n+predicted]++
}

// At is how often truth was taken for predicted.
func (m *Confusion) At(truth, predicted int) int { return m.counts[truth*len(m.Classes)+predicted] }

// Total is the number of images.
func (m *Confusion) Total() int {
	n := 0
	for _, c := range m.counts {
		n += c
	}
	return n
}

// Top1 is the share on the diagonal; NaN of no images.
func (m *Confusion) Top1() float64 {
	right := 0
	for i := range m.Classes {
		right += m.At(i, i)
	}
	return float64(right) / float64(m.Total())
}

func (m *Confusion) rowSum(i int) int {
	n := 0
	for j := range m.Classes {
		n += m.At(i, j)
	}
	return n
}

// Pair is one kind of mistake.
type Pair struct {
	Truth, Predicted string
	Count            int
	Share            float64 // of the images of class Truth
}

// Pairs is the n most frequent mistakes, ties in class order.
func (m *Confusion) Pairs(n int) []Pair {
	var ps []Pair
	for i, truth := range m.Classes {
		sum := m.rowSum(i)
		for j, predicted := range m.Classes {
			if c := m.At(i, j); i != j && c > 0 {
				ps = append(ps, Pair{truth, predicted, c, float64(c) / float64(sum)})
			}
		}
	}
	slices.SortStableFunc(ps, func(a, b Pair) int { return cmp.Compare(b.Count, a.Count) })
	return ps[:min(n, len(ps))]
}

// PairsTable is [Confusion.Pairs] as text.
func (m *Confusion) PairsTable(n int) *Table {
	t := NewTable("true class", "taken for", "images", "of the class")
	t.Right(2, 3)
	for _, p := range m.Pairs(n) {
		t.Row(p.Truth, p.Predicted, strconv.Itoa(p.Count), percent(p.Share))
	}
	return t
}

// PerClass is a table of how many images of each class were recognised
// (recall) and how many of those called so were right (precision).
func (m *Confusion) PerClass() *Table {
	t := NewTable("class", "images", "recall", "precision")
	t.Right(1, 2, 3)
	for i, name := range m.Classes {
		called := 0
		for j := range m.Classes {
			called += m.At(j, i)
		}
		sum := m.rowSum(i)
		t.Row(name, strconv.Itoa(sum), ratio(m.At(i, i), sum), ratio(m.At(i, i), called))
	}
	return t
}

func ratio(part, whole int) string {
	if whole == 0 {
		return "–"
	}
	return percent(float64(part) / float64(whole))
}

func percent(share float64) string { return fmt.Sprintf("%.1f %%", 100*share) }

const (
	maxNumbers = 20 // classes up to which cells carry numbers
	maxNames   = 60 // classes up to which rows carry names
	cellSize   = 34
)

func (m *Confusion) size() (w, h vg.Length) {
	n := vg.Length(len(m.Classes))
	side := max(n*cellSize, 3*vg.Inch)
	if len(m.Classes) > maxNumbers {
		side = 7 * vg.Inch
	}
	names := m.nameWidth()
	return 2*margin + textSize + 8 + names + side, 2*margin + headSize + 8 + side + m.footHeight()
}

func (m *Confusion) nameStyle() draw.TextStyle {
	size := vg.Length(tickSize)
	if n := len(m.Classes); n > maxNumbers {
		size = max(4.5, min(tickSize, 0.85*7*vg.Inch/vg.Length(n)))
	}
	return style(size, font.WeightNormal, ink, draw.XRight, draw.YCenter)
}

func (m *Confusion) nameWidth() vg.Length {
	if len(m.Classes) > maxNames {
		return 0
	}
	sty, w := m.nameStyle(), vg.Length(0)
	for _, name := range m.Classes {
		w = max(w, sty.Width(clip(name)))
	}
	return w + 6
}

// footHeight is the room under the matrix: names at 45°, then the axis label.
func (m *Confusion) footHeight() vg.Length {
	return 4 + m.nameWidth()*math.Sqrt2/2 + tickSize/2 + 8 + textSize
}

// clip keeps a long class name from taking the picture.
func clip(name string) string {
	if r := []rune(printable(name)); len(r) > 24 {
		return string(r[:23]) + "…"
	}
	return printable(name)
}

func (m *Confusion) draw(c draw.Canvas) error {
	if len(m.Classes) == 0 || m.Total() == 0 {
		return fmt.Errorf("confusion matrix %q: %d classes, %d images", m.Title, len(m.Classes), m.Total())
	}
	c = frame(c, m.Title, nil)
	n, names := len(m.Classes), m.nameWidth()
	left := c.Min.X + textSize + 8 + names
	side := min(c.Max.X-left, c.Max.Y-c.Min.Y-m.footHeight())
	cell := side / vg.Length(n)
	top := c.Max.Y

	c.SetColor(shade(0))
	c.Fill(vg.Rectangle{Min: vg.Point{X: left, Y: top - side}, Max: vg.Point{X: left + side, Y: top}}.Path())
	for i := range n {
		sum := max(m.rowSum(i), 1)
		for j := range n {
			if count := m.At(i, j); count > 0 {
				at := vg.Point{X: left + vg.Length(j)*cell, Y: top - vg.Length(i+1)*cell}
				drawCell(c, at, cell, count, float64(count)/float64(sum), n <= maxNumbers)
			}
		}
	}
	if n <= maxNumbers {
		line := draw.LineStyle{Color: color.White, Width: 1}
		for i := range n + 1 {
			at := vg.Length(i) * cell
			c.StrokeLine2(line, left+at, top, left+at, top-side)
			c.StrokeLine2(line, left, top-at, left+side, top-at)
		}
	}
	m.drawNames(c, left, top, cell)
	return nil
}

func drawCell(c draw.Canvas, at vg.Point, cell vg.Length, count int, share float64, number bool) {
	c.SetColor(shade(share))
	c.Fill(vg.Rectangle{Min: at, Max: at.Add(vg.Point{X: cell, Y: cell})}.Path())
	if !number {
		return
	}
	text := color.Color(ink)
	if share > 0.25 {
		text = color.White
	}
	sty := style(min(tickSize, cell/3.2), font.WeightNormal, text, draw.XCenter, draw.YCenter)
	c.FillText(sty, at.Add(vg.Point{X: cell / 2, Y: cell / 2}), strconv.Itoa(count))
}

func (m *Confusion) drawNames(c draw.Canvas, left, top, cell vg.Length) {
	side := cell * vg.Length(len(m.Classes))
	below := top - side - 4
	if names := m.nameWidth(); names > 0 {
		sty := m.nameStyle()
		across := sty
		across.YAlign, across.Rotation = draw.YCenter, math.Pi/4
		for i, name := range m.Classes {
			mid := (vg.Length(i) + 0.5) * cell
			c.FillText(sty, vg.Point{X: left - 5, Y: top - mid}, clip(name))
			c.FillText(across, vg.Point{X: left + mid, Y: below}, clip(name))
		}
	}
	sty := style(textSize, font.WeightNormal, ink, draw.XCenter, draw.YBottom)
	c.FillText(sty, vg.Point{X: left + side/2, Y: c.Min.Y}, "predicted class")
	sty.Rotation, sty.YAlign = math.Pi/2, draw.YTop
	c.FillText(sty, vg.Point{X: c.Min.X, Y: top - side/2}, "true class")
}

// shade goes from near white over blue to dark blue with the root of the
// share, so that one mistake in a hundred can be seen.
func shade(share float64) color.Color {
	stops := [][3]float64{{0xf4, 0xf8, 0xfc}, {0x6b, 0xae, 0xd6}, {0x08, 0x30, 0x6b}}
	t := 2 * math.Sqrt(min(max(share, 0), 1))
	i := min(int(t), 1)
	mix := func(k int) uint8 { return uint8(stops[i][k] + (t-float64(i))*(stops[i+1][k]-stops[i][k]) + 0.5) }
	return color.NRGBA{mix(0), mix(1), mix(2), 0xff}
}
