// Package latencyreport turns what the verbs that measure have left into the
// report that people read: it knows latencies, and leaves drawing to
// [spos/internal/report/page].
package latencyreport

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"spos/internal/report/page"
	"spos/latency"
)

// Bounds that keep a report's file small, whatever it is made of.
const (
	maxCards    = 24   // models drawn one by one
	maxRows     = 1000 // of the table
	maxTitled   = 400  // points that say who they are
	maxDots     = 2000 // points of a picture
	maxRuns     = 600  // of a model, beyond which neighbours are drawn together
	maxNamed    = 25   // models of a picture that can name them
	maxWarnings = 60   // kinds of warnings
	maxNames    = 8    // models that a warning lists
	maxDevices  = 6    // described one by one
)

// report is what the inputs hold, together.
type report struct {
	models   []model
	envs     []latency.Fingerprint // devices with their settings, models aside
	envAt    map[string]int        // by [latency.Fingerprint.Key]
	looks    []latency.Look
	tables   []auditedTable
	inputs   []string
	warnings []page.Warning
	start    time.Time // of the first session; zero where none says
	end      time.Time
}

type model struct {
	latency.Result
	name     string
	input    int
	env      int
	warnings []int // indices of the report's
}

// New is the report of all that the inputs hold. Its size is bounded, whatever
// that is: what is too much is drawn in part or together, and the page says so.
func New(title string, inputs []Input) page.Page { return newReport(inputs).page(title) }

func newReport(inputs []Input) *report {
	r := &report{envAt: map[string]int{}}
	for i, in := range inputs {
		r.inputs = append(r.inputs, in.name)
		r.looks = append(r.looks, in.looks...)
		if in.table != nil {
			r.env(in.table.Fingerprint)
			r.tables = append(r.tables, audited(in.name, in.table))
		}
		for _, res := range in.results {
			r.models = append(r.models, model{Result: res, name: shorten(res.Model), input: i, env: r.env(res.Fingerprint)})
			for _, s := range res.Samples {
				r.saw(s.Started, s.Create, s.Warmup, s.Runs)
			}
		}
	}
	for _, l := range r.looks {
		r.saw(l.At, 0)
	}
	r.collectWarnings()
	return r
}

// env is the index of a device with its settings.
func (r *report) env(f latency.Fingerprint) int {
	f.Model = latency.ModelID{}
	key := f.Key()
	i, known := r.envAt[key]
	if !known {
		i = len(r.envs)
		r.envAt[key], r.envs = i, append(r.envs, f)
	}
	return i
}

func (r *report) saw(at time.Time, first time.Duration, rest ...[]time.Duration) {
	if at.IsZero() {
		return
	}
	end := at.Add(first)
	for _, d := range slices.Concat(rest...) {
		end = end.Add(d)
	}
	if r.start.IsZero() || at.Before(r.start) {
		r.start = at
	}
	if end.After(r.end) {
		r.end = end
	}
}

func (r *report) page(title string) page.Page {
	level, verdict := r.judge()
	p := page.Page{Title: title, Level: level, Verdict: verdict, Facts: r.facts(), Warnings: r.warnings}
	for _, t := range r.tables[:min(len(r.tables), maxDevices)] {
		p.Sections = append(p.Sections, t.section())
	}
	for _, s := range []*page.Section{r.overview(), r.details(), r.device(), r.table()} {
		if s != nil {
			p.Sections = append(p.Sections, *s)
		}
	}
	return p
}

// judge says how far the numbers can be trusted: of the measurements, then of
// each table.
func (r *report) judge() (page.Level, string) {
	var texts []string
	level := page.Good
	worst := func(l page.Level) {
		if l == page.Bad || level == page.Good {
			level = l
		}
	}
	if len(r.models)+len(r.looks) > 0 {
		l, text := r.verdict()
		worst(l)
		texts = append(texts, text)
	}
	for _, t := range r.tables[:min(len(r.tables), maxDevices)] {
		worst(t.level)
		texts = append(texts, t.summary)
	}
	return level, strings.Join(texts, " ")
}

// verdict is that of the measurements.
func (r *report) verdict() (page.Level, string) {
	kept := 0
	for _, l := range r.looks {
		if l.Kept {
			kept++
		}
	}
	if len(r.models) == 0 {
		return page.Care, fmt.Sprintf("No measurement, only %s at the sentinel.", count(len(r.looks), "look", "looks"))
	}
	warned := 0
	half := make([]float64, len(r.models))
	p50 := make([]float64, len(r.models))
	for i, m := range r.models {
		half[i], p50[i] = halfWidth(m.Estimate), latency.Milliseconds(m.P50)
		if len(m.warnings) > 0 {
			warned++
		}
	}
	slices.Sort(half)
	middle, worst := half[(len(half)-1)/2], half[len(half)-1]
	text := count(len(r.models), "model", "models") + " of " + spread(p50) + " ms. "
	width := fmt.Sprintf("Intervals are ±%.1f %% in the median and ±%.1f %% at worst", middle, worst)
	var but []string
	if warned > 0 {
		but = append(but, fmt.Sprintf("%d of %s", warned, count(len(r.models), "model carries a warning", "models carry warnings")))
	}
	if kept > 0 {
		but = append(but, count(kept, "stretch was", "stretches were")+" kept although the device had drifted")
	}
	if n := len(r.envs); n > 1 {
		but = append(but, fmt.Sprintf("they are of %d devices or settings and may be compared only within one", n))
	}
	rest := ", and nothing was seen that disturbed them."
	if len(but) > 0 {
		rest = "; " + strings.Join(but, "; ") + "."
	}
	switch {
	case middle > 5 || kept > 0 || 2*warned > len(r.models):
		return page.Bad, "Doubtful: " + text + width + rest
	case middle > 2.5 || len(but) > 0:
		return page.Care, "To be read with care: " + text + width + rest
	default:
		return page.Good, "To be trusted: " + text + width + rest
	}
}

