package report

import (
	"fmt"
	"io"
	"strings"

	"github.com/mattn/go-runewidth"
)

// Table is text in aligned columns for a terminal. Wide characters count as
// the two cells they take.
type Table struct {
	head  []string
	right map[int]bool
	rows  [][]string
}

// NewTable starts a table with these headings.
func NewTable(head ...string) *Table { return &Table{head: head, right: map[int]bool{}} }

// Right aligns columns to the right: numbers.
func (t *Table) Right(columns ...int) {
	for _, c := range columns {
		t.right[c] = true
	}
}

// Row appends a row. It panics on a row of another length than the heading.
func (t *Table) Row(cells ...string) {
	if len(cells) != len(t.head) {
		panic(fmt.Sprintf("report: a row of %d cells in a table of %d columns", len(cells), len(t.head)))
	}
	t.rows = append(t.rows, cells)
}

// WriteTo prints the table, with a rule under the heading and no blanks at
// the ends of lines.
func (t *Table) WriteTo(w io.Writer) (int64, error) {
	n, err := io.WriteString(w, t.String())
	return int64(n), err
}

func (t *Table) String() string {
	all := append([][]string{t.head}, t.rows...)
	widths := make([]int, len(t.head))
	for _, row := range all {
		for i, cell := range row {
			widths[i] = max(widths[i], runewidth.StringWidth(printable(cell)))
		}
	}
	var b strings.Builder
	for r, row := range all {
		t.line(&b, row, widths)
		if r == 0 {
			rule := make([]string, len(widths))
			for i, w := range widths {
				rule[i] = strings.Repeat("─", w)
			}
			t.line(&b, rule, widths)
		}
	}
	return b.String()
}

func (t *Table) line(b *strings.Builder, row []string, widths []int) {
	var l strings.Builder
	for i, cell := range row {
		cell = printable(cell)
		blank := strings.Repeat(" ", max(0, widths[i]-runewidth.StringWidth(cell)))
		if i > 0 {
			l.WriteString("  ")
		}
		if t.right[i] {
			l.WriteString(blank + cell)
		} else {
			l.WriteString(cell + blank)
		}
	}
	b.WriteString(strings.TrimRight(l.String(), " ") + "\n")
}
