package export

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"unicode"
)

// Write prints the summary as a table for people. Text out of the file is cut
// short and cleared of control characters.
func (s Summary) Write(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(t, "%s\t%s\n", name, clean(fmt.Sprintf(format, args...)))
	}
	row("graph", "%s", s.Graph)
	row("producer", "%s", s.Producer)
	row("format", "ir %d, opset %s", s.IR, opsets(s.Opsets))
	row("size", "%d bytes", s.Bytes)
	row("reader", "%s", s.Reader)
	for _, v := range s.Inputs {
		row("input", "%s", v)
	}
	for _, v := range s.Outputs {
		row("output", "%s", v)
	}
	row("parameters", "%d, of these %d biases of convolutions, %d of norms; %d buffers", s.Params, s.ConvBias, s.NormParams, s.Buffers)
	row("MACs", "%d a run%s", s.MACs, symbols(s.Inputs))
	for _, u := range s.Unknown {
		row("not counted", "%s", u)
	}
	if n := s.Net; n != nil {
		verdict := "agrees with the file"
		if !n.Agrees {
			verdict = "DOES NOT AGREE with the file"
		}
		row("net", "%s of %s: %d parameters with norms unfolded, %d MACs an image; %s", n.Arch, n.Space, n.Params, n.MACs, verdict)
	}
	for _, k := range slices.Sorted(maps.Keys(s.Metadata)) {
		row(clean(k), "%s", s.shown(k))
	}
	fmt.Fprintf(t, "\noperator\tnodes\tMACs\n")
	for _, o := range s.Ops {
		fmt.Fprintf(t, "%s\t%d\t%d\n", clean(o.Type), o.Count, o.MACs)
	}
	return t.Flush()
}

func (v Value) String() string {
	dims := make([]string, len(v.Shape))
	for i, d := range v.Shape {
		dims[i] = d.String()
	}
	return fmt.Sprintf("%s: %s [%s]", v.Name, v.Type, strings.Join(dims, ", "))
}

func opsets(by map[string]int64) string {
	var parts []string
	for _, domain := range slices.Sorted(maps.Keys(by)) {
		parts = append(parts, fmt.Sprintf("%s %d", domain, by[domain]))
	}
	return strings.Join(parts, ", ")
}

// symbols says which dimensions the MACs took for one.
func symbols(inputs []Value) string {
	var names []string
	for _, v := range inputs {
		for _, d := range v.Shape {
			if d.Symbol != "" && !slices.Contains(names, d.Symbol) {
				names = append(names, d.Symbol)
			}
		}
	}
	if names == nil {
		return ""
	}
	return " with " + strings.Join(names, " = ") + " = 1"
}

// shown is the metadata under a key, labels by their first few.
func (s Summary) shown(key string) string {
	const few = 3
	v := s.Metadata[key]
	var labels []string
	if key == KeyLabels && json.Unmarshal([]byte(v), &labels) == nil && len(labels) > few {
		return fmt.Sprintf("%d labels: %s, …", len(labels), strings.Join(labels[:few], ", "))
	}
	return v
}

// maxShown is how many characters of a text are printed.
const maxShown = 300

func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	if r := []rune(s); len(r) > maxShown {
		return string(r[:maxShown]) + "…"
	}
	return s
}
