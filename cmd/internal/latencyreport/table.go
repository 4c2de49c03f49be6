package latencyreport

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"spos/internal/report/page"
	"spos/latency"
)

var numberPattern = regexp.MustCompile(`\d+(\.\d+)?`)

// collectWarnings puts each warning once, with the models that it concerns.
// Those that differ in numbers only are one, with the range of each number.
func (r *report) collectWarnings() {
	type found struct {
		texts []string
		whom  []string
	}
	var all []*found
	at := map[string]int{}
	for i := range r.models {
		m := &r.models[i]
		for _, text := range m.Warnings {
			text = shortenTo(text, 400)
			form := numberPattern.ReplaceAllString(text, "#")
			n, seen := at[form]
			if !seen {
				n = len(all)
				at[form] = n
				all = append(all, &found{})
			}
			all[n].texts = append(all[n].texts, text)
			if !slices.Contains(m.warnings, n) {
				m.warnings = append(m.warnings, n)
				all[n].whom = append(all[n].whom, m.name)
			}
		}
	}
	for i, f := range all {
		if i == maxWarnings {
			r.warnings = append(r.warnings, page.Warning{Text: fmt.Sprintf("and %s", count(len(all)-i, "further kind of warning", "further kinds of warnings"))})
			break
		}
		w := page.Warning{Text: merge(f.texts)}
		switch n := len(f.whom); {
		case n == len(r.models):
		case n > maxNames:
			w.Whom = fmt.Sprintf("%s and %d others", strings.Join(f.whom[:maxNames-1], ", "), n-maxNames+1)
		default:
			w.Whom = strings.Join(f.whom, ", ")
		}
		r.warnings = append(r.warnings, w)
	}
}

// merge is one text for several that differ in numbers only.
func merge(texts []string) string {
	var ranges [][2]string // least and greatest of each number
	value := func(s string) float64 { v, _ := strconv.ParseFloat(s, 64); return v }
	for i, text := range texts {
		for n, number := range numberPattern.FindAllString(text, -1) {
			switch {
			case i == 0:
				ranges = append(ranges, [2]string{number, number})
			case value(number) < value(ranges[n][0]):
				ranges[n][0] = number
			case value(number) > value(ranges[n][1]):
				ranges[n][1] = number
			}
		}
	}
	n := -1
	return numberPattern.ReplaceAllStringFunc(texts[0], func(string) string {
		n++
		if lo, hi := ranges[n][0], ranges[n][1]; lo != hi {
			return lo + "–" + hi
		}
		return ranges[n][0]
	})
}

// table is every model in numbers.
func (r *report) table() *page.Section {
	if len(r.models) == 0 {
		return nil
	}
	t := &page.Table{Columns: []page.Column{{Name: "model"}}}
	if len(r.inputs) > 1 {
		t.Columns = append(t.Columns, page.Column{Name: "from"})
	}
	if len(r.envs) > 1 {
		t.Columns = append(t.Columns, page.Column{Name: "device"})
	}
	for _, name := range []string{"p50, ms", "low, ms", "high, ms", "± %", "p90, ms", "min, ms", "sessions", "runs"} {
		t.Columns = append(t.Columns, page.Column{Name: name, Number: true})
	}
	t.Columns = append(t.Columns, page.Column{Name: "mode"}, page.Column{Name: "warnings"})
	least := math.Inf(1)
	for _, m := range r.models {
		least = min(least, latency.Milliseconds(m.P50))
	}
	for _, m := range r.models[:min(len(r.models), maxRows)] {
		t.Rows = append(t.Rows, r.row(m, decimals(least)))
	}
	if n := len(r.models) - len(t.Rows); n > 0 {
		t.Note = fmt.Sprintf("%s are left out.", count(n, "further model", "further models"))
	}
	if len(r.warnings) > 0 {
		t.Note = strings.TrimSpace("Warnings are numbered as at the head of the report. " + t.Note)
	}
	return &page.Section{Title: "All models in numbers", Table: t}
}

func (r *report) row(m model, decimals int) []string {
	row := []string{m.name}
	if len(r.inputs) > 1 {
		row = append(row, shorten(r.inputs[m.input]))
	}
	if len(r.envs) > 1 {
		row = append(row, letter(m.env))
	}
	for _, d := range []float64{
		latency.Milliseconds(m.P50), latency.Milliseconds(m.Low), latency.Milliseconds(m.High),
	} {
		row = append(row, fixed(d, decimals))
	}
	row = append(row, fixed(halfWidth(m.Estimate), 1),
		fixed(latency.Milliseconds(m.P90), decimals), fixed(latency.Milliseconds(m.Min), decimals),
		strconv.Itoa(m.Sessions), strconv.Itoa(m.Runs), shorten(string(m.Mode)))
	notes := make([]string, len(m.warnings))
	for i, n := range slices.Sorted(slices.Values(m.warnings)) {
		notes[i] = strconv.Itoa(n + 1)
	}
	return append(row, strings.Join(notes, ", "))
}
