package latency

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"
	"time"
)

// Vouches reports whether the table may be used for nets of a latency.
func (a Audit) Vouches(d time.Duration) bool {
	ms := Milliseconds(d)
	return a.From <= ms && ms <= a.To
}

// What a group of nets must reach for the table to be used for such nets.
const (
	soundWithin5 = 0.9
	soundBias    = 0.03
	groupNets    = 10
)

// judge says in words which nets the table may be used for. list is the
// audit's; ends are all nets that the table is made of by their latency, each
// as the others predict it.
func (a *Audit) judge(list, ends []audited) {
	say := func(format string, args ...any) { a.Verdict = append(a.Verdict, fmt.Sprintf(format, args...)) }
	if len(list) < groupNets {
		say("do not use it in place of measuring: %d %s nets are too few to tell, want %d at least: hold out more", len(list), a.Kind, groupNets)
		return
	}
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(x, y audited) int { return cmp.Compare(x.said, y.said) })
	from, to := soundRange(list)
	if from == to {
		a.From, a.To = 0, 0
		say("do not use it in place of measuring: %.0f %% of %d %s nets are within ±5 %%, the mean error is %+.1f %%",
			100*a.Within5, a.Nets, a.Kind, 100*a.Bias)
		if a.TauLow > 0.8 {
			say("it may order nets to choose what to measure first: tau %.3f", a.Tau)
		}
	} else {
		good := list[from:to]
		a.From, a.To = good[0].said, good[len(good)-1].said
		w, _ := groupErrors(good)
		say("use it for nets between %.4g and %.4g ms: there %.0f %% of %d %s nets are within ±5 %%", a.From, a.To, 100*w, len(good), a.Kind)
		for _, rest := range [][]audited{list[:from], list[to:]} {
			if len(rest) > 0 {
				w, b := groupErrors(rest)
				say("do not use it between %.4g and %.4g ms: there %.0f %% of %d nets are within ±5 %%, the mean error is %+.1f %%",
					rest[0].said, rest[len(rest)-1].said, 100*w, len(rest), 100*b)
			}
		}
		a.widen(ends, say)
	}
	half := make([]float64, len(list))
	for i, c := range list {
		half[i] = (c.high - c.low) / 2 / c.said
	}
	say("a limit closer than ±%.1f %% to a prediction is undecided: measure the net", 100*median(half))
	if a.Covered < 0.9 {
		say("its intervals are too narrow: they hold %.0f %% of the measurements, not 95 %%", 100*a.Covered)
	}
	if a.Ruler.MAPE > 0.7*a.MAPE {
		say("most of the error is the measurement's own: more sessions a net would show, and make, a better table")
	}
}

// widen says what is known of nets beyond the audited ones: those that the table
// is made of, each predicted by the others, tell a little.
func (a *Audit) widen(ends []audited, say func(string, ...any)) {
	first, last := ends[0], ends[len(ends)-1]
	for _, e := range []struct {
		net    audited
		beyond bool
		side   string
		to     *float64
	}{
		{first, first.is < a.From, "below", &a.From},
		{last, last.is > a.To, "above", &a.To},
	} {
		if !e.beyond {
			continue
		}
		if math.Abs(e.net.error()) <= 0.05 {
			say("%s %.4g ms no net was audited; %s, the extreme one measured at %.4g ms, is predicted by the others with an error of %+.1f %%",
				e.side, *e.to, e.net.arch, e.net.is, 100*e.net.error())
		} else {
			say("do not use it %s %.4g ms: %s, measured at %.4g ms, is predicted by the others with an error of %+.1f %%",
				e.side, *e.to, e.net.arch, e.net.is, 100*e.net.error())
		}
	}
}

// groupErrors is the share of nets within ±5 % and their mean error.
func groupErrors(list []audited) (within, bias float64) {
	for _, c := range list {
		within += share(math.Abs(c.error()) <= 0.05) / float64(len(list))
		bias += c.error() / float64(len(list))
	}
	return within, bias
}

