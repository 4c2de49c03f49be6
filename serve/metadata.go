package serve

import (
	"net/http"
)

// extensions are those of the protocol that the tests hold the server to.
var extensions = []string{
	"binary_tensor_data", "classification", "model_configuration", "model_repository", "model_repository(unload_dependents)", "statistics",
}

func (s *Server) serverMetadata(w http.ResponseWriter, _ *http.Request, _ *call) error {
	w.Header().Set("Link", `</v2/openapi.json>; rel="service-desc"`)
	return s.writeJSON(w, struct {
		Name       string   `json:"name"`
		Version    string   `json:"version"`
		Extensions []string `json:"extensions"`
	}{s.opt.Name, s.opt.Version, extensions})
}

// The bodies of the health endpoints are disputed; every client reads the status alone.

func (s *Server) live(w http.ResponseWriter, _ *http.Request, _ *call) error {
	return s.writeJSON(w, map[string]bool{"live": true})
}

func (s *Server) isReady(w http.ResponseWriter, _ *http.Request, _ *call) error {
	if !s.ready.Load() {
		return failf(http.StatusServiceUnavailable, "the server is not ready")
	}
	return s.writeJSON(w, map[string]bool{"ready": true})
}

func (s *Server) modelReady(w http.ResponseWriter, r *http.Request, c *call) error {
	v, err := s.find(w, r, c)
	if err != nil {
		return err
	}
	if !s.ready.Load() {
		return failf(http.StatusServiceUnavailable, "the server is not ready")
	}
	return s.writeJSON(w, struct {
		Name  string `json:"name"`
		Ready bool   `json:"ready"`
	}{v.info.Name, true})
}

func (s *Server) modelMetadata(w http.ResponseWriter, r *http.Request, c *call) error {
	v, err := s.find(w, r, c)
	if err != nil {
		return err
	}
	return s.writeJSON(w, s.describe(v))
}

// description is a model's metadata in JSON.
type description struct {
	Name       string            `json:"name"`
	Versions   []string          `json:"versions"`
	Platform   string            `json:"platform"`
	Inputs     []TensorInfo      `json:"inputs"`
	Outputs    []TensorInfo      `json:"outputs"`
	Properties map[string]string `json:"properties,omitempty"`
}

func (s *Server) describe(v *version) *description {
	properties := v.properties()
	for label, version := range s.labelsOf(v.info.Name) {
		properties["label."+label] = version
	}
	return &description{v.info.Name, s.versionsOf(v.info.Name), v.info.Platform, listed(v.info.Inputs), listed(v.info.Outputs), properties}
}

// listModels answers GET /v2/models: every model with its state, and the metadata of those that are loaded. Nothing is
// loaded for it. The protocol has no such request.
func (s *Server) listModels(w http.ResponseWriter, _ *http.Request, _ *call) error {
	type model struct {
		Name   string `json:"name"`
		State  State  `json:"state"`
		Reason string `json:"reason,omitempty"`
		*description
	}
	all := []model{}
	c := *s.catalog.Load()
	for _, name := range c.sorted() {
		m := model{Name: name, State: StateUnknown}
		slots := c[name].order
		if len(slots) == 0 {
			slots = c[name].sorted()
		}
		for i, sl := range slots {
			if v := sl.acquire(); v != nil {
				m.description, m.State, m.Reason = s.describe(v), StateReady, ""
				v.release()
				break
			}
			if i == 0 {
				m.State, m.Reason = sl.status()
			}
		}
		all = append(all, m)
	}
	return s.writeJSON(w, struct {
		Models []model `json:"models"`
	}{all})
}

// listed spells an open rank as one variable dimension, the nearest that the protocol can say.
func listed(ts []TensorInfo) []TensorInfo {
	out := make([]TensorInfo, len(ts))
	for i, t := range ts {
		if t.Shape == nil {
			t.Shape = []int64{-1}
		}
		out[i] = t
	}
	return out
}
