// Package serve answers inference requests over HTTP and gRPC: the Open Inference Protocol with JSON and binary tensors, and
// pictures in, labels out. It knows how to admit, read, check, answer and stop; what computes is a [Model] behind one
// method. It must never know how a network is described or trained, and never touches a tensor's meaning except
// through the metadata that came with the model.
//
// The rules of the package: nothing that a client sends is trusted or unbounded; a name from a request is looked up in
// a map and never becomes part of a path or a metric's label; a 200 is only begun when all of its body is known.
package serve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"spos/serve/keys"
)

// Options are the settings of a [Server]. Every zero value but Logger's means the default that its comment names.
type Options struct {
	// HTTP is the address to listen on. Empty: 127.0.0.1:8000. Port 0 takes a free one.
	HTTP string
	// Listener is used instead of listening on HTTP.
	Listener net.Listener
	// GRPC is the address to listen on for gRPC. Empty: none. GRPCListener is used instead of listening on it.
	GRPC         string
	GRPCListener net.Listener
	// Metrics is the address of a listener for operators: /metrics, health and profiles. Empty: /metrics is on the HTTP
	// address. MetricsListener is used instead of listening on it.
	Metrics         string
	MetricsListener net.Listener
	// Registry receives the server's metrics. Nil: a new one, with those of the process and the Go runtime.
	Registry *prometheus.Registry
	// Logger receives one line a request, at Info for inferences and failures, and the reasons of failures. It must not be nil.
	Logger *slog.Logger
	// Name and Version are what GET /v2 says. Empty: "spos" and "".
	Name, Version string

	// MaxBody bounds a request's body in bytes, as sent and decompressed. 0: 64 MiB.
	MaxBody int64
	// MaxImage bounds an encoded picture in bytes. 0: 16 MiB.
	MaxImage int64
	// MaxPixels bounds a picture's width × height. 0: 40 million.
	MaxPixels int64
	// Memory bounds the bytes that the bodies and tensors of all requests in flight hold. 0: 512 MiB.
	Memory int64
	// MaxConns bounds open connections; further ones wait to be accepted. 0: 1024.
	MaxConns int
	// Queue is how many requests wait for one model before the next is refused with 503. 0: 100.
	Queue int
	// Cores is how many cores all models together keep busy. 0: GOMAXPROCS.
	Cores int
	// Nice puts runs on threads of their own that are nicer than the process by so much, so that a server with more to
	// do than it has cores refuses at once. Other programs of the machine go before its runs, too. Linux only. 0: runs
	// have the priority of the process.
	Nice int

	// Timeout is the time from a request's last byte to its answer. 0: 30 s.
	Timeout time.Duration
	// HeaderTimeout is the time for a request's header. 0: 10 s.
	HeaderTimeout time.Duration
	// BodyIdleTimeout is the longest pause inside a body, BodyTimeout the time for all of it. 0: 10 s, 5 min.
	BodyIdleTimeout, BodyTimeout time.Duration
	// WriteIdleTimeout is the longest time for 64 KiB of an answer. 0: 30 s.
	WriteIdleTimeout time.Duration
	// IdleTimeout is how long a connection may wait for its next request. 0: 2 min.
	IdleTimeout time.Duration
	// DrainDelay is the time between turning unready and refusing connections, for balancers to notice. 0: none.
	DrainDelay time.Duration
	// DrainTimeout is the time that accepted requests have to finish when the server stops. 0: 30 s.
	DrainTimeout time.Duration

	// TLS names the files of certificates, which every listener uses. Clients need certificates of their own on all but
	// the metrics' when it has authorities. Empty: no TLS.
	TLS keys.Files
	// Tokens is a file of bearer tokens, as [keys.OpenTokens] reads it. Empty: nobody needs one.
	Tokens string
	// ProtectHealth asks for a token on /v2/health as well.
	ProtectHealth bool
	// AllowedHosts are names by which clients may call the server, beside localhost and addresses. None: on a loopback
	// address no others, elsewhere any.
	AllowedHosts []string
	// AllowedOrigins are origins, such as https://lab.example, whose pages may use the server from a browser. None: no
	// page of another origin may.
	AllowedOrigins []string
	// Pprof serves profiles of the process at /debug/pprof/ on the metrics' listener.
	Pprof bool
	// NoPage leaves out the page for people at /.
	NoPage bool
	// Ready is called once the server accepts requests, Stopping when it begins to stop. Nil: nothing is called.
	Ready, Stopping func()

	// Tracer receives a span of each request, with spans of its parts below it. Nil: none are made, and the trace that a
	// client is in is only logged.
	Tracer trace.TracerProvider
	// Conditions tells what latencies of models depend on when this machine runs them with a number of threads, under
	// the names that a [Promise] has for them. Nil: promises are not compared.
	Conditions func(threads int) map[string]string
	// TritonMetrics adds metrics under the names that Triton has for them, for dashboards made for it.
	TritonMetrics bool

	// Load loads a version that a model's Versions list and that was not handed to New, when first asked for. Nil:
	// such versions are not available.
	Load func(ctx context.Context, name, version string) (Model, error)
	// Source is where models come from while the server runs; those of the start are handed to New. It also loads
	// what Load would. Nil: the models stay as they are.
	Source Source
	// Poll is how often Source is looked at for changes, which take effect when they are seen a second time. 0: never.
	Poll time.Duration
	// ModelControl lets clients load and unload models.
	ModelControl bool
}

