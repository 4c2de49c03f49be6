package latency

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"spos/internal/arch"
)

// Campaign measures the nets that a table is made of. The nets follow from the
// space and the seed; what was measured is in the cache, so that a campaign
// which was killed goes on and comes to the same table, and one that is given
// more nets or sessions measures only those.
type Campaign struct {
	Space    *arch.Space
	Seed     uint64
	Device   Device
	Protocol Protocol // its Sessions are those of one net
	Cache    *Cache
	// Model is a net as it is to be measured. It is called for a few nets at a
	// time: models are large.
	Model   func(*arch.Net) (Model, error)
	Nets    int           // corrections, besides the nets in situ
	Holdout int           // nets of the audit
	Budget  time.Duration // no session is begun after so long; 0 means no bound
	Known   *Table        // of an earlier campaign; its measurements count, nil: none
	Log     *slog.Logger
	// Progress is told of every session, one at a time: done of total; nil means
	// that nobody asks.
	Progress func(done, total int)
}

func (t *Table) count(r Role) int {
	n := 0
	for _, m := range t.Measurements {
		if m.Role == r {
			n++
		}
	}
	return n
}

// chunk is how many models are in memory at a time, and nets between two looks
// at the sentinel.
const chunk = 16

// errBudget ends a campaign whose time is up.
var errBudget = errors.New("latency table: the time is up")

// Plan lists the nets with their roles, in the order of the table; those of
// Known stay in it.
func (c *Campaign) Plan() ([]Measurement, error) {
	nets, holdout := c.Nets, c.Holdout
	if c.Known != nil {
		nets, holdout = max(nets, c.Known.count(Correction)), max(holdout, c.Known.count(Holdout))
	}
	situ, err := inSitu(c.Space)
	if err != nil {
		return nil, err
	}
	more, err := corrections(c.Space, c.Seed, nets, situ)
	if err != nil {
		return nil, err
	}
	if n := len(situ) + len(more); n > maxFitted {
		return nil, fmt.Errorf("latency table: %d nets in situ and %d whole ones are more than a fit takes (%d): the space has too many candidates for a table, measure its nets", len(situ), len(more), maxFitted)
	}
	var plan []Measurement
	add := func(role Role, nets []arch.Arch) {
		for _, a := range nets {
			plan = append(plan, Measurement{Arch: a, Role: role})
		}
	}
	add(InSitu, situ)
	add(Correction, more)
	add(Holdout, heldOut(c.Space, c.Seed, holdout, situ))
	return plan, nil
}

// Run measures and fits. All nets are measured in rounds, one session of each
// in an order of the round's own, so that drift of the machine hits them alike,
// those of the audit among the others: what an audit tells is how far the
// table's sums are from nets, and not how far a machine is from itself at
// another time, which no campaign knows.
func (c *Campaign) Run(ctx context.Context) (*Table, error) {
	if err := c.Protocol.Validate(); err != nil {
		return nil, err
	}
	fp, err := c.Device.Fingerprint(ctx, nil, c.Protocol)
	if err != nil {
		return nil, err
	}
	fp.Model = ModelID{}
	w := &collection{Campaign: c, results: map[arch.Arch]Measurement{}, raw: map[arch.Arch]Result{}, warnings: map[arch.Arch][]string{}}
	if err := w.recall(fp); err != nil {
		return nil, err
	}
	plan, err := c.Plan()
	if err != nil {
		return nil, err
	}
	if c.Budget > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeoutCause(ctx, c.Budget, errBudget)
		defer stop()
	}
	if err := w.measure(ctx, plan); err != nil && !errors.Is(err, errBudget) {
		return nil, err
	}
	t := &Table{Space: c.Space, Seed: c.Seed, Fingerprint: fp, Protocol: c.Protocol, Warnings: w.complaints(plan)}
	for _, m := range plan {
		if r, ok := w.results[m.Arch]; ok {
			r.Arch, r.Role = m.Arch, m.Role
			t.Measurements = append(t.Measurements, r)
		} else if m.Role == InSitu {
			return nil, fmt.Errorf("net %s, which every table needs, is not measured yet: run it again to go on: %w", m.Arch, errBudget)
		}
	}
	return t, t.build(nil)
}

// collection is a campaign under way.
type collection struct {
	*Campaign
	meter    Meter
	results  map[arch.Arch]Measurement
	raw      map[arch.Arch]Result // what this campaign measured
	warnings map[arch.Arch][]string
	total    int
	mu       sync.Mutex // of done: a device may time several at once
	done     int
}

// recall takes over what an earlier table knows.
func (w *collection) recall(fp Fingerprint) error {
	if w.Known == nil {
		return nil
	}
	if err := w.Known.For(fp); err != nil {
		return fmt.Errorf("it cannot be added to: %w", err)
	}
	mine, err := digestSpace(w.Space.Spec())
	if err != nil {
		return err
	}
	if theirs, err := digestSpace(w.Known.Space.Spec()); err != nil || mine != theirs {
		return errors.Join(err, fmt.Errorf("the table is of another space %s", w.Known.Space.Name))
	}
	if w.Known.Seed != w.Seed {
		return fmt.Errorf("the table's seed is %d, not %d", w.Known.Seed, w.Seed)
	}
	for _, m := range w.Known.Measurements {
		w.results[m.Arch] = m
	}
	return nil
}

