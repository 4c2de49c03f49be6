package serve

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"
)

// reloadAfter is how long a version that could not be loaded is not tried again.
const reloadAfter = 10 * time.Second

// entry is one name.
type entry struct {
	latest   string
	versions map[string]*slot
}

// slot is one version of a name, loaded or not.
type slot struct {
	loading chan struct{} // holds one token; whoever has it may load
	mu      sync.Mutex
	v       *version
	err     error
	tried   time.Time
}

// version is one loaded model.
type version struct {
	info  ModelInfo
	model Model
	gate  gate
	met   *modelMetrics
}

func newSlot() *slot { return &slot{loading: make(chan struct{}, 1)} }

func (s *slot) get() (*version, time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.v, s.tried, s.err
}

func (s *slot) set(v *version, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.v, s.err, s.tried = v, err, time.Now()
}

func (e *entry) loaded() []Model {
	var ms []Model
	for _, sl := range e.versions {
		if v, _, _ := sl.get(); v != nil {
			ms = append(ms, v.model)
		}
	}
	return ms
}

// list is the versions that can be asked for, ascending.
func (e *entry) list() []string {
	var vs []string
	for v := range e.versions {
		vs = append(vs, v)
	}
	slices.SortFunc(vs, compareVersions)
	return vs
}

// compareVersions orders numeric versions by number, and before others, which it orders as text.
func compareVersions(a, b string) int {
	switch na, nb := isNumber(a), isNumber(b); {
	case na && nb && len(a) != len(b):
		return len(a) - len(b)
	case na != nb:
		if na {
			return -1
		}
		return 1
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// isNumber reports a decimal number without needless zeros.
func isNumber(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != "" && (s[0] != '0' || s == "0")
}

// add takes a model at start.
func (s *Server) add(m Model) error {
	v, err := s.newVersion(m)
	if err != nil {
		return err
	}
	name := v.info.Name
	if name == "" {
		return errors.New("serve: a model without a name")
	}
	e := s.models[name]
	if e == nil {
		e = &entry{latest: v.info.Version, versions: map[string]*slot{}}
		s.models[name] = e
	}
	for _, other := range append([]string{v.info.Version}, v.info.Versions...) {
		if e.versions[other] == nil {
			e.versions[other] = newSlot()
		}
	}
	sl := e.versions[v.info.Version]
	if had, _, _ := sl.get(); had != nil {
		return fmt.Errorf("serve: model %q version %q is given twice", name, v.info.Version)
	}
	sl.set(v, nil)
	if compareVersions(v.info.Version, e.latest) > 0 {
		e.latest = v.info.Version
	}
	return nil
}

func (s *Server) newVersion(m Model) (*version, error) {
	v := &version{info: m.Info(), model: m}
	v.info.Threads = min(max(v.info.Threads, 1), s.opt.Cores)
	if err := v.info.checkRecipe(); err != nil {
		return nil, fmt.Errorf("serve: model %q: %w", v.info.Name, err)
	}
	v.met = s.met.model(v.info.Name, v.info.Version)
	v.gate = gate{cores: s.cores, weight: int64(v.info.Threads), met: v.met}
	v.gate.limit = int64(s.opt.Queue) + int64(s.opt.Cores)/v.gate.weight
	return v, nil
}

// lookup finds the model that a request names, and loads it where it may.
func (s *Server) lookup(ctx context.Context, c *call) (*version, error) {
	e := s.models[c.model]
	if e == nil {
		return nil, failf(http.StatusNotFound, "unknown model %q", short(c.model))
	}
	name := e.latest
	if c.versioned {
		name = c.version
	}
	sl := e.versions[name]
	if sl == nil {
		return nil, failf(http.StatusNotFound, "model %q has no version %q, it has %v", short(c.model), short(name), e.list())
	}
	v, err := s.load(ctx, sl, c.model, name)
	if err != nil {
		return nil, err
	}
	c.found = v
	if _, bad := v.model.(*unavailable); bad {
		return nil, v.model.Run(ctx, nil, nil)
	}
	return v, nil
}

// load returns what is in the slot, after loading it if this is the first request for it.
func (s *Server) load(ctx context.Context, sl *slot, name, ver string) (*version, error) {
	if v, _, _ := sl.get(); v != nil {
		return v, nil
	}
	select {
	case sl.loading <- struct{}{}:
		defer func() { <-sl.loading }()
	case <-ctx.Done():
		return nil, errGone
	}
	v, tried, err := sl.get()
	if v != nil || err != nil && time.Since(tried) < reloadAfter {
		return v, err
	}
	if s.opt.Load == nil {
		return nil, fmt.Errorf("%w: nothing loads further versions", ErrUnavailable)
	}
	// The model stays when this request's client goes away.
	m, err := s.opt.Load(context.WithoutCancel(ctx), name, ver)
	if err == nil {
		if v, err = s.newVersion(m); err != nil {
			err = errors.Join(err, closeAll([]Model{m}))
		}
	}
	if err != nil {
		v, err = nil, errors.Join(ErrUnavailable, err)
	}
	sl.set(v, err)
	return v, err
}
