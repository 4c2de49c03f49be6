package serve

import (
	"context"
	"crypto/x509"
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
	who := caller{remote: r.RemoteAddr, agent: r.UserAgent()}
	if r.TLS != nil {
		who.certificates = r.TLS.PeerCertificates
	}
	s.log(r.Context(), level, c, inference, took, w.written, who,
		slog.String("method", printable(r.Method)), slog.String("path", printable(r.URL.Path)),
		slog.String("route", c.route), slog.Int("status", w.status))
}

// caller is who sent a request.
type caller struct {
	remote, agent string
	certificates  []*x509.Certificate
}

// log writes the line of a request of any protocol. what says what was asked and how it ended.
func (s *Server) log(ctx context.Context, level slog.Level, c *call, inference bool, took time.Duration, out int64, who caller, what ...slog.Attr) {
	if !s.opt.Logger.Enabled(ctx, level) {
		return
	}
	line := append(make([]slog.Attr, 0, 20), slog.String("request_id", c.id))
	if c.trace.id.IsValid() {
		line = append(line, slog.String("trace_id", c.trace.id.String()))
	}
	line = append(line, what...)
	if c.found != nil {
		line = append(line, slog.String("model", c.found.info.Name), slog.String("version", c.found.info.Version))
	}
	line = append(line, slog.Int64("bytes_in", c.body.read), slog.Int64("bytes_out", out), milliseconds("took_ms", took))
	if inference {
		line = append(line, milliseconds("queue_ms", c.spans.queue), milliseconds("input_ms", c.spans.input),
			milliseconds("compute_ms", c.spans.infer))
	}
	line = append(line, slog.String("remote", who.remote))
	if c.token != "" {
		line = append(line, slog.String("token", c.token))
	}
	if len(who.certificates) > 0 {
		line = append(line, slog.String("certificate", printable(who.certificates[0].Subject.CommonName)))
	}
	if who.agent != "" {
		line = append(line, slog.String("user_agent", printable(who.agent)))
	}
	s.opt.Logger.LogAttrs(ctx, level, "request", line...)
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
