package search_test

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"spos/configs"
	"spos/internal/arch"
	"spos/search"
	"spos/search/searchtest"
)

func officialSpace(t *testing.T) *arch.Space {
	t.Helper()
	s, err := configs.Space("shufflenetv2-spos")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Both ends as convolving the block tables gives them.
func TestRangeOfTheOfficialSpace(t *testing.T) {
	s := officialSpace(t)
	lo, hi := search.Range(s, arch.MACs)
	if lo != 270_359_360 || hi != 398_609_216 {
		t.Errorf("MACs range %d–%d, want 270359360–398609216", lo, hi)
	}
	net, err := s.Net(search.Cheapest(s, arch.MACs))
	if err != nil {
		t.Fatal(err)
	}
	if got := net.Cost().MACs; got != lo {
		t.Errorf("cheapest net %s has %d MACs, the range begins at %d", net.Arch, got, lo)
	}
}

func TestRangeAgreesWithBruteForce(t *testing.T) {
	s := searchtest.Tiny()
	for _, c := range []arch.Counter{arch.MACs, arch.MMCV, arch.Thop} {
		lo, hi := int64(math.MaxInt64), int64(0)
		for _, a := range searchtest.All(s) {
			n, err := s.Net(a)
			if err != nil {
				t.Fatal(err)
			}
			v := n.Cost().FLOPs.Of(c)
			lo, hi = min(lo, v), max(hi, v)
		}
		if gotLo, gotHi := search.Range(s, c); gotLo != lo || gotHi != hi {
			t.Errorf("%s: range %d–%d, brute force %d–%d", c, gotLo, gotHi, lo, hi)
		}
	}
}

func TestFeasible(t *testing.T) {
	s := officialSpace(t)
	cases := map[string]struct {
		limits search.Limits
		bad    bool
		text   []string // in the error, or else in the table
	}{
		"official":   {limits: search.Limits{FLOPs: search.Bound{Max: 330e6}}, text: []string{"macs", "≤ 330M", "params"}},
		"none":       {text: []string{"any", "100% of 2000"}},
		"activation": {limits: search.Limits{Activations: search.Bound{Max: 8 << 20}}, text: []string{"activation_bytes", "(sampled)"}},
		"too low":    {limits: search.Limits{FLOPs: search.Bound{Max: 200e6}}, bad: true, text: []string{"macs ≤ 200M", "shufflenetv2-spos has 270.4M–398.6M", "0% of 2000"}},
		"too high":   {limits: search.Limits{Params: search.Bound{Min: 9e6}}, bad: true, text: []string{"params ≥ 9M", "0%"}},
		"contradict": {limits: search.Limits{FLOPs: search.Bound{Max: 280e6}, Params: search.Bound{Min: 3_800_000}}, bad: true, text: []string{"macs ≤ 280M", "params ≥ 3.8M", "pass"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			sv, err := search.Feasible(t.Context(), s, c.limits, searchtest.Rand(1), 2000)
			if errors.Is(err, search.ErrUnsatisfiable) != c.bad {
				t.Fatalf("error %v", err)
			}
			text := sv.String()
			if c.bad {
				text = err.Error()
			}
			for _, want := range c.text {
				if !strings.Contains(text, want) {
					t.Errorf("%q is not in:\n%s", want, text)
				}
			}
		})
	}
}

// The share of uniform samples within the official limit is 0.5891, by
// convolution of the block tables; ten thousand samples know it to 0.005.
func TestFeasibleShare(t *testing.T) {
	sv, err := search.Feasible(t.Context(), officialSpace(t), search.Limits{FLOPs: search.Bound{Max: 330e6}}, searchtest.Rand(1), 0)
	if err != nil {
		t.Fatal(err)
	}
	if math.Abs(sv.Share()-0.5891) > 0.015 {
		t.Errorf("share within 330M MACs is %v, want 0.5891 ± 0.015\n%v", sv.Share(), sv)
	}
}

func TestBadLimits(t *testing.T) {
	for name, l := range map[string]search.Limits{
		"backwards": {FLOPs: search.Bound{Min: 2, Max: 1}},
		"negative":  {Params: search.Bound{Max: -1}},
		"counter":   {Counter: "flop"},
	} {
		if err := l.Validate(); err == nil {
			t.Errorf("%s: %+v validates", name, l)
		}
	}
}

func TestMeasuredRange(t *testing.T) {
	s := searchtest.Macro()
	m, err := search.MeasureSome(t.Context(), s, search.Limits{}, searchtest.Rand(1), 40, searchtest.SlowMACs(0).Measure)
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Values) != 40 || len(m.Archs) != 40 {
		t.Fatalf("%d values of %d archs", len(m.Values), len(m.Archs))
	}
	median := m.Quantile(0.5)
	below := 0
	for _, v := range m.Values {
		if v.P50 < median {
			below++
		}
	}
	if below != 20 {
		t.Errorf("%d of 40 lie below the median", below)
	}
	if err := m.Satisfiable("latency", median, "ms"); err != nil {
		t.Error(err)
	}
	if err := m.Satisfiable("latency", m.Cheapest.High*1.01, "ms"); err != nil {
		t.Errorf("a limit that the cheapest net meets: %v", err)
	}
	err = m.Satisfiable("latency", 5, "ms")
	if !errors.Is(err, search.ErrUnsatisfiable) || !strings.Contains(err.Error(), "latency < 5 ms") || !strings.Contains(err.Error(), "range from") {
		t.Errorf("a limit below all: %v", err)
	}
	broken := func(context.Context, []*arch.Net, int) ([]search.Interval, error) {
		return nil, errors.New("no runtime")
	}
	if _, err := search.MeasureSome(t.Context(), s, search.Limits{}, searchtest.Rand(1), 2, broken); err == nil {
		t.Error("a failed measurement passes")
	}
}

func TestQuantile(t *testing.T) {
	v := []float64{4, 1, 3, 2}
	for q, want := range map[float64]float64{0: 1, 1: 4, 0.5: 2.5, 0.25: 1.75} {
		if got := search.Quantile(q, v); got != want {
			t.Errorf("Quantile(%v) = %v, want %v", q, got, want)
		}
	}
	if !slices.Equal(v, []float64{4, 1, 3, 2}) {
		t.Error("Quantile sorted its argument")
	}
	if got := search.Quantile(0.5, []float64{7}); got != 7 {
		t.Errorf("quantile of one value is %v", got)
	}
	if !math.IsNaN(search.Quantile(0.5, nil)) {
		t.Error("quantile of nothing is a number")
	}
}
