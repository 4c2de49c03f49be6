// Package page writes a report as one HTML file that needs nothing else: no
// script, no font, no network. It can be printed, read on a phone and in the
// dark. Like its parent it knows numbers and names only; unlike it, it draws
// no fonts, so that small programs can afford it.
//
// Colours are those of Okabe and Ito; shape or dash says the same a second
// time. All text is escaped; what cannot be printed becomes U+FFFD. The same
// page is the same file.
package page

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"unicode"
)

// Level is how much a report's verdict should worry its reader.
type Level string

// The levels.
const (
	Good Level = "good"
	Care Level = "care"
	Bad  Level = "bad"
)

// Page is a report.
type Page struct {
	Title    string
	Level    Level
	Verdict  string // one sentence or two, in front of everything
	Facts    []Fact // of the report as a whole
	Warnings []Warning
	Sections []Section
	Foot     string
}

// Fact is a named value.
type Fact struct{ Name, Value string }

// Warning is what was wrong and with what; Whom is empty where it holds for
// all.
type Warning struct{ Text, Whom string }

// Section is a chapter. What it has of the following is shown in this order.
type Section struct {
	Title  string
	Text   string
	Facts  []Fact
	Charts []Chart // side by side where there is room
	Cards  []Card
	Table  *Table
}

// Card is one thing of several alike.
type Card struct {
	Title  string
	Text   string
	Charts []Chart
}

// Table is rows of as many cells as there are columns.
type Table struct {
	Columns []Column
	Rows    [][]string
	Note    string
}

// Column is a table's column.
type Column struct {
	Name   string
	Number bool // cells are aligned to the right
}

var (
	//go:embed page.html
	pageText string
	layout   = template.Must(template.New("page").Funcs(template.FuncMap{
		"draw":   func(c Chart) drawing { return c.draw() },
		"column": func(t Table, i int) Column { return t.Columns[i] },
	}).Parse(pageText))
)

// Write writes p.
func Write(w io.Writer, p Page) error {
	for _, s := range p.Sections {
		for i, row := range tableRows(s.Table) {
			if len(row) != len(s.Table.Columns) {
				return fmt.Errorf("page: section %q: row %d has %d cells, want %d", s.Title, i, len(row), len(s.Table.Columns))
			}
		}
	}
	var b bytes.Buffer
	if err := layout.Execute(&b, p); err != nil {
		return fmt.Errorf("page: %w", err)
	}
	if _, err := w.Write(bytes.Map(printable, b.Bytes())); err != nil {
		return fmt.Errorf("page: %w", err)
	}
	return nil
}

func tableRows(t *Table) [][]string {
	if t == nil {
		return nil
	}
	return t.Rows
}

// printable keeps what XML and screens can show; text that turns the direction
// of what follows is not among it.
func printable(r rune) rune {
	if r == '\n' || unicode.IsPrint(r) {
		return r
	}
	return unicode.ReplacementChar
}
