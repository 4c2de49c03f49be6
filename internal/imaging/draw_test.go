package imaging

import (
	"math"
	"math/rand/v2"
	"testing"
)

// What the golden files hold fixed is drawn from the published distributions.
func TestDraws(t *testing.T) {
	const draws = 6000
	r := rand.New(rand.NewPCG(20, 0))
	a := SPOSAugment()
	a.Lighting = 0.1
	orders := map[[3]changeKind]int{}
	var factors, light [3]moments
	flips := 0
	for range draws {
		v := a.draw(r, 500, 375, 224, 224)
		var order [3]changeKind
		for i, c := range v.jitter {
			order[i] = c.kind
			factors[c.kind-brightness].add(c.factor)
		}
		orders[order]++
		for i, c := range v.light {
			light[i].add(c)
		}
		if v.flip {
			flips++
		}
	}
	// Uniform in 0.6..1.4: mean 1, deviation 0.8/√12.
	for i, m := range factors {
		if m.lo < 0.6 || m.hi > 1.4 || m.lo > 0.61 || m.hi < 1.39 || !m.near(1, 0.8/math.Sqrt(12)) {
			t.Errorf("factor %d: %+v", i, m)
		}
	}
	for i, m := range light {
		if !m.near(0, 0.1) {
			t.Errorf("coefficient %d: %+v", i, m)
		}
	}
	// Counts of 1000 and 3000: five deviations are 144 and 194.
	if len(orders) != 6 {
		t.Errorf("%d orders, want 6", len(orders))
	}
	for order, n := range orders {
		if n < 856 || n > 1144 {
			t.Errorf("order %v drawn %d times of about 1000", order, n)
		}
	}
	if flips < 2806 || flips > 3194 {
		t.Errorf("%d flips of %d", flips, draws)
	}
}

type moments struct{ n, sum, squares, lo, hi float64 }

func (m *moments) add(v float64) {
	if m.n == 0 {
		m.lo, m.hi = v, v
	}
	m.n, m.sum, m.squares = m.n+1, m.sum+v, m.squares+v*v
	m.lo, m.hi = min(m.lo, v), max(m.hi, v)
}

// near asks for the mean within five of its deviations, and for the deviation
// within a twentieth.
func (m *moments) near(mean, deviation float64) bool {
	got := m.sum / m.n
	spread := math.Sqrt(m.squares/m.n - got*got)
	return math.Abs(got-mean) < 5*deviation/math.Sqrt(m.n) && math.Abs(spread/deviation-1) < 0.05
}

// A grey picture gets colours from lighting, a grey input does not.
func TestLightingOfGray(t *testing.T) {
	m := NewImage(4, 4, 1)
	for i := range m.Pix {
		m.Pix[i] = 100
	}
	a := Augment{Lighting: 0.1}
	v := variant{light: [3]float64{0, 1, 0}}
	for _, c := range []Color{RGB, BGR, Gray} {
		rec := Recipe{Color: c, Range: Bytes, Height: 4, Width: 4}
		dst := make([]float32, rec.Shape().Numel())
		a.render(v, m, rec, dst)
		// Green's part in the second component is next to nothing.
		want := map[Color][]float32{RGB: {103, 99, 96}, BGR: {96, 99, 103}, Gray: {100}}[c]
		for k, w := range want {
			if got := dst[16*k]; got != w {
				t.Errorf("%s, channel %d: %v, want %v", c, k, got, w)
			}
		}
	}
}
