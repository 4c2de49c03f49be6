package latencyreport

import (
	"fmt"
	"math"
	"slices"

	"spos/internal/report/page"
)

// auditedTable is a latency table as far as a report shows it.
type auditedTable struct {
	name    string
	level   page.Level
	summary string      // in a few words
	facts   []page.Fact // the audit's numbers
	verdict []string
	held    []auditedNet // measured for the audit alone
	made    []auditedNet // whole nets that the table is made of
	inSitu  []auditedNet // variants of one net that it is made of
}

// auditedNet is a prediction and a measurement, in milliseconds, with their
// intervals.
type auditedNet struct {
	name                    string
	predicted, predictedLow float64
	predictedHigh           float64
	measured, low, high     float64
}

// residual is predicted over measured less one, in percent.
func (n auditedNet) residual() float64 { return 100 * (n.predicted/n.measured - 1) }

// section draws predicted against measured.
func (t auditedTable) section() page.Section {
	s := page.Section{Title: "Predicted against measured: " + shorten(t.name), Facts: t.facts}
	for _, v := range t.verdict {
		s.Facts = append(s.Facts, page.Fact{Name: "Verdict", Value: v})
	}
	lo, hi := math.Inf(1), math.Inf(-1)
	for _, n := range slices.Concat(t.held, t.made, t.inSitu) {
		lo, hi = min(lo, n.measured, n.predicted), max(hi, n.measured, n.predicted)
	}
	if lo > hi {
		return s
	}
	room := 0.05 * max(hi-lo, 0.05*hi)
	lo, hi = max(lo-room, 0.5*lo), hi+room
	along := func(factor float64) (x, y []float64) { // from where it enters the square to where it leaves
		return []float64{max(lo, lo/factor), min(hi, hi/factor)}, []float64{factor * max(lo, lo/factor), factor * min(hi, hi/factor)}
	}
	against := page.Chart{
		Title: "Predicted against measured latency", Caption: "predicted against measured", Large: true,
		X: page.Axis{Label: "measured, ms", Lo: lo, Hi: hi}, Y: page.Axis{Label: "predicted, ms", Lo: lo, Hi: hi},
	}
	for _, l := range []struct {
		name   string
		factor float64
	}{{"equal", 1}, {"±5 %", 1.05}, {"", 0.95}} {
		x, y := along(l.factor)
		against.Marks = append(against.Marks, page.Line{Name: l.name, Tone: page.Grey, X: x, Y: y, Dashed: l.factor != 1})
	}
	against.Marks = append(against.Marks, t.dots(func(d *page.Dots, n auditedNet) {
		addDot(d, n.measured, n.predicted)
		d.Low, d.High = append(d.Low, n.predictedLow), append(d.High, n.predictedHigh)
		d.Left, d.Right = append(d.Left, n.low), append(d.Right, n.high)
	})...)
	most := 6.0
	residuals := t.dots(func(d *page.Dots, n auditedNet) {
		addDot(d, n.measured, n.residual())
		most = max(most, 1.1*math.Abs(n.residual()))
	})
	s.Charts = []page.Chart{against, {
		Title: "Error of the prediction against the latency", Caption: "predicted over measured, less one", Large: true,
		X: page.Axis{Label: "measured, ms", Lo: lo, Hi: hi}, Y: page.Axis{Label: "error, %", Lo: -most, Hi: most},
		Marks: append([]page.Mark{
			page.Band{Tone: page.Grey, Low: -10, High: 10}, page.Band{Name: "±5 % and ±10 %", Tone: page.Grey, Low: -5, High: 5}, page.Rule{Tone: page.Grey},
		}, residuals...),
	}}
	return s
}

// dots are the three kinds of nets, those that tell most on top.
func (t auditedTable) dots(add func(d *page.Dots, n auditedNet)) []page.Mark {
	kinds := []struct {
		d    page.Dots
		nets []auditedNet
	}{
		{page.Dots{Name: "variants of one net, likewise", Tone: page.Pale}, t.inSitu},
		{page.Dots{Name: "whole nets that it was fitted to", Tone: page.Orange, Form: page.Cross}, t.made},
		{page.Dots{Name: "held out", Tone: page.Blue, Form: page.Diamond}, t.held},
	}
	total := len(t.held) + len(t.made) + len(t.inSitu)
	var all []page.Dots
	for _, k := range kinds {
		n := min(len(k.nets), maxDots)
		for i := range n {
			net := k.nets[i*len(k.nets)/n]
			add(&k.d, net)
			if total <= maxTitled {
				k.d.Titles = append(k.d.Titles, fmt.Sprintf("%s: predicted %.3f ms (%.3f to %.3f), measured %.3f ms (%.3f to %.3f), %+.1f %%", shorten(net.name),
					net.predicted, net.predictedLow, net.predictedHigh, net.measured, net.low, net.high, net.residual()))
			}
		}
		all = append(all, k.d)
	}
	return marks(all...)
}
