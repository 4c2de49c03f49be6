package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"spos/internal/native"
	"spos/internal/ort"
	"spos/serve"
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
	timeout    time.Duration
	drain      time.Duration
	threads    map[string]int
	poll       time.Duration
	control    string
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
also over gRPC: the same models, checks and errors, with health and reflection.

A model's folder may hold a config.yaml: version policy, labels, mode, queue. With
--poll, changes of the repository take effect while requests are answered: a new
version takes over when it has proved to work, and the old one stays when not.`,
		Example: `  spos serve --repository models
  spos serve --repository models --poll 2s --model-control explicit
  curl -s --data-binary @shoe.png 127.0.0.1:8000/v2/models/fashion/classify?k=3`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return serveFunc(cmd, o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.repository, "repository", "", "folder of models")
	f.StringVar(&o.http, "http", "127.0.0.1:8000", "address to listen on; port 0 takes a free one")
	f.StringVar(&o.grpc, "grpc", "", "address to listen on for gRPC, such as 127.0.0.1:8001 (default: none)")
	f.StringVar(&o.metrics, "metrics", "", "address for /metrics alone (default: on the HTTP address)")
	f.IntVar(&o.queue, "queue", 100, "requests that may wait for a model before the next is refused with 503")
	f.IntVar(&o.cores, "cores", 0, "cores that all models together keep busy (default: all)")
	f.DurationVar(&o.timeout, "timeout", 30*time.Second, "time from a request's last byte to its answer")
	f.DurationVar(&o.drain, "drain-timeout", 30*time.Second, "time that accepted requests have when the server stops")
	f.StringToIntVar(&o.threads, "model-threads", nil, "threads of one run, by model: lower latency, less throughput")
	f.DurationVar(&o.poll, "poll", 0, "how often to look for changes of the repository; they take effect when seen twice (default: never)")
	f.StringVar(&o.control, "model-control", controlNone, "who may load and unload models while the server runs: none, or explicit for clients")
	_ = cmd.MarkFlagRequired("repository")
	_ = cmd.MarkFlagDirname("repository")
	return cmd
}

const (
	controlNone     = "none"
	controlExplicit = "explicit"
)

func (o serveOptions) validate() error {
	if o.control != controlNone && o.control != controlExplicit {
		return fmt.Errorf("--model-control %s: use %s or %s", o.control, controlNone, controlExplicit)
	}
	if o.poll < 0 {
		return fmt.Errorf("--poll %s: use 0 for never, or a duration such as 2s", o.poll)
	}
	return nil
}

func serveFunc(cmd *cobra.Command, o serveOptions) error {
	if err := o.validate(); err != nil {
		return err
	}
	log, err := Logger(cmd, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
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
	srv, err := serve.New(serve.Options{
		HTTP: o.http, GRPC: o.grpc, Metrics: o.metrics, Logger: log, Version: Version,
		Queue: o.queue, Cores: o.cores, Timeout: o.timeout, DrainTimeout: o.drain,
		Source: repo, Poll: o.poll, ModelControl: control,
	}, repo.Models()...)
	if err != nil {
		return err
	}
	log.Info("serving", "address", fmt.Sprintf("http://%v", srv.Addr()), "models", len(repo.Models()), "onnxruntime", rt.Version())
	if a := srv.GRPCAddr(); a != nil {
		log.Info("serving gRPC", "address", a.String())
	}
	if err := srv.Run(cmd.Context()); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	log.Info("stopped")
	return nil
}