// soundRange is the longest run of groups of neighbours by latency, list[from:to],
// in each of which predictions are sound. The list is of one group at least.
func soundRange(list []audited) (from, to int) {
	groups := min(5, len(list)/groupNets)
	start := 0
	for g := range groups {
		i, j := g*len(list)/groups, (g+1)*len(list)/groups
		if w, b := groupErrors(list[i:j]); w < soundWithin5 || math.Abs(b) > soundBias {
			start = j
		} else if j-start > to-from {
			from, to = start, j
		}
	}
	return from, to
}

// WriteAudit prints both audits and the verdict: what belongs beside every
// number of the table.
func (t *Table) WriteAudit(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "audit\tnets\tMAPE %\t(95 %)\tbias %\t±5 %\t±10 %\ttau\t(95 %)\tin interval\tworst")
	a := t.Audit()
	for _, x := range t.audits {
		if x.Nets == 0 {
			continue
		}
		mape, tau := "–", "–"
		if x.Nets >= 3 { // fewer have no spread to tell of
			mape = fmt.Sprintf("%.2f–%.2f", 100*x.MAPELow, 100*x.MAPEHigh)
			tau = fmt.Sprintf("%.3f–%.3f", x.TauLow, x.TauHigh)
		}
		fmt.Fprintf(tw, "%s\t%d\t%.2f\t%s\t%+.2f\t%.1f\t%.1f\t%.3f\t%s\t%.1f %%\t%s: %.4g for %.4g ms, %+.1f %%\n",
			x.Kind, x.Nets, 100*x.MAPE, mape, 100*x.Bias, 100*x.Within5, 100*x.Within10,
			x.Tau, tau, 100*x.Covered, x.Worst.Arch, x.Worst.Predicted, x.Worst.Measured, 100*x.Worst.Error)
	}
	fmt.Fprintf(tw, "the ruler\t\t%.2f\t\t\t\t\t%.3f\t\t\ttwo measurements of one net differ by %.2f %%\n", 100*a.Ruler.MAPE, a.Ruler.Tau, 100*a.Ruler.Repeat)
	if err := tw.Flush(); err != nil {
		return err
	}
	if a.Nets == 0 {
		_, err := fmt.Fprintln(w, "verdict: no net was held out or left out: nothing is known of the table's error, do not use it")
		return err
	}
	for _, v := range a.Verdict {
		if _, err := fmt.Fprintf(w, "verdict: %s\n", v); err != nil {
			return err
		}
	}
	if a.Kind == leftOutKind {
		_, err := fmt.Fprintf(w, "verdict: fewer than %d nets were held out; nets left out one by one tell about as much, but not of what all measurements share\n", groupNets)
		return err
	}
	return nil
}

// WriteHead prints what the table is of, for people.
func (t *Table) WriteHead(w io.Writer) error {
	h, s := t.Fingerprint.Host, t.Fingerprint.Session
	f := t.Fit
	_, err := fmt.Fprintf(w, `space        %s, %d blocks; %d nets in situ, %d corrections, %d held out, seed %d
measured on  %s, %d cores, %s; ONNX Runtime %s, %s, graph level %s, threads %d, %s, batch %d
fit          a candidate's cost ±%.0f %% by its place, neighbours ±%.0f %%; a net ±%.2f %% from the sum
`, t.Space.Name, t.Space.Len(), t.count(InSitu), t.count(Correction), t.count(Holdout), t.Seed,
		printable(h.CPU), h.Cores, printable(h.Arch), printable(s.Runtime), printable(s.Provider), printable(string(s.GraphLevel)), s.Threads, printable(string(s.Mode)), s.Batch,
		100*f.Place, 100*f.Pair, 100*f.Stretch*math.Sqrt(t.regression.variance(f, t.regression.typical)))
	return err
}
