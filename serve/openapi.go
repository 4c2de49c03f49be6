package serve

import (
	_ "embed" // of the document
	"net/http"
)

// openapiDocument describes every route of the main listener. A test holds the routes and all exchanges of the other
// tests against it.
//
//go:embed openapi.json
var openapiDocument []byte

func (s *Server) openapi(w http.ResponseWriter, _ *http.Request, _ *call) error {
	s.write(w, http.StatusOK, openapiDocument)
	return nil
}
