package train

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"spos/internal/arch"
)

const testSeed = 11

// shipped reads a space itself: configs, which imports this package by way of
// internal/config, cannot be imported here.
func shipped(t *testing.T, name string) *arch.Space {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../configs/space", name+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var spec arch.Spec
	if err := yaml.UnmarshalWithOptions(text, &spec, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	s, err := arch.NewSpace(spec)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func officialSpace(t *testing.T) *arch.Space {
	t.Helper()
	return shipped(t, "shufflenetv2-spos")
}

// Each candidate of each block is drawn equally often, and a block's choice
// says nothing about the same block's choice one step later.
func TestUniform(t *testing.T) {
	space := officialSpace(t)
	const n = 20_000
	count := make([][4]int, space.Len())
	pair := make([][16]int, space.Len())
	var last []int
	for k := range int64(n) {
		a := space.Sample(source(testSeed, k+1))
		now := make([]int, space.Len())
		for i := range now {
			now[i], _ = a.Choice(i)
			count[i][now[i]]++
			if last != nil {
				pair[i][4*last[i]+now[i]]++
			}
		}
		last = now
	}
	for i := range count {
		// Quantiles 1 − 1e-5 of χ² with 3 and 15 degrees of freedom.
		if x := chi2(count[i][:], n/4.0); x > 25.9 {
			t.Errorf("block %d: χ² = %.1f for %v", i, x, count[i])
		}
		if x := chi2(pair[i][:], n/16.0); x > 50.5 {
			t.Errorf("block %d: χ² = %.1f for successive pairs %v", i, x, pair[i])
		}
	}
}

func chi2(count []int, want float64) (x float64) {
	for _, c := range count {
		x += (float64(c) - want) * (float64(c) - want) / want
	}
	return x
}

func TestPathDependsOnTheStepAlone(t *testing.T) {
	space := officialSpace(t)
	c, err := NewConstrained(space, testSeed, Sampling{})
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]PathSampler{"uniform": Uniform{space, testSeed}, "constrained": c} {
		seen := map[arch.Arch]bool{}
		for _, k := range []int64{5, 1, 5, 2, 1} {
			n, err := s.Path(k)
			if err != nil {
				t.Fatal(err)
			}
			seen[n.Arch] = true
		}
		if len(seen) != 3 {
			t.Errorf("%s: steps 5, 1, 5, 2, 1 drew %d different paths, want 3", name, len(seen))
		}
	}
}

// The expectations follow exactly from the distribution of FLOPs over the space.
func TestConstrainedStatistics(t *testing.T) {
	space := officialSpace(t)
	c, err := NewConstrained(space, testSeed, Sampling{Kind: "uniform-constrained"})
	if err != nil {
		t.Fatal(err)
	}
	const n = 21_000
	var count, tries, fallback [7]int
	for k := range int64(n) {
		a, bin, tried := c.draw(source(testSeed, k))
		count[bin]++
		if tried > 500 {
			fallback[bin]++
			tried = 500
		} else if f := c.flops(a); f < int64(290+10*bin)*1e6 || f > int64(300+10*bin)*1e6 {
			t.Fatalf("bin %d: %s has %d MACs", bin, a, f)
		}
		tries[bin] += tried
	}
	if x := chi2(count[:], n/7.0); x > 33.1 { // quantile 1 − 1e-5, 6 degrees of freedom
		t.Errorf("bins are not uniform: χ² = %.1f for %v", x, count)
	}
	for bin, want := range []float64{91.9, 15.5, 5.1, 3.1, 3.7, 8.7, 44.1} {
		got := float64(tries[bin]) / float64(count[bin])
		// A geometric law's deviation is about its mean; the published means
		// carry three digits.
		if tolerance := 4*want/math.Sqrt(float64(count[bin])) + 0.01*want; math.Abs(got-want) > tolerance {
			t.Errorf("bin %d: %.2f tries, want %.1f ± %.2f", bin, got, want, tolerance)
		}
		t.Logf("bin %d: %d draws, %.2f tries (published %.1f), %d fell back", bin, count[bin], got, want, fallback[bin])
	}
	// 0.42 % of the lowest bin: Poisson, mean 12.6 of 3,000.
	if got := float64(fallback[0]) / float64(count[0]); got < 0.001 || got > 0.0095 {
		t.Errorf("lowest bin fell back %.4f of the time, published 0.0042", got)
	}
	if rest := fallback[1] + fallback[2] + fallback[3] + fallback[4] + fallback[5] + fallback[6]; rest > 2 {
		t.Errorf("other bins fell back %d times, published probability ≤ 1e-5", rest)
	}
}

func TestConstrainedCountsAsNetsDo(t *testing.T) {
	space := officialSpace(t)
	for _, counter := range []arch.Counter{arch.MACs, arch.MMCV, arch.Thop} {
		c, err := NewConstrained(space, testSeed, Sampling{Counter: counter})
		if err != nil {
			t.Fatal(err)
		}
		for k := range int64(50) {
			a := space.Sample(source(testSeed, k))
			n, err := space.Net(a)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := c.flops(a), n.Cost().FLOPs.Of(counter); got != want {
				t.Errorf("%s of %s: %d, want %d", counter, a, got, want)
			}
		}
	}
}

func TestSampling(t *testing.T) {
	space := shipped(t, "shufflenetv2-small")
	if s, err := (Sampling{}).Sampler(space, 1); err != nil || s != (Uniform{space, 1}) {
		t.Errorf("default sampler: %v, %v", s, err)
	}
	if _, err := (Sampling{Kind: "uniform-constrained"}).Sampler(space, 1); err == nil || !strings.Contains(err.Error(), "its FLOPs are") {
		t.Errorf("bins outside the space: %v", err)
	}
	for want, s := range map[string]Sampling{
		"kind":    {Kind: "fair"},
		"counter": {Counter: "flops"},
		"negativ": {Tries: -1},
	} {
		if err := s.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", s, err)
		}
	}
}
