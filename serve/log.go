package serve

import (
	"io"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"time"
)

// account logs and counts a request that is over.
func (s *Server) account(w *recorder, r *http.Request, c *call, took time.Duration) {
	s.met.of(c.found).count(c.route, strconv.Itoa(w.status), took)
	level, inference := slog.LevelInfo, c.route == "infer" || c.route == "classify"
	if !inference && w.status < 400 {
		level = slog.LevelDebug // probes and scrapes
	}
	if !s.opt.Logger.Enabled(r.Context(), level) {
		return
	}
	line := append(make([]slog.Attr, 0, 20),
		slog.String("request_id", c.id), slog.String("method", printable(r.Method)), slog.String("path", printable(r.URL.Path)),
		slog.String("route", c.route), slog.Int("status", w.status))
	if c.found != nil {
		line = append(line, slog.String("model", c.found.info.Name), slog.String("version", c.found.info.Version))
	}
	line = append(line, slog.Int64("bytes_in", c.body.read), slog.Int64("bytes_out", w.written), milliseconds("took_ms", took))
	if inference {
		line = append(line, milliseconds("queue_ms", c.spans.queue), milliseconds("input_ms", c.spans.input),
			milliseconds("compute_ms", c.spans.infer))
	}
	line = append(line, slog.String("remote", r.RemoteAddr))
	if c.token != "" {
		line = append(line, slog.String("token", c.token))
	}
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		line = append(line, slog.String("certificate", printable(r.TLS.PeerCertificates[0].Subject.CommonName)))
	}
	if agent := r.UserAgent(); agent != "" {
		line = append(line, slog.String("user_agent", printable(agent)))
	}
	s.opt.Logger.LogAttrs(r.Context(), level, "request", line...)
}

func milliseconds(key string, d time.Duration) slog.Attr {
	return slog.Float64(key, math.Round(float64(d)/1e3)/1e3)
}

// printable is a client's text for the log: short, and with everything escaped that a terminal or a reader of lines
// could take for more than text.
func printable(s string) string {
	s = short(s)
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			q := strconv.Quote(s)
			return q[1 : len(q)-1]
		}
	}
	return s
}

// countedBody counts what was read of a request's body, as sent.
type countedBody struct {
	io.ReadCloser
	read int64
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.read += int64(n)
	return n, err
}
