package serve

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
)

// page is what a person sees at /: the models, how they do, and a place to drop a picture. All of it is in one file, and
// all that it shows it asks for as any client does.
//
//go:embed page.html
var page string

// pagePolicy lets the page run what the file holds and nothing else, talk to this server alone, and never make
// elements of text, so that the name of a model cannot become more than a name.
var pagePolicy = strings.Join([]string{
	"default-src 'none'",
	"script-src " + hashOf("script"),
	"style-src " + hashOf("style"),
	"img-src blob: data:",
	"connect-src 'self'",
	"base-uri 'none'",
	"form-action 'none'",
	"frame-ancestors 'none'",
	"require-trusted-types-for 'script'",
	"trusted-types 'none'",
}, "; ")

// hashOf is the source expression of the page's one element of a kind.
func hashOf(element string) string {
	_, text, _ := strings.Cut(page, "<"+element+">")
	text, _, _ = strings.Cut(text, "</"+element+">")
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

func (s *Server) servePage(w http.ResponseWriter, _ *http.Request, _ *call) error {
	if s.opt.NoPage {
		return errNoPath
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(page)))
	h.Set("Content-Security-Policy", pagePolicy)
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-cache")
	w.WriteHeader(http.StatusOK)
	// As in write: a client that does not read has gone away.
	_ = writePaced(w, []byte(page), s.opt.WriteIdleTimeout)
	return nil
}
