package latency

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"spos/internal/ort"
)

// Result is the latency of one model. As JSON its times are milliseconds:
// model, p50_ms, p90_ms, min_ms, low_ms, high_ms, runs, sessions, mode,
// fingerprint, placement where a provider was asked for, warnings, and samples
// unless they are dropped.
type Result struct {
	Model string
	Estimate
	Mode        Mode
	Fingerprint Fingerprint
	Placement   *ort.Placement // where the nodes ran; nil where only the processor was asked for
	Warnings    []string
	Samples     []Sample // one a session
}

// wire is a Result as JSON.
type wire struct {
	Model       string      `json:"model"`
	P50         float64     `json:"p50_ms"`
	P90         float64     `json:"p90_ms"`
	Min         float64     `json:"min_ms"`
	Low         float64     `json:"low_ms"`
	High        float64     `json:"high_ms"`
	Runs        int         `json:"runs"`
	Sessions    int         `json:"sessions"`
	Mode        Mode        `json:"mode"`
	Fingerprint Fingerprint `json:"fingerprint"`

	Placement *ort.Placement `json:"placement,omitempty"`

	Warnings []string `json:"warnings"`
	Samples  []Sample `json:"samples,omitempty"`
}

// Milliseconds is d with its fraction: the unit of every latency that a
// person reads.
func Milliseconds(d time.Duration) float64 { return float64(d) / 1e6 }

func fromMilliseconds(ms float64) time.Duration { return time.Duration(math.Round(ms * 1e6)) }

