package serve

import (
	"maps"
	"net/http"
)

// extensions are those of the protocol that the tests hold the server to.
var extensions = []string{
	"binary_tensor_data", "classification", "model_configuration", "model_repository", "model_repository(unload_dependents)", "statistics",
}

func (s *Server) serverMetadata(w http.ResponseWriter, _ *http.Request, _ *call) error {
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
	v, err := s.find(r, c)
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
	v, err := s.find(r, c)
	if err != nil {
		return err
	}
	properties := maps.Clone(v.info.Properties)
	for label, version := range s.labelsOf(v.info.Name) {
		if properties == nil {
			properties = map[string]string{}
		}
		properties["label."+label] = version
	}
	return s.writeJSON(w, struct {
		Name       string            `json:"name"`
		Versions   []string          `json:"versions"`
		Platform   string            `json:"platform"`
		Inputs     []TensorInfo      `json:"inputs"`
		Outputs    []TensorInfo      `json:"outputs"`
		Properties map[string]string `json:"properties,omitempty"`
	}{v.info.Name, s.versionsOf(v.info.Name), v.info.Platform, listed(v.info.Inputs), listed(v.info.Outputs), properties})
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
