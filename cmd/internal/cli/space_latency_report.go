package cli

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"spos/internal/arch"
	"spos/latency"
	"spos/search"
)

// survey is a sample of a space and how fast its nets are.
type survey struct {
	space   *arch.Space
	nets    []*arch.Net
	seed    uint64
	samples bool                 // report every net
	limits  map[string][]float64 // by device, in milliseconds
	devices []surveyed
}

// surveyed is what is known of the nets on one device.
type surveyed struct {
	name     string
	results  []latency.Result // by net
	cheapest latency.Result   // the net of the fewest MACs
	drifts   int
	by       *predictions // nil where the nets were measured
}

// fewestMACs need not be among the nets that were drawn.
func (d *survey) fewestMACs() (*arch.Net, error) {
	return d.space.Net(search.Cheapest(d.space, arch.MACs))
}

// spaceLatency is the JSON of `space latency`. Latencies are milliseconds.
type spaceLatency struct {
	Space   string          `json:"space"`
	Input   [3]int          `json:"input"`
	Nets    int             `json:"nets"`
	Seed    uint64          `json:"seed"`
	Devices []deviceLatency `json:"devices"`
	// Together is the share that meets every limit of every device, where
	// several devices have one limit each.
	Together *limitShare `json:"together,omitempty"`
}

// deviceLatency is what was found on one device.
type deviceLatency struct {
	Device      string              `json:"device"`
	Fingerprint latency.Fingerprint `json:"fingerprint"`
	Predicted   *predictions        `json:"predicted,omitempty"` // absent: the nets were measured
	Fastest     netLatency          `json:"fastest"`
	Slowest     netLatency          `json:"slowest"`
	// FewestMACs need not be among the nets that were drawn.
	FewestMACs netLatency         `json:"fewest_macs"`
	Mean       float64            `json:"mean_ms"`
	Quantiles  map[string]float64 `json:"quantiles_ms"`
	// The rank correlations of latency with costs; null where one of the two
	// is constant.
	TauMACs   *float64       `json:"tau_macs"`
	TauParams *float64       `json:"tau_params"`
	Limits    []limitShare   `json:"limits,omitempty"`
	Leaving   []leavingEntry `json:"leaving"`
	Drifts    int            `json:"drifts"`
	Warnings  []netsWarning  `json:"warnings,omitempty"`
	Samples   []netLatency   `json:"samples,omitempty"`

	p50 []float64
}

type netLatency struct {
	Arch    arch.Arch       `json:"arch"`
	Latency search.Interval `json:"latency_ms"`
	MACs    int64           `json:"macs"`
	Params  int64           `json:"params"`
	Outside bool            `json:"outside_audit,omitempty"`
}

// limitShare is how the nets lie to a limit.
type limitShare struct {
	Limit     float64 `json:"limit_ms,omitempty"`
	Met       int     `json:"met"`
	Undecided int     `json:"undecided"`
	NotMet    int     `json:"not_met"`
	// Outside are those of Met that a table predicts beyond what its audit
	// vouches for.
	Outside int `json:"met_outside_audit,omitempty"`
	search.Share
}

// leavingEntry is the limit that leaves a share of the space; ends of its
// interval that so few nets do not tell are null.
type leavingEntry struct {
	Share float64  `json:"share"`
	Limit float64  `json:"limit_ms"`
	Low   *float64 `json:"low_ms"`
	High  *float64 `json:"high_ms"`
}

// netsWarning is a warning and how many nets it concerns.
type netsWarning struct {
	Text string `json:"warning"`
	Nets int    `json:"nets"`
}

// shares are the parts of a space that people ask a limit for.
var shares = []float64{0.5, 0.1, 0.01}

func (d *survey) report() *spaceLatency {
	st := &spaceLatency{Space: d.space.Name, Input: [3]int{d.space.In.C, d.space.In.H, d.space.In.W}, Nets: len(d.nets), Seed: d.seed}
	limited, single := 0, true
	for i := range d.devices {
		st.Devices = append(st.Devices, d.reportOf(i))
		if n := len(st.Devices[i].Limits); n > 0 {
			limited++
			single = single && n == 1
		}
	}
	if limited > 1 && single {
		st.Together = new(d.together())
	}
	return st
}

