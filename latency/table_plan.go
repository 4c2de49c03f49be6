package latency

import (
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"spos/internal/arch"
)

// slot is the places of one geometry: blocks with the same candidates at the
// same shapes.
type slot struct {
	blocks []int
	parts  []*part   // by candidate; nil where it does nothing
	macs   []float64 // by candidate
	keeps  bool      // the shape, so that a block may be left out
}

func slotsOf(s *arch.Space) ([]slot, error) {
	var slots []slot
	at := map[string]int{}
	for b := range s.Len() {
		sl := slot{blocks: []int{b}}
		var key strings.Builder
		for c := range s.Candidates(b) {
			p, n, err := blockOf(s, b, c)
			if err != nil {
				return nil, err
			}
			var found *part
			if n != nil {
				found = &p
				key.WriteString(p.signature)
				sl.keeps = n.Ops[p.first].In == lastOf(n, p).Out
			}
			key.WriteByte('/')
			sl.parts = append(sl.parts, found)
			sl.macs = append(sl.macs, float64(s.BlockCost(b, c).MACs))
		}
		if i, ok := at[key.String()]; ok {
			slots[i].blocks = append(slots[i].blocks, b)
			continue
		}
		at[key.String()] = len(slots)
		slots = append(slots, sl)
	}
	return slots, nil
}

// middle is the candidate of the middle arithmetic.
func (s slot) middle() int {
	order := make([]int, len(s.macs))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case s.macs[a] < s.macs[b]:
			return -1
		case s.macs[a] > s.macs[b]:
			return 1
		}
		return 0
	})
	return order[len(order)/2]
}

// inSitu are the nets whose differences tell what a candidate costs where it
// stands: a base net of middling candidates, first; the base with each other
// candidate at all places of one geometry at once, which makes the difference
// as large as it gets beside the noise; the base with half the places of a
// geometry left out, where no candidate does nothing; and the cheapest and the
// dearest net, at whose ends sums go wrong first.
func inSitu(s *arch.Space) ([]arch.Arch, error) {
	slots, err := slotsOf(s)
	if err != nil {
		return nil, err
	}
	choices, low, high := make([]int, s.Len()), make([]int, s.Len()), make([]int, s.Len())
	for _, sl := range slots {
		for _, b := range sl.blocks {
			choices[b] = sl.middle()
			low[b], high[b] = slices.Index(sl.macs, slices.Min(sl.macs)), slices.Index(sl.macs, slices.Max(sl.macs))
		}
	}
	base := arch.Make(choices)
	list := []arch.Arch{s.Canonical(base)}
	add := func(a arch.Arch) {
		if !slices.Contains(list, a) {
			list = append(list, a)
		}
	}
	for _, sl := range slots {
		for c := range sl.parts {
			swapped := slices.Clone(choices)
			for _, b := range sl.blocks {
				swapped[b] = c
			}
			add(s.Canonical(arch.Make(swapped)))
		}
		if sl.keeps && !slices.Contains(sl.parts, nil) {
			shorter := []byte(base)
			for _, b := range sl.blocks[len(sl.blocks)/2:] {
				shorter[b] = gone
			}
			add(arch.Arch(shorter))
		}
	}
	add(s.Canonical(arch.Make(low)))
	add(s.Canonical(arch.Make(high)))
	return list, nil
}

// holds reports on which side of the table a net is: the audit's nets and the
// fit's can both grow and never meet.
func holds(a arch.Arch, seed uint64) bool {
	h := fnv.New64a()
	_, _ = h.Write([]byte(a)) // never fails
	rng := rand.NewPCG(seed, h.Sum64())
	return rng.Uint64()&1 == 1
}

// draws bounds how often a net is drawn for one that is new: a small space
// runs out of them.
const draws = 4000

// heldOut draws n nets from the whole range of the space, none of them among taken; fewer where the
// space has no more. More of one seed begin with fewer.
func heldOut(s *arch.Space, seed uint64, n int, taken []arch.Arch) []arch.Arch {
	return draw(s, rand.New(rand.NewPCG(seed, 1)), n, func(a arch.Arch) bool { return holds(a, seed) && !slices.Contains(taken, a) })
}

