package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"spos/serve"
	"spos/serve/client"
)

type inferOptions struct {
	server, grpc string
	version      string
	top          int
	tensors      []string
	output       string
	repeat       int
	concurrency  int
	timeout      time.Duration
	tokenFile    string
	ca           string
	cert, key    string
	json         bool
}

// NewInferCommand is `infer`.
func NewInferCommand() *cobra.Command {
	var o inferOptions
	cmd := &cobra.Command{
		Use:   "infer [MODEL] [PICTURE…]",
		Short: "Ask a server: pictures in, labels out; or tensors; or which models it has",
		Long: `Ask a server of the Open Inference Protocol. Pictures, JPEG or PNG, are answered with
labels and probabilities, and the time from the first byte sent to the last received;
- is standard input. With --tensor, tensors are sent instead: a NumPy file, or the bare
bytes of one, little-endian, for an input whose shape the model states. Without a MODEL,
the server's models are listed. With --repeat, requests are sent that often, from
--concurrency clients at once, and the quantiles of their times are shown.`,
		Example: `  spos infer
  spos infer fashion shoe.png shirt.jpg
  spos infer fashion shoe.png --repeat 1000 --concurrency 4
  spos infer addsub --tensor INPUT0=a.npy --tensor INPUT1=b.npy
  curl -s https://example.org/cat.jpg | spos infer --server https://models.lab:8000 --token-file token pets -`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return inferFunc(cmd, args, o)
		},
	}
	f := cmd.Flags()
	jsonFlag(cmd, &o.json)
	f.StringVar(&o.server, "server", "http://127.0.0.1:8000", "the server's address")
	f.StringVar(&o.grpc, "grpc", "", "speak gRPC with this host:port instead; with TLS where --ca or --cert is given, or as https://host:port")
	f.StringVar(&o.version, "version", "", "version or label of the model (default: the server's choice)")
	f.IntVar(&o.top, "top", 5, "classes shown for a picture")
	f.StringArrayVar(&o.tensors, "tensor", nil, "[NAME=]FILE: an input as .npy or bare bytes; once for each input")
	f.StringVarP(&o.output, "output", "o", "", "folder for the output tensors as .npy files")
	f.IntVar(&o.repeat, "repeat", 0, "requests to send in all")
	f.IntVar(&o.concurrency, "concurrency", 1, "requests that are under way at once")
	f.DurationVar(&o.timeout, "timeout", 30*time.Second, "time for one request")
	f.StringVar(&o.tokenFile, "token-file", "", "file that holds the bearer token")
	f.StringVar(&o.ca, "ca", "", "authorities of the server's certificate, in PEM form (default: the system's)")
	f.StringVar(&o.cert, "cert", "", "the client's own certificate, in PEM form")
	f.StringVar(&o.key, "key", "", "private key of the client's certificate")
	for _, name := range []string{"tensor", "token-file", "ca", "cert", "key"} {
		_ = cmd.MarkFlagFilename(name)
	}
	_ = cmd.MarkFlagDirname("output")
	return cmd
}

func (o *inferOptions) validate(args []string) error {
	switch {
	case o.top < 1 || o.top > 1000:
		return fmt.Errorf("--top %d: use 1 to 1000", o.top)
	case o.repeat < 0 || o.concurrency < 1:
		return errors.New("--repeat and --concurrency count from 1")
	case (o.cert == "") != (o.key == ""):
		return errors.New("--cert and --key go together")
	case len(args) == 0 && (len(o.tensors) > 0 || o.repeat > 0):
		return WithHint(errors.New("a MODEL is needed"), "without arguments, `spos infer` lists those of the server")
	case len(args) == 1 && len(o.tensors) == 0:
		return WithHint(fmt.Errorf("nothing to send to %q", args[0]), "name pictures, - for standard input, or --tensor FILE")
	case len(args) > 1 && len(o.tensors) > 0:
		return errors.New("pictures or --tensor, not both")
	case o.output != "" && len(o.tensors) == 0:
		return errors.New("--output is for the outputs of --tensor")
	}
	return nil
}

// address is the URL for the client package.
func (o *inferOptions) address() string {
	if o.grpc == "" {
		return o.server
	}
	scheme, host := "grpc", o.grpc
	if s, rest, ok := strings.Cut(o.grpc, "://"); ok {
		host = rest
		if s == "https" || s == "grpcs" {
			scheme = "grpcs"
		}
	}
	if o.ca != "" || o.cert != "" {
		scheme = "grpcs"
	}
	return scheme + "://" + host
}

func (o *inferOptions) open(cmd *cobra.Command) (*client.Client, error) {
	co := client.Options{Server: o.address(), Conns: o.concurrency}
	var err error
	if co.Token, err = readToken(o.tokenFile); err != nil {
		return nil, err
	}
	if co.TLS, err = o.tls(); err != nil {
		return nil, err
	}
	if co.Token != "" && showsToken(co.Server) {
		log, err := Logger(cmd, cmd.ErrOrStderr())
		if err != nil {
			return nil, err
		}
		log.Warn("the token is sent without TLS: everyone on the way can read it", "server", co.Server)
	}
	return client.Open(co)
}

// readToken reads a file of one token; no file is no token.
func readToken(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(strings.TrimPrefix(string(text), "token: "))
	if token == "" || strings.ContainsAny(token, " \t\r\n") {
		return "", WithHint(fmt.Errorf("%s does not hold one token and nothing else", path), "`spos serve token` shows a token once; a server's --tokens file holds hashes")
	}
	return token, nil
}

