package serve

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"
)

// call is what is known of a request beyond net/http.
type call struct {
	id      string // of the request: the client's X-Request-Id or a new one
	route   string
	model   string   // as the path has it, decoded
	version string   // or a label; empty: none was named
	token   string   // the name of the one that admitted it
	found   *version // what model and version led to, held until the request is over
	body    countedBody
	spans   spans
	path    string // as the route has it, or the full name of a method; empty: unknown
	trace   traced
}

type handler func(*Server, http.ResponseWriter, *http.Request, *call) error

// route leads from a method and a path to a handler. Its name is a metric's label, and decides on the scope that it
// needs.
type route struct {
	method, path, name string
	handle             handler
}

// routes are all there are. {m}, {v} and {r} stand for one segment. The server matches them itself: http.ServeMux redirects
// and answers in plain text.
var routes = []route{
	{"GET", "", "page", (*Server).servePage},
	{"GET", "v2", "server", (*Server).serverMetadata},
	{"GET", "v2/", "server", (*Server).serverMetadata},
	{"GET", "v2/openapi.json", "openapi", (*Server).openapi},
	{"GET", "v2/health/live", "live", (*Server).live},
	{"GET", "v2/health/ready", "ready", (*Server).isReady},
	{"GET", "v2/models", "models", (*Server).listModels},
	{"GET", "v2/models/stats", "stats", (*Server).modelStats},
	{"GET", "v2/models/{m}", "model", (*Server).modelMetadata},
	{"GET", "v2/models/{m}/versions/{v}", "model", (*Server).modelMetadata},
	{"GET", "v2/models/{m}/ready", "model_ready", (*Server).modelReady},
	{"GET", "v2/models/{m}/versions/{v}/ready", "model_ready", (*Server).modelReady},
	{"GET", "v2/models/{m}/config", "config", (*Server).modelConfig},
	{"GET", "v2/models/{m}/versions/{v}/config", "config", (*Server).modelConfig},
	{"GET", "v2/models/{m}/stats", "stats", (*Server).modelStats},
	{"GET", "v2/models/{m}/versions/{v}/stats", "stats", (*Server).modelStats},
	{"POST", "v2/models/{m}/infer", "infer", (*Server).infer},
	{"POST", "v2/models/{m}/versions/{v}/infer", "infer", (*Server).infer},
	{"POST", "v2/models/{m}/classify", "classify", (*Server).classify},
	{"POST", "v2/models/{m}/versions/{v}/classify", "classify", (*Server).classify},
	{"POST", "v2/repository/index", "index", (*Server).repositoryIndex},
	{"POST", "v2/repository/models/{m}/load", "load", (*Server).repositoryLoad},
	{"POST", "v2/repository/models/{m}/unload", "unload", (*Server).repositoryUnload},
	{"POST", "v2/repository/{r}/index", "index", (*Server).otherRepository},
	{"POST", "v2/repository/{r}/models/{m}/load", "load", (*Server).otherRepository},
	{"POST", "v2/repository/{r}/models/{m}/unload", "unload", (*Server).otherRepository},
	{"GET", "metrics", "metrics", (*Server).serveMetrics},
}

// ServeHTTP answers one request, and every failure with {"error": text}.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.answer(s.public, w, r) }

func (s *Server) answer(f *front, w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	c := &call{id: cleanID(r.Header.Get("X-Request-Id")), route: "unknown"}
	rec := &recorder{ResponseWriter: w, packers: s.packers, accept: r.Header["Accept-Encoding"], head: r.Method == "HEAD", conn: connOf(r.Context())}
	rec.Header()["X-Request-Id"] = []string{c.id}
	s.met.inFlight.Inc()
	defer s.met.inFlight.Dec()
	defer func() {
		if p := recover(); p != nil {
			s.fail(rec, r, s.panicked(p, c.id), c)
		}
		rec.finish()
		rec.send()
		s.account(rec, r, c, time.Since(start))
		s.traceHTTP(rec, r, c)
		if c.found != nil {
			c.found.release()
		}
		if rec.broken {
			panic(http.ErrAbortHandler) // closes the connection, so that the client sees a short body
		}
	}()
	if len(r.TransferEncoding) > 0 {
		// There may have been a length, too, which net/http does not tell. A proxy may have gone by that, and what it
		// takes for the next request, which it never saw, must not be answered (RFC 9112, 6.1).
		rec.Header().Set("Connection", "close")
	}
	if r.ContentLength != 0 {
		c.body.ReadCloser = r.Body
		r.Body = &c.body
		// net/http reads what a handler leaves of a body, and would wait for it forever.
		setReadDeadline(rec, time.Now().Add(s.opt.BodyIdleTimeout))
		if len(r.Header["Expect"]) > 0 && r.ProtoMajor == 1 {
			s.hurry(rec) // the first read writes 100 Continue
		}
	}
	err := f.admit(rec, r)
	if err == nil {
		err = f.dispatch(rec, r, c)
	}
	if err != nil {
		s.fail(rec, r, err, c)
	}
}

// panicked counts and logs a bug. It must be called where it was recovered from.
func (s *Server) panicked(p any, id string) error {
	s.met.panics.Inc()
	s.opt.Logger.Error("panic", "request_id", id, "panic", p, "stack", string(debug.Stack()))
	return failf(http.StatusInternalServerError, "the request met a bug in the server; its log has it under request id %s", id)
}

// guarded turns a bug in do into an error.
func (s *Server) guarded(id string, do func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = s.panicked(p, id)
		}
	}()
	return do()
}