func (w *collection) measure(ctx context.Context, plan []Measurement) error {
	base, err := w.model(plan[0].Arch)
	if err != nil {
		return err
	}
	w.meter = Meter{Runner: w, Protocol: w.Protocol, Cache: w.Cache, Log: w.Log, Sentinel: &Sentinel{
		Model: base, Every: chunk, Drift: 0.05, Pause: time.Second, Retries: 2,
	}}
	if r, _, err := w.meter.find(ctx, base); err != nil {
		return err
	} else if r.Sessions > 0 {
		w.meter.base = r.P50 // drift is drift since the campaign began, whoever began it
	}
	w.total = len(plan) * w.Protocol.Sessions
	defer w.settle(plan)
	for round := range w.Protocol.Sessions {
		if err := w.round(ctx, plan, round); err != nil {
			return err
		}
	}
	return nil
}

// round brings every net to round+1 sessions.
func (w *collection) round(ctx context.Context, nets []Measurement, round int) error {
	var order []arch.Arch
	rng := rand.New(rand.NewPCG(w.Seed, uint64(3+round)))
	for _, i := range rng.Perm(len(nets)) {
		if w.wanting(nets[i].Arch, round+1) {
			order = append(order, nets[i].Arch)
		} else {
			w.advance(1, false)
		}
	}
	w.meter.Protocol.Sessions = round + 1
	for part := range slices.Chunk(order, chunk) {
		models := make([]Model, len(part))
		for i, a := range part {
			var err error
			if models[i], err = w.model(a); err != nil {
				return err
			}
		}
		before := w.count()
		results, err := w.meter.Measure(ctx, models...)
		if err != nil {
			return errors.Join(err, context.Cause(ctx))
		}
		w.advance(before+len(part)-w.count(), true) // whatever was repeated, or found in the cache
		for i, r := range results {
			w.results[part[i]] = measured(r)
			w.raw[part[i]] = r
			w.warnings[part[i]] = r.Warnings
		}
	}
	return nil
}

// wanting reports that a net has not had so many sessions that count.
func (w *collection) wanting(a arch.Arch, sessions int) bool {
	if r, ok := w.raw[a]; ok {
		p := w.Protocol
		p.Sessions = sessions
		return !p.enough(r.Samples)
	}
	return len(w.results[a].Sessions) < sessions
}

// settle takes the machine's level out of what was measured.
func (w *collection) settle(nets []Measurement) {
	var raw []Result
	var archs []arch.Arch
	for _, m := range nets {
		if r, ok := w.raw[m.Arch]; ok {
			raw, archs = append(raw, r), append(archs, m.Arch)
		}
	}
	for i, r := range levelled(raw, w.Protocol) {
		w.results[archs[i]] = measured(r)
		w.warnings[archs[i]] = r.Warnings
	}
}

// advance counts sessions.
func (w *collection) advance(by int, tell bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.done += by
	if w.Progress != nil && tell {
		w.Progress(min(w.done, w.total), w.total)
	}
}

func (w *collection) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.done
}

func (w *collection) model(a arch.Arch) (Model, error) {
	n, err := netOf(w.Space, a)
	if err != nil {
		return Model{}, err
	}
	m, err := w.Model(n)
	if err != nil {
		return m, fmt.Errorf("net %s: %w", a, err)
	}
	return m, nil
}

// Time and Fingerprint are the device's; a session that is done is progress.
func (w *collection) Time(ctx context.Context, t Task) (Sample, error) {
	if ctx.Err() != nil {
		return Sample{}, context.Cause(ctx)
	}
	s, err := w.Device.Time(ctx, t)
	if err == nil && t.Key != "" {
		w.advance(1, true)
	}
	return s, err
}

// Width is the device's, see [Width].
func (w *collection) Width() int { return Width(w.Device) }

func (w *collection) Fingerprint(ctx context.Context, model []byte, p Protocol) (Fingerprint, error) {
	return w.Device.Fingerprint(ctx, model, p)
}

func measured(r Result) Measurement {
	m := Measurement{P50: r.P50, Low: r.Low, High: r.High}
	for _, s := range r.Samples {
		m.Sessions = append(m.Sessions, time.Duration(steady(s.Runs)))
	}
	return m
}

// maxComplaints bounds the warnings that a table carries.
const maxComplaints = 20

// complaints are what an earlier table carries, and the warnings of the nets
// that were measured now: those that differ in numbers alone once, as the
// first net had it, with how many nets did; the most frequent first.
func (w *collection) complaints(plan []Measurement) []string {
	type complaint struct {
		text string
		nets int
	}
	var list []complaint
	at := map[string]int{}
	for _, m := range plan {
		for _, text := range w.warnings[m.Arch] {
			key := strings.Map(func(r rune) rune {
				if unicode.IsDigit(r) {
					return -1
				}
				return r
			}, text)
			if i, ok := at[key]; ok {
				list[i].nets++
				continue
			}
			at[key] = len(list)
			list = append(list, complaint{text, 1})
		}
	}
	slices.SortStableFunc(list, func(a, b complaint) int { return b.nets - a.nets })
	var texts []string
	if w.Known != nil {
		texts = slices.Clone(w.Known.Warnings)
	}
	for _, c := range list {
		texts = append(texts, fmt.Sprintf("%s (%d nets)", c.text, c.nets))
	}
	return texts[:min(len(texts), maxComplaints)]
}
