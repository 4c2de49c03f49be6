package serve

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"
)

// retryAfter is how long a version that could not be loaded is left alone while its content does not change: its
// reason may have been the machine's.
const retryAfter = time.Minute

// applied is what was last made of a model's listing.
type applied struct {
	Listing
	at  time.Time
	err error
}

// edit takes the right to change the catalog. The caller must give it back.
func (s *Server) edit(ctx context.Context) (done func(), err error) {
	select {
	case s.writer <- struct{}{}:
		return func() { <-s.writer }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// publish makes a snapshot in which name leads to e, or to nothing. The caller has the right to write.
func (s *Server) publish(name string, e *entry) {
	next := maps.Clone(*s.catalog.Load())
	if e == nil {
		delete(next, name)
	} else {
		next[name] = e
	}
	s.catalog.Store(&next)
}

// apply makes a model what its source lists: loads what is new or changed, lets it take over when it works, and takes
// out of service what is not wanted any more. Its error says what could not be loaded. retry also tries again what
// failed before. The caller has the right to write.
func (s *Server) apply(ctx context.Context, name string, l Listing, retry bool) (err error) {
	defer func() { s.applied[name] = applied{l, time.Now(), err} }()
	old := (*s.catalog.Load())[name]
	if old == nil {
		old = &entry{}
	}
	e := &entry{slots: maps.Clone(old.slots), order: old.order, labels: l.Options.Labels}
	if e.slots == nil {
		e.slots = map[string]*slot{}
	}
	for version := range l.Versions {
		if e.slots[version] == nil {
			e.slots[version] = newSlot(name, version)
		}
	}
	if len(e.order) == 0 {
		e.order = e.sorted()
		slices.Reverse(e.order)
	}
	if l.Err != nil {
		s.opt.Logger.Error("model's options cannot be used", "model", name, "err", l.Err)
		if len(e.slots) == 0 {
			return l.Err
		}
		e.labels = old.labels
		for _, sl := range e.slots {
			sl.fail(l.Err, l.Versions[sl.version])
		}
		s.publish(name, e)
		return l.Err
	}
	s.publish(name, e)
	var errs []error
	kept := l.Options.choose(l.descending(), func(version string) bool {
		works, err := s.ensure(ctx, e.slots[version], l.Versions[version], retry)
		errs = append(errs, err)
		return works
	})
	s.settle(ctx, name, e, l, kept)
	return errors.Join(errs...)
}

// ensure loads a version unless it is there in this revision, and reports whether the slot has something that works.
func (s *Server) ensure(ctx context.Context, sl *slot, revision string, retry bool) (works bool, err error) {
	if err := sl.take(ctx); err != nil {
		return sl.live.Load() != nil, err
	}
	defer sl.give()
	sl.mu.Lock()
	sl.out = false
	same, failed := sl.revision == revision, sl.err
	sl.mu.Unlock()
	if live := sl.live.Load() != nil; same && (failed == nil && live || failed != nil && !retry) {
		return live, failed
	}
	err = s.loadInto(ctx, sl, revision)
	if err != nil {
		s.opt.Logger.Error("model not loaded", "model", sl.name, "version", sl.version, "err", err)
	} else {
		s.opt.Logger.Info("model loaded", "model", sl.name, "version", sl.version)
	}
	return sl.live.Load() != nil, err
}

// settle publishes what came of a listing: the versions that were kept answer, others are emptied. What is not listed
// goes, unless nothing that is listed works.
func (s *Server) settle(ctx context.Context, name string, e *entry, l Listing, kept []string) {
	final := &entry{slots: map[string]*slot{}, labels: e.labels}
	var idle, gone []*slot
	for _, sl := range slices.Backward(e.sorted()) {
		_, listed := l.Versions[sl.version]
		switch {
		case slices.Contains(kept, sl.version):
			final.order = append(final.order, sl)
		case !listed && (len(kept) > 0 || sl.live.Load() == nil):
			gone = append(gone, sl)
			continue
		case !listed:
			final.order = append(final.order, sl)
			sl.note(StateReady, "it is not in the repository any more, and served because nothing that is there works")
		default:
			idle = append(idle, sl)
		}
		final.slots[sl.version] = sl
	}
	if len(final.order) == 0 {
		final.order = idle // so that they are what a request without a version is told about
	}
	s.publish(name, final)
	for _, sl := range idle {
		s.setAside(ctx, sl, l, slices.Contains(e.order, sl) && len(kept) > 0)
	}
	for _, sl := range gone {
		s.dismiss(ctx, sl)
	}
}

// setAside treats a version that is listed and not kept: it is loaded when asked for, unless the policy leaves it out.
// What answered by default so far is emptied; what requests had loaded stays, in its present revision.
func (s *Server) setAside(ctx context.Context, sl *slot, l Listing, demoted bool) {
	state, reason := StateUnknown, "it is loaded when first asked for"
	out := l.Options.Policy.restricts()
	if out {
		state, reason = StateUnavailable, "the model's version_policy leaves it out"
	}
	if sl.take(context.WithoutCancel(ctx)) != nil {
		return
	}
	defer sl.give()
	sl.mu.Lock()
	sl.lazy, sl.out = !out, out
	failed, changed := sl.err != nil, sl.revision != l.Versions[sl.version]
	sl.mu.Unlock()
	switch live := sl.live.Load() != nil; {
	case live && (demoted || out):
		s.empty(sl, state, reason)
	case live && changed:
		if err := s.loadInto(ctx, sl, l.Versions[sl.version]); err != nil {
			s.opt.Logger.Error("model not loaded", "model", sl.name, "version", sl.version, "err", err)
		}
	case !live && !failed:
		sl.note(state, reason)
	}
}

// dismiss empties a slot that the catalog does not hold any more.
func (s *Server) dismiss(ctx context.Context, sl *slot) {
	// A load under way must come to its end first, or what it loads would never be closed.
	if sl.take(context.WithoutCancel(ctx)) != nil {
		return
	}
	defer sl.give()
	sl.mu.Lock()
	sl.gone = true
	sl.mu.Unlock()
	s.empty(sl, StateUnavailable, "unloaded")
	s.opt.Logger.Info("model removed", "model", sl.name, "version", sl.version)
}

// Load loads a model as its source has it now, new or changed. Old versions serve until new ones have proved to work,
// and on when they do not, which is an error.
func (s *Server) Load(ctx context.Context, name string) error {
	if s.opt.Source == nil {
		return errNoSource
	}
	done, err := s.edit(ctx)
	if err != nil {
		return err
	}
	defer done()
	found, err := s.opt.Source.Scan(ctx)
	if err != nil {
		return fmt.Errorf("read the repository: %w", err)
	}
	l, ok := found[name]
	if !ok {
		return failf(http.StatusNotFound, "the repository has no model %q", short(name))
	}
	// What was begun is brought to an end, for the next request would begin it again.
	err = s.apply(context.WithoutCancel(ctx), name, l, true)
	if err != nil {
		return badRequest("model %q: %s", short(name), reasonOf(err))
	}
	return nil
}

// Unload takes a model out of service until it is loaded again. Requests that have it finish, and then its memory is
// freed, which Unload waits for a moment.
func (s *Server) Unload(ctx context.Context, name string) error {
	slots, err := s.unload(ctx, name)
	if err != nil {
		return err
	}
	s.opt.Logger.Info("model unloaded", "model", name)
	for _, sl := range slots {
		if err := sl.drained(ctx, goodbye); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) unload(ctx context.Context, name string) (map[string]*slot, error) {
	if s.opt.Source == nil {
		return nil, errNoSource
	}
	done, err := s.edit(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	e := (*s.catalog.Load())[name]
	if e == nil {
		return nil, failf(http.StatusNotFound, "unknown model %q", short(name))
	}
	off := *e
	off.off = true
	s.publish(name, &off)
	s.applied[name] = applied{}
	for _, sl := range e.slots {
		if err := sl.take(context.WithoutCancel(ctx)); err != nil {
			return nil, err
		}
		sl.mu.Lock()
		sl.lazy = false
		sl.mu.Unlock()
		s.empty(sl, StateUnavailable, "unloaded")
		sl.give()
	}
	return e.slots, nil
}

// poll looks at the source until ctx is done. A change is acted on when it was seen twice, so that files which are
// still being written are left alone.
func (s *Server) poll(ctx context.Context) {
	tick := time.NewTicker(s.opt.Poll)
	defer tick.Stop()
	var before map[string]Listing
	lost := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now, err := s.opt.Source.Scan(ctx)
		if err != nil {
			if !lost {
				s.opt.Logger.Error("repository cannot be read: models stay as they are", "err", err)
			}
			lost = true
			continue
		}
		lost = false
		s.follow(ctx, before, now)
		before = now
	}
}

// follow acts on what two looks at the source agree on.
func (s *Server) follow(ctx context.Context, before, now map[string]Listing) {
	done, err := s.edit(ctx)
	if err != nil {
		return
	}
	defer done()
	for name, l := range now {
		if _, known := s.applied[name]; !known {
			s.applied[name] = applied{}
		}
		if b, ok := before[name]; ok && b.equal(l) && ctx.Err() == nil {
			s.followModel(ctx, name, l)
		}
	}
	for name := range s.applied {
		_, was := before[name]
		_, is := now[name]
		if before != nil && !was && !is && ctx.Err() == nil {
			s.remove(ctx, name)
		}
	}
}

// remove takes a model that its source does not list any more out of the catalog.
func (s *Server) remove(ctx context.Context, name string) {
	e := (*s.catalog.Load())[name]
	s.publish(name, nil)
	delete(s.applied, name)
	if e == nil {
		return
	}
	for _, sl := range e.slots {
		s.dismiss(ctx, sl)
	}
}

func (s *Server) followModel(ctx context.Context, name string, l Listing) {
	if e := (*s.catalog.Load())[name]; e != nil && e.off {
		return
	}
	a, known := s.applied[name]
	retry := a.err != nil && time.Since(a.at) >= retryAfter
	if known && a.equal(l) && !retry {
		return
	}
	_ = s.apply(ctx, name, l, retry) // logged, and shown in the index
}
