package serve

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// reloadAfter is how long a version that could not be loaded is not tried again by requests.
const reloadAfter = 10 * time.Second

// add takes a model at start.
func (s *Server) add(c catalog, m Model) error {
	info := m.Info()
	if info.Name == "" {
		return errors.New("serve: a model without a name")
	}
	e := c[info.Name]
	if e == nil {
		e = &entry{slots: map[string]*slot{}}
		c[info.Name] = e
	}
	for _, other := range append([]string{info.Version}, info.Versions...) {
		if e.slots[other] == nil {
			e.slots[other] = newSlot(info.Name, other)
			e.slots[other].lazy = true
		}
	}
	sl := e.slots[info.Version]
	if slices.Contains(e.order, sl) {
		return fmt.Errorf("serve: model %q version %q is given twice", info.Name, info.Version)
	}
	u, bad := m.(*unavailable)
	sl.lazy = bad && !info.Options.Policy.restricts()
	e.order = append(e.order, sl)
	slices.SortFunc(e.order, func(a, b *slot) int { return compareVersions(b.version, a.version) })
	if sl == e.order[0] {
		e.labels = info.Options.Labels
	}
	if bad {
		sl.fail(u.err, info.Revision)
		return nil
	}
	v, err := s.newVersion(sl, m)
	if err != nil {
		return err
	}
	s.fill(sl, v)
	return nil
}

func (s *Server) newVersion(sl *slot, m Model) (*version, error) {
	v := &version{info: m.Info(), model: m, stats: &sl.stats, idle: make(chan struct{})}
	v.refs.Store(1)
	if v.info.Name != sl.name || v.info.Version != sl.version {
		return nil, fmt.Errorf("serve: model %q version %q was loaded for %q version %q", v.info.Name, v.info.Version, sl.name, sl.version)
	}
	if v.info.Recipe != nil {
		v.info.Properties = maps.Clone(v.info.Properties)
		if v.info.Properties == nil {
			v.info.Properties = map[string]string{}
		}
		v.info.Properties["images"] = "jpeg, png"
	}
	v.info.Threads = min(max(v.info.Threads, 1), s.opt.Cores)
	if err := errors.Join(v.info.checkRecipe(), v.info.checkBatching()); err != nil {
		return nil, fmt.Errorf("serve: model %q: %w", v.info.Name, err)
	}
	v.met = s.met.model(sl.name, sl.version)
	s.queueUp(v)
	s.hold(v)
	return v, nil
}

// lookup finds the model that a request names, by a version, a label, or "" for the one that is served by default,
// and loads it where it may. The caller must release what it returns. It is for every protocol.
func (s *Server) lookup(ctx context.Context, name, ver string) (*version, error) {
	v, sl, err := s.loaded(name, ver)
	if sl != nil {
		return s.loadLazily(ctx, sl)
	}
	return v, err
}

// loaded is lookup's first half: what is loaded, held, or the slot where it would be.
func (s *Server) loaded(name, ver string) (*version, *slot, error) {
	for c := s.catalog.Load(); ; {
		v, sl, err := c.lookup(name, ver)
		if v != nil || err != nil {
			return v, nil, err
		}
		// What answers in this snapshot may have been emptied because another answers in the next.
		next := s.catalog.Load()
		if next == c {
			return nil, sl, nil
		}
		c = next
	}
}

// lookup returns what is loaded, held, or the slot where it would be.
func (c catalog) lookup(name, ver string) (*version, *slot, error) {
	e := c[name]
	if e == nil {
		return nil, nil, failf(http.StatusNotFound, "unknown model %q", short(name))
	}
	if ver == "" && len(e.order) > 0 {
		for _, sl := range e.order {
			if v := sl.acquire(); v != nil {
				return v, sl, nil
			}
		}
		return nil, e.order[0], nil
	}
	sl := e.find(ver)
	if sl == nil {
		return nil, nil, failf(http.StatusNotFound, "model %q has no version %q, it has %v", short(name), short(ver), e.list())
	}
	return sl.acquire(), sl, nil
}

// loadLazily is for a request to a version that was not loaded when it came.
func (s *Server) loadLazily(ctx context.Context, sl *slot) (*version, error) {
	if s.opt.Load == nil || !sl.isLazy() {
		return nil, sl.notReady()
	}
	if err := sl.take(ctx); err != nil {
		return nil, errGone
	}
	defer sl.give()
	if v := sl.acquire(); v != nil {
		return v, nil
	}
	if !sl.mayRetry() {
		return nil, sl.notReady()
	}
	// The model stays when this request's client goes away.
	if err := s.loadInto(context.WithoutCancel(ctx), sl, ""); err != nil {
		s.opt.Logger.Error("model not loaded", "model", sl.name, "version", sl.version, "err", err)
		return nil, sl.notReady()
	}
	if v := sl.acquire(); v != nil {
		return v, nil
	}
	return nil, sl.notReady()
}

