package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"

	"spos/internal/native"
	"spos/internal/ort"
	"spos/serve"
	"spos/serve/keys"
)

// OpenRuntime opens the ONNX Runtime library that this machine has.
func OpenRuntime() (*ort.Runtime, error) {
	path, err := native.ONNXRuntime()
	if err != nil {
		return nil, WithHint(err, "run `spos doctor` to see where it is looked for")
	}
	return ort.Open(path)
}

type serveOptions struct {
	repository string
	http       string
	grpc       string
	metrics    string
	queue      int
	cores      int
	nice       int
	timeout    time.Duration
	drain      time.Duration
	threads    map[string]int
	poll       time.Duration
	control    string

	drainDelay    time.Duration
	maxConns      int
	tls           keys.Files
	tokens        string
	protectHealth bool
	hosts         []string
	origins       []string
	pprof         bool
	noPage        bool
	otlp          string
	triton        bool
}

// NewServeCommand is `serve`.
func NewServeCommand() *cobra.Command {
	var o serveOptions
	cmd := &cobra.Command{
		Use:   "serve --repository DIR",
		Short: "Serve the models of a repository over HTTP and gRPC",
		Long: `Serve the models of a repository, DIR/<model>/<version>/model.onnx, over HTTP:
the Open Inference Protocol (JSON and binary tensors) and, for models that carry
their preprocessing, pictures at POST /v2/models/<model>/classify. With --grpc,
also over gRPC: the same models, checks and errors, with health and reflection. A
browser finds a page at /: the models, how they do, and a place to drop a picture.

A model's folder may hold a config.yaml: version policy, labels, mode, queue. With
--poll, changes of the repository take effect while requests are answered: a new
version takes over when it has proved to work, and the old one stays when not.

Every flag may come from the environment, --drain-timeout as SPOS_SERVE_DRAIN_TIMEOUT,
or from the YAML file of --config under its own name; the command line goes first, then
the environment. Files of tokens and certificates are read again when they
change. A first SIGTERM finishes the requests that were accepted, a second one does not.`,
		Example: `  spos serve --repository models
  spos serve --repository models --poll 2s --model-control explicit
  curl -s --data-binary @shoe.png 127.0.0.1:8000/v2/models/fashion/classify?k=3`,
		Args: cobra.NoArgs,
	}
	var unknown []string
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) (err error) {
		unknown, err = settle(cmd, os.Environ())
		return err
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return serveFunc(cmd, o, unknown) }
	cmd.AddCommand(newTokenCommand(), newHealthCommand())
	o.flags(cmd)
	_ = cmd.MarkFlagRequired("repository")
	_ = cmd.MarkFlagDirname("repository")
	_ = cmd.MarkFlagFilename(configFlag, "yaml", "yml")
	for _, name := range []string{"tls-cert", "tls-key", "tls-client-ca", "tokens"} {
		_ = cmd.MarkFlagFilename(name)
	}
	return cmd
}

