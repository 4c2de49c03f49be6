package serve

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// This file makes a span of each request, in the trace of its client, and spans of its parts. The parts are told from
// the times that statistics need anyway, when the request is over: until then a request that is not traced pays for a
// look at two headers.

// tracePropagator reads traceparent and tracestate, and nothing else.
var tracePropagator = propagation.TraceContext{}

// names of attributes that no convention has.
const (
	attrModel   = attribute.Key("spos.model.name")
	attrVersion = attribute.Key("spos.model.version")
	attrItems   = attribute.Key("spos.batch.size")
	attrRequest = attribute.Key("spos.request.id")
)

const scopeName = "spos/serve"

// traced is what a request knows of its trace. Its zero value is none.
type traced struct {
	id   trace.TraceID // the client's, or that of a trace begun here; zero: none
	span trace.Span    // nil: the server makes none
}

// below is the context of spans below a request's.
func (t *traced) below() context.Context { return trace.ContextWithSpan(context.Background(), t.span) }

// newTracer is the server's; nil where the provider is.
func newTracer(p trace.TracerProvider, version string) trace.Tracer {
	if p == nil {
		return nil
	}
	return p.Tracer(scopeName, trace.WithInstrumentationVersion(version))
}

// traceRoute begins the span of a request over HTTP. Those that come by the clock are not traced: probes and scrapes.
func (s *Server) traceRoute(r *http.Request, c *call) {
	switch c.route {
	case "live", "ready", "metrics":
		return
	}
	s.trace(r.Context(), c, propagation.HeaderCarrier(r.Header), func() string { return r.Method + " /" + c.path })
}

// trace begins the span of a request.
func (s *Server) trace(ctx context.Context, c *call, from propagation.TextMapCarrier, name func() string) {
	if s.tracer == nil && from.Get("traceparent") == "" {
		return
	}
	ctx = tracePropagator.Extract(ctx, from)
	c.trace.id = trace.SpanContextFromContext(ctx).TraceID()
	if s.tracer != nil {
		s.span(ctx, c, name())
	}
}

// span begins one in the trace of ctx.
func (s *Server) span(ctx context.Context, c *call, name string) {
	_, c.trace.span = s.tracer.Start(ctx, name, trace.WithSpanKind(trace.SpanKindServer))
	c.trace.id = c.trace.span.SpanContext().TraceID()
}

// traceHTTP ends the span of a request over HTTP.
func (s *Server) traceHTTP(w *recorder, r *http.Request, c *call) {
	span := c.trace.span
	if span == nil {
		return
	}
	defer span.End()
	if !span.IsRecording() {
		return
	}
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	span.SetAttributes(semconv.HTTPRequestMethodKey.String(r.Method), semconv.URLScheme(scheme), semconv.URLPath(short(r.URL.Path)),
		semconv.HTTPRoute("/"+c.path), semconv.HTTPResponseStatusCode(w.status))
	if agent := r.UserAgent(); agent != "" {
		span.SetAttributes(semconv.UserAgentOriginal(short(agent)))
	}
	if w.status >= 500 {
		span.SetStatus(codes.Error, "")
		span.SetAttributes(semconv.ErrorTypeKey.String(strconv.Itoa(w.status)))
	}
	s.traceParts(c)
}

// traceParts tells what the time of a request was spent on, in its span and in spans below it.
func (s *Server) traceParts(c *call) {
	span, t := c.trace.span, &c.spans
	span.SetAttributes(attrRequest.String(c.id))
	if c.found == nil {
		return
	}
	span.SetAttributes(attrModel.String(c.found.info.Name), attrVersion.String(c.found.info.Version))
	if t.start.IsZero() {
		return
	}
	at, ctx := t.start, c.trace.below()
	part := func(name string, took time.Duration, attrs ...attribute.KeyValue) {
		if took <= 0 {
			return
		}
		_, sub := s.tracer.Start(ctx, name, trace.WithTimestamp(at), trace.WithAttributes(attrs...))
		at = at.Add(took)
		sub.End(trace.WithTimestamp(at))
	}
	part("queue", t.queue)
	part("decode", t.input)
	if t.items > 0 {
		part("compute", t.infer, attrItems.Int64(t.items))
	} else {
		part("compute", t.infer)
	}
	if !t.end.IsZero() {
		at = t.end.Add(-t.output)
		part("encode", t.output)
	}
}
