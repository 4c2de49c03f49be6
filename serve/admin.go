package serve

import (
	"context"
	"net/http"
	"slices"
	"strings"
)

// maxAdmin bounds the bodies of the repository's requests.
const maxAdmin = 1 << 20

var (
	errNoSource   = &httpError{code: http.StatusServiceUnavailable, msg: "the server has no repository to load from"}
	errRepository = &httpError{code: http.StatusNotImplemented, msg: "there is one repository, without a name: leave the name out"}
	errControl    = &httpError{code: http.StatusServiceUnavailable, msg: "models are not loaded and unloaded by clients here: start the server with --model-control explicit"}
)

// mayChange says why a model may not be loaded and unloaded by clients, whatever protocol they speak.
func (s *Server) mayChange(name string) error {
	if !s.opt.ModelControl {
		return errControl
	}
	return checkModelName(name)
}

// loadParameter refuses the parameters of a request to load a model.
func (s *Server) loadParameter(key string) error {
	switch {
	case strings.HasPrefix(key, "file:"):
		return failf(http.StatusForbidden, "a model's files are not taken from requests: put them into the repository")
	case key == "config":
		return failf(http.StatusNotImplemented, "a model's configuration is not taken from requests: put %s beside its versions", optionsFile)
	}
	return badRequest("unknown parameter %q", short(key))
}

// unloadParameter takes the one parameter of a request to unload a model, which has no effect: none depends on another.
func (s *Server) unloadParameter(key string) error {
	if key == "unload_dependents" {
		return nil
	}
	return badRequest("unknown parameter %q", short(key))
}

func (s *Server) modelConfig(w http.ResponseWriter, r *http.Request, c *call) error {
	v, err := s.find(w, r, c)
	if err != nil {
		return err
	}
	return s.writeJSON(w, s.configOf(v))
}

func (s *Server) modelStats(w http.ResponseWriter, _ *http.Request, c *call) error {
	all, err := s.Stats(c.model, c.version)
	if err != nil {
		return err
	}
	return s.writeJSON(w, struct {
		Stats []ModelStats `json:"model_stats"`
	}{all})
}

func (s *Server) repositoryIndex(w http.ResponseWriter, r *http.Request, _ *call) error {
	ready := false
	err := s.readAdmin(w, r, []string{"ready"}, func(rd *jsonReader, _ string) (err error) {
		ready, err = rd.bool("ready")
		return err
	})
	if err != nil {
		return err
	}
	all, err := s.Index(r.Context(), ready)
	if err != nil {
		return err
	}
	return s.writeJSON(w, all)
}

func (s *Server) repositoryLoad(w http.ResponseWriter, r *http.Request, c *call) error {
	return s.change(w, r, c, s.Load, func(_ *jsonReader, key string) error { return s.loadParameter(key) })
}

func (s *Server) repositoryUnload(w http.ResponseWriter, r *http.Request, c *call) error {
	return s.change(w, r, c, s.Unload, func(rd *jsonReader, key string) error {
		if err := s.unloadParameter(key); err != nil {
			return err
		}
		_, err := rd.bool(key)
		return err
	})
}

// otherRepository answers for repositories by name: there is one, and it has none.
func (s *Server) otherRepository(http.ResponseWriter, *http.Request, *call) error {
	return errRepository
}

// change loads or unloads the model that the path names.
func (s *Server) change(w http.ResponseWriter, r *http.Request, c *call, do func(ctx context.Context, name string) error, parameter func(*jsonReader, string) error) error {
	if err := s.mayChange(c.model); err != nil {
		return err
	}
	err := s.readAdmin(w, r, []string{"parameters"}, func(rd *jsonReader, _ string) error {
		var seen []string
		return rd.object("parameters", func(key string) error {
			if slices.Contains(seen, key) {
				return rd.errorf("the parameter %q appears twice", short(key))
			}
			seen = append(seen, key)
			return parameter(rd, key)
		})
	})
	if err != nil {
		return err
	}
	if err := do(r.Context(), c.model); err != nil {
		return err
	}
	return s.writeJSON(w, struct{}{})
}

// checkModelName refuses names that no model can have. The others are looked up among those of the repository.
func checkModelName(name string) error {
	if strings.TrimSpace(name) == "" || name == ".." || strings.ContainsAny(name, "/\\") || badName(name) != "" {
		return badRequest("%q is no name of a model", short(name))
	}
	return nil
}

// readAdmin reads a small JSON object with the known keys, or an empty body, which is one without keys.
func (s *Server) readAdmin(w http.ResponseWriter, r *http.Request, known []string, take func(rd *jsonReader, key string) error) error {
	b, err := s.openBody(w, r, maxAdmin)
	if err != nil {
		return err
	}
	defer b.clear()
	mem := &arena{m: &s.memory}
	defer mem.free()
	text, err := mem.readAll(b, b.size)
	if err != nil || len(text) == 0 {
		return err
	}
	rd := &jsonReader{b: text}
	keys := once{known: known}
	err = rd.object("the request", func(key string) error {
		if err := keys.see(rd, key); err != nil {
			return err
		}
		if !slices.Contains(known, key) {
			return rd.skip()
		}
		return take(rd, key)
	})
	if err != nil {
		return err
	}
	return rd.end()
}