func (d *survey) reportOf(device int) deviceLatency {
	s := &d.devices[device]
	results := s.results
	e := deviceLatency{Device: s.name, Fingerprint: results[0].Fingerprint, Predicted: s.by, Quantiles: map[string]float64{}, Drifts: s.drifts}
	e.Fingerprint.Model = latency.ModelID{} // of the first net alone
	var high, macs, params []float64
	for n, r := range results {
		net := newNetLatency(d.nets[n], r)
		net.Outside = s.by.unvouched(r)
		e.Samples = append(e.Samples, net)
		e.p50, high = append(e.p50, net.Latency.P50), append(high, net.Latency.High)
		macs, params = append(macs, float64(net.MACs)), append(params, float64(net.Params))
		e.Mean += net.Latency.P50 / float64(len(results))
	}
	byP50 := func(a, b netLatency) int { return cmp.Compare(a.Latency.P50, b.Latency.P50) }
	e.Fastest, e.Slowest = slices.MinFunc(e.Samples, byP50), slices.MaxFunc(e.Samples, byP50)
	if least, err := d.fewestMACs(); err == nil { // it was measured
		e.FewestMACs = newNetLatency(least, s.cheapest)
		e.FewestMACs.Outside = s.by.unvouched(s.cheapest)
	}
	for _, q := range quantiles {
		e.Quantiles[strconv.Itoa(q)] = search.Quantile(float64(q)/100, e.p50)
	}
	e.TauMACs, e.TauParams = finite(search.Tau(e.p50, macs)), finite(search.Tau(e.p50, params))
	for _, limit := range d.limits[s.name] {
		l := newLimitShare(limit, func(n int) latency.Verdict { return results[n].Decide(duration(limit)) }, len(results))
		for _, r := range results {
			if s.by.unvouched(r) && r.Decide(duration(limit)) == latency.Met {
				l.Outside++
			}
		}
		e.Limits = append(e.Limits, l)
	}
	for _, share := range shares {
		i := search.QuantileInterval(share, high)
		e.Leaving = append(e.Leaving, leavingEntry{share, i.P50, finite(i.Low), finite(i.High)})
	}
	e.Warnings = countWarnings(results)
	if !d.samples {
		e.Samples = nil
	}
	return e
}

func newNetLatency(n *arch.Net, r latency.Result) netLatency {
	c := n.Cost()
	return netLatency{Arch: n.Arch, Latency: Interval(r.Estimate), MACs: c.MACs, Params: c.Params}
}

func newLimitShare(limit float64, verdict func(n int) latency.Verdict, nets int) limitShare {
	var count [3]int
	for n := range nets {
		count[verdict(n)]++
	}
	l := limitShare{Limit: limit, Met: count[latency.Met], Undecided: count[latency.Undecided], NotMet: count[latency.NotMet]}
	l.Share = search.NewShare(l.Met, l.Undecided, nets)
	return l
}

// together is how the nets lie to the limits of all devices.
func (d *survey) together() limitShare {
	return newLimitShare(0, func(n int) latency.Verdict {
		all := latency.Met
		for _, s := range d.devices {
			for _, limit := range d.limits[s.name] {
				switch s.results[n].Decide(duration(limit)) {
				case latency.NotMet:
					return latency.NotMet
				case latency.Undecided:
					all = latency.Undecided
				}
			}
		}
		return all
	}, len(d.nets))
}

// finite is a number that JSON can hold, or nothing.
func finite(x float64) *float64 {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return nil
	}
	return &x
}

// countWarnings counts texts that differ in their numbers alone as one, under
// the first of them.
func countWarnings(results []latency.Result) []netsWarning {
	first, count := map[string]string{}, map[string]int{}
	for _, r := range results {
		for _, w := range r.Warnings {
			kind := strings.Map(func(c rune) rune {
				if c >= '0' && c <= '9' {
					return -1
				}
				return c
			}, w)
			if count[kind]++; count[kind] == 1 {
				first[kind] = w
			}
		}
	}
	var list []netsWarning
	for _, kind := range slices.SortedFunc(maps.Keys(count), func(a, b string) int {
		return cmp.Or(cmp.Compare(count[b], count[a]), cmp.Compare(a, b))
	}) {
		list = append(list, netsWarning{first[kind], count[kind]})
	}
	return list
}

func (st *spaceLatency) write(out io.Writer, histogram bool) error {
	fmt.Fprintf(out, "%s, input %d×%d×%d: %d nets drawn uniformly, seed %d\n", st.Space, st.Input[0], st.Input[1], st.Input[2], st.Nets, st.Seed)
	for _, d := range st.Devices {
		if err := d.write(out, st.Nets); err != nil {
			return err
		}
		if histogram {
			if err := writeLatencies(out, d.p50); err != nil {
				return err
			}
		}
	}
	if t := st.Together; t != nil {
		fmt.Fprintf(out, "\nall limits together: %s\n", t.words(st.Nets, false))
	}
	return nil
}