func (o *inferOptions) tls() (*tls.Config, error) {
	if o.ca == "" && o.cert == "" {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.ca != "" {
		text, err := os.ReadFile(o.ca)
		if err != nil {
			return nil, err
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s holds no certificate in PEM form", o.ca)
		}
	}
	if o.cert != "" {
		pair, err := tls.LoadX509KeyPair(o.cert, o.key)
		if err != nil {
			return nil, err
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// showsToken reports an address to which a token would go in the clear and over a network.
func showsToken(server string) bool {
	u, err := url.Parse(server)
	if err != nil || u.Scheme == "https" || u.Scheme == "grpcs" {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback())
}

func inferFunc(cmd *cobra.Command, args []string, o inferOptions) error {
	if err := o.validate(args); err != nil {
		return err
	}
	c, err := o.open(cmd)
	if err != nil {
		return err
	}
	defer c.Close()
	if len(args) == 0 {
		return o.explain(o.list(cmd, c), "")
	}
	t := &target{Client: c, o: &o, model: args[0], stdin: cmd.InOrStdin()}
	questions, err := t.questions(cmd.Context(), args[1:])
	if err != nil {
		return o.explain(err, args[0])
	}
	if o.repeat > 0 {
		return o.explain(o.measure(cmd, questions), args[0])
	}
	answers := make([]*answer, len(questions))
	failures := forEach(cmd.Context(), len(questions), o.concurrency, func(ctx context.Context, i int) (err error) {
		answers[i], err = questions[i].ask(ctx)
		return err
	})
	var errs []error
	for i, err := range failures {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", questions[i].name, err))
		}
	}
	if err := o.show(cmd, answers); err != nil {
		return err
	}
	return o.explain(errors.Join(errs...), args[0])
}

// list shows the server's models.
func (o *inferOptions) list(cmd *cobra.Command, c *client.Client) error {
	ctx, cancel := context.WithTimeout(cmd.Context(), o.timeout)
	defer cancel()
	index, err := c.Index(ctx)
	if err != nil {
		return err
	}
	type entry struct {
		serve.IndexEntry
		Inputs  []serve.TensorInfo `json:"inputs,omitempty"`
		Outputs []serve.TensorInfo `json:"outputs,omitempty"`
	}
	all := make([]entry, len(index))
	for i, e := range index {
		all[i].IndexEntry = e
		if e.State != serve.StateReady {
			continue // asking would load it
		}
		m, err := c.Model(ctx, e.Name, e.Version)
		if err != nil {
			return err
		}
		all[i].Inputs, all[i].Outputs = m.Inputs, m.Outputs
	}
	if o.json {
		return PrintJSON(cmd, all)
	}
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "MODEL\tVERSION\tSTATE\tINPUTS\tOUTPUTS\tREASON")
	for _, e := range all {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", e.Name, e.Version, e.State, tensorsText(e.Inputs), tensorsText(e.Outputs), e.Reason)
	}
	return w.Flush()
}

func tensorsText(all []serve.TensorInfo) string {
	words := make([]string, len(all))
	for i, t := range all {
		words[i] = fmt.Sprintf("%s %s%v", t.Name, t.Type, t.Shape)
	}
	return strings.Join(words, ", ")
}

// explain says which server an error is of, and what may be done about it.
func (o *inferOptions) explain(err error, model string) error {
	if err == nil {
		return nil
	}
	at := o.address()
	e, ok := errors.AsType[*client.Error](err)
	if !ok {
		return o.explainSilence(err)
	}
	err = fmt.Errorf("%s: %w", at, err)
	switch e.Code {
	case http.StatusUnauthorized, http.StatusForbidden:
		if strings.Contains(e.Message, "token") {
			return WithHint(err, "give a token with --token-file; who runs the server makes one with `spos serve token`")
		}
	case http.StatusNotFound:
		return WithHint(err, "`spos infer` with the same --server or --grpc and nothing else lists the models")
	case http.StatusBadRequest:
		if strings.Contains(e.Message, "without preprocessing") {
			return WithHint(err, fmt.Sprintf("send tensors: spos infer %s --tensor FILE.npy", model))
		}
		if strings.Contains(e.Message, "HTTPS server") {
			return WithHint(err, "write https:// in --server")
		}
	case http.StatusServiceUnavailable:
		return WithHint(err, "it is overloaded or not ready: try again, with a lower --concurrency")
	}
	return err
}

// explainSilence is for errors that no server answered with.
func (o *inferOptions) explainSilence(err error) error {
	at := o.address()
	text := err.Error()
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return WithHint(fmt.Errorf("%s: no answer within %s", at, o.timeout), "give it longer with --timeout")
	case errors.Is(err, io.EOF), strings.Contains(text, "malformed HTTP"),
		strings.Contains(text, "readLoopPeekFailLocked"): // net/http, when the other side talks first and leaves
		return WithHint(fmt.Errorf("%s: %w", at, err), "is the address that of its HTTP port, and http or https as it should be?")
	case strings.Contains(text, "x509:") || strings.Contains(text, "certificate signed by"):
		return WithHint(fmt.Errorf("%s: %w", at, err), "name the authority that signed the server's certificate with --ca")
	case strings.Contains(text, "connection refused") || strings.Contains(text, "no such host"):
		return WithHint(fmt.Errorf("%s does not answer: %w", at, err), "start one with `spos serve --repository DIR`, or name another with --server")
	}
	return err
}