// take waits for the slot's turn, give passes it on.
func (sl *slot) take(ctx context.Context) error {
	select {
	case sl.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (sl *slot) give() { <-sl.turn }

func (sl *slot) isLazy() bool {
	sl.mu.Lock()
	defer sl.mu.Unlock()
	return sl.lazy && !sl.gone
}

func (sl *slot) mayRetry() bool {
	sl.mu.Lock()
	defer sl.mu.Unlock()
	return sl.err == nil || time.Since(sl.tried) >= reloadAfter
}

// notReady is the answer for a version that is known and cannot be used now.
func (sl *slot) notReady() error {
	sl.mu.Lock()
	out := sl.out
	sl.mu.Unlock()
	if out {
		return failf(http.StatusNotFound, "version %q of model %q is left out by the model's version_policy", short(sl.version), short(sl.name))
	}
	state, _ := sl.status()
	return failf(http.StatusServiceUnavailable, "the model is not available: version %q of %q is %s, the repository's index has the reason",
		short(sl.version), short(sl.name), state)
}

// loadInto loads a slot, and replaces what is in it only by something that has proved to work. revision is that of
// the content to expect, for a failure to be remembered by. The caller has the slot's turn.
func (s *Server) loadInto(ctx context.Context, sl *slot, revision string) error {
	if err := sl.drained(ctx, s.opt.Timeout); err != nil {
		return err
	}
	if s.closed.Load() {
		return errStop
	}
	sl.note(StateLoading, "")
	m, err := s.opt.Load(ctx, sl.name, sl.version)
	var v *version
	if err == nil {
		if v, err = s.newVersion(sl, m); err != nil {
			err = errors.Join(err, closeAll([]Model{m}))
		}
	}
	if err != nil {
		sl.fail(err, revision)
		return err
	}
	s.fill(sl, v)
	return nil
}

// drained waits until what was last in the slot is closed, so that there are not ever more of one version in memory.
// It waits no longer than a request may compute: one whose body arrives slowly, or whose answer is read slowly, shall
// not hold up a new version.
func (sl *slot) drained(ctx context.Context, most time.Duration) error {
	sl.mu.Lock()
	draining := sl.draining
	sl.mu.Unlock()
	if draining == nil {
		return nil
	}
	enough := time.NewTimer(most)
	defer enough.Stop()
	select {
	case <-draining:
	case <-enough.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// fill puts a version into its slot and drains what was there.
func (s *Server) fill(sl *slot, v *version) {
	sl.mu.Lock()
	old := sl.live.Swap(v)
	sl.state, sl.reason, sl.err, sl.revision, sl.tried = StateReady, "", nil, v.info.Revision, time.Now()
	sl.mu.Unlock()
	sl.stats.watch(&v.info)
	if old != nil {
		s.retire(sl, old, StateReady)
	}
}

// fail notes that a version could not be loaded. What is in the slot stays.
func (sl *slot) fail(err error, revision string) {
	sl.mu.Lock()
	defer sl.mu.Unlock()
	sl.state, sl.reason, sl.err, sl.revision, sl.tried = StateUnavailable, reasonOf(err), err, revision, time.Now()
	if sl.live.Load() != nil {
		sl.reason = "the version before its last change is served: " + sl.reason
	}
}

// empty takes what is in the slot out of service. The state is reached when the last request has let go of it.
func (s *Server) empty(sl *slot, state State, reason string) {
	sl.mu.Lock()
	old := sl.live.Swap(nil)
	sl.state, sl.reason, sl.err = state, reason, nil
	if old != nil {
		sl.state = StateUnloading
	}
	sl.mu.Unlock()
	if old != nil {
		s.retire(sl, old, state)
	}
}

// retire closes a version that nothing leads to any more when the last request has let go of it. Then is the state of
// a slot that was emptied.
func (s *Server) retire(sl *slot, v *version, then State) {
	done := make(chan struct{})
	sl.mu.Lock()
	sl.draining = done
	sl.mu.Unlock()
	s.retiring.Go(func() {
		defer close(done)
		v.release()
		<-v.idle
		if err := closeAll([]Model{v.model}); err != nil {
			s.opt.Logger.Error("model not closed", "model", sl.name, "version", sl.version, "err", err)
			s.closeErrs.add(err)
		}
		s.met.release(v.met)
		sl.mu.Lock()
		defer sl.mu.Unlock()
		if sl.state == StateUnloading {
			sl.state = then
		}
	})
}

// closeModels takes everything out of service and waits until it is closed.
func (s *Server) closeModels() error {
	s.closed.Store(true)
	s.writer <- struct{}{}
	defer func() { <-s.writer }()
	for _, e := range *s.catalog.Load() {
		for _, sl := range e.slots {
			sl.turn <- struct{}{} // after a load under way
			s.empty(sl, StateUnavailable, "the server stopped")
			sl.give()
		}
	}
	s.retiring.Wait()
	s.runners.stop()
	return s.closeErrs.join()
}

// reasonOf makes an error a sentence for clients: one line without paths, such as those of a library's own sources.
func reasonOf(err error) string {
	const most = 400
	words := strings.Fields(err.Error())
	words = slices.DeleteFunc(words, func(w string) bool {
		w = strings.TrimLeft(w, `"'([`)
		return strings.HasPrefix(w, "/") || strings.Count(w, "/") > 1
	})
	text := strings.TrimPrefix(strings.Join(words, " "), "serve: ")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}
