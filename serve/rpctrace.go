package serve

import (
	"context"
	"strings"

	otel "go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// metadataCarrier lets a propagator read a call's metadata.
type metadataCarrier metadata.MD

func (m metadataCarrier) Get(key string) string {
	v := metadata.MD(m).Get(key)
	if len(v) != 1 {
		return ""
	}
	return v[0]
}

func (m metadataCarrier) Set(key, value string) { metadata.MD(m).Set(key, value) }

func (m metadataCarrier) Keys() []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	return keys
}

// traceRPC ends the span of a call, or of a request of a stream.
func (g *rpcServer) traceRPC(c *call, err error) {
	span := c.trace.span
	if span == nil {
		return
	}
	defer span.End()
	if !span.IsRecording() {
		return
	}
	result := status.Code(err)
	spelled := code.Code(result).String() // as the convention has it: NOT_FOUND
	span.SetAttributes(semconv.RPCSystemNameGRPC, semconv.RPCMethod(c.path), semconv.RPCResponseStatusCode(spelled))
	switch result {
	// As the convention has it for servers: the others are the client's doing.
	case codes.Unknown, codes.DeadlineExceeded, codes.Unimplemented, codes.Internal, codes.Unavailable, codes.DataLoss:
		span.SetStatus(otel.Error, "")
		span.SetAttributes(semconv.ErrorTypeKey.String(spelled))
	}
	g.s.traceParts(c)
}

// traceCall begins the span of a call of the protocol, other than by the clock.
func (g *rpcServer) traceCall(ctx context.Context, r *rpc, header metadata.MD) {
	switch {
	case r.route == "unknown", r.route == "ServerLive", r.route == "ServerReady", strings.Contains(r.route, "/"): // health, reflection
		return
	}
	r.path = strings.TrimPrefix(r.method, "/")
	g.s.trace(ctx, &r.call, metadataCarrier(header), func() string { return r.path })
}

// traceMessage begins the span of one request of a stream, below that of the stream.
func (g *rpcServer) traceMessage(stream, c *call) {
	c.trace.id, c.path = stream.trace.id, stream.path
	if stream.trace.span != nil {
		g.s.span(stream.trace.below(), c, c.path)
	}
}
