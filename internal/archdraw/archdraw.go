// Package archdraw draws a network for people, in text and in SVG: a row a
// block, as wide as its channels, beside its share of the arithmetic. It knows
// spaces and nets, and needs nothing but the standard library, so that a
// device can draw as well.
package archdraw

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"spos/internal/arch"
)

// Row is one line of a drawing: a choice block, or a fixed layer of the stem,
// the tail or the head.
type Row struct {
	Part    string // "stem", "stage 0", …, "tail", "head"
	Block   int    // of a choice block, else -1
	Name    string // of the candidate, or what the layer is
	Stride  int
	In, Out arch.Shape
	Cost    arch.Cost // without ActivationBytes

	kernel, expand int  // 0 where there is none
	xception       bool // three depthwise layers in a row
}

// Rows are the rows of the net of s that n spells out, stages counted from
// zero. Blocks without ops are rows as well.
func Rows(s *arch.Space, n *arch.Net) ([]Row, error) {
	var rows []Row
	at, next := n.In, 0
	// take makes a row of the ops that belong to it.
	take := func(r Row, belongs func(*arch.Op) bool) {
		r.Stride, r.In, r.Out = 1, at, at
		for ; next < len(n.Ops) && belongs(&n.Ops[next]); next++ {
			o := &n.Ops[next]
			c := o.Cost()
			r.Cost.Params += c.Params
			r.Cost.MACs += c.MACs
			r.Cost.FLOPs.MACs += c.FLOPs.MACs
			r.Cost.FLOPs.MMCV += c.FLOPs.MMCV
			r.Cost.FLOPs.Thop += c.FLOPs.Thop
			r.Out = o.Out
			if o.Kind == arch.Conv {
				r.kernel = max(r.kernel, o.Kernel)
			}
		}
		if r.Out.H > 0 && r.Out.H < r.In.H {
			r.Stride = (r.In.H-1)/r.Out.H + 1
		}
		at = r.Out
		rows = append(rows, r)
	}
	fixed := func(part string, layers []arch.LayerSpec) {
		for i, l := range layers {
			prefix := fmt.Sprintf("%s.%d", part, i)
			r := Row{Part: part, Block: -1, Name: fmt.Sprintf("conv %d×%d", l.Kernel, l.Kernel)}
			if l.Block != nil {
				r.Name = l.Block.Name
			}
			take(r, func(o *arch.Op) bool { return o.Name == prefix || strings.HasPrefix(o.Name, prefix+".") })
		}
	}
	spec := s.Spec()
	fixed("stem", spec.Stem)
	for i := range s.Len() {
		c, err := n.Arch.Choice(i)
		if err != nil {
			return nil, err
		}
		r := Row{Part: fmt.Sprintf("stage %d", s.Stage(i)), Block: i, Name: s.Candidates(i)[c]}
		base, _, _ := strings.Cut(r.Name, "@")
		for _, c := range spec.Candidates {
			if c.Name == base {
				r.expand, r.xception = c.Expand, c.Block == "xception"
			}
		}
		take(r, func(o *arch.Op) bool { return o.Block == i })
	}
	fixed("tail", spec.Tail)
	take(Row{Part: "head", Block: -1, Name: "pool, linear"}, func(*arch.Op) bool { return true })
	rows[len(rows)-1].Stride = 1
	return rows, nil
}

// Text writes the rows as a table with a bar for each one's MACs.
func Text(w io.Writer, rows []Row) error {
	most := most(rows)
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "PART\tBLOCK\tLAYER\tSTRIDE\tOUT\tPARAMS\t  MACS\t")
	for i, r := range rows {
		part, block := r.Part, ""
		if i > 0 && rows[i-1].Part == part {
			part = ""
		}
		if r.Block >= 0 {
			block = fmt.Sprint(r.Block)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%v\t%6s\t%6s\t%s\n",
			part, block, r.Name, r.Stride, r.Out, short(r.Cost.Params), short(r.Cost.MACs), bar(r.Cost.MACs, most, 24))
	}
	_ = t.Flush() // a Builder does not fail
	for line := range strings.Lines(b.String()) {
		if _, err := io.WriteString(w, strings.TrimRight(line, " \n")+"\n"); err != nil {
			return err
		}
	}
	return nil
}

func most(rows []Row) int64 {
	m := int64(1)
	for _, r := range rows {
		m = max(m, r.Cost.MACs)
	}
	return m
}

// bar is n of most as a bar of at most cells characters, in eighths.
func bar(n, most int64, cells int64) string {
	eighths := (n*cells*8 + most/2) / most
	b := strings.Repeat("█", int(eighths/8))
	if e := eighths % 8; e > 0 {
		b += string(rune('█' + 8 - e)) // ▏ to ▉ follow █
	}
	return b
}

// short is a count with three digits, in thousands where there are more.
func short(n int64) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	v := float64(n)
	for _, u := range "kMG" {
		v /= 1000
		switch {
		case v < 9.995:
			return fmt.Sprintf("%.2f %c", v, u)
		case v < 99.95:
			return fmt.Sprintf("%.1f %c", v, u)
		case v < 999.5 || u == 'G':
			return fmt.Sprintf("%.0f %c", v, u)
		}
	}
	return "" // not reached
}
