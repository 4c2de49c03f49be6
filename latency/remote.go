package latency

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"spos/internal/fleet"
)

// Courier is how a [Remote] reaches its device; [fleet.Conn] is one.
type Courier interface {
	// Do has a job done once, however often it is asked for by its ID.
	Do(ctx context.Context, j fleet.Job) ([]byte, error)
	// Ask asks outside the queue.
	Ask(ctx context.Context, device string, body []byte) ([]byte, error)
	// Devices lists who is there.
	Devices(ctx context.Context) ([]fleet.Presence, error)
}

// Remote is the [Device] that an [Agent] works for elsewhere. It waits for a
// device that is away, and says so once; what was handed over is done when it
// is back, and counted once. It is safe for concurrent use, although the
// device does one task at a time.
type Remote struct {
	Courier Courier
	Name    string // the device's
	Version string // of this program; the agent's must be the same
	// Campaign names the work: of one that goes on, under the same name, the
	// device still has what it measured. "" is work that does not go on.
	Campaign string
	Timeout  time.Duration // how long the device may be away at a time; 0: for ever
	Log      *slog.Logger  // needed

	mu    sync.Mutex
	known map[string]Fingerprint // by protocol, of a session without a model
	away  bool                   // as was said
}

// Time implements [Runner]. A fault of the model is a [*ModelError]. A device
// that is no longer what it was is an error that wraps [ErrIncomparable], once:
// later tasks are of the device that it is now.
func (r *Remote) Time(ctx context.Context, t Task) (Sample, error) {
	fp, err := r.Fingerprint(ctx, t.Model, t.Protocol)
	if err != nil {
		return Sample{}, err
	}
	body, err := json.Marshal(request{Version: r.Version, Protocol: t.Protocol})
	if err != nil {
		return Sample{}, err
	}
	job := fleet.Job{ID: r.id(t, fp), Device: r.Name, Body: body, Blob: t.Model, Passing: passing}
	answer, err := r.wait(ctx, func(ctx context.Context) ([]byte, error) { return r.Courier.Do(ctx, job) })
	if err != nil {
		return Sample{}, err
	}
	if answer.Sample == nil {
		return Sample{}, fmt.Errorf("device %s: %w: no sample", r.Name, errFrame)
	}
	if err := fp.Comparable(answer.Sample.Fingerprint); err != nil {
		r.forget()
		return Sample{}, fmt.Errorf("device %s has changed: %w", r.Name, err)
	}
	return *answer.Sample, nil
}

// Fingerprint implements [Describer]. The device is asked once a protocol, and
// again after it was away.
func (r *Remote) Fingerprint(ctx context.Context, model []byte, p Protocol) (Fingerprint, error) {
	key := conditions(p)
	r.mu.Lock()
	fp, ok := r.known[key]
	r.mu.Unlock()
	if !ok {
		answer, err := r.ask(ctx, request{Version: r.Version, Describe: true, Protocol: p})
		if err != nil {
			return Fingerprint{}, err
		}
		if answer.Fingerprint == nil {
			return Fingerprint{}, fmt.Errorf("device %s: %w: no fingerprint", r.Name, errFrame)
		}
		fp = *answer.Fingerprint
		r.mu.Lock()
		if r.known == nil {
			r.known = map[string]Fingerprint{}
		}
		r.known[key] = fp
		r.mu.Unlock()
	}
	fp.Model = identify(model)
	return fp, nil
}

// SetPause has the agent rest, or work again: what comes meanwhile waits in
// its queue.
func (r *Remote) SetPause(ctx context.Context, pause bool) error {
	_, err := r.ask(ctx, request{Version: r.Version, Pause: &pause})
	return err
}

func (r *Remote) ask(ctx context.Context, q request) (reply, error) {
	body, err := json.Marshal(q)
	if err != nil {
		return reply{}, err
	}
	return r.wait(ctx, func(ctx context.Context) ([]byte, error) { return r.Courier.Ask(ctx, r.Name, body) })
}

func (r *Remote) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.known)
}