func (o *serveOptions) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.String(configFlag, "", "YAML file with values for flags, by their names")
	f.StringVar(&o.repository, "repository", "", "folder of models")
	f.StringVar(&o.http, "http", "127.0.0.1:8000", "address to listen on; port 0 takes a free one")
	f.StringVar(&o.grpc, "grpc", "", "address to listen on for gRPC, such as 127.0.0.1:8001 (default: none)")
	f.StringVar(&o.metrics, "metrics", "", "address for operators alone: /metrics, health, profiles (default: /metrics on the HTTP address)")
	f.IntVar(&o.queue, "queue", 100, "requests that may wait for a model before the next is refused with 503")
	f.IntVar(&o.cores, "cores", 0, "cores that all models together keep busy (default: all)")
	f.IntVar(&o.nice, "nice", 0, "run models behind all else by so much, 1 to 19: a server that has too much to do refuses at once, and other programs go before its runs")
	f.DurationVar(&o.timeout, "timeout", 30*time.Second, "time from a request's last byte to its answer")
	f.DurationVar(&o.drain, "drain-timeout", 30*time.Second, "time that accepted requests have when the server stops")
	f.StringToIntVar(&o.threads, "model-threads", nil, "threads of one run, by model: lower latency, less throughput")
	f.DurationVar(&o.poll, "poll", 0, "how often to look for changes of the repository; they take effect when seen twice (default: never)")
	f.StringVar(&o.control, "model-control", controlNone, "who may load and unload models while the server runs: none, or explicit for clients")
	f.DurationVar(&o.drainDelay, "drain-delay", 0, "time between turning unready and refusing connections, for load balancers to notice")
	f.IntVar(&o.maxConns, "max-connections", 1024, "open connections before the next waits")
	f.StringVar(&o.tls.Cert, "tls-cert", "", "certificate in PEM form, with those between it and a root; turns TLS on everywhere")
	f.StringVar(&o.tls.Key, "tls-key", "", "private key of the certificate")
	f.StringVar(&o.tls.ClientCA, "tls-client-ca", "", "authorities that must have signed the certificates of clients")
	f.StringVar(&o.tokens, "tokens", "", "file of bearer tokens that clients need; see spos serve token")
	f.BoolVar(&o.protectHealth, "protect-health", false, "ask for a token at /v2/health as well")
	f.StringSliceVar(&o.hosts, "allowed-hosts", nil, "names by which clients may call the server beside localhost and addresses (default: on a loopback address no others, elsewhere any)")
	f.StringSliceVar(&o.origins, "allowed-origins", nil, "origins, as https://lab.example, whose web pages may use the server (default: none but its own)")
	f.BoolVar(&o.noPage, "no-page", false, "leave out the page for people at /")
	f.StringVar(&o.otlp, "otlp-endpoint", "", "collector of OpenTelemetry to send traces to, such as http://127.0.0.1:4318 (default: what OTEL_EXPORTER_OTLP_ENDPOINT says, else none)")
	f.BoolVar(&o.triton, "triton-metrics", false, "metrics under Triton's names as well, for dashboards made for it")
	f.BoolVar(&o.pprof, "pprof", false, "profiles of the process at /debug/pprof/ on the --metrics address")
}

const (
	controlNone     = "none"
	controlExplicit = "explicit"
)

func (o serveOptions) validate() error {
	if o.control != controlNone && o.control != controlExplicit {
		return fmt.Errorf("--model-control %s: use %s or %s", o.control, controlNone, controlExplicit)
	}
	if o.nice < 0 || o.nice > 19 {
		return fmt.Errorf("--nice %d: use 0 for no, or 1 to 19", o.nice)
	}
	if o.poll < 0 {
		return fmt.Errorf("--poll %s: use 0 for never, or a duration such as 2s", o.poll)
	}
	return o.validateLimits()
}

// validateLimits refuses numbers that bound nothing, or would stand for a default that nobody asked for.
func (o serveOptions) validateLimits() error {
	switch {
	case o.queue < 1:
		return fmt.Errorf("--queue %d: use 1 or more", o.queue)
	case o.cores < 0:
		return fmt.Errorf("--cores %d: use 0 for all, or how many", o.cores)
	case o.maxConns < 1:
		return fmt.Errorf("--max-connections %d: use 1 or more", o.maxConns)
	case o.timeout <= 0:
		return fmt.Errorf("--timeout %s: use a duration such as 30s", o.timeout)
	case o.drain <= 0:
		return fmt.Errorf("--drain-timeout %s: use a duration such as 30s; 1ms cuts requests at once", o.drain)
	case o.drainDelay < 0:
		return fmt.Errorf("--drain-delay %s: use 0 for none, or a duration such as 10s", o.drainDelay)
	}
	return nil
}