func (o Options) withDefaults() Options {
	o.HTTP = cmp.Or(o.HTTP, "127.0.0.1:8000")
	o.Name = cmp.Or(o.Name, "spos")
	o.MaxBody = cmp.Or(o.MaxBody, 64<<20)
	o.MaxImage = cmp.Or(o.MaxImage, 16<<20)
	o.MaxPixels = cmp.Or(o.MaxPixels, 40e6)
	o.Memory = cmp.Or(o.Memory, 512<<20)
	o.MaxConns = cmp.Or(o.MaxConns, 1024)
	o.Queue = cmp.Or(o.Queue, 100)
	o.Cores = cmp.Or(o.Cores, runtime.GOMAXPROCS(0))
	o.Timeout = cmp.Or(o.Timeout, 30*time.Second)
	o.HeaderTimeout = cmp.Or(o.HeaderTimeout, 10*time.Second)
	o.BodyIdleTimeout = cmp.Or(o.BodyIdleTimeout, 10*time.Second)
	o.BodyTimeout = cmp.Or(o.BodyTimeout, 5*time.Minute)
	o.WriteIdleTimeout = cmp.Or(o.WriteIdleTimeout, 30*time.Second)
	o.IdleTimeout = cmp.Or(o.IdleTimeout, 2*time.Minute)
	o.DrainTimeout = cmp.Or(o.DrainTimeout, 30*time.Second)
	if o.Load == nil && o.Source != nil {
		o.Load = o.Source.Load
	}
	return o
}

// Server serves models. Make it with [New], then call Run once, or Close.
type Server struct {
	opt     Options
	cores   *semaphore.Weighted
	memory  memory
	heads   sync.Pool // *[]byte, the JSON of answers that have few values in it
	packers *packers
	runners *runners // nil: runs are where their requests are
	apart   spread
	met     *metrics
	tracer  trace.Tracer // nil: none

	catalog   atomic.Pointer[catalog]
	writer    chan struct{}      // holds one token; who has it may change the catalog and applied
	applied   map[string]applied // what the catalog was made of, by model
	retiring  sync.WaitGroup
	closed    atomic.Bool // nothing is loaded any more
	closeErrs errorList

	ready    atomic.Bool
	listener net.Listener
	grpc     net.Listener       // nil: no gRPC
	metrics  net.Listener       // nil: /metrics is on listener
	certs    *keys.Certificates // nil: no TLS
	access   *access
	public   *front
	private  *front // on the metrics' listener
}

// New makes a server of models and takes its port. Several models may share a name and differ in version; of those
// the one with the highest version answers requests that name none. The server owns the models from here on, also
// when New fails, and closes them at the end of Run or in Close.
func New(o Options, models ...Model) (_ *Server, err error) {
	s := &Server{opt: o.withDefaults(), writer: make(chan struct{}, 1), applied: map[string]applied{}, apart: spread{begun: map[int]int{}}}
	s.catalog.Store(&catalog{})
	defer func() {
		if err != nil {
			err = errors.Join(err, closeAll(models), s.closeListeners())
			s.runners.stop()
		}
	}()
	s.cores = semaphore.NewWeighted(int64(s.opt.Cores))
	s.memory.limit = s.opt.Memory
	s.packers = newPackers()
	s.heads.New = func() any { return new([]byte) }
	s.tracer = newTracer(s.opt.Tracer, s.opt.Version)
	more := []prometheus.Collector{newLatencyCollector(s)}
	if s.opt.TritonMetrics {
		more = append(more, newTritonCollector(s))
	}
	if s.met, err = newMetrics(s.opt.Registry, more...); err != nil {
		return nil, err
	}
	if s.runners, err = newRunners(s.opt.Cores, s.opt.Nice); err != nil {
		return nil, err
	}
	first := catalog{}
	for _, m := range models {
		if err := s.add(first, m); err != nil {
			return nil, err
		}
	}
	s.catalog.Store(&first)
	if s.listener = s.opt.Listener; s.listener == nil {
		if s.listener, err = listen(s.opt.HTTP); err != nil {
			return nil, err
		}
	}
	if s.grpc = s.opt.GRPCListener; s.grpc == nil && s.opt.GRPC != "" {
		if s.grpc, err = listen(s.opt.GRPC); err != nil {
			return nil, err
		}
	}
	if s.metrics = s.opt.MetricsListener; s.metrics == nil && s.opt.Metrics != "" {
		if s.metrics, err = listen(s.opt.Metrics); err != nil {
			return nil, err
		}
	}
	s.fitConns()
	return s, s.openAccess()
}