// find is lookup for a request that leads to one model. The model is released when the request is over.
func (s *Server) find(w http.ResponseWriter, r *http.Request, c *call) (*version, error) {
	v, sl, err := s.loaded(c.model, c.version)
	if sl != nil {
		// A load may take longer than a body may pause, and HTTP/2 reads no more of a body whose deadline has passed.
		if r.ContentLength != 0 {
			setReadDeadline(w, time.Time{})
		}
		v, err = s.loadLazily(r.Context(), sl)
		if r.ContentLength != 0 {
			setReadDeadline(w, time.Now().Add(s.opt.BodyIdleTimeout))
		}
	}
	c.found = v
	return v, err
}

// dispatch finds the route.
func (f *front) dispatch(w http.ResponseWriter, r *http.Request, c *call) (err error) {
	segments := strings.Split(strings.TrimPrefix(r.URL.EscapedPath(), "/"), "/")
	var allow []string
	for i := range f.routes {
		rt := &f.routes[i]
		if !c.match(rt.path, segments) {
			continue
		}
		if rt.method == r.Method || rt.method == "GET" && r.Method == "HEAD" {
			c.route, c.path = rt.name, rt.path
			f.s.traceRoute(r, c)
			if c.token, err = f.s.access.authorize(f.s.access.scopeOf(rt.name), r.Header["Authorization"]); err != nil {
				return err
			}
			return rt.handle(f.s, w, r, c)
		}
		if allow = append(allow, rt.method); rt.method == "GET" {
			allow = append(allow, "HEAD")
		}
	}
	if allow == nil {
		return errNoPath
	}
	methods := strings.Join(append(allow, "OPTIONS"), ", ")
	if r.Method == "OPTIONS" {
		w.Header().Set("Allow", methods)
		f.s.hurry(w)
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	return &httpError{code: http.StatusMethodNotAllowed, msg: "the method is not allowed here, use " + methods, allow: methods}
}

// match compares a route's path with a request's, segment by segment, and notes the decoded names.
func (c *call) match(path string, segments []string) bool {
	for i := 0; ; i++ {
		want, rest, more := strings.Cut(path, "/")
		if i >= len(segments) {
			return false
		}
		switch want {
		case "{m}", "{v}", "{r}":
			name, err := url.PathUnescape(segments[i])
			if err != nil || name == "" {
				return false
			}
			switch want {
			case "{m}":
				c.model, c.version = name, ""
			case "{v}":
				c.version = name
			}
		case segments[i]:
		default:
			return false
		}
		if !more {
			return i == len(segments)-1
		}
		path = rest
	}
}

// fail writes an error, unless an answer is already on its way or nobody is left to read it.
func (s *Server) fail(w *recorder, r *http.Request, err error, c *call) {
	e := answer(err, c.id)
	if e.code >= 500 && !errors.Is(err, e) {
		s.opt.Logger.Error("request failed", "request_id", c.id, "model", printable(c.model), "err", err)
	}
	drain(w, r)
	if w.status != 0 {
		w.broken = true
		return
	}
	if e.code == statusClientGone {
		w.status, w.broken = statusClientGone, true
		return
	}
	h := w.Header()
	if e.allow != "" {
		h.Set("Allow", e.allow)
	}
	if e.challenge != "" {
		h.Set("WWW-Authenticate", e.challenge)
	}
	switch e.code {
	case http.StatusServiceUnavailable:
		h.Set("Retry-After", seconds(e.retry))
	case http.StatusRequestTimeout:
		h.Set("Connection", "close")
	}
	if e == errCoding {
		h.Set("Accept-Encoding", "gzip, deflate")
	}
	b := append(appendString([]byte(`{"error":`), e.msg), '}')
	s.write(w, e.code, b)
}

// write sends a whole JSON body.
func (s *Server) write(w http.ResponseWriter, code int, b []byte) {
	h := w.Header()
	h["Content-Type"] = []string{"application/json"}
	h["Content-Length"] = []string{strconv.Itoa(len(b))}
	w.WriteHeader(code)
	// A client that does not read its answer has gone away; there is nobody to tell.
	_ = writePaced(w, b, s.opt.WriteIdleTimeout)
}

func (s *Server) writeJSON(w http.ResponseWriter, v any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err
	}
	s.write(w, http.StatusOK, b.Bytes())
	return nil
}

// cleanID takes the client's id of a request if it is harmless, and makes one if it is not.
func cleanID(id string) string {
	harmless := func(c byte) bool { return isWord(c) || c == '-' || c == '.' || c == ':' }
	if len(id) > 0 && len(id) <= 64 && !slices.ContainsFunc([]byte(id), func(c byte) bool { return !harmless(c) }) {
		return id
	}
	return rand.Text()
}

// recorder notes what was answered, and compresses it where that pays and the client wants it.
type recorder struct {
	http.ResponseWriter
	status  int
	written int64
	broken  bool // the connection must not be used again

	packers *packers
	accept  []string // Accept-Encoding
	head    bool     // the request's method is HEAD
	coding  string
	packer  packer // nil: the answer goes as it is
	conn    *limitedConn
}

func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func (r *recorder) WriteHeader(code int) {
	r.status = code
	r.pack(code)
	if r.conn != nil && len(r.Header()["Content-Length"]) > 0 {
		r.conn.hold()
	}
	r.ResponseWriter.WriteHeader(code)
}

// send sends what is held of an answer, before it is accounted for.
func (r *recorder) send() {
	if r.conn == nil || !r.conn.holding {
		return
	}
	// A client that does not read its answer has gone away; there is nobody to tell.
	_ = http.NewResponseController(r.ResponseWriter).Flush()
	_ = r.conn.send()
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	if r.packer != nil {
		return r.packer.Write(b)
	}
	return (*wire)(r).Write(b)
}
