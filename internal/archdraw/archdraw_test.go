package archdraw_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"strings"
	"testing"

	"spos/configs"
	"spos/internal/arch"
	"spos/internal/archdraw"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func rows(t *testing.T, space, digits string) (*arch.Net, []archdraw.Row) {
	t.Helper()
	s, err := configs.Space(space)
	if err != nil {
		t.Fatal(err)
	}
	n, err := s.Net(arch.Arch(digits))
	if err != nil {
		t.Fatal(err)
	}
	r, err := archdraw.Rows(s, n)
	if err != nil {
		t.Fatal(err)
	}
	return n, r
}

// TestRowsAreTheNet: the rows of every shipped space add up to the net.
func TestRowsAreTheNet(t *testing.T) {
	for _, name := range configs.Spaces() {
		s, err := configs.Space(name)
		if err != nil {
			t.Fatal(err)
		}
		choices := make([]int, s.Len())
		for i := range choices {
			choices[i] = (5*i + 6) % len(s.Candidates(i))
		}
		n, rs := rows(t, name, string(arch.Make(choices)))
		if want := len(s.Spec().Stem) + s.Len() + len(s.Spec().Tail) + 1; len(rs) != want {
			t.Errorf("%s: %d rows, want %d", name, len(rs), want)
		}
		var sum arch.Cost
		at := n.In
		for _, r := range rs {
			sum.Params += r.Cost.Params
			sum.MACs += r.Cost.MACs
			sum.FLOPs.MMCV += r.Cost.FLOPs.MMCV
			sum.FLOPs.Thop += r.Cost.FLOPs.Thop
			if r.In != at {
				t.Errorf("%s: %s reads %v after %v", name, r.Name, r.In, at)
			}
			if at = r.Out; r.Part != "head" && r.Out.H != (r.In.H-1)/r.Stride+1 {
				t.Errorf("%s: %s turns %v into %v at stride %d", name, r.Name, r.In, r.Out, r.Stride)
			}
		}
		c := n.Cost()
		if sum.Params != c.Params || sum.MACs != c.MACs || sum.FLOPs.MMCV != c.FLOPs.MMCV || sum.FLOPs.Thop != c.FLOPs.Thop {
			t.Errorf("%s: the rows cost %+v, the net %+v", name, sum, c)
		}
	}
}

func TestText(t *testing.T) {
	_, rs := rows(t, "mobilenet-proxylessgpu-anglenas", "226006605644004234443")
	var b bytes.Buffer
	if err := archdraw.Text(&b, rs); err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/anglenas-spos.txt"
	if *update {
		if err := os.WriteFile(golden, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("drawn otherwise than %s:\n%s", golden, &b)
	}
}

// TestSVG: well-formed whatever the text, one bar a row and no reference.
func TestSVG(t *testing.T) {
	_, rs := rows(t, "nasbench-macro", "20212220")
	hostile := `a<b>&"c"` + "\x00\u202e</svg><script>alert(1)</script>"
	rs[2].Name = hostile
	svg := archdraw.SVG(hostile, []string{hostile}, rs)
	d := xml.NewDecoder(bytes.NewReader(svg))
	count := map[string]int{}
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, svg)
		}
		if e, ok := token.(xml.StartElement); ok {
			count[e.Name.Local]++
		}
	}
	if count["g"] != len(rs) || count["script"] != 0 || count["image"] != 0 || count["svg"] != 1 {
		t.Errorf("elements %v for %d rows", count, len(rs))
	}
	if strings.Contains(string(svg), "href") || strings.Contains(string(svg), "url(") {
		t.Error("the picture refers to something outside")
	}
	if again := archdraw.SVG(hostile, []string{hostile}, rs); !bytes.Equal(svg, again) {
		t.Error("drawn twice, it differs")
	}
}
