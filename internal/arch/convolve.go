package arch

import (
	"cmp"
	"slices"
)

// Bounds on the convolution: two grids of this many cells take a quarter of a
// gigabyte, and this many additions two seconds.
const (
	maxCells = 1 << 24
	maxWork  = 1 << 31
)

// grid is a distribution on the values lo, lo+step, lo+2·step, ….
type grid struct {
	lo, step int64
	p        []float64
}

// jump is one block's contribution above its least one.
type jump struct {
	by     int64
	chance float64
}

// jumps is the block's distinct contributions, ascending from zero, and the
// greatest step that leads to all of them.
func jumps(costs []int64) (js []jump, lo, step int64) {
	costs = slices.Sorted(slices.Values(costs))
	lo = costs[0]
	for _, v := range costs {
		if n := len(js); n == 0 || js[n-1].by != v-lo {
			js = append(js, jump{by: v - lo})
		}
		js[len(js)-1].chance += 1 / float64(len(costs))
		step = gcd(step, v-lo)
	}
	return js, lo, step
}

func gcd(a, b int64) int64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// convolve returns every value that the sum of the terms can take, ascending,
// with the probability of at most that value; or false where they are too
// many. Blocks whose contributions lie on a coarse grid come first and the
// grid is refined when it must be, so that most of them meet few cells.
func (t terms) convolve() (values []int64, upTo []float64, ok bool) {
	type part struct {
		jumps []jump
		step  int64
	}
	g := grid{lo: t.fixed, p: []float64{1}}
	var parts []part
	for _, b := range t.blocks {
		js, lo, step := jumps(b)
		g.lo += lo
		if len(js) > 1 {
			parts = append(parts, part{js, step})
		}
	}
	slices.SortFunc(parts, func(a, b part) int { return cmp.Compare(b.step, a.step) })
	work := int64(0)
	for _, p := range parts {
		span := int64(len(g.p)-1)*g.step + p.jumps[len(p.jumps)-1].by
		step := gcd(g.step, p.step)
		cells := span/step + 1
		work += min(cells, maxCells) * int64(len(p.jumps))
		if cells > maxCells || work > maxWork {
			return nil, nil, false
		}
		g = g.add(p.jumps, step, int(cells))
	}
	values, upTo = g.support()
	return values, upTo, true
}

// support is the values that occur and the probability of at most each.
func (g grid) support() (values []int64, upTo []float64) {
	n := 0
	for _, p := range g.p {
		if p > 0 {
			n++
		}
	}
	values, upTo = make([]int64, 0, n), make([]float64, 0, n)
	sum := 0.0
	for i, p := range g.p {
		if p > 0 {
			sum += p
			values, upTo = append(values, g.lo+int64(i)*g.step), append(upTo, sum)
		}
	}
	return values, upTo
}

// add is the distribution of the sum with one more block, on a grid of that
// step and as many cells. It fills one piece after another that stays in the
// cache, for all jumps read nearly the same cells.
func (g grid) add(js []jump, step int64, cells int) grid {
	from := g.refine(step)
	to := grid{lo: g.lo, step: step, p: make([]float64, cells)}
	const piece = 1 << 11
	for at := 0; at < cells; at += piece {
		end := min(at+piece, cells)
		for _, j := range js {
			by := int(j.by / step)
			first, last := max(at, by), min(end, by+len(from))
			if first >= last {
				continue
			}
			src := from[first-by : last-by]
			dst := to.p[first:last]
			for i, p := range src {
				dst[i] += j.chance * p
			}
		}
	}
	return to
}

// refine is the same cells on a finer grid.
func (g grid) refine(step int64) []float64 {
	if step == g.step || len(g.p) == 1 {
		return g.p
	}
	by := int(g.step / step)
	fine := make([]float64, (len(g.p)-1)*by+1)
	for i, p := range g.p {
		fine[i*by] = p
	}
	return fine
}
