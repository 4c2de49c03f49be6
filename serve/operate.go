package serve

import (
	"net/http"
	"net/http/pprof"
	"time"
)

// operatorRoutes are those of the metrics' own listener. Health is among them for probes that cannot show the
// certificates that clients need.
var operatorRoutes = []route{
	{"GET", "v2/health/live", "live", (*Server).live},
	{"GET", "v2/health/ready", "ready", (*Server).isReady},
	{"GET", "metrics", "metrics", (*Server).operatorMetrics},
	{"GET", "debug/pprof/", "pprof", (*Server).profile},
	{"GET", "debug/pprof/{m}", "pprof", (*Server).profile},
	{"POST", "debug/pprof/symbol", "pprof", (*Server).profile},
}

// serveMetrics answers /metrics on the main listener, unless the metrics have their own.
func (s *Server) serveMetrics(w http.ResponseWriter, r *http.Request, c *call) error {
	if s.metrics != nil {
		return errNoPath
	}
	return s.operatorMetrics(w, r, c)
}

func (s *Server) operatorMetrics(w http.ResponseWriter, r *http.Request, _ *call) error {
	select {
	case s.met.scrapers <- struct{}{}:
	default:
		return failf(http.StatusServiceUnavailable, "others read the metrics, try again later")
	}
	defer func() { <-s.met.scrapers }()
	s.hurry(w)
	s.met.scrape.ServeHTTP(w, r)
	return nil
}

// profile answers with what net/http/pprof makes: the process's memory, goroutines, or a stretch of its time.
func (s *Server) profile(w http.ResponseWriter, r *http.Request, c *call) error {
	if !s.opt.Pprof {
		return errNoPath
	}
	// A profile takes as long as was asked for, and the deadline of the connection's last answer would cut it.
	if err := http.NewResponseController(w).SetWriteDeadline(time.Time{}); err != nil {
		return err
	}
	name := c.model // what the path says after pprof/
	c.model = ""
	switch name {
	case "cmdline": // may hold what others should not read, and nobody misses it
		return errNoPath
	case "profile":
		pprof.Profile(w, r)
	case "trace":
		pprof.Trace(w, r)
	case "symbol":
		pprof.Symbol(w, r)
	default:
		pprof.Index(w, r) // the list, and every profile that has a name
	}
	return nil
}
