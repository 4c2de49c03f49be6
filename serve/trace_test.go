package serve_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/metadata"

	"spos/serve"
	"spos/serve/oippb"
)

const (
	traceID  = "0af7651916cd43dd8448eb211c80319c"
	parentID = "b7ad6b7169203331"
	sampled  = "00-" + traceID + "-" + parentID + "-01"
)

// traces is a server that is called without a network, its spans and its log.
type traces struct {
	t      *testing.T
	server *serve.Server
	spans  *tracetest.InMemoryExporter
	log    bytes.Buffer
}

func newTraces(t *testing.T, models ...serve.Model) *traces {
	t.Helper()
	tr := &traces{t: t, spans: tracetest.NewInMemoryExporter()}
	o := serve.Options{
		HTTP: "127.0.0.1:0", Tracer: sdk.NewTracerProvider(sdk.WithSyncer(tr.spans)), Version: "v1",
		Logger: slog.New(slog.NewTextHandler(&tr.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	var err error
	if tr.server, err = serve.New(o, models...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tr.server.Close(); err != nil {
			t.Error(err)
		}
	})
	return tr
}

// ask sends one request and returns its spans, the last of them that of the whole request.
func (tr *traces) ask(method, path, body string, header map[string]string) (*http.Response, tracetest.SpanStubs) {
	tr.t.Helper()
	tr.spans.Reset()
	tr.log.Reset()
	r := httptest.NewRequest(method, "http://127.0.0.1"+path, strings.NewReader(body))
	for k, v := range header {
		r.Header.Set(k, v)
	}
	w := httptest.NewRecorder()
	tr.server.ServeHTTP(w, r)
	return w.Result(), tr.spans.GetSpans()
}

func attributes(s tracetest.SpanStub) map[attribute.Key]string {
	all := map[attribute.Key]string{}
	for _, a := range s.Attributes {
		all[a.Key] = a.Value.String()
	}
	return all
}

// TestTraceOfAClient: a request's span is in the client's trace, below the client's span, and tells how the time of
// the request was spent.
func TestTraceOfAClient(t *testing.T) {
	tr := newTraces(t, slow("m", 5*time.Millisecond))
	began := time.Now()
	resp, spans := tr.ask("POST", "/v2/models/m/infer?x=1", jsonBody("[2,3]", "[1,2,3,4,5,6]"),
		map[string]string{"traceparent": sampled, "tracestate": "vendor=1,other=2", "X-Request-Id": "abc", "User-Agent": "test/1"})
	if resp.StatusCode != 200 || resp.Header.Get("X-Request-Id") != "abc" {
		t.Fatalf("%d, X-Request-Id %q", resp.StatusCode, resp.Header.Get("X-Request-Id"))
	}
	whole := spans[len(spans)-1]
	if c := whole.SpanContext; c.TraceID().String() != traceID || c.TraceState().String() != "vendor=1,other=2" || whole.Parent.SpanID().String() != parentID || !whole.Parent.IsRemote() {
		t.Errorf("span %v below %v", whole.SpanContext, whole.Parent)
	}
	if whole.Name != "POST /v2/models/{m}/infer" || whole.SpanKind != trace.SpanKindServer || whole.Status.Code != codes.Unset || whole.InstrumentationScope.Version != "v1" {
		t.Errorf("span %q of kind %v, status %v, scope %v", whole.Name, whole.SpanKind, whole.Status, whole.InstrumentationScope)
	}
	got := attributes(whole)
	for k, want := range map[attribute.Key]string{
		"http.request.method": "POST", "url.scheme": "http", "url.path": "/v2/models/m/infer", "http.route": "/v2/models/{m}/infer",
		"http.response.status_code": "200", "user_agent.original": "test/1",
		"spos.model.name": "m", "spos.model.version": "1", "spos.request.id": "abc",
	} {
		if got[k] != want {
			t.Errorf("%s is %q, want %q", k, got[k], want)
		}
	}
	parts := map[string]tracetest.SpanStub{}
	for _, s := range spans[:len(spans)-1] {
		parts[s.Name] = s
		if s.Parent.SpanID() != whole.SpanContext.SpanID() || s.SpanContext.TraceID() != whole.SpanContext.TraceID() ||
			s.StartTime.Before(began) || s.EndTime.After(whole.EndTime) || s.EndTime.Before(s.StartTime) {
			t.Errorf("%s from %v to %v is not inside of the request", s.Name, s.StartTime, s.EndTime)
		}
	}
	compute := parts["compute"]
	if took := compute.EndTime.Sub(compute.StartTime); took < 5*time.Millisecond || attributes(compute)["spos.batch.size"] != "2" {
		t.Errorf("compute took %v, attributes %v", took, attributes(compute))
	}
	for _, name := range []string{"queue", "decode", "compute", "encode"} {
		if _, ok := parts[name]; !ok {
			t.Errorf("no part %s", name)
		}
	}
	if line := tr.log.String(); !strings.Contains(line, "trace_id="+traceID) || !strings.Contains(line, "request_id=abc") {
		t.Errorf("log %s", line)
	}
}

func TestTraceSampling(t *testing.T) {
	tr := newTraces(t, echoModel("m", fp32x3))
	body := jsonBody("[1,3]", "[1,2,3]")
	for name, tt := range map[string]struct {
		parent string
		id     string // in the log; "new" for one that was made here
		spans  bool
	}{
		"sampled":     {sampled, traceID, true},
		"not sampled": {sampled[:len(sampled)-1] + "0", traceID, false},
		"none":        {"", "new", true},
		"garbage":     {"00-zz-1-01\x7f", "new", true},
		"zeros":       {"00-00000000000000000000000000000000-0000000000000000-01", "new", true},
		"version ff":  {"ff" + sampled[2:], "new", true},
	} {
		header := map[string]string{}
		if tt.parent != "" {
			header["traceparent"] = tt.parent
		}
		_, spans := tr.ask("POST", "/v2/models/m/infer", body, header)
		if (len(spans) > 0) != tt.spans {
			t.Errorf("%s: %d spans", name, len(spans))
		}
		_, line, _ := strings.Cut(tr.log.String(), "trace_id=")
		id, _, _ := strings.Cut(line, " ")
		if tt.id == "new" && (len(id) != 32 || id == traceID) || tt.id != "new" && id != tt.id {
			t.Errorf("%s: logged as %q", name, id)
		}
	}
	for _, path := range []string{"/v2/health/live", "/v2/health/ready", "/metrics", "/nowhere"} {
		if _, spans := tr.ask("GET", path, "", map[string]string{"traceparent": sampled}); len(spans) > 0 {
			t.Errorf("a span of %s", path)
		}
	}
}

func TestTraceOfFailures(t *testing.T) {
	broken := echoModel("broken", fp32x3)
	broken.run = func(context.Context, []serve.Tensor, []serve.Tensor) error { return errors.New("secret") }
	tr := newTraces(t, echoModel("m", fp32x3), broken)
	for name, tt := range map[string]struct {
		path, body string
		code       string
		status     codes.Code
	}{
		"unknown model": {"/v2/models/none/infer", "", "404", codes.Unset},
		"bad request":   {"/v2/models/m/infer", "{", "400", codes.Unset},
		"broken model":  {"/v2/models/broken/infer", jsonBody("[1,3]", "[1,2,3]"), "500", codes.Error},
	} {
		_, spans := tr.ask("POST", tt.path, tt.body, nil)
		whole := spans[len(spans)-1]
		got := attributes(whole)
		if got["http.response.status_code"] != tt.code || whole.Status.Code != tt.status || (got["error.type"] == tt.code) != (tt.status == codes.Error) {
			t.Errorf("%s: status %v, attributes %v", name, whole.Status, got)
		}
		for _, s := range spans {
			for k, v := range attributes(s) {
				if strings.Contains(v, "secret") {
					t.Errorf("%s: %s tells the inside: %s", name, k, v)
				}
			}
		}
	}
}

// TestTraceOff: without a tracer the client's trace is logged, and nothing else happens.
func TestTraceOff(t *testing.T) {
	var log bytes.Buffer
	s, err := serve.New(serve.Options{HTTP: "127.0.0.1:0", Logger: slog.New(slog.NewTextHandler(&log, nil))}, echoModel("m", fp32x3))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, parent := range []string{sampled, ""} {
		log.Reset()
		r := httptest.NewRequest("POST", "http://127.0.0.1/v2/models/m/infer", strings.NewReader(jsonBody("[1,3]", "[1,2,3]")))
		if parent != "" {
			r.Header.Set("traceparent", parent)
		}
		s.ServeHTTP(httptest.NewRecorder(), r)
		if strings.Contains(log.String(), "trace_id="+traceID) != (parent != "") {
			t.Errorf("with parent %q: %s", parent, log.String())
		}
	}
}

// ended hands spans on as they end.
type ended chan sdk.ReadOnlySpan

func (e ended) ExportSpans(_ context.Context, spans []sdk.ReadOnlySpan) error {
	for _, s := range spans {
		e <- s
	}
	return nil
}

func (e ended) Shutdown(context.Context) error { return nil }

// until receives spans up to the n-th of a kind.
func (e ended) until(kind trace.SpanKind, n int) (all tracetest.SpanStubs) {
	for n > 0 {
		s := <-e
		all = append(all, tracetest.SpanStubFromReadOnlySpan(s))
		if s.SpanKind() == kind {
			n--
		}
	}
	return all
}

func TestTraceRPC(t *testing.T) {
	spans := make(ended, 100)
	conn, _ := startRPC(t, serve.Options{Tracer: sdk.NewTracerProvider(sdk.WithSyncer(spans))}, echoModel("m", fp32x3))
	ctx := metadata.AppendToOutgoingContext(t.Context(), "traceparent", sampled, "tracestate", "vendor=1")
	if _, err := client(conn).ServerLive(ctx, &oippb.ServerLiveRequest{}); err != nil { // makes no span
		t.Fatal(err)
	}
	if _, err := client(conn).ModelInfer(ctx, rawRequest(floats(1, 2, 3), 1, 3)); err != nil {
		t.Fatal(err)
	}
	all := spans.until(trace.SpanKindServer, 1)
	whole := all[len(all)-1]
	if c := whole.SpanContext; c.TraceID().String() != traceID || c.TraceState().String() != "vendor=1" || whole.Parent.SpanID().String() != parentID {
		t.Errorf("span %v below %v", c, whole.Parent)
	}
	got := attributes(whole)
	if whole.Name != "inference.GRPCInferenceService/ModelInfer" || got["rpc.system.name"] != "grpc" || got["rpc.method"] != whole.Name ||
		got["rpc.response.status_code"] != "OK" || got["spos.model.name"] != "m" || len(all) < 3 {
		t.Errorf("%d spans, %q with %v", len(all), whole.Name, got)
	}

	if _, err := client(conn).ModelMetadata(ctx, &oippb.ModelMetadataRequest{Name: "none"}); err == nil {
		t.Fatal("metadata of no model")
	}
	whole = spans.until(trace.SpanKindServer, 1)[0]
	if got := attributes(whole); got["rpc.response.status_code"] != "NOT_FOUND" || whole.Status.Code != codes.Unset {
		t.Errorf("status %v, attributes %v", whole.Status, got)
	}
}

// TestTraceStream: each request of a stream has its span, below that of the stream.
func TestTraceStream(t *testing.T) {
	spans := make(ended, 100)
	conn, _ := startRPC(t, serve.Options{Tracer: sdk.NewTracerProvider(sdk.WithSyncer(spans))}, echoModel("m", fp32x3))
	ctx := metadata.AppendToOutgoingContext(t.Context(), "traceparent", sampled)
	stream, err := client(conn).ModelStreamInfer(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := stream.Send(rawRequest(floats(1, 2, 3), 1, 3)); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	all := spans.until(trace.SpanKindServer, 3)
	whole := all[len(all)-1]
	if whole.Parent.SpanID().String() != parentID {
		t.Errorf("the stream is below %v", whole.Parent)
	}
	below := 0
	for _, s := range all[:len(all)-1] {
		if s.SpanKind == trace.SpanKindServer {
			below++
			if s.Parent.SpanID() != whole.SpanContext.SpanID() || attributes(s)["spos.model.name"] != "m" {
				t.Errorf("%v below %v", attributes(s), s.Parent)
			}
		}
	}
	if below != 2 {
		t.Errorf("%d requests of the stream have spans", below)
	}
}
