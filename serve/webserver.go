package serve

import (
	"context"
	"log/slog"
	"net"
	"net/http"
)

// maxOperators is how many connections the metrics' listener has at once.
const maxOperators = 16

// maxStreams bounds the requests of one connection of HTTP/2, gRPC's too, that are answered at once.
const maxStreams = 100

func (s *Server) httpServer(work context.Context, h http.Handler, clients bool) webServer {
	hs := &http.Server{
		Handler:           h,
		BaseContext:       func(net.Listener) context.Context { return work },
		ConnContext:       withConn,
		ReadHeaderTimeout: s.opt.HeaderTimeout,
		IdleTimeout:       s.opt.IdleTimeout,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.opt.Logger.Handler(), slog.LevelDebug),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxStreams,
			MaxReadFrameSize:     16 << 10, // the default lets every connection hold a buffer of 1 MiB
			WriteByteTimeout:     s.opt.WriteIdleTimeout,
		},
	}
	if s.certs != nil {
		hs.TLSConfig = s.certs.Config(clients, "h2", "http/1.1")
	}
	return webServer{hs}
}

// webServer serves TLS where it has certificates.
type webServer struct{ *http.Server }

func (w webServer) Serve(ln net.Listener) error {
	if w.TLSConfig != nil {
		return w.ServeTLS(ln, "", "")
	}
	return w.Server.Serve(ln)
}