// MarshalJSON writes the form that the type's comment gives.
func (r Result) MarshalJSON() ([]byte, error) {
	return json.Marshal(wire{
		Model: r.Model,
		P50:   Milliseconds(r.P50), P90: Milliseconds(r.P90), Min: Milliseconds(r.Min),
		Low: Milliseconds(r.Low), High: Milliseconds(r.High),
		Runs: r.Runs, Sessions: r.Sessions, Mode: r.Mode, Fingerprint: r.Fingerprint, Placement: r.Placement,
		Warnings: append([]string{}, r.Warnings...), Samples: r.Samples,
	})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (r *Result) UnmarshalJSON(b []byte) error {
	var w wire
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	*r = Result{
		Model: w.Model,
		Estimate: Estimate{
			P50: fromMilliseconds(w.P50), P90: fromMilliseconds(w.P90), Min: fromMilliseconds(w.Min),
			Low: fromMilliseconds(w.Low), High: fromMilliseconds(w.High), Runs: w.Runs, Sessions: w.Sessions,
		},
		Mode: w.Mode, Fingerprint: w.Fingerprint, Placement: w.Placement, Warnings: w.Warnings, Samples: w.Samples,
	}
	return nil
}

func newResult(m Model, samples []Sample, p Protocol) Result {
	return newResults([]Model{m}, [][]Sample{samples}, p)[0]
}

// newResults is of models that were measured together: each tells the others'
// intervals how far sessions differ here and now.
func newResults(models []Model, samples [][]Sample, p Protocol) []Result {
	runs := make([][][]time.Duration, len(models))
	busy, assumed := make([]float64, len(models)), make([]float64, len(models))
	like, unsure := eased(samples)
	kept := make([][]Sample, len(models))
	for i := range models {
		busy[i] = contention(samples[i])
		assumed[i] = math.Hypot(p.Spread, driftBusy*busy[i])
		kept[i] = undisturbed(like[i])
		for _, s := range kept[i] {
			runs[i] = append(runs[i], s.Runs)
		}
	}
	spread, seen := spreads(runs, assumed), moved(kept)
	results := make([]Result, len(models))
	for i, m := range models {
		e := estimate(runs[i], spread[i], drift(kept[i], busy[i], unsure[i], seen))
		e.all(samples[i])
		results[i] = Result{
			Model: m.Name, Mode: p.Mode, Fingerprint: samples[i][0].Fingerprint, Placement: samples[i][0].Placement,
			Warnings: warnings(samples[i], p), Samples: samples[i],
			Estimate: e,
		}
	}
	return results
}

// contention is the mean over the samples.
func contention(samples []Sample) float64 {
	sum := 0.0
	for _, s := range samples {
		sum += s.Disturbance.Contention() / float64(len(samples))
	}
	return sum
}

// Where a warning starts. Quiet machines stay below all of them.
const (
	warnDeviation = 0.10 // standard deviation of a session's runs over their mean
	warnPreempted = 0.10 // preemptions a run
)

// warnings says in words what makes the number less than it could be.
func warnings(samples []Sample, p Protocol) []string {
	var w []string
	add := func(format string, args ...any) { w = append(w, fmt.Sprintf(format, args...)) }
	host := samples[0].Fingerprint.Host
	if host.Quota != "" {
		add("the control group grants %s processors: work beyond that is stopped, in bursts: raise cpu.max (--cpus) above the threads in use", host.Quota)
	}
	if host.Governor != "" && host.Governor != "performance" {
		add("the frequency governor is %q: set \"performance\", or times follow the clock", host.Governor)
	}
	var deviation, load float64
	var preempted int64
	runs, unsettled, unpinned := 0, 0, 0
	for _, s := range samples {
		deviation = max(deviation, deviationOf(s.Runs))
		load = max(load, s.Load)
		preempted += s.Preempted
		runs += len(s.Runs)
		if !s.Settled {
			unsettled++
		}
		if !s.Pinned {
			unpinned++
		}
	}
	if unpinned > 0 {
		add("the timing thread was not bound to a processor, and medians of small nets vary up to 1.3 times: allow binding (pin, taskset, cpuset)")
	}
	w = append(w, aside(samples)...)
	w = append(w, disturbances(samples)...)
	if load > float64(p.Threads)+0.25*float64(host.Cores) {
		add("the load average is about %.0f on %d processors: other work takes caches and memory bandwidth, if not the processor itself", load, host.Cores)
	}
	if float64(preempted) > warnPreempted*float64(runs) {
		add("the timing thread lost its processor %d times in %d runs: other work runs here, stop it or bind it elsewhere", preempted, runs)
	}
	if deviation > warnDeviation {
		add("runs of one session vary by %.0f %% (standard deviation over mean)", 100*deviation)
	}
	if unsettled > 0 {
		add("times had not settled after the warm-up in %d of %d sessions", unsettled, len(samples))
	}
	if at := samples[0].Placement; at != nil && fallback(at) != "" {
		add("%s", fallback(at))
	}
	if spin := p.Session.Spinning; p.Threads > 1 && (spin == nil || *spin) {
		add("idle threads spin: fast on a machine of one's own, and at the cost of everything else on a shared one")
	}
	for _, s := range samples {
		for _, n := range s.Notes {
			if !slices.Contains(w, n) {
				w = append(w, n)
			}
		}
	}
	return w
}

// deviationOf is the standard deviation over the mean.
func deviationOf(runs []time.Duration) float64 {
	x := make([]float64, len(runs))
	mean := 0.0
	for i, d := range runs {
		x[i] = float64(d)
		mean += x[i] / float64(len(runs))
	}
	if mean == 0 {
		return 0
	}
	return math.Sqrt(sumSquares(x)/float64(len(x))) / mean
}

// Write prints results as a table for people, and under it each warning once
// with the models that it concerns.
func Write(w io.Writer, results []Result) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "model\tp50 ms\t95 % interval\tp90 ms\tmin ms\truns\tmode")
	var order []string
	concerned := map[string][]string{}
	for _, r := range results {
		fmt.Fprintf(t, "%s\t%s\t%s – %s\t%s\t%s\t%d × %d\t%s\n", r.Model, digits(r.P50), digits(r.Low), digits(r.High),
			digits(r.P90), digits(r.Min), r.Sessions, r.Runs/max(r.Sessions, 1), r.Mode)
		for _, text := range r.Warnings {
			if concerned[text] == nil {
				order = append(order, text)
			}
			concerned[text] = append(concerned[text], r.Model)
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if err := writePlacements(w, results); err != nil {
		return err
	}
	for _, text := range order {
		whom := ""
		if len(concerned[text]) < len(results) {
			whom = strings.Join(concerned[text], ", ") + ": "
		}
		if _, err := fmt.Fprintf(w, "warning: %s%s\n", whom, text); err != nil {
			return err
		}
	}
	return nil
}

// digits is milliseconds to a precision that measurements have: three
// decimals below ten, as nets of a tenth of a millisecond are compared.
func digits(d time.Duration) string {
	ms := Milliseconds(d)
	switch {
	case ms < 10:
		return fmt.Sprintf("%.3f", ms)
	case ms < 100:
		return fmt.Sprintf("%.2f", ms)
	default:
		return fmt.Sprintf("%.1f", ms)
	}
}