func serveFunc(cmd *cobra.Command, o serveOptions, unknown []string) error {
	if err := o.validate(); err != nil {
		return err
	}
	o.cores = cmp.Or(o.cores, runtime.GOMAXPROCS(0))
	defer widen(o.cores)()
	defer patiently()()
	signal.Ignore(syscall.SIGPIPE) // whoever reads the log may go, the server stays
	lines := newBackgroundLog(cmd.ErrOrStderr())
	log, err := Logger(cmd, lines)
	if err != nil {
		return err
	}
	lines.report = func(lost int64) { log.Warn("lines of the log were lost here", "lines", lost) }
	lines.start()
	defer lines.Close()
	warnUnknown(log, unknown)
	metrics, err := registry(lines)
	if err != nil {
		return err
	}
	sockets, err := activated()
	if err != nil {
		return err
	}
	tracer, closeTracing, err := openTracing(cmd.Context(), o.otlp, log)
	if err != nil {
		return err
	}
	defer closeTracing()
	defer runtime.KeepAlive(newBallast())
	rt, err := OpenRuntime()
	if err != nil {
		return err
	}
	control := o.control == controlExplicit
	repo, err := serve.OpenRepository(cmd.Context(), o.repository, serve.RepositoryOptions{
		Runtime: rt, Logger: log, Threads: o.threads, Cores: o.cores, MayBeEmpty: control || o.poll > 0,
	})
	if errors.Is(err, os.ErrNotExist) {
		return WithHint(err, "put models there as <model>/<version>/model.onnx, for example with `spos export RUN -o "+o.repository+"/my-model/1/model.onnx`")
	}
	if err != nil {
		return err
	}
	defer repo.Close()
	var srv *serve.Server
	so := o.options(log, sockets, metrics)
	so.Source, so.Tracer, so.Conditions = repo, tracer, conditionsHere(cmd.Context(), rt)
	so.Ready = func() {
		log.Info("serving", append(addresses(srv), "models", len(repo.Models()), "onnxruntime", rt.Version())...)
		notify(log, daemon.SdNotifyReady, fmt.Sprintf("STATUS=serving at %v", srv.Addr()))
	}
	so.Stopping = func() { notify(log, daemon.SdNotifyStopping, "STATUS=finishing accepted requests") }
	if srv, err = serve.New(so, repo.Models()...); err != nil {
		return err
	}
	err = runWatched(cmd.Context(), log, srv)
	if err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	log.Info("stopped")
	return nil
}

// widen lets Go run on so many more threads, unless the environment says on how
// many. A run is C, and holds one of Go's processors until the scheduler looks,
// up to 10 ms later: with runs on all of them, whoever reads, answers and
// refuses waits for that at each step. undo puts it back.
func widen(runs int) (undo func()) {
	if os.Getenv("GOMAXPROCS") != "" {
		return func() {}
	}
	before := runtime.GOMAXPROCS(0)
	runtime.GOMAXPROCS(before + runs)
	return func() { runtime.GOMAXPROCS(before) }
}

// options are what the flags say to the server.
func (o serveOptions) options(log *slog.Logger, sockets map[string]net.Listener, metrics *prometheus.Registry) serve.Options {
	return serve.Options{
		HTTP: o.http, Listener: sockets["http"], GRPC: o.grpc, GRPCListener: sockets["grpc"],
		Metrics: o.metrics, MetricsListener: sockets["metrics"],
		Logger: log, Registry: metrics, Version: Version,
		Queue: o.queue, Cores: o.cores, Nice: o.nice, MaxConns: o.maxConns,
		Timeout: o.timeout, DrainTimeout: o.drain, DrainDelay: o.drainDelay,
		TLS: o.tls, Tokens: o.tokens, ProtectHealth: o.protectHealth,
		AllowedHosts: o.hosts, AllowedOrigins: o.origins, Pprof: o.pprof, NoPage: o.noPage, TritonMetrics: o.triton,
		Poll: o.poll, ModelControl: o.control == controlExplicit,
	}
}

// registry is of metrics, with those of the process and of its log.
func registry(log *backgroundLog) (*prometheus.Registry, error) {
	r := prometheus.NewRegistry()
	lost := prometheus.CounterOpts{Namespace: "spos", Subsystem: "serve", Name: "log_lines_lost_total", Help: "Lines of the log that could not be written."}
	for _, c := range []prometheus.Collector{
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewCounterFunc(lost, func() float64 { return float64(log.Lost()) }),
	} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// addresses are where a server listens, for the log.
func addresses(srv *serve.Server) []any {
	scheme := "http://"
	if srv.TLS() {
		scheme = "https://"
	}
	all := []any{"address", scheme + srv.Addr().String()}
	if a := srv.GRPCAddr(); a != nil {
		all = append(all, "grpc", a.String())
	}
	if a := srv.MetricsAddr(); a != nil {
		all = append(all, "metrics", scheme+a.String())
	}
	return all
}
