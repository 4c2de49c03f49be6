package serve

import (
	"context"
	"net/http"
)

// versionsOf is the versions of a name that can be asked for, ascending.
func (s *Server) versionsOf(name string) []string {
	if e := (*s.catalog.Load())[name]; e != nil {
		return e.list()
	}
	return []string{}
}

// Index lists every version of every model, those that are ready where readyOnly is set.
func (s *Server) Index(readyOnly bool) []IndexEntry {
	all := []IndexEntry{}
	c := *s.catalog.Load()
	for _, name := range c.sorted() {
		for _, sl := range c[name].sorted() {
			state, reason := sl.status()
			if !readyOnly || state == StateReady {
				all = append(all, IndexEntry{name, sl.version, state, reason})
			}
		}
	}
	return all
}

// Load loads a model as its source has it now, new or again. Old versions serve until new ones have proved to work,
// and on when they do not, which is an error.
func (s *Server) Load(ctx context.Context, name string) error {
	return failf(http.StatusNotImplemented, "models cannot be loaded yet")
}

// Unload takes a model out of service. Requests that have it finish, after which its memory is freed.
func (s *Server) Unload(ctx context.Context, name string) error {
	return failf(http.StatusNotImplemented, "models cannot be unloaded yet")
}

// Stats are the statistics of one version, of every version of a name when version is empty, or of all models when
// both are.
func (s *Server) Stats(name, version string) ([]ModelStats, error) {
	all := []ModelStats{}
	c := *s.catalog.Load()
	if name == "" {
		for _, name := range c.sorted() {
			for _, sl := range c[name].sorted() {
				all = append(all, sl.readStats())
			}
		}
		return all, nil
	}
	e := c[name]
	if e == nil {
		return nil, failf(http.StatusNotFound, "unknown model %q", short(name))
	}
	if version == "" {
		for _, sl := range e.sorted() {
			all = append(all, sl.readStats())
		}
		return all, nil
	}
	sl := e.find(version)
	if sl == nil {
		return nil, failf(http.StatusNotFound, "model %q has no version %q, it has %v", short(name), short(version), e.list())
	}
	return append(all, sl.readStats()), nil
}

func (sl *slot) readStats() ModelStats {
	m := sl.stats.read()
	m.Name, m.Version = sl.name, sl.version
	return m
}

// Config is how a version is served, in Triton's form. An empty version is the default one.
func (s *Server) Config(ctx context.Context, name, version string) (*ModelConfig, error) {
	v, err := s.lookup(ctx, name, version)
	if err != nil {
		return nil, err
	}
	defer v.release()
	return &ModelConfig{Name: v.info.Name, Platform: v.info.Platform}, nil
}

// allowAdmin reports that a request may load and unload models. The request is nil where it did not come over HTTP.
func (s *Server) allowAdmin(*http.Request) bool { return false }
