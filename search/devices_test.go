package search_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"spos/internal/arch"
	"spos/search"
	"spos/search/searchtest"
)

// bench is a device that answers by effort and arch; asked lists, by effort,
// what it was asked.
type bench struct {
	answers []map[arch.Arch]search.Interval
	asked   [3][]arch.Arch
}

func (b *bench) measure(_ context.Context, nets []*arch.Net, effort int) ([]search.Interval, error) {
	var found []search.Interval
	for _, n := range nets {
		b.asked[effort] = append(b.asked[effort], n.Arch)
		found = append(found, b.answers[min(effort, len(b.answers)-1)][n.Arch])
	}
	return found, nil
}

func span(low, high float64) search.Interval {
	return search.Interval{P50: (low + high) / 2, Low: low, High: high}
}

// Four nets on two devices of limits 4 and 8: a clear one, one that the second
// device refuses at once, one that is open on the first alone and is settled
// there, one that stays open on the second.
func TestEachBelow(t *testing.T) {
	s := searchtest.Tiny()
	archs := searchtest.All(s)[:4]
	fits, slow, settles, open := archs[0], archs[1], archs[2], archs[3]
	type answers = map[arch.Arch]search.Interval
	fast := &bench{answers: []answers{
		{fits: span(2, 3), slow: span(3, 5), settles: span(3, 5), open: span(2, 3)},
		{settles: span(3.5, 3.9)},
	}}
	board := &bench{answers: []answers{
		{fits: span(5, 6), slow: span(8, 9), settles: span(5, 6), open: span(7, 9)},
		{open: span(7.5, 8.5)},
	}}
	below := func(b *bench, limit float64) search.Below {
		return search.Below{What: "latency", Unit: "ms", Limit: limit, Efforts: 2, Measure: b.measure}
	}
	each := search.EachBelow{{Device: "local", Below: below(fast, 4)}, {Device: "pi5", Below: below(board, 8)}}
	var nets []*arch.Net
	for _, a := range archs {
		n, err := s.Net(a)
		if err != nil {
			t.Fatal(err)
		}
		nets = append(nets, n)
	}
	verdicts, err := each.Check(t.Context(), nets)
	if err != nil {
		t.Fatal(err)
	}
	want := []search.Verdict{
		{Interval: span(2, 3), Devices: map[string]search.Interval{"local": span(2, 3), "pi5": span(5, 6)}, Met: true},
		{Interval: span(3, 5), Devices: map[string]search.Interval{"local": span(3, 5), "pi5": span(8, 9)}, Reason: "pi5: latency 8.5 (8–9) ms is not below 8"},
		{Interval: span(3.5, 3.9), Devices: map[string]search.Interval{"local": span(3.5, 3.9), "pi5": span(5, 6)}, Met: true},
		{Interval: span(2, 3), Devices: map[string]search.Interval{"local": span(2, 3), "pi5": span(7.5, 8.5)}, Reason: "pi5: latency 8 (7.5–8.5) ms is not surely below 8"},
	}
	if d := cmp.Diff(want, verdicts); d != "" {
		t.Errorf("verdicts (-want +got):\n%s", d)
	}
	// What another device has refused is not measured again for being open.
	if !slices.Equal(fast.asked[1], []arch.Arch{settles}) || !slices.Equal(board.asked[1], []arch.Arch{open}) {
		t.Errorf("asked again: %v and %v", fast.asked[1], board.asked[1])
	}
	if got, want := each.Name(), "latency on local < 4 ms and latency on pi5 < 8 ms"; got != want {
		t.Errorf("name %q, want %q", got, want)
	}
}

// Devices measure at the same time: each here waits for the other to have
// been asked.
func TestEachBelowMeasuresAtOnce(t *testing.T) {
	var both sync.WaitGroup
	both.Add(2)
	wait := func(_ context.Context, nets []*arch.Net, _ int) ([]search.Interval, error) {
		both.Done()
		both.Wait()
		return slices.Repeat([]search.Interval{span(1, 2)}, len(nets)), nil
	}
	s := searchtest.Tiny()
	n, err := s.Net(searchtest.All(s)[0])
	if err != nil {
		t.Fatal(err)
	}
	v, err := search.EachBelow{{Device: "a", Below: search.Below{Measure: wait}}, {Device: "b", Below: search.Below{Limit: 3, Measure: wait}}}.Check(t.Context(), []*arch.Net{n})
	if err != nil || !v[0].Met {
		t.Errorf("%+v, %v", v, err)
	}
}

// What one device fails at is said with its name, and ends what the others do.
func TestEachBelowFails(t *testing.T) {
	broken := errors.New("on fire")
	s := searchtest.Tiny()
	n, err := s.Net(searchtest.All(s)[0])
	if err != nil {
		t.Fatal(err)
	}
	_, err = search.EachBelow{
		{Device: "a", Below: search.Below{Measure: func(ctx context.Context, _ []*arch.Net, _ int) ([]search.Interval, error) {
			<-ctx.Done()
			return nil, context.Cause(ctx)
		}}},
		{Device: "pi5", Below: search.Below{Measure: func(context.Context, []*arch.Net, int) ([]search.Interval, error) { return nil, broken }}},
	}.Check(t.Context(), []*arch.Net{n})
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), "pi5") {
		t.Errorf("%v, want pi5 on fire", err)
	}
}
