package serve

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"spos/serve/keys"
)

// This file decides who may ask what: by the token that a request shows, by the name under which a browser found the
// server, and by the page that a browser's request comes from.

const (
	challenge       = `Bearer realm="spos"`
	challengeWrong  = challenge + `, error="invalid_token"`
	challengeNarrow = challenge + `, error="insufficient_scope", scope="`
)

// access is what the requests of all listeners are checked against.
type access struct {
	tokens        *keys.Tokens // nil: nobody needs one
	protectHealth bool
	hosts         []string // names that are allowed beside localhost
	origins       []string // pages that may use the server
	cross         *http.CrossOriginProtection
	met           *metrics
}

func newAccess(o *Options, m *metrics) (*access, error) {
	a := &access{protectHealth: o.ProtectHealth, origins: o.AllowedOrigins, cross: http.NewCrossOriginProtection(), met: m}
	for _, h := range o.AllowedHosts {
		a.hosts = append(a.hosts, hostname(h))
	}
	for _, origin := range o.AllowedOrigins {
		if err := a.cross.AddTrustedOrigin(origin); err != nil {
			return nil, fmt.Errorf("serve: %q is no origin: write https://host or https://host:port", origin)
		}
	}
	if o.Tokens != "" {
		var err error
		if a.tokens, err = keys.OpenTokens(o.Tokens, o.Logger); err != nil {
			return nil, fmt.Errorf("serve: %w", err)
		}
	}
	return a, nil
}

// front is one listener's side of the server.
type front struct {
	s       *Server
	routes  []route
	local   bool // the listener is reached from this machine only
	anyHost bool // requests may call the server as they like
}

func (s *Server) newFront(at net.Addr, routes []route) *front {
	f := &front{s: s, routes: routes, local: isLocal(at)}
	_, isTCP := at.(*net.TCPAddr)
	f.anyHost = !isTCP || !f.local && len(s.access.hosts) == 0
	return f
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) { f.s.answer(f, w, r) }

// isLocal reports an address that other machines do not reach.
func isLocal(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return !ok || tcp.IP.IsLoopback()
}

// authorize holds the values of a request's Authorization header, or of the metadata of that name, against what it
// asks for, and returns the name of its token. The name is empty where the server has no tokens or want is 0.
func (a *access) authorize(want keys.Scope, values []string) (string, error) {
	if a.tokens == nil || want == 0 {
		return "", nil
	}
	if len(values) == 0 {
		a.met.refused.WithLabelValues("no_token").Inc()
		return "", &httpError{code: http.StatusUnauthorized, challenge: challenge,
			msg: "a token is needed: send it as Authorization: Bearer TOKEN"}
	}
	token, ok := a.find(values)
	if !ok {
		a.met.refused.WithLabelValues("unknown_token").Inc()
		return "", &httpError{code: http.StatusUnauthorized, challenge: challengeWrong,
			msg: "the Authorization header holds no token that this server knows"}
	}
	a.met.tokens.WithLabelValues(token.Name).Inc()
	if token.Scopes&want == 0 {
		a.met.refused.WithLabelValues("scope").Inc()
		return token.Name, &httpError{code: http.StatusForbidden, challenge: challengeNarrow + want.String() + `"`,
			msg: "the token does not allow this: it lacks the scope " + want.String()}
	}
	return token.Name, nil
}

func (a *access) find(values []string) (keys.Token, bool) {
	scheme, secret, _ := strings.Cut(values[0], " ")
	secret = strings.TrimSpace(secret)
	if len(values) > 1 || !strings.EqualFold(scheme, "Bearer") || secret == "" {
		return keys.Token{}, false
	}
	return a.tokens.Find(secret)
}

// scopeOf is what a route needs. A route that is not named here needs what most do.
func (a *access) scopeOf(route string) keys.Scope {
	switch route {
	case "page": // the same for everyone; what it shows it has to ask for
		return 0
	case "live", "ready":
		if !a.protectHealth {
			return 0
		}
		return keys.Infer
	case "metrics":
		return keys.Metrics
	case "load", "unload", "pprof":
		return keys.Admin
	}
	return keys.Infer
}

// admit checks what a browser tells of a request, and lets the pages of allowed origins read the answer.
func (f *front) admit(w http.ResponseWriter, r *http.Request) error {
	a := f.s.access
	if !f.allowsHost(r.Host) {
		a.met.refused.WithLabelValues("host").Inc()
		return failf(http.StatusForbidden, "the server is not called %q: use localhost, or start it with --allowed-hosts", short(hostname(r.Host)))
	}
	if err := a.cross.Check(r); err != nil {
		a.met.refused.WithLabelValues("origin").Inc()
		return failf(http.StatusForbidden, "pages of other origins may not use the server unless it is started with --allowed-origins")
	}
	if len(a.origins) == 0 {
		return nil
	}
	h := w.Header()
	h.Add("Vary", "Origin")
	origin := r.Header.Get("Origin")
	if !slices.Contains(a.origins, origin) {
		return nil
	}
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Access-Control-Expose-Headers", headerLength+", Retry-After, X-Request-Id")
	if r.Method == http.MethodOptions {
		h.Set("Access-Control-Allow-Methods", "GET, POST")
		h.Set("Access-Control-Allow-Headers", "Authorization, Content-Encoding, Content-Type, "+headerLength+", Traceparent, X-Request-Id")
		h.Set("Access-Control-Max-Age", "600")
	}
	return nil
}

// allowsHost refuses the names with which a page rebinds its own name to this machine, to read answers that the
// browser would keep from other pages. An address cannot be rebound, and browsers always send something.
func (f *front) allowsHost(host string) bool {
	if f.anyHost || host == "" {
		return true
	}
	name := hostname(host)
	if ip, err := netip.ParseAddr(name); err == nil {
		return !f.local || ip.IsLoopback()
	}
	return name == "localhost" || strings.HasSuffix(name, ".localhost") || slices.Contains(f.s.access.hosts, name)
}

// hostname is a Host header without its port, in lower case.
func hostname(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// openAccess opens the files of tokens and certificates and finds settings that do not go together.
func (s *Server) openAccess() (err error) {
	o := &s.opt
	switch {
	case o.Pprof && s.metrics == nil:
		return errors.New("serve: profiles are on the metrics' own listener, and it has no address")
	case o.Pprof && o.Tokens == "" && !isLocal(s.metrics.Addr()):
		return fmt.Errorf("serve: %v is a public address, and profiles show the memory of the process: use tokens, or a loopback address", s.metrics.Addr())
	}
	if s.access, err = newAccess(o, s.met); err != nil {
		return err
	}
	if o.TLS != (keys.Files{}) {
		if s.certs, err = keys.OpenCertificates(o.TLS, o.Logger); err != nil {
			return fmt.Errorf("serve: %w", err)
		}
	}
	s.public = s.newFront(s.listener.Addr(), routes)
	if s.metrics != nil {
		s.private = s.newFront(s.metrics.Addr(), operatorRoutes)
	}
	return nil
}

// warnOfStrangers tells of listeners that let in whoever comes.
func (s *Server) warnOfStrangers() {
	if s.access.tokens != nil || s.certs != nil && s.certs.Clients() {
		return
	}
	for _, a := range []net.Addr{s.Addr(), s.GRPCAddr()} {
		if !isLocal(a) {
			s.opt.Logger.Warn("anyone who reaches this address may use the models", "address", a.String())
		}
	}
}
