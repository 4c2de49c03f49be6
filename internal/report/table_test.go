package report_test

import (
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"spos/internal/report"
)

func TestTable(t *testing.T) {
	tb := report.NewTable("name", "top-1", "")
	tb.Right(1)
	tb.Row("évolution", "91.2", "")
	tb.Row("猫", "7", "x")
	want := "" +
		"name       top-1\n" +
		"─────────  ─────  ─\n" +
		"évolution   91.2\n" +
		"猫             7  x\n"
	if d := cmp.Diff(want, tb.String()); d != "" {
		t.Error(d)
	}
	var b strings.Builder
	if n, err := tb.WriteTo(&b); err != nil || int(n) != len(want) || b.String() != want {
		t.Errorf("WriteTo: %d, %v", n, err)
	}
}

func TestConfusionCounts(t *testing.T) {
	m := report.NewConfusion("", []string{"cat", "dog", "eel"})
	if !math.IsNaN(m.Top1()) {
		t.Errorf("accuracy of nothing is %v", m.Top1())
	}
	for _, p := range [][2]int{{0, 0}, {0, 0}, {0, 1}, {0, 1}, {1, 0}, {1, 1}, {1, 1}, {1, 1}} {
		m.Add(p[0], p[1])
	}
	if m.Total() != 8 || m.Top1() != 5.0/8 || m.At(0, 1) != 2 {
		t.Errorf("total %d, accuracy %v, cats called dogs %d", m.Total(), m.Top1(), m.At(0, 1))
	}
	want := []report.Pair{{"cat", "dog", 2, 0.5}, {"dog", "cat", 1, 0.25}}
	if d := cmp.Diff(want, m.Pairs(10)); d != "" {
		t.Errorf("pairs:\n%s", d)
	}
	if d := cmp.Diff(want[:1], m.Pairs(1)); d != "" {
		t.Errorf("first pair:\n%s", d)
	}
	wantText := "" +
		"class  images  recall  precision\n" +
		"─────  ──────  ──────  ─────────\n" +
		"cat         4  50.0 %     66.7 %\n" +
		"dog         4  75.0 %     60.0 %\n" +
		"eel         0       –          –\n"
	if d := cmp.Diff(wantText, m.PerClass().String()); d != "" {
		t.Errorf("table:\n%s", d)
	}
	if s := m.PairsTable(3).String(); !strings.Contains(s, "cat         dog             2        50.0 %") {
		t.Errorf("pairs as text:\n%s", s)
	}
}
