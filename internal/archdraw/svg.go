package archdraw

import (
	"encoding/xml"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

// The measures, in pixels.
const (
	svgWidth  = 860
	rowHeight = 22
	margin    = 20
	groupGap  = 6   // above the first row of a part
	blockX    = 104 // right edge of the blocks' numbers
	nameX     = 114 // left edge of the layers' names
	netX      = 400 // axis of the net
	netWidth  = 240 // of the widest choice block
	shapeX    = 625 // right edge of the shapes
	barX      = 650
	barWidth  = 125
)

// style follows the colour scheme of whoever shows the picture. The colours of
// kernels are those of Okabe and Ito.
const style = `<style>
.bg{fill:#fff}text{fill:#222;font:13px system-ui,"Liberation Sans",Arial,sans-serif}
.h{font-size:17px;font-weight:600}.m{fill:#666}.n{font-variant-numeric:tabular-nums}
.k3{fill:#0072b2}.k5{fill:#e69f00}.k7{fill:#009e73}.kx{fill:#cc79a7}.k{fill:#d55e00}.fixed{fill:#888}
.none{fill:none;stroke:#888;stroke-dasharray:3 2}.rule{stroke:#8884}.cut{stroke:#fff;stroke-width:3}
@media(prefers-color-scheme:dark){.bg{fill:#15181c}.cut{stroke:#15181c}text{fill:#e6e6e6}.m{fill:#a0a0a0}.k3{fill:#3a9bd9}}
</style>
`

// SVG draws the rows under a title and lines of text below it: each block a
// bar as wide as its channels, coloured by what it is, and its MACs beside it.
// Fixed layers wider than the widest block are cut.
// The picture is one file without references, in the colours of its reader.
func SVG(title string, lines []string, rows []Row) []byte {
	var b strings.Builder
	y := margin + 14
	text := func(x int, class, anchor, s string) {
		fmt.Fprintf(&b, `<text x="%d" y="%d" class="%s" text-anchor="%s">%s</text>`+"\n", x, y, class, anchor, escape(s))
	}
	text(margin, "h", "start", title)
	for _, l := range lines {
		y += 20
		text(margin, "m", "start", l)
	}
	y = legend(&b, rows, y+28) + 26
	text(shapeX, "m", "end", "channels × height × width")
	text(barX, "m", "start", "MACs")
	y -= 2
	most, widest := most(rows), 1
	for _, r := range rows {
		if r.Block >= 0 {
			widest = max(widest, r.Out.C)
		}
	}
	for i, r := range rows {
		y += rowHeight
		first := i == 0 || rows[i-1].Part != r.Part
		if first {
			y += groupGap
			fmt.Fprintf(&b, `<line class="rule" x1="%d" y1="%d" x2="%d" y2="%d"/>`+"\n", margin, y-rowHeight+3, svgWidth-margin, y-rowHeight+3)
		}
		fmt.Fprintf(&b, "<g><title>%s</title>\n", escape(describe(r)))
		if first {
			text(margin, "m", "start", r.Part)
		}
		if r.Block >= 0 {
			text(blockX, "m n", "end", fmt.Sprint(r.Block))
		}
		text(nameX, "", "start", r.Name)
		w := min(max(3, netWidth*r.Out.C/widest), netWidth+4)
		fmt.Fprintf(&b, `<rect class="%s"%s x="%d" y="%d" width="%d" height="%d" rx="3"/>`+"\n", class(r), opacity(r), netX-w/2, y-13, w, rowHeight-6)
		if w > netWidth { // wider than there is room for
			fmt.Fprintf(&b, `<path class="cut" d="M%d %dl8 -20m6 0l-8 20"/>`+"\n", netX+netWidth/4, y+5)
		}
		text(shapeX, "m n", "end", r.Out.String())
		bar := (barWidth*r.Cost.MACs + most - 1) / most
		fmt.Fprintf(&b, `<rect class="fixed" x="%d" y="%d" width="%d" height="%d"/>`+"\n", barX, y-9, bar, rowHeight-14)
		text(svgWidth-margin, "n", "end", short(r.Cost.MACs))
		b.WriteString("</g>\n")
	}
	height := y + margin
	head := fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img">`+"\n<title>%s</title>\n",
		svgWidth, height, svgWidth, height, escape(title))
	return []byte(head + style + `<rect class="bg" width="100%" height="100%"/>` + "\n" + b.String() + "</svg>\n")
}

// legend is one entry for each kind of block, from baseline y down, and
// returns the last baseline.
func legend(b *strings.Builder, rows []Row, y int) int {
	kinds := map[string]Row{}
	for _, r := range rows {
		if r.Block >= 0 {
			kinds[kind(r)] = r
		}
	}
	x := margin
	for _, k := range slices.Sorted(maps.Keys(kinds)) {
		w := 38 + 7*utf8.RuneCountInString(k)
		if x+w > svgWidth-margin {
			x, y = margin, y+18
		}
		fmt.Fprintf(b, `<rect class="%s"%s x="%d" y="%d" width="14" height="11" rx="2"/><text x="%d" y="%d">%s</text>`+"\n",
			class(kinds[k]), opacity(kinds[k]), x, y-10, x+19, y, escape(k))
		x += w
	}
	return y
}

// kind is what a colour stands for.
func kind(r Row) string {
	switch {
	case r.Cost.MACs == 0:
		return "identity"
	case r.xception:
		return "xception"
	case r.expand > 0:
		return fmt.Sprintf("%d×%d, expand %d", r.kernel, r.kernel, r.expand)
	default:
		return fmt.Sprintf("%d×%d", r.kernel, r.kernel)
	}
}

func class(r Row) string {
	switch {
	case r.Block < 0:
		return "fixed"
	case r.Cost.MACs == 0:
		return "none"
	case r.xception:
		return "kx"
	case r.kernel == 3 || r.kernel == 5 || r.kernel == 7:
		return fmt.Sprintf("k%d", r.kernel)
	default:
		return "k"
	}
}

// opacity makes blocks that expand less paler.
func opacity(r Row) string {
	if r.Block >= 0 && r.expand > 0 && r.expand < 6 {
		return ` fill-opacity="0.6"`
	}
	return ""
}

func describe(r Row) string {
	return fmt.Sprintf("%s, %s, stride %d: %v to %v, %d parameters, %d MACs", r.Part, r.Name, r.Stride, r.In, r.Out, r.Cost.Params, r.Cost.MACs)
}

// escape makes text safe in XML; what XML cannot say at all becomes U+FFFD.
func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a Builder does not fail
	return b.String()
}