// conditions is a protocol as text, less what is no condition of a session.
func conditions(p Protocol) string {
	p.Sessions, p.Redo, p.Spread, p.Patience = 0, 0, 0, 0
	text, err := json.Marshal(p)
	if err != nil { // no field of a protocol that is valid can cause it
		return fmt.Sprint(p)
	}
	return string(text)
}

// passing tells whether an answer is a fault that is not the model's: whoever
// looks after the device may mend it.
func passing(answer []byte) bool {
	var r reply
	return json.Unmarshal(answer, &r) != nil || r.Fault != nil && reasonWords[r.Fault.Reason] == ""
}

// id is what the device keeps the sample under. The fingerprint is part of
// it, and the version: what a device measured before it changed answers
// nothing that is asked of it now.
func (r *Remote) id(t Task, fp Fingerprint) string {
	if t.Key == "" || r.Campaign == "" {
		return rand.Text()
	}
	h := sha256.New()
	fmt.Fprintf(h, "%q %q %q %q %q %q %q", r.Version, r.Campaign, r.Name, t.Key, conditions(t.Protocol), identify(t.Model).SHA256, fp.Key())
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// wait does something that waits for the device.
func (r *Remote) wait(ctx context.Context, do func(context.Context) ([]byte, error)) (reply, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	var watch sync.WaitGroup
	watch.Go(func() { cancel(r.watch(ctx)) })
	text, err := do(ctx)
	cancel(nil)
	watch.Wait()
	var answer reply
	if err == nil {
		r.isBack()
		err = json.Unmarshal(text, &answer)
		clean(&answer)
	}
	if err == nil && answer.Fault != nil {
		err = answer.Fault.err()
	}
	if err != nil {
		return reply{}, fmt.Errorf("device %s: %w", r.Name, err)
	}
	return answer, nil
}

// watchEvery is how often a device that lets wait is looked for; first sooner,
// so that a wrong name is noticed.
const watchEvery = 5 * time.Second

// watch looks for the device until ctx ends, or until it has been away for
// too long, which is the error. Only time that passes here counts.
func (r *Remote) watch(ctx context.Context) error {
	var gone time.Time
	for every := time.Second; sleep(ctx, every) == nil; every = watchEvery {
		why := r.look(ctx)
		if ctx.Err() != nil {
			break
		}
		switch {
		case why == "":
			r.isBack()
			gone = time.Time{}
			continue
		case gone.IsZero():
			gone = time.Now()
		}
		if r.isAway() {
			r.Log.Warn("a device is away; its work waits, and goes on when it is back", "device", r.Name, "because", why)
		}
		if r.Timeout > 0 && time.Since(gone) >= r.Timeout {
			return fmt.Errorf("it was away for %v (%s): start its agent, or wait longer with --device-timeout", r.Timeout, why)
		}
	}
	return nil //nolint:nilerr // the caller ended it
}

// look is why the device is not there; "" where it is.
func (r *Remote) look(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, watchEvery)
	defer cancel()
	list, err := r.Courier.Devices(ctx)
	if errors.Is(err, fleet.ErrDenied) {
		return "" // we may not know
	}
	if err != nil {
		return "the broker does not answer"
	}
	var there []string
	for _, p := range list {
		if p.State != fleet.Away && p.State != fleet.Unseen {
			there = append(there, p.Name)
		}
	}
	at := slices.IndexFunc(list, func(p fleet.Presence) bool { return p.Name == r.Name })
	switch {
	case slices.Contains(there, r.Name):
		return ""
	case at >= 0 && list[at].State == fleet.Away:
		return "its agent is silent"
	case len(there) == 0:
		return "no device is there"
	}
	return "none of that name was seen; there are " + strings.Join(there, ", ")
}

// isAway reports whether that is news.
func (r *Remote) isAway() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	news := !r.away
	r.away = true
	return news
}

func (r *Remote) isBack() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.away {
		clear(r.known) // it may come back as something else
		r.away = false
		r.Log.Info("a device is back", "device", r.Name)
	}
}
