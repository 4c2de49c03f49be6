// Package client asks servers of the Open Inference Protocol, ours and others, over HTTP or gRPC. It knows what the
// protocol says and nothing of how a server answers; classifying pictures is an addition of ours.
package client

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strings"

	"spos/serve"
)

// Options say which server to ask, and how.
type Options struct {
	// Server is http://host:port, https://host:port, grpc://host:port or, with TLS, grpcs://host:port.
	Server string
	// Token is a bearer token; empty: none.
	Token string
	// TLS holds authorities and certificates beyond those of the system. Nil: none.
	TLS *tls.Config
	// Conns is how many requests are under way at once, at most. 0: 1.
	Conns int
}

// Client asks one server. Its methods are safe for concurrent use, and their errors wrap an [Error] where the server
// answered with one. An empty version is the one that the server answers with by default.
type Client struct {
	wire
}

// wire is a protocol below the Client.
type wire interface {
	// Index lists the versions of all models.
	Index(ctx context.Context) ([]serve.IndexEntry, error)
	// Model describes a model. Servers may load one for it.
	Model(ctx context.Context, name, version string) (Model, error)
	// Infer sends tensors and returns all outputs, in the server's order, as bytes.
	Infer(ctx context.Context, name, version string, inputs []serve.Tensor) ([]serve.Tensor, error)
	// Classify sends an encoded picture and returns the top classes, the most probable first.
	Classify(ctx context.Context, name, version string, picture []byte, top int) ([]Class, error)
	// Close ends the connections.
	Close() error
}

// Model is what a server tells of one.
type Model struct {
	Name     string             `json:"name"`
	Versions []string           `json:"versions"`
	Platform string             `json:"platform"`
	Inputs   []serve.TensorInfo `json:"inputs"`
	Outputs  []serve.TensorInfo `json:"outputs"`
}

// Class is one class of a picture.
type Class struct {
	Label       string  `json:"label,omitempty"`
	Index       int     `json:"index"`
	Probability float64 `json:"probability"`
}

// Error is a server's answer that it cannot, in the codes of HTTP, which gRPC's are translated to.
type Error struct {
	Code    int
	Message string
}

func (e *Error) Error() string { return e.Message }

// Open prepares to ask a server. It does not connect: the first request does.
func Open(o Options) (*Client, error) {
	u, err := url.Parse(o.Server)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("%q is no address of a server: write http://host:port", o.Server)
	}
	o.Conns = max(o.Conns, 1)
	switch u.Scheme {
	case "http", "https":
		return &Client{openHTTP(u, o)}, nil
	case "grpc", "grpcs":
		if strings.Trim(u.Path, "/") != "" {
			return nil, fmt.Errorf("%q has a path, which gRPC has not", o.Server)
		}
		w, err := openGRPC(u, o)
		return &Client{w}, err
	}
	return nil, fmt.Errorf("%q is no address of a server: it begins with http, https, grpc or grpcs", o.Server)
}

// softmax makes probabilities of scores and returns the top ones, equal ones by index.
func softmax(classes []Class, scores []float64, top int) []Class {
	peak, sum := math.Inf(-1), 0.
	for _, s := range scores {
		peak = max(peak, s)
	}
	for i := range classes {
		classes[i].Probability = math.Exp(scores[i] - peak)
		sum += classes[i].Probability
	}
	for i := range classes {
		classes[i].Probability /= sum
	}
	slices.SortStableFunc(classes, func(a, b Class) int {
		return cmp.Or(cmp.Compare(b.Probability, a.Probability), cmp.Compare(a.Index, b.Index))
	})
	return classes[:min(top, len(classes))]
}
