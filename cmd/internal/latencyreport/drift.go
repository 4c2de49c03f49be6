package latencyreport

import (
	"fmt"
	"math"
	"slices"
	"time"

	"spos/internal/report/page"
	"spos/latency"
)

// watch is the looks of one sentinel on one device.
type watch struct {
	sentinel, env string
	looks         []latency.Look
}

// device is what the device did while it was measured: by its sentinels, and
// by the sessions of each model against one another.
func (r *report) device() *page.Section {
	var watches []watch
	for _, l := range r.looks {
		i := slices.IndexFunc(watches, func(w watch) bool { return w.sentinel == l.Sentinel && w.env == l.Environment })
		if i < 0 {
			i = len(watches)
			watches = append(watches, watch{sentinel: l.Sentinel, env: l.Environment})
		}
		watches[i].looks = append(watches[i].looks, l)
	}
	s := &page.Section{
		Title: "The device over time",
		Text:  "What changes for all models alike is the device: heat, the clock, a neighbour.",
	}
	for _, w := range watches[:min(len(watches), maxDevices)] {
		s.Charts = append(s.Charts, r.watched(w))
		s.Facts = append(s.Facts, page.Fact{Name: "Sentinel " + shorten(w.sentinel), Value: w.words()})
	}
	if c, ok := r.sessions(); ok {
		s.Charts = append(s.Charts, c)
	}
	if len(s.Charts) == 0 {
		return nil
	}
	return s
}

func (w watch) words() string {
	lo, hi := math.Inf(1), math.Inf(-1)
	again, kept := 0, 0
	for _, l := range w.looks {
		lo, hi = min(lo, l.Ratio), max(hi, l.Ratio)
		if l.Again {
			again++
		}
		if l.Kept {
			kept++
		}
	}
	return fmt.Sprintf("%s, %+.1f %% to %+.1f %% of the first; %s measured again, %s kept with a warning", count(len(w.looks), "look", "looks"),
		100*(lo-1), 100*(hi-1), count(again, "stretch", "stretches"), count(kept, "stretch", "stretches"))
}

// watched draws a sentinel's looks.
func (r *report) watched(w watch) page.Chart {
	at, axis := r.clock(func(yield func(time.Time)) {
		for _, l := range w.looks {
			yield(l.At)
		}
	}, "look")
	fine := page.Dots{Name: "as at the start", Tone: page.Blue}
	again := page.Dots{Name: "drifted, measured again", Tone: page.Orange, Form: page.Diamond}
	kept := page.Dots{Name: "drifted, kept", Tone: page.Red, Form: page.Cross}
	line := page.Line{Tone: page.Pale}
	allowed := 0.0
	step := (len(w.looks) + maxDots - 1) / maxDots
	for i, l := range w.looks {
		allowed = max(allowed, l.Allowed)
		if i%step != 0 && !l.Again && !l.Kept {
			continue
		}
		d := &fine
		switch {
		case l.Kept:
			d = &kept
		case l.Again:
			d = &again
		}
		x, y := at(i, l.At), 100*(l.Ratio-1)
		addDot(d, x, y)
		line.X, line.Y = append(line.X, x), append(line.Y, y)
		if len(w.looks) <= maxTitled {
			d.Titles = append(d.Titles, fmt.Sprintf("%+.1f %%, %s ms", y, fixed(latency.Milliseconds(l.P50), 3)))
		}
	}
	c := page.Chart{
		Title: "The sentinel's time against its first", Caption: "sentinel " + shorten(w.sentinel) + " against its first time", Large: true,
		X: axis, Y: page.Axis{Label: "change, %"},
		Marks: []page.Mark{
			page.Band{Name: fmt.Sprintf("±%.3g %% allowed", 100*allowed), Tone: page.Green, Low: -100 * allowed, High: 100 * allowed},
			page.Rule{Tone: page.Grey}, line,
		},
	}
	c.Marks = append(c.Marks, marks(fine, again, kept)...)
	return c
}

// sessions draws the median of each session against that of its model, where
// the inputs say when sessions ran.
func (r *report) sessions() (page.Chart, bool) {
	type session struct {
		at    time.Time
		ratio float64
	}
	var all []session
	for _, m := range r.models {
		if len(m.Samples) < 2 {
			continue
		}
		for _, s := range m.Samples {
			if !s.Started.IsZero() {
				all = append(all, session{s.Started, 100 * (medianOf(milliseconds(s.Runs))/latency.Milliseconds(m.P50) - 1)})
			}
		}
	}
	if len(all) < 3 {
		return page.Chart{}, false
	}
	slices.SortFunc(all, func(a, b session) int { return a.at.Compare(b.at) })
	at, axis := r.clock(func(yield func(time.Time)) {
		for _, s := range all {
			yield(s.at)
		}
	}, "session")
	dots := page.Dots{Name: "a session", Tone: page.Blue, Form: page.Speck}
	spans := page.Spans{Name: "least to greatest of neighbours", Tone: page.Blue}
	size := (len(all) + maxDots - 1) / maxDots
	for c := range slices.Chunk(all, size) {
		var ratios []float64
		for _, s := range c {
			ratios = append(ratios, s.ratio)
		}
		x := at(len(dots.X)*size, c[0].at)
		addDot(&dots, x, medianOf(ratios))
		spans.X, spans.Low, spans.High = append(spans.X, x), append(spans.Low, ratios[0]), append(spans.High, ratios[len(ratios)-1])
	}
	line := page.Line{Name: "median of neighbours", Tone: page.Orange}
	for c := range slices.Chunk(all, max(10, len(all)/100)) {
		var ratios []float64
		for _, s := range c {
			ratios = append(ratios, s.ratio)
		}
		line.X, line.Y = append(line.X, at(0, c[len(c)/2].at)), append(line.Y, medianOf(ratios))
	}
	chart := page.Chart{
		Title: "Median of each session against its model's", Caption: "median of each session against its model's p50", Large: true,
		X: axis, Y: page.Axis{Label: "change, %"}, Marks: []page.Mark{page.Rule{Tone: page.Grey}},
	}
	if size > 1 {
		chart.Marks = append(chart.Marks, spans)
	}
	chart.Marks = append(chart.Marks, dots)
	if len(line.X) > 2 {
		chart.Marks = append(chart.Marks, line)
	}
	return chart, true
}

// clock turns times into places on an axis: from the report's first moment, in
// a unit that fits, or by number where a time is missing.
func (r *report) clock(times func(yield func(time.Time)), what string) (at func(i int, t time.Time) float64, axis page.Axis) {
	known := true
	var last time.Duration
	times(func(t time.Time) {
		known = known && !t.IsZero()
		last = max(last, t.Sub(r.start))
	})
	if !known {
		return func(i int, _ time.Time) float64 { return float64(i + 1) }, page.Axis{Label: what}
	}
	unit, name := time.Second, "seconds"
	switch {
	case last > 3*time.Hour:
		unit, name = time.Hour, "hours"
	case last > 3*time.Minute:
		unit, name = time.Minute, "minutes"
	}
	axis.Label = name + " since " + r.start.UTC().Format("15:04:05") + " UTC"
	return func(_ int, t time.Time) float64 { return float64(t.Sub(r.start)) / float64(unit) }, axis
}