func (d *deviceLatency) write(out io.Writer, nets int) error {
	h, s := d.Fingerprint.Host, d.Fingerprint.Session
	where := "on " + d.Device
	if d.Predicted != nil {
		where = "predicted by " + d.Predicted.Table
	}
	fmt.Fprintf(out, "\n%s: %s, %d cores, ONNX Runtime %s, %s, threads %d, batch %d, %s\n",
		where, cmp.Or(h.CPU, "unknown processor"), h.Cores, cmp.Or(s.Runtime, "unknown"), s.Provider, s.Threads, s.Batch, s.Mode)
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "p50 ms\tMIN\t")
	for _, q := range quantiles {
		fmt.Fprintf(w, "%d%%\t", q)
	}
	fmt.Fprintf(w, "MAX\tMEAN\t\n\t%.4g\t", d.Fastest.Latency.P50)
	for _, q := range quantiles {
		fmt.Fprintf(w, "%.4g\t", d.Quantiles[strconv.Itoa(q)])
	}
	fmt.Fprintf(w, "%.4g\t%.4g\t\n", d.Slowest.Latency.P50, d.Mean)
	if err := w.Flush(); err != nil {
		return err
	}
	t := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	for _, row := range []struct {
		what string
		net  netLatency
	}{{"fastest", d.Fastest}, {"slowest", d.Slowest}, {"fewest MACs", d.FewestMACs}} {
		fmt.Fprintf(t, "%s\t%s\t%v ms\t%s MACs\n", row.what, row.net.Arch, row.net.Latency, millions(row.net.MACs))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(out, "slowest over fastest %.2f; order against MACs: tau %s, against parameters: %s\n",
		d.Slowest.Latency.P50/d.Fastest.Latency.P50, tauWords(d.TauMACs), tauWords(d.TauParams))
	for _, l := range d.Limits {
		fmt.Fprintf(out, "limit %g ms: %s\n", l.Limit, l.words(nets, d.Predicted != nil))
	}
	for _, l := range d.Leaving {
		fmt.Fprintf(out, "%g %% of the space is left by %.4g ms (95 %% interval %s–%s)\n", 100*l.Share, l.Limit, orUnknown(l.Low), orUnknown(l.High))
	}
	if d.Drifts > 0 {
		fmt.Fprintf(out, "warning: the machine drifted %d times\n", d.Drifts)
	}
	for _, w := range d.Warnings {
		fmt.Fprintf(out, "warning: %d of %d nets: %s\n", w.Nets, nets, w.Text)
	}
	return d.Predicted.write(out, nets)
}

func (l limitShare) words(nets int, predicted bool) string {
	text := fmt.Sprintf("surely met by %d of %d nets, %.3g %% (95 %% interval %.3g–%.3g %%)", l.Met, nets, 100*l.P, 100*l.Low, 100*l.High)
	switch {
	case l.Undecided > 0 && predicted:
		text += fmt.Sprintf("; %d undecided, which a search would measure", l.Undecided)
	case l.Undecided > 0:
		text += fmt.Sprintf("; %d stayed undecided, which a search would refuse", l.Undecided)
	}
	if l.Outside > 0 {
		text += fmt.Sprintf("; the table's audit does not vouch for %d of those that meet it", l.Outside)
	}
	return text
}

func tauWords(t *float64) string {
	if t == nil {
		return "none"
	}
	return fmt.Sprintf("%.3f", *t)
}

func orUnknown(x *float64) string {
	if x == nil {
		return "?"
	}
	return fmt.Sprintf("%.4g", *x)
}

func millions(n int64) string { return fmt.Sprintf("%.2f M", float64(n)/1e6) }

// writeLatencies draws a histogram of equal bins.
func writeLatencies(out io.Writer, ms []float64) error {
	const bins, width = 16, 50
	lo, hi := slices.Min(ms), slices.Max(ms)
	counts := make([]int, bins)
	for _, x := range ms {
		bin := 0
		if hi > lo {
			bin = min(bins-1, int(float64(bins)*(x-lo)/(hi-lo)))
		}
		counts[bin]++
	}
	most := slices.Max(counts)
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', tabwriter.AlignRight)
	for i, c := range counts {
		fmt.Fprintf(w, "≤ %.4g ms\t%d\t %s\n", lo+(hi-lo)*float64(i+1)/bins, c, strings.Repeat("█", int(math.Round(width*float64(c)/float64(most)))))
	}
	return w.Flush()
}
