package latency

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"

	"spos/internal/ort"
)

// ErrFallback is wrapped where a session would have run nodes elsewhere than
// on the provider that was asked for, beyond [Protocol.Fallback].
var ErrFallback = errors.New("latency: not on the provider that was asked for")

// maxPlaced bounds the placements that a Local remembers.
const maxPlaced = 1024

// locate finds out where the nodes run and holds it against p. Unplaced is
// what kept it from that; where the model is to blame, the session to time
// fails as well, and says so better.
func (l *Local) locate(model []byte, p Protocol, o ort.Options, s *Sample) (unplaced, err error) {
	s.Placement, unplaced = l.place(model, p, o, s.Fingerprint)
	switch {
	case errors.Is(unplaced, ort.ErrProvider):
		return nil, unplaced
	case unplaced != nil && p.Fallback >= 1:
		return nil, nil // not to know is allowed as well
	case unplaced != nil:
		return unplaced, nil
	}
	return nil, p.placed(s.Placement)
}

// place says where the nodes of a model run, asked once for a model under one
// protocol. Nil where only the processor was asked for: nothing is to be
// found out, and nothing is spent.
func (l *Local) place(model []byte, p Protocol, o ort.Options, fp Fingerprint) (*ort.Placement, error) {
	if o.OnCPU() {
		return nil, nil
	}
	key := fp.Model.SHA256 + "@" + fp.Key()
	if placed, ok := l.placed[key]; ok {
		return placed, nil
	}
	placed, err := l.Runtime.Place(model, o, func(s *ort.Session) (*ort.Fixed, error) {
		return fix(s, p, new(Sample))
	})
	if err != nil {
		if errors.Is(err, ort.ErrProvider) {
			return nil, err
		}
		return nil, fmt.Errorf("latency: where the nodes run: %w", err)
	}
	if l.placed == nil || len(l.placed) >= maxPlaced {
		l.placed = map[string]*ort.Placement{}
	}
	l.placed[key] = &placed
	return &placed, nil
}

// placed reports a fallback beyond what p allows, naming its operators, and
// a device that does not tell.
func (p Protocol) placed(at *ort.Placement) error {
	const rounding = 1e-9
	if p.Session.OnCPU() || p.Fallback >= 1 {
		return nil
	}
	if at == nil {
		return fmt.Errorf("%w: the device does not tell where the nodes ran: bring it up to date, or allow that (--allow-fallback)", ErrFallback)
	}
	nodes, time := at.Share()
	share := min(nodes, time)
	if share >= 1-p.Fallback-rounding {
		return nil
	}
	allow := "--allow-fallback"
	if floor := math.Floor(100*share) / 100; floor > 0 {
		allow += fmt.Sprintf(" or --min-share %.2f", floor)
	}
	mend := "measure with a provider that has these operators"
	if nodes == 0 {
		mend = "check the provider's options"
	}
	return fmt.Errorf("%w: %s; %s, or allow the fallback (%s)", ErrFallback, fallback(at), mend, allow)
}

// strict makes a session refuse any fallback, where there was none: what is
// timed is then sure to be what was looked at.
func strict(o ort.Options, at *ort.Placement) ort.Options {
	if at == nil || len(at.Elsewhere) > 0 {
		return o
	}
	return configured(o, "session.disable_cpu_ep_fallback", "1")
}

// maxStrays is how many operators a sentence names.
const maxStrays = 5

// fallback says in words what ran elsewhere; "" where nothing that counts did.
func fallback(at *ort.Placement) string {
	nodes, time := at.Share()
	if nodes >= 1 && time >= 1 {
		return ""
	}
	var ops []string
	more := 0
	for _, s := range at.Elsewhere {
		switch {
		case s.Shapes:
		case len(ops) == maxStrays:
			more++
		default:
			ops = append(ops, fmt.Sprintf("%s on %s (%s, %.1f %% of the time)", s.Op, s.Provider, plural(s.Nodes, "node"), 100*s.Time))
		}
	}
	if more > 0 {
		ops = append(ops, plural(more, "further operator"))
	}
	return fmt.Sprintf("%s ran %.0f %% of the nodes and %.0f %% of the time, the rest is %s",
		at.Provider, 100*nodes, 100*time, strings.Join(ops, ", "))
}

// writePlacements says where the models ran, for those that were asked about.
func writePlacements(w io.Writer, results []Result) error {
	for _, r := range results {
		if r.Placement == nil {
			continue
		}
		var parts []string
		for _, name := range slices.Sorted(maps.Keys(r.Placement.Shares)) {
			use := r.Placement.Shares[name]
			parts = append(parts, fmt.Sprintf("%s on %s (%.0f %% of the time)", plural(use.Nodes, "node"), name, 100*use.Time))
		}
		if _, err := fmt.Fprintf(w, "ran: %s: %s\n", r.Model, strings.Join(parts, ", ")); err != nil {
			return err
		}
	}
	return nil
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
