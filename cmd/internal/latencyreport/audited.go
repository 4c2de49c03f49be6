package latencyreport

import (
	"fmt"
	"strings"

	"spos/internal/report/page"
	"spos/latency"
)

// audited is a table with the predictions of the nets that it knows. Nets
// from which a block was left out are in no space and have none.
func audited(name string, t *latency.Table) auditedTable {
	a := auditedTable{name: t.Space.Name + " (" + name + ")"}
	lists := map[latency.Role]*[]auditedNet{latency.InSitu: &a.inSitu, latency.Correction: &a.made, latency.Holdout: &a.held}
	roles := map[latency.Role]int{}
	for _, m := range t.Measurements {
		roles[m.Role]++
		n, err := t.Space.Net(m.Arch)
		if err != nil {
			continue
		}
		p, err := t.Predict(n)
		if err != nil {
			continue
		}
		ms := latency.Milliseconds
		*lists[m.Role] = append(*lists[m.Role], auditedNet{
			string(m.Arch), ms(p.P50), ms(p.Low), ms(p.High), ms(m.P50), ms(m.Low), ms(m.High),
		})
	}
	audit := t.Audit()
	a.level, a.summary = judgeTable(t.Space.Name, audit)
	a.verdict = audit.Verdict
	a.facts = []page.Fact{{Name: "Made of", Value: fmt.Sprintf("%s and %s of one; %s held out",
		count(roles[latency.Correction], "whole net", "whole nets"), count(roles[latency.InSitu], "variant", "variants"), count(roles[latency.Holdout], "net", "nets"))}}
	for _, x := range []latency.Audit{audit, t.CrossValidation()} {
		fact := auditFact(x)
		if x.Nets > 0 && fact != a.facts[len(a.facts)-1] {
			a.facts = append(a.facts, fact)
		}
	}
	if audit.Nets > 0 {
		a.facts = append(a.facts, page.Fact{Name: "The ruler", Value: fmt.Sprintf(
			"two measurements of one net differ by %.2f %%; a perfect table would show a MAPE of %.2f %% and a tau of %.3f",
			100*audit.Ruler.Repeat, 100*audit.Ruler.MAPE, audit.Ruler.Tau)})
	}
	if len(t.Warnings) > 0 {
		a.facts = append(a.facts, page.Fact{Name: "Warnings", Value: shortenTo(strings.Join(t.Warnings, "; "), 1200)})
	}
	return a
}

// auditFact is an audit's numbers.
func auditFact(a latency.Audit) page.Fact {
	return page.Fact{Name: fmt.Sprintf("Audit, %s", count(a.Nets, a.Kind+" net", a.Kind+" nets")), Value: fmt.Sprintf(
		"MAPE %.2f %% (%.2f to %.2f), bias %+.2f %%, %.1f %% within ±5 %%, %.1f %% within ±10 %%, tau %.3f (%.3f to %.3f), %.1f %% inside their intervals, worst %s: %.3f ms for %.3f ms, %+.1f %%",
		100*a.MAPE, 100*a.MAPELow, 100*a.MAPEHigh, 100*a.Bias, 100*a.Within5, 100*a.Within10, a.Tau, a.TauLow, a.TauHigh, 100*a.Covered,
		a.Worst.Arch, a.Worst.Predicted, a.Worst.Measured, 100*a.Worst.Error)}
}

// judgeTable is the verdict on a table in a sentence.
func judgeTable(space string, a latency.Audit) (page.Level, string) {
	numbers := fmt.Sprintf("MAPE %.2f %%, %.1f %% of %s within ±5 %%, tau %.3f.", 100*a.MAPE, 100*a.Within5, count(a.Nets, a.Kind+" net", a.Kind+" nets"), a.Tau)
	switch {
	case a.Nets == 0:
		return page.Bad, fmt.Sprintf("The table of %s was not audited: do not use it.", space)
	case a.From >= a.To:
		return page.Bad, fmt.Sprintf("The table of %s is not to be used in place of measuring: %s", space, numbers)
	}
	level := page.Good
	if a.Within5 < 0.95 || a.Kind != "held-out" {
		level = page.Care
	}
	return level, fmt.Sprintf("The table of %s may be used for nets of %.3g to %.3g ms: %s", space, a.From, a.To, numbers)
}
