package search_test

import (
	"context"
	"slices"
	"testing"

	"spos/internal/arch"
	"spos/search"
	"spos/search/searchtest"
)

// Of four nets one is predicted above the limit and is not measured; one that
// is predicted below it, one that straddles it and one that nothing is known
// of are, and the measurement decides.
func TestForeseen(t *testing.T) {
	s := searchtest.Tiny()
	archs := searchtest.All(s)[:4]
	var nets []*arch.Net
	for _, a := range archs {
		n, err := s.Net(a)
		if err != nil {
			t.Fatal(err)
		}
		nets = append(nets, n)
	}
	predicted := map[arch.Arch]search.Interval{archs[0]: span(4, 5), archs[1]: span(1, 2), archs[2]: span(3, 5)}
	measured := map[arch.Arch]search.Interval{archs[1]: span(5, 6), archs[2]: span(2, 3), archs[3]: span(2, 3)}
	var asked []arch.Arch
	below := search.Below{What: "latency", Unit: "ms", Limit: 4, Measure: func(_ context.Context, nets []*arch.Net, _ int) ([]search.Interval, error) {
		var found []search.Interval
		for _, n := range nets {
			asked = append(asked, n.Arch)
			found = append(found, measured[n.Arch])
		}
		return found, nil
	}}
	c := search.Foreseen{Below: below, Then: below, Predict: func(n *arch.Net) (search.Interval, bool) {
		i, ok := predicted[n.Arch]
		return i, ok
	}}
	v, err := c.Check(t.Context(), nets)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(asked, archs[1:]) {
		t.Errorf("measured %v, want all but %s", asked, archs[0])
	}
	if v[0].Met || v[0].Reason != "latency predicted 4.5 (4–5) ms is not below 4" || v[0].Interval != span(4, 5) {
		t.Errorf("the predicted one: %+v", v[0])
	}
	if v[1].Met || !v[2].Met || !v[3].Met {
		t.Errorf("the measured ones: %+v", v[1:])
	}
}
