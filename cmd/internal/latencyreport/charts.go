package latencyreport

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"spos/internal/report/page"
	"spos/latency"
)

// overview is all models at once.
func (r *report) overview() *page.Section {
	if len(r.models) < 2 {
		return nil
	}
	order := slices.Clone(r.models)
	slices.SortStableFunc(order, func(a, b model) int { return cmp.Compare(a.P50, b.P50) })
	s := &page.Section{Title: "All models", Charts: []page.Chart{ranks(order), widths(order)}}
	if len(order) < maxNamed {
		return s
	}
	p50s := make([]float64, len(order))
	for i, m := range order {
		p50s[i] = latency.Milliseconds(m.P50)
	}
	bars := page.Histogram(p50s, p50s[0], p50s[len(p50s)-1], 40)
	bars.Tone = page.Blue
	s.Charts = append(s.Charts, page.Chart{
		Title: "How many models are how fast", Caption: "how many models are how fast", Large: true,
		X: page.Axis{Label: "p50, ms"}, Y: page.Axis{Label: "models", Hi: 1.08 * float64(slices.Max(bars.Counts))}, Marks: []page.Mark{bars},
	})
	return s
}

// dotsOf are dots of models without warnings and of those with.
func dotsOf(order []model, add func(d *page.Dots, i int, m model)) []page.Mark {
	clean := page.Dots{Name: "without warnings", Tone: page.Blue}
	warned := page.Dots{Name: "with warnings", Tone: page.Orange, Form: page.Diamond}
	n := min(len(order), maxDots)
	for k := range n {
		i := k * len(order) / n
		m, d := order[i], &clean
		if len(m.warnings) > 0 {
			d = &warned
		}
		add(d, i, m)
		if len(order) <= maxTitled {
			d.Titles = append(d.Titles, m.name+": "+estimateWords(m.Estimate))
		}
	}
	return marks(clean, warned)
}

// ranks are the models by latency, with their names where those are few.
func ranks(order []model) page.Chart {
	c := page.Chart{Title: "Median latency of every model with its interval", Caption: "p50 with its 95 % interval, by rank", Large: true}
	if len(order) < maxNamed {
		c.Caption = "p50 with its 95 % interval"
		c.X.Label = "latency, ms"
		for _, m := range order {
			c.Y.Names = append(c.Y.Names, m.name)
		}
		c.Marks = dotsOf(order, func(d *page.Dots, i int, m model) {
			addDot(d, latency.Milliseconds(m.P50), float64(i+1))
			d.Left, d.Right = append(d.Left, latency.Milliseconds(m.Low)), append(d.Right, latency.Milliseconds(m.High))
		})
		return c
	}
	c.X.Label, c.Y.Label = "rank", "latency, ms"
	c.Marks = dotsOf(order, func(d *page.Dots, i int, m model) {
		addDot(d, float64(i+1), latency.Milliseconds(m.P50))
		d.Low, d.High = append(d.Low, latency.Milliseconds(m.Low)), append(d.High, latency.Milliseconds(m.High))
	})
	return c
}

func widths(order []model) page.Chart {
	most := 0.1
	dots := dotsOf(order, func(d *page.Dots, _ int, m model) {
		addDot(d, latency.Milliseconds(m.P50), halfWidth(m.Estimate))
		most = max(most, halfWidth(m.Estimate))
	})
	return page.Chart{
		Title: "Half of the interval against the latency", Caption: "how wide the intervals are", Large: true,
		X: page.Axis{Label: "p50, ms"}, Y: page.Axis{Label: "half interval, % of p50", Hi: 1.08 * most}, Marks: dots,
	}
}

func addDot(d *page.Dots, x, y float64) { d.X, d.Y = append(d.X, x), append(d.Y, y) }

// marks leaves out what has no points.
func marks(all ...page.Dots) []page.Mark {
	var m []page.Mark
	for _, d := range all {
		if len(d.X) > 0 {
			m = append(m, d)
		}
	}
	return m
}

func estimateWords(e latency.Estimate) string {
	d := decimals(latency.Milliseconds(e.Min))
	ms := func(v time.Duration) string { return fixed(latency.Milliseconds(v), d) }
	return fmt.Sprintf("p50 %s ms (%s to %s), p90 %s, min %s, %s of %s", ms(e.P50), ms(e.Low), ms(e.High), ms(e.P90), ms(e.Min),
		count(e.Runs, "run", "runs"), count(e.Sessions, "session", "sessions"))
}

// details draws the runs of some models: all, or those whose intervals are
// widest, where there is something to see.
func (r *report) details() *page.Section {
	var chosen []model
	for _, m := range r.models {
		if len(m.Samples) > 0 {
			chosen = append(chosen, m)
		}
	}
	if len(chosen) == 0 {
		if len(r.models) == 0 {
			return nil
		}
		return &page.Section{Title: "Run by run", Text: "The inputs hold no raw runs: measure with --samples to see them here."}
	}
	text := "Every run in the order it ran, and how the runs are distributed. Sessions are separated by lines; the runs before each, pale, warm up and do not count. A ring is the median of a session: rings apart are sessions that differ."
	if n := len(chosen); n > maxCards {
		slices.SortStableFunc(chosen, func(a, b model) int { return cmp.Compare(halfWidth(b.Estimate), halfWidth(a.Estimate)) })
		chosen = chosen[:maxCards]
		text += fmt.Sprintf(" Of %d models, the %d with the widest intervals.", n, maxCards)
	}
	s := &page.Section{Title: "Run by run", Text: text}
	for i, m := range chosen {
		title := m.name
		if len(r.inputs) > 1 {
			title += " · " + shorten(r.inputs[m.input])
		}
		if len(r.envs) > 1 {
			title += " · device " + letter(m.env)
		}
		s.Cards = append(s.Cards, page.Card{Title: title, Text: estimateWords(m.Estimate), Charts: runCharts(m, i == 0)})
	}
	return s
}

