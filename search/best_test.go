package search_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"spos/internal/arch"
	"spos/internal/archfile"
	"spos/search"
)

func TestBestOfATrial(t *testing.T) {
	s := officialSpace(t)
	got, err := search.NewBest(s, search.Trial{
		ID: 812, Generation: 16, Origin: search.Crossover, Parents: []arch.Arch{"21012020202300003233", "21012020202300003230"},
		Arch: "21012020202300003233", Latency: search.Interval{P50: 4.1, Low: 4.05, High: 4.2},
		Feasible: true, Accuracy: 0.7123, Values: map[string]float64{"top5": 0.9}, Config: "0123456789abcdef",
	})
	if err != nil {
		t.Fatal(err)
	}
	want, err := archfile.New(s, "21012020202300003233")
	if err != nil {
		t.Fatal(err)
	}
	want.Accuracy, want.Values, want.Latency = 0.7123, map[string]float64{"top5": 0.9}, &archfile.Interval{P50: 4.1, Low: 4.05, High: 4.2}
	want.Lineage = &archfile.Lineage{
		Config: "0123456789abcdef", Trial: 812, Generation: 16, Origin: "crossover",
		Parents: []arch.Arch{"21012020202300003233", "21012020202300003230"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("a trial is spelled otherwise (-want +got):\n%s", d)
	}
	if got, err := search.NewBest(s, search.Trial{Arch: "21012020202300003233"}); err != nil || got.Latency != nil {
		t.Errorf("a trial that nobody measured has a latency of %v, %v", got.Latency, err)
	}
}
