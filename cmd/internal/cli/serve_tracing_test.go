package cli

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"spos/serve"
)

// received is what a collector was sent: spans by name, and the resource.
type received struct {
	path     string
	names    []string
	resource map[string]string
}

func read(r *collector.ExportTraceServiceRequest) received {
	got := received{resource: map[string]string{}}
	for _, rs := range r.GetResourceSpans() {
		for _, a := range rs.GetResource().GetAttributes() {
			got.resource[a.GetKey()] = a.GetValue().GetStringValue()
		}
		for _, ss := range rs.GetScopeSpans() {
			for _, s := range ss.GetSpans() {
				got.names = append(got.names, s.GetName())
			}
		}
	}
	return got
}

// httpCollector is a collector of OTLP over HTTP, which hands on what it gets.
func httpCollector(t *testing.T) (string, <-chan received) {
	c := make(chan received, 10)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := io.Reader(r.Body)
		if r.Header.Get("Content-Encoding") == "gzip" {
			z, err := gzip.NewReader(r.Body)
			if err != nil {
				t.Error(err)
				return
			}
			body = z
		}
		text, err := io.ReadAll(body)
		if err != nil {
			t.Error(err)
		}
		var req collector.ExportTraceServiceRequest
		if err := proto.Unmarshal(text, &req); err != nil {
			t.Error(err)
		}
		got := read(&req)
		got.path = r.URL.Path
		c <- got
	}))
	t.Cleanup(srv.Close)
	return srv.URL, c
}

type grpcCollector struct {
	collector.UnimplementedTraceServiceServer
	c chan received
}

func (g *grpcCollector) Export(_ context.Context, r *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	g.c <- read(r)
	return &collector.ExportTraceServiceResponse{}, nil
}

