package report_test

import (
	"fmt"

	"spos/internal/report"
)

func ExampleConfusion() {
	m := report.NewConfusion("three animals", []string{"cat", "dog", "eel"})
	for _, seen := range [][2]int{{0, 0}, {0, 1}, {1, 1}, {1, 1}, {2, 2}, {2, 0}} {
		m.Add(seen[0], seen[1])
	}
	fmt.Printf("top-1 %.3f\n%v", m.Top1(), m.PairsTable(2))
	// Output:
	// top-1 0.667
	// true class  taken for  images  of the class
	// ──────────  ─────────  ──────  ────────────
	// cat         dog             1        50.0 %
	// eel         cat             1        50.0 %
}
