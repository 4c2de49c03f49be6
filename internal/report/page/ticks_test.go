package page

import (
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
)

// TestTicks: there are some, inside the range, evenly apart and written with
// equal decimals that tell them apart.
func TestTicks(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for range 2000 {
		lo := rng.NormFloat64() * math.Pow(10, float64(rng.IntN(8)-4))
		hi := lo + math.Abs(lo)*math.Pow(10, 3*rng.Float64()-3) + 1e-6
		at, labels := ticks(lo, hi, 5)
		if len(at) < 2 || len(at) > 8 {
			t.Fatalf("%v to %v: %d ticks", lo, hi, len(at))
		}
		for i, v := range at {
			if v < lo-1e-9*math.Abs(lo)-1e-12 || v > hi+1e-9*math.Abs(hi)+1e-12 {
				t.Fatalf("%v to %v: a tick at %v", lo, hi, v)
			}
			if i > 0 && (labels[i] == labels[i-1] || decimalsOf(labels[i]) != decimalsOf(labels[0])) {
				t.Fatalf("%v to %v: labels %q", lo, hi, labels)
			}
			if said, _ := strconv.ParseFloat(labels[i], 64); math.Abs(said-v) > 1e-6*(hi-lo) {
				t.Fatalf("%v to %v: %v is called %s", lo, hi, v, labels[i])
			}
		}
	}
}

func decimalsOf(s string) int {
	_, after, _ := strings.Cut(s, ".")
	return len(after)
}