// halfWidth is half of the interval over the median, in percent.
func halfWidth(e latency.Estimate) float64 { return 50 * float64(e.High-e.Low) / float64(e.P50) }

// spread is the range of values as a person writes it.
func spread(v []float64) string {
	lo, hi := slices.Min(v), slices.Max(v)
	d := decimals(lo)
	if text := fixed(lo, d); text == fixed(hi, d) {
		return text
	}
	return fixed(lo, d) + " to " + fixed(hi, d)
}

func fixed(v float64, decimals int) string { return strconv.FormatFloat(v, 'f', decimals, 64) }

// decimals are those of a column of milliseconds whose least is lo.
func decimals(lo float64) int {
	switch {
	case lo < 10:
		return 3
	case lo < 100:
		return 2
	default:
		return 1
	}
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// facts are the head of the report.
func (r *report) facts() []page.Fact {
	var facts []page.Fact
	switch n := len(r.envs); {
	case n == 1:
		facts = append(facts, page.Fact{Name: "Device", Value: hostWords(r.envs[0].Host)}, page.Fact{Name: "Settings", Value: settingWords(r.envs[0].Session)})
	default:
		for i, e := range r.envs[:min(n, maxDevices)] {
			facts = append(facts, page.Fact{Name: "Device " + letter(i), Value: hostWords(e.Host) + "; " + settingWords(e.Session)})
		}
		if n > maxDevices {
			facts = append(facts, page.Fact{Name: "Others", Value: count(n-maxDevices, "device or setting", "devices or settings")})
		}
	}
	if len(r.models) > 0 {
		facts = append(facts, page.Fact{Name: "Protocol", Value: r.effort()})
	}
	if !r.start.IsZero() {
		facts = append(facts, page.Fact{Name: "Measured", Value: period(r.start, r.end)})
	}
	names := make([]string, min(len(r.inputs), maxNames))
	for i := range names {
		names[i] = shorten(r.inputs[i])
	}
	if n := len(r.inputs) - len(names); n > 0 {
		names = append(names, fmt.Sprintf("and %d others", n))
	}
	return append(facts, page.Fact{Name: "From", Value: strings.Join(names, ", ")})
}

// effort is how much was measured of each model.
func (r *report) effort() string {
	sessions, runs := []int{}, []int{}
	for _, m := range r.models {
		sessions = append(sessions, m.Sessions)
		runs = append(runs, m.Runs/m.Sessions)
	}
	span := func(v []int, one, many string) string {
		if lo, hi := slices.Min(v), slices.Max(v); lo != hi {
			return fmt.Sprintf("%d to %d %s", lo, hi, many)
		}
		return count(v[0], one, many)
	}
	return span(sessions, "session", "sessions") + " a model, " + span(runs, "timed run", "timed runs") + " a session"
}

func period(start, end time.Time) string {
	start, end = start.UTC(), end.UTC()
	const day, clock = "2006-01-02", "15:04:05"
	if start.Format(day) == end.Format(day) {
		return start.Format(day+" "+clock) + " to " + end.Format(clock) + " UTC"
	}
	return start.Format(day+" "+clock) + " to " + end.Format(day+" "+clock) + " UTC"
}

// letter names the nth device: A to Z, then numbers.
func letter(n int) string {
	if n < 26 {
		return string(rune('A' + n))
	}
	return strconv.Itoa(n + 1)
}

func hostWords(h latency.Host) string {
	words := []string{cmp.Or(h.CPU, "unknown processor"), count(h.Cores, "processor", "processors")}
	add := func(value, format string) {
		if value != "" {
			words = append(words, fmt.Sprintf(format, value))
		}
	}
	add(h.Arch, "%s")
	add(h.Kernel, "kernel %s")
	add(h.Governor, "governor %s")
	add(h.Turbo, "turbo %s")
	add(h.SMT, "threads sharing a core %s")
	add(h.HugePages, "huge pages %s")
	add(h.Quota, "limited to %s processors by the control group")
	add(h.Memory, "memory limited to %s")
	return shortenTo(strings.Join(words, ", "), 600)
}

func build(id string) string {
	if id == "" {
		return ""
	}
	return " (build " + id + ")"
}

func settingWords(s latency.Setting) string {
	words := []string{
		"ONNX Runtime " + cmp.Or(s.Runtime, "of unknown version") + build(s.Build), cmp.Or(s.Provider, "unknown provider"),
		"graph level " + string(s.GraphLevel), count(s.Threads, "thread", "threads"),
	}
	if len(s.Affinity) > 0 {
		cpus := strings.Trim(fmt.Sprint(s.Affinity), "[]")
		words = append(words, "bound to processor "+strings.ReplaceAll(cpus, " ", " and "))
	} else {
		words = append(words, "not bound to a processor")
	}
	switch s.Mode {
	case latency.Hot:
		words = append(words, "hot (back to back)")
	case latency.Paced:
		words = append(words, fmt.Sprintf("paced (%v idle before a run)", s.Gap))
	case latency.Cold:
		words = append(words, "cold (caches overwritten before a run)")
	default:
		words = append(words, "mode "+strconv.Quote(string(s.Mode)))
	}
	words = append(words, fmt.Sprintf("batch %d", s.Batch))
	options := make([]string, 0, len(s.Options))
	for k, v := range s.Options {
		options = append(options, k+"="+v)
	}
	slices.Sort(options)
	return shortenTo(strings.Join(append(words, options...), ", "), 600)
}