func startGRPCCollector(t *testing.T) (string, <-chan received) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g, srv := &grpcCollector{c: make(chan received, 10)}, grpc.NewServer()
	collector.RegisterTraceServiceServer(srv, g)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	t.Cleanup(func() {
		srv.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return "http://" + ln.Addr().String(), g.c
}

type identity struct{}

func (identity) Info() serve.ModelInfo {
	t := serve.TensorInfo{Name: "x", Type: serve.FP32, Shape: []int64{-1, 1}}
	return serve.ModelInfo{Name: "m", Version: "1", Inputs: []serve.TensorInfo{t}, Outputs: []serve.TensorInfo{t}}
}

func (identity) Run(_ context.Context, in, out []serve.Tensor) error {
	out[0].Shape, out[0].Data = in[0].Shape, append(out[0].Data[:0], in[0].Data...)
	return nil
}

// traceOne serves one request with the tracing that flag and environment ask
// for, and stops.
func traceOne(t *testing.T, endpoint string) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	tracer, closeTracing, err := openTracing(t.Context(), endpoint, log)
	if err != nil {
		t.Fatal(err)
	}
	defer closeTracing()
	s, err := serve.New(serve.Options{HTTP: "127.0.0.1:0", Logger: log, Tracer: tracer}, identity{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r := httptest.NewRequest("POST", "http://127.0.0.1/v2/models/m/infer", strings.NewReader(`{"inputs":[{"name":"x","shape":[1,1],"datatype":"FP32","data":[1]}]}`))
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	if w.Code != 200 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
}

// quietEnvironment hides what the machine of the test has set.
func quietEnvironment(t *testing.T) {
	for _, name := range []string{envEndpoint, envTracesEndpoint, envProtocol, envTracesProtocol, envExporter, envDisabled, "OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"} {
		t.Setenv(name, "")
	}
}

func TestTracingReachesACollector(t *testing.T) {
	web, fromHTTP := httpCollector(t)
	rpc, fromGRPC := startGRPCCollector(t)
	for name, tt := range map[string]struct {
		flag string
		env  map[string]string
		from <-chan received
		path string
		as   string
	}{
		"flag":                    {flag: web, from: fromHTTP, path: "/v1/traces", as: "spos"},
		"flag with the path":      {flag: web + "/v1/traces", from: fromHTTP, path: "/v1/traces", as: "spos"},
		"flag below a path":       {flag: web + "/tenant/", from: fromHTTP, path: "/tenant/v1/traces", as: "spos"},
		"environment":             {env: map[string]string{envEndpoint: web}, from: fromHTTP, path: "/v1/traces", as: "spos"},
		"environment, of traces":  {env: map[string]string{envTracesEndpoint: web + "/mine"}, from: fromHTTP, path: "/mine", as: "spos"},
		"environment, a name":     {env: map[string]string{envEndpoint: web, "OTEL_SERVICE_NAME": "shoes"}, from: fromHTTP, path: "/v1/traces", as: "shoes"},
		"flag, gRPC":              {flag: rpc, env: map[string]string{envProtocol: "grpc"}, from: fromGRPC, as: "spos"},
		"environment, gRPC":       {env: map[string]string{envTracesProtocol: "grpc", envEndpoint: rpc}, from: fromGRPC, as: "spos"},
		"flag before environment": {flag: web, env: map[string]string{envEndpoint: "http://127.0.0.1:1"}, from: fromHTTP, path: "/v1/traces", as: "spos"},
	} {
		t.Run(name, func(t *testing.T) {
			quietEnvironment(t)
			for k, v := range tt.env {
				t.Setenv(k, v)
			}
			traceOne(t, tt.flag)
			got := <-tt.from
			if got.path != tt.path || got.resource["service.name"] != tt.as || got.resource["service.version"] != Version {
				t.Errorf("at %q, resource %v", got.path, got.resource)
			}
			for _, want := range []string{"POST /v2/models/{m}/infer", "queue", "compute"} {
				if !slices.Contains(got.names, want) {
					t.Errorf("spans %q lack %q", got.names, want)
				}
			}
		})
	}
}

// TestTracingIsOff unless somebody says where to.
func TestTracingIsOff(t *testing.T) {
	for name, env := range map[string]map[string]string{
		"nothing set": {},
		"disabled":    {envEndpoint: "http://127.0.0.1:1", envDisabled: "true"},
		"no exporter": {envEndpoint: "http://127.0.0.1:1", envExporter: "none"},
		"a protocol":  {envProtocol: "grpc"},
	} {
		t.Run(name, func(t *testing.T) {
			quietEnvironment(t)
			for k, v := range env {
				t.Setenv(k, v)
			}
			p, done, err := openTracing(t.Context(), "", slog.New(slog.DiscardHandler))
			if p != nil || err != nil {
				t.Errorf("%v, %v", p, err)
			}
			done()
		})
	}
}

// TestTracingWarns where the flag asks for what the environment forbids.
func TestTracingWarns(t *testing.T) {
	for name, env := range map[string]string{"disabled": envDisabled, "no exporter": envExporter, "neither": ""} {
		t.Run(name, func(t *testing.T) {
			quietEnvironment(t)
			if env != "" {
				t.Setenv(env, map[string]string{envDisabled: "true", envExporter: "none"}[env])
			}
			var out bytes.Buffer
			p, done, err := openTracing(t.Context(), "http://127.0.0.1:1", slog.New(slog.NewTextHandler(&out, nil)))
			if err != nil {
				t.Fatal(err)
			}
			done()
			if warned := strings.Contains(out.String(), "--otlp-endpoint is ignored"); warned != (p == nil) || warned != (env != "") {
				t.Errorf("tracer %v, log %q", p, out.String())
			}
		})
	}
}

func TestTracingRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		flag string
		env  map[string]string
		want string
	}{
		"no scheme":           {flag: "collector:4318", want: "no address"},
		"no host":             {flag: "http://", want: "no address"},
		"another scheme":      {flag: "ftp://collector", want: "no address"},
		"an unknown protocol": {flag: "http://c", env: map[string]string{envProtocol: "http/json"}, want: "only http/protobuf and grpc"},
		"an unknown exporter": {flag: "http://c", env: map[string]string{envExporter: "zipkin"}, want: "only otlp and none"},
	} {
		t.Run(name, func(t *testing.T) {
			quietEnvironment(t)
			for k, v := range tt.env {
				t.Setenv(k, v)
			}
			if _, _, err := openTracing(t.Context(), tt.flag, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

// TestTracingSurvivesItsCollector: spans that nobody takes do not hold up requests.
func TestTracingSurvivesItsCollector(t *testing.T) {
	quietEnvironment(t)
	t.Setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "50")
	traceOne(t, "http://127.0.0.1:1")
}
