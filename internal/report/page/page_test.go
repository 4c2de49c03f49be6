package page_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"spos/internal/report/page"
)

func write(t *testing.T, p page.Page) string {
	t.Helper()
	var b bytes.Buffer
	if err := page.Write(&b, p); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// paths are the outlines of a class.
func paths(t *testing.T, text, class string) (d []string) {
	t.Helper()
	for _, m := range regexp.MustCompile(`<path class="([^"]*)" d="([^"]*)">`).FindAllStringSubmatch(text, -1) {
		if m[1] == class {
			d = append(d, m[2])
		}
	}
	return d
}

func chart(marks ...page.Mark) page.Page {
	return page.Page{Title: "t", Sections: []page.Section{{Title: "s", Charts: []page.Chart{{
		Title: "all", X: page.Axis{Label: "x, s", Lo: 0, Hi: 10}, Y: page.Axis{Label: "y, ms", Lo: 0, Hi: 100}, Marks: marks,
	}}}}}
}

// everything has a mark of each kind, a table and text that means harm.
func everything(name string) page.Page {
	p := chart(
		page.Dots{Name: name, Tone: page.Blue, X: []float64{1, 2}, Y: []float64{3, 4}, Titles: []string{name, "b"}},
		page.Line{Name: name, Tone: page.Red, X: []float64{0, 10}, Y: []float64{0, 100}},
		page.Spans{Name: name, Tone: page.Green, X: []float64{1}, Low: []float64{2}, High: []float64{200}},
		page.Band{Name: name, Tone: page.Green, Low: 10, High: 20}, page.Rule{Name: name, Tone: page.Grey, At: 5, OnX: true},
		page.Histogram([]float64{1, 1, 2}, 0, 4, 4),
	)
	p.Title, p.Verdict, p.Level, p.Foot = name, name, page.Care, name
	p.Facts = []page.Fact{{Name: name, Value: name}}
	p.Warnings = []page.Warning{{Text: name, Whom: name}}
	s := &p.Sections[0]
	s.Title, s.Text, s.Facts = name, name, p.Facts
	c := s.Charts[0]
	c.Title, c.Caption, c.X.Label = name, name, name
	c.Y.Names = []string{name, "b"}
	s.Cards = []page.Card{{Title: name, Text: name, Charts: []page.Chart{c}}}
	s.Table = &page.Table{Columns: []page.Column{{Name: name}, {Name: "n", Number: true}}, Rows: [][]string{{name, "1"}}, Note: name}
	return p
}

// wellFormed reads text as XML to its end.
func wellFormed(text string) error {
	for d := xml.NewDecoder(strings.NewReader(text)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func TestHostileText(t *testing.T) {
	for _, name := range []string{
		`</title><script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `' onload='x`, `</style><b>`, `]]>&amp;<!--`,
		"\x00\x01\xff\u202Ereversed", "{{.}}", `javascript:alert(1)`, strings.Repeat("<", 10_000),
	} {
		text := write(t, everything(name))
		if err := wellFormed(text); err != nil {
			t.Errorf("%.20q: %v", name, err)
		}
		root, err := html.Parse(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		seen := 0
		shown := strings.Map(func(r rune) rune {
			if r < ' ' || r == '\u202E' {
				return '\uFFFD'
			}
			return r
		}, strings.ToValidUTF8(name, "\uFFFD"))
		for n := range root.Descendants() {
			if n.Type == html.TextNode && n.Data == shown {
				seen++
			}
			if n.Type != html.ElementNode {
				continue
			}
			if slices.Contains([]string{"script", "img", "b", "link", "iframe", "a", "image", "use"}, n.Data) {
				t.Errorf("%.20q made an element %s", name, n.Data)
			}
			for _, a := range n.Attr {
				if strings.HasPrefix(a.Key, "on") || a.Key == "href" || a.Key == "src" || a.Key == "style" {
					t.Errorf("%.20q made an attribute %s", name, a.Key)
				}
			}
		}
		if seen < 15 {
			t.Errorf("%.20q is shown %d times", name, seen)
		}
	}
}

// TestAlone: the file asks for nothing, says the same each time, and each
// picture says what it is and in what units.
func TestAlone(t *testing.T) {
	text := write(t, everything("name"))
	if text != write(t, everything("name")) {
		t.Error("two writings differ")
	}
	rest := strings.ReplaceAll(text, `xmlns="http://www.w3.org/2000/svg"`, "")
	for _, forbidden := range []string{"http", "url(", "@import", "<script", "<link", "@font-face"} {
		if strings.Contains(rest, forbidden) {
			t.Errorf("the page contains %q", forbidden)
		}
	}
	for _, wanted := range []string{"prefers-color-scheme:dark", "@media print", `name="viewport"`, "<title>all</title>", ">y, ms</text>", ">x, s</text>", `class="n">1</td>`} {
		if !strings.Contains(write(t, everything("all")), wanted) && !strings.Contains(write(t, chart()), wanted) {
			t.Errorf("the page lacks %q", wanted)
		}
	}
}

// TestPlaces: data come to lie where the axes say.
func TestPlaces(t *testing.T) {
	text := write(t, chart(
		page.Dots{Tone: page.Blue, X: []float64{0, 10, 5, 5, 5, 11}, Y: []float64{0, 100, 50, 1000, -5, 50}},
		page.Dots{Tone: page.Red, Form: page.Speck, X: []float64{5}, Y: []float64{50}, Low: []float64{25}, High: []float64{75}, Left: []float64{2.5}, Right: []float64{99}},
		page.Band{Tone: page.Green, Low: 25, High: 1000},
		page.Rule{Tone: page.Grey, At: 5, OnX: true}, page.Rule{Tone: page.Grey, At: 50, OnX: true},
		page.Bars{Tone: page.Purple, Edges: []float64{0, 5, 10}, Counts: []int{0, 50}},
		page.Spans{Tone: page.Orange, X: []float64{5}, Low: []float64{50}, High: []float64{1000}},
	))
	// The plane is 50 to 368 wide and 182 to 10 high.
	for class, want := range map[string][]string{
		"dot blue":        {"M50 182h0M368 10h0M209 96h0"},
		"arrow blue":      {"M209 10l-3.5 7h7zM209 182l-3.5 -7h7z"},
		"whisker red":     {"M209 139V53M129.5 96H368"},
		"speck red":       {"M209 96h0"},
		"fill band green": {"M50 139H368V10H50z"},
		"line grey":       {"M209 10V182"},
		"fill bar purple": {"M209.3 182H367.7V96H209.3z"},
		"thin orange":     {"M209 96V10"},
		"arrow orange":    {"M209 10l-3.5 7h7z"},
	} {
		if got := paths(t, text, class); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", class, got, want)
		}
	}
}

func TestNoNumbers(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	odd := []float64{nan, inf, -inf, 1}
	text := write(t, page.Page{Sections: []page.Section{{Charts: []page.Chart{
		{Marks: []page.Mark{
			page.Dots{Tone: page.Blue, X: odd, Y: odd, Low: odd, High: odd}, page.Line{Tone: page.Blue, X: odd, Y: odd},
			page.Spans{Tone: page.Blue, X: odd, Low: odd, High: odd}, page.Band{Low: nan, High: inf}, page.Rule{At: nan}, page.Histogram(odd, 0, 2, 2),
		}},
		{}, {X: page.Axis{Lo: nan, Hi: inf}, Marks: []page.Mark{page.Rule{At: inf}}},
	}}}})
	for _, bad := range []string{"NaN", "Inf"} {
		if strings.Contains(text, bad) {
			t.Errorf("the page says %s", bad)
		}
	}
	if got := paths(t, text, "dot blue"); len(got) != 1 || strings.Count(got[0], "h0") != 1 {
		t.Errorf("dots %q, want the one that has a place", got)
	}
}

func TestHistogram(t *testing.T) {
	h := page.Histogram([]float64{-1, 0, 0.5, 1, 1.99, 2, 3}, 0, 2, 2)
	if fmt.Sprint(h.Edges, h.Counts) != "[0 1 2] [2 3]" {
		t.Errorf("edges and counts %v %v", h.Edges, h.Counts)
	}
	if h := page.Histogram([]float64{1, 1}, 1, 1, 3); slices.Max(h.Counts) != 0 {
		t.Errorf("a range of nothing counts %v", h.Counts)
	}
}

func TestRaggedTable(t *testing.T) {
	p := page.Page{Sections: []page.Section{{Title: "x", Table: &page.Table{Columns: []page.Column{{Name: "a"}}, Rows: [][]string{{"1"}, {"1", "2"}}}}}}
	if err := page.Write(io.Discard, p); err == nil || !strings.Contains(err.Error(), "row 1 has 2 cells") {
		t.Errorf("a ragged table: %v", err)
	}
}