// runCharts are a model's runs over time and their distribution; named: with a
// legend.
func runCharts(m model, named bool) []page.Chart {
	name := func(s string) string {
		if named {
			return s
		}
		return ""
	}
	var runs []float64
	medians := page.Dots{Name: name("median of a session"), Tone: page.Purple, Form: page.Ring}
	for _, s := range m.Samples {
		runs = append(runs, milliseconds(s.Runs)...)
		medians.X = append(medians.X, medianOf(milliseconds(s.Runs)))
	}
	p50, p90, least := latency.Milliseconds(m.P50), latency.Milliseconds(m.P90), latency.Milliseconds(m.Min)
	low, high := latency.Milliseconds(m.Low), latency.Milliseconds(m.High)
	axis := runAxis(runs, min(low, least), max(high, p50+1.5*(p90-least), slices.Max(medians.X)))

	over := page.Chart{
		Title:   "Runs of " + m.name + " in the order they ran",
		Caption: "runs in order" + beyond(runs, axis.Hi),
		X:       page.Axis{Label: "run"}, Y: axis,
		Marks: []page.Mark{
			page.Band{Name: name("interval of p50"), Tone: page.Green, Low: low, High: high},
			page.Rule{Name: name("p50"), Tone: page.Green, At: p50},
		},
	}
	over.Marks = append(over.Marks, runMarks(m.Samples, len(runs), name)...)

	bars := page.Histogram(runs, axis.Lo, axis.Hi, 36)
	bars.Tone, bars.Name = page.Blue, name("runs")
	most := float64(slices.Max(bars.Counts))
	for range medians.X {
		medians.Y = append(medians.Y, 1.12*most)
	}
	x := axis
	return []page.Chart{over, {
		Title: "Distribution of the runs of " + m.name, Caption: "distribution",
		X: x, Y: page.Axis{Label: "runs", Hi: 1.25 * most},
		Marks: []page.Mark{
			page.Band{Tone: page.Green, Low: low, High: high, OnX: true}, bars,
			page.Rule{Name: name("min"), Tone: page.Grey, At: least, OnX: true, Dashed: true},
			page.Rule{Name: name("p50"), Tone: page.Green, At: p50, OnX: true},
			page.Rule{Name: name("p90"), Tone: page.Orange, At: p90, OnX: true, Dashed: true},
			medians,
		},
	}}
}

// runAxis has room for what is usual; rare runs that took several times as
// long are arrows at its edge.
func runAxis(runs []float64, lo, hi float64) page.Axis {
	lo = min(lo, slices.Min(runs))
	room := 0.06 * max(hi-lo, 0.02*hi)
	return page.Axis{Label: "latency, ms", Lo: lo - room, Hi: hi + room}
}

func beyond(runs []float64, hi float64) string {
	n := 0
	for _, v := range runs {
		if v > hi {
			n++
		}
	}
	if n == 0 {
		return ""
	}
	most := slices.Max(runs)
	return fmt.Sprintf("; %s beyond the axis, up to %s ms", count(n, "run", "runs"), fixed(most, decimals(most)))
}

// runMarks are the runs one by one, or in buckets of neighbours whose least,
// middle and greatest are drawn.
func runMarks(samples []latency.Sample, total int, name func(string) string) []page.Mark {
	for _, s := range samples {
		total += len(s.Warmup)
	}
	size := (total + maxRuns - 1) / maxRuns
	if size > 1 {
		size *= 3 // a stroke and a dot take more room than a dot
	}
	warm := page.Dots{Name: name("warm-up"), Tone: page.Pale, Form: page.Speck}
	timed := page.Dots{Name: name("run"), Tone: page.Blue, Form: page.Speck}
	spans := page.Spans{Name: name("least to greatest of neighbours"), Tone: page.Blue}
	var breaks []page.Mark
	at := 0
	add := func(to *page.Dots, spans *page.Spans, runs []time.Duration) {
		for c := range slices.Chunk(milliseconds(runs), size) {
			x := float64(at) + float64(len(c)+1)/2
			addDot(to, x, medianOf(slices.Clone(c)))
			if size > 1 && spans != nil {
				spans.X, spans.Low, spans.High = append(spans.X, x), append(spans.Low, slices.Min(c)), append(spans.High, slices.Max(c))
			}
			at += len(c)
		}
	}
	for i, s := range samples {
		if i > 0 && len(samples) <= 60 {
			breaks = append(breaks, page.Rule{Tone: page.Pale, At: float64(at) + 0.5, OnX: true})
		}
		add(&warm, nil, s.Warmup)
		add(&timed, &spans, s.Runs)
	}
	m := slices.Concat(breaks, marks(warm))
	if size > 1 {
		m = append(m, spans)
	}
	return append(m, timed)
}

func milliseconds(d []time.Duration) []float64 {
	ms := make([]float64, len(d))
	for i, v := range d {
		ms[i] = latency.Milliseconds(v)
	}
	return ms
}

// medianOf sorts v; that of nothing is not a number.
func medianOf(v []float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	slices.Sort(v)
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}
