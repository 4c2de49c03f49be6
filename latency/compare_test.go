package latency_test

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"spos/latency"
)

// TestCompare: a machine whose speed wanders from one round to the next, and a
// little from one session to the next.
func TestCompare(t *testing.T) {
	for name, c := range map[string]struct {
		a, b    string // µs
		verdict latency.Faster
		words   string
		most    int // rounds
	}{
		"a":         {"900", "1000", latency.AFaster, "net900 is faster: it takes 0.", 6},
		"b":         {"1000", "900", latency.BFaster, "net900 is faster: it takes 0.", 6},
		"close":     {"980", "1000", latency.AFaster, "net980 is faster", 30},
		"alike":     {"1000", "1000.1", latency.Alike, "are as fast within 1 %", 40},
		"undecided": {"1000", "990", latency.Unknown, "undecided: net990 takes 0.9", 3},
	} {
		t.Run(name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(7, 1))
			wander := 0.0
			f := &fake{speed: func(call int) float64 {
				if call%2 == 0 {
					wander = 0.2 * rng.NormFloat64()
				}
				return math.Exp(wander + 0.006*rng.NormFloat64())
			}}
			p, m := latency.Screening(), models(c.a, c.b)
			got, err := latency.Compare(t.Context(), f, m[0], m[1], p, c.most, nil)
			if err != nil {
				t.Fatal(err)
			}
			var said bytes.Buffer
			if err := got.Write(&said); err != nil {
				t.Fatal(err)
			}
			if got.Verdict != c.verdict || !strings.Contains(said.String(), c.words) {
				t.Errorf("%v after %d rounds, ratio %.4f (%.4f – %.4f), confidence %.4f, want %v and %q in\n%s",
					got.Verdict, got.Rounds(), got.Ratio, got.Low, got.High, got.Confidence, c.verdict, c.words, &said)
			}
			if !(got.Low <= got.Ratio && got.Ratio <= got.High) || !got.Paired || len(f.calls) != 2*got.Rounds() {
				t.Errorf("%+v in %d sessions", got, len(f.calls))
			}
			if f.calls[0] != c.a || f.calls[3] != c.a {
				t.Errorf("order %v, want b first in the second round", f.calls[:4])
			}
		})
	}
}

func TestCompareResults(t *testing.T) {
	measure := func(f *fake, us string) latency.Result {
		r, err := latency.Measure(t.Context(), f, models(us)[0], latency.Confirmation())
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	a, b := measure(&fake{}, "800"), measure(&fake{}, "1000")
	c, err := latency.CompareResults(a, b)
	if err != nil || c.Verdict != latency.AFaster || c.Paired || math.Abs(c.Ratio-0.8) > 1e-9 || c.Confidence < 0.999 {
		t.Errorf("%+v, %v, want A at 0.8", c, err)
	}
	back, err := latency.CompareResults(b, a)
	if err != nil || back.Verdict != latency.BFaster || back.Confidence > 0.001 {
		t.Errorf("the other way: %+v, %v", back, err)
	}
	if _, err := latency.CompareResults(a, measure(&fake{host: latency.Host{CPU: "other"}}, "900")); !errors.Is(err, latency.ErrIncomparable) {
		t.Errorf("another machine: %v, want ErrIncomparable", err)
	}
	damaged := a
	damaged.Samples = slices.Clone(a.Samples)
	damaged.Samples[1].Runs = nil
	for _, two := range [][2]latency.Result{{damaged, b}, {b, damaged}} {
		if _, err := latency.CompareResults(two[0], two[1]); err == nil || !strings.Contains(err.Error(), "net800: a session without runs") {
			t.Errorf("a session without runs: %v", err)
		}
	}
	b.Samples = nil
	if _, err := latency.CompareResults(a, b); err == nil || !strings.Contains(err.Error(), "--samples") {
		t.Errorf("without samples: %v, want the way out", err)
	}
}