// tilted draws a net that leans towards cheap or dear candidates, each net by
// an inclination of its own: uniform nets of many blocks all cost about the
// same, and a search goes to where they do not.
func tilted(s *arch.Space, rng *rand.Rand) arch.Arch {
	const steepest = 3 // e⁶ between the cheapest and the dearest candidate of a block
	lean := steepest * (2*rng.Float64() - 1)
	choices := make([]int, s.Len())
	for b := range choices {
		macs := make([]int64, len(s.Candidates(b)))
		for c := range macs {
			macs[c] = s.BlockCost(b, c).MACs
		}
		low, high := slices.Min(macs), slices.Max(macs)
		weights, sum := make([]float64, len(macs)), 0.0
		for c, m := range macs {
			weights[c] = math.Exp(lean * (2*float64(m-low)/float64(max(1, high-low)) - 1))
			sum += weights[c]
		}
		at := sum * rng.Float64()
		for c, w := range weights {
			if at -= w; at < 0 || c == len(weights)-1 {
				choices[b] = c
				break
			}
		}
	}
	return arch.Make(choices)
}

func draw(s *arch.Space, rng *rand.Rand, n int, good func(arch.Arch) bool) []arch.Arch {
	var list []arch.Arch
	seen := map[arch.Arch]bool{}
	for tries := 0; len(list) < n && tries < draws; tries++ {
		if a := s.Canonical(tilted(s, rng)); !seen[a] && good(a) {
			seen[a] = true
			list, tries = append(list, a), 0
		}
	}
	return list
}

// corrections chooses n nets for the fit, beside those in situ: each is, of a
// few that were drawn from one quarter of the space's range of arithmetic, the
// quarters in turn, the one of which the nets before it tell least (greedy
// D-optimal design). More of one seed begin with fewer.
func corrections(s *arch.Space, seed uint64, n int, before []arch.Arch) ([]arch.Arch, error) {
	const pool, quarters = 24, 4
	rng := rand.New(rand.NewPCG(seed, 2))
	d := &design{space: s, v: newVocabulary()}
	for _, a := range before {
		if err := d.add(a); err != nil {
			return nil, err
		}
	}
	chosen := slices.Clone(before)
	for i := range n {
		drawn := draw(s, rng, pool, func(a arch.Arch) bool { return !holds(a, seed) && !slices.Contains(chosen, a) })
		if len(drawn) == 0 {
			break
		}
		macs := map[arch.Arch]int64{}
		for _, a := range drawn {
			net, err := s.Net(a)
			if err != nil {
				return nil, err
			}
			macs[a] = net.Cost().MACs
		}
		slices.SortStableFunc(drawn, func(a, b arch.Arch) int { return int(macs[a] - macs[b]) })
		q := i % quarters
		from, to := q*len(drawn)/quarters, (q+1)*len(drawn)/quarters
		if from == to {
			from, to = 0, len(drawn)
		}
		a, err := d.widest(drawn[from:to])
		if err != nil {
			return nil, err
		}
		if err := d.add(a); err != nil {
			return nil, err
		}
		chosen = append(chosen, a)
	}
	return chosen[len(before):], nil
}

// design knows how uncertain nets are before any is measured: the posterior's
// variance does not depend on what is measured.
type design struct {
	space *arch.Space
	v     *vocabulary
	rows  []row
}

func (d *design) row(a arch.Arch) (row, error) {
	n, err := netOf(d.space, a)
	if err != nil {
		return row{}, err
	}
	x, _, err := d.v.features(n, true)
	r := row{x: x, noise: DefaultSpread}
	for _, f := range x { // a net takes as long as its arithmetic's share
		if t := d.v.terms[f.term]; t.kind == fixedTerm || t.kind == blockTerm {
			r.y += f.count * t.scale
		}
	}
	return r, err
}

func (d *design) add(a arch.Arch) error {
	r, err := d.row(a)
	d.rows = append(d.rows, r)
	return err
}

// widest is the net of the greatest relative variance.
func (d *design) widest(nets []arch.Arch) (arch.Arch, error) {
	rows := make([]row, len(nets))
	for i, a := range nets { // before the regression, which needs all terms
		var err error
		if rows[i], err = d.row(a); err != nil {
			return "", err
		}
	}
	r := newRegression(d.v, d.rows)
	if err := r.solve(&Fit{Block: 1, Place: 0.1, Pair: 0.05, Model: 0.015, Stretch: 1}); err != nil {
		return "", err
	}
	best, found := -1.0, nets[0]
	for i, row := range rows {
		if _, v := r.posterior(row.x, [termKinds]float64{}); v/(row.y*row.y) > best {
			best, found = v/(row.y*row.y), nets[i]
		}
	}
	return found, nil
}