// Addr is the address that the server listens on.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// GRPCAddr is the address that the server listens on for gRPC, nil where it does not.
func (s *Server) GRPCAddr() net.Addr {
	if s.grpc == nil {
		return nil
	}
	return s.grpc.Addr()
}

// service serves one listener: an http.Server, or one of gRPC in its shape.
type service interface {
	Serve(net.Listener) error // http.ErrServerClosed after Shutdown and Close
	Shutdown(context.Context) error
	Close() error
}

// MetricsAddr is the address of the operators' listener, nil where there is none.
func (s *Server) MetricsAddr() net.Addr {
	if s.metrics == nil {
		return nil
	}
	return s.metrics.Addr()
}

// TLS reports that the listeners speak TLS.
func (s *Server) TLS() bool { return s.certs != nil }

// Run serves until ctx is done. Then it turns unready, stops accepting, finishes the requests it has accepted and
// closes the models. It returns nil after that, and an error when requests were cut at DrainTimeout or serving failed.
// Cancelling ctx does not cancel requests.
func (s *Server) Run(ctx context.Context) error {
	defer func() { s.ready.Store(false) }()
	work, cut := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cut(errStop)
	servers := []service{s.httpServer(work, s.public, true)}
	listeners := []net.Listener{newLimitedListener(s.listener, s.opt.MaxConns)}
	serving := s.ready.Store
	if s.grpc != nil {
		g := newRPC(work, s)
		serving = func(yes bool) {
			s.ready.Store(yes)
			g.setServing(yes)
		}
		servers = append(servers, g)
		listeners = append(listeners, newLimitedListener(s.grpc, s.opt.MaxConns))
	}
	clients := servers
	if s.metrics != nil {
		watch, leave := context.WithCancelCause(work)
		operators := s.httpServer(watch, s.private, false)
		operators.RegisterOnShutdown(func() { leave(errStop) }) // nobody waits for the end of a profile
		servers = append(servers, operators)
		listeners = append(listeners, newLimitedListener(s.metrics, maxOperators))
	}
	group, failed := errgroup.WithContext(ctx)
	serving(true) // before the first request can ask
	for i, h := range servers {
		group.Go(func() error {
			if err := h.Serve(listeners[i]); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serve: %w", err)
			}
			return nil
		})
	}
	if s.opt.Source != nil && s.opt.Poll > 0 {
		group.Go(func() error { s.poll(failed); return nil })
	}
	s.warnOfStrangers()
	s.opt.Logger.Debug("serving", "address", s.Addr().String(), "models", len(*s.catalog.Load()))
	if s.opt.Ready != nil {
		s.opt.Ready()
	}
	<-failed.Done()
	serving(false)
	if s.opt.Stopping != nil {
		s.opt.Stopping()
	}
	drained := s.drain(ctx, cut, clients, servers[len(clients):])
	return errors.Join(group.Wait(), drained, s.closeModels())
}

// goodbye is the time that cut requests have to say so to their clients.
const goodbye = time.Second

// drain lets accepted requests finish, and cuts those that do not, one group of servers after the other.
func (s *Server) drain(ctx context.Context, cut context.CancelCauseFunc, groups ...[]service) error {
	if ctx.Err() != nil && s.opt.DrainDelay > 0 {
		time.Sleep(s.opt.DrainDelay)
	}
	s.opt.Logger.Debug("stopping", "timeout", s.opt.DrainTimeout)
	ctx = context.WithoutCancel(ctx)
	limit, cancel := context.WithTimeout(ctx, s.opt.DrainTimeout)
	defer cancel()
	var errs errorList
	for _, servers := range groups {
		var group sync.WaitGroup
		for _, h := range servers {
			group.Go(func() {
				if h.Shutdown(limit) == nil {
					return
				}
				cut(errStop)
				errs.add(fmt.Errorf("serve: requests were cut after %s", s.opt.DrainTimeout))
				last, cancel := context.WithTimeout(ctx, goodbye)
				defer cancel()
				if h.Shutdown(last) != nil {
					errs.add(h.Close())
				}
			})
		}
		group.Wait()
	}
	return errs.join()
}

// Close frees the port and the models of a server that was not run.
func (s *Server) Close() error { return errors.Join(s.closeListeners(), s.closeModels()) }

func (s *Server) closeListeners() error {
	var errs []error
	for _, ln := range []net.Listener{s.listener, s.grpc, s.metrics} {
		if ln != nil {
			errs = append(errs, ln.Close())
		}
	}
	return errors.Join(errs...)
}

func closeAll(models []Model) error {
	var errs []error
	for _, m := range models {
		if c, ok := m.(io.Closer); ok {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(errs...)
}

// errorList gathers errors of many goroutines.
type errorList struct {
	mu   sync.Mutex
	errs []error
}

func (l *errorList) add(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.errs = append(l.errs, err)
}

func (l *errorList) join() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(l.errs...)
}
