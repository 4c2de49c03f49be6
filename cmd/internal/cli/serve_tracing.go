package cli

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// Nothing is sent anywhere unless somebody says where to: by --otlp-endpoint,
// or by OpenTelemetry's own variables of the environment, whose meaning is
// that of its specification.
const (
	envEndpoint       = "OTEL_EXPORTER_OTLP_ENDPOINT"
	envTracesEndpoint = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
	envProtocol       = "OTEL_EXPORTER_OTLP_PROTOCOL"
	envTracesProtocol = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
	envExporter       = "OTEL_TRACES_EXPORTER"
	envDisabled       = "OTEL_SDK_DISABLED"
)

// flushTime is how long the last spans may take when the program stops.
const flushTime = 3 * time.Second

// openTracing makes what spans are sent with; nil where they are not. endpoint
// is the flag's value. flush sends what is left.
func openTracing(ctx context.Context, endpoint string, log *slog.Logger) (_ trace.TracerProvider, flush func(), err error) {
	exporter, err := openExporter(ctx, endpoint)
	if err == nil && exporter == nil && endpoint != "" {
		log.Warn("--otlp-endpoint is ignored, for the environment turns tracing off: unset the variable to send traces",
			"otel_sdk_disabled", os.Getenv(envDisabled), "otel_traces_exporter", os.Getenv(envExporter))
	}
	if err != nil || exporter == nil {
		return nil, func() {}, err
	}
	res, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithHost(),
		resource.WithAttributes(semconv.ServiceName("spos"), semconv.ServiceVersion(Version)),
		resource.WithFromEnv()) // the last word
	if err != nil {
		return nil, nil, fmt.Errorf("tracing: %w", err)
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Warn("spans are lost", "err", err) }))
	p := sdk.NewTracerProvider(sdk.WithBatcher(exporter), sdk.WithResource(res))
	return p, func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTime)
		defer cancel()
		if err := p.Shutdown(ctx); err != nil {
			log.Warn("spans are lost", "err", err)
		}
	}, nil
}

// openExporter is nil where nothing is to be sent. It does not wait for the
// other side.
func openExporter(ctx context.Context, endpoint string) (sdk.SpanExporter, error) {
	kind := os.Getenv(envExporter)
	asked := kind == "otlp" || cmp.Or(endpoint, os.Getenv(envTracesEndpoint), os.Getenv(envEndpoint)) != ""
	switch {
	case strings.EqualFold(os.Getenv(envDisabled), "true"), kind == "none", !asked && kind == "":
		return nil, nil
	case kind != "" && kind != "otlp":
		return nil, fmt.Errorf("%s=%s: only otlp and none are known", envExporter, kind)
	}
	protocol := cmp.Or(os.Getenv(envTracesProtocol), os.Getenv(envProtocol), "http/protobuf")
	switch protocol {
	case "http/protobuf", "grpc":
	default:
		return nil, fmt.Errorf("%s=%s: only http/protobuf and grpc are known", envProtocol, protocol)
	}
	if endpoint == "" { // the exporters read the environment themselves
		if protocol == "grpc" {
			return otlptracegrpc.New(ctx)
		}
		return otlptracehttp.New(ctx)
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, WithHint(fmt.Errorf("--otlp-endpoint %s: it is no address", endpoint), "write http://collector:4318, or https")
	}
	if protocol == "grpc" {
		return otlptracegrpc.New(ctx, otlptracegrpc.WithEndpointURL(endpoint))
	}
	const path = "/v1/traces"
	if !strings.HasSuffix(u.Path, path) {
		u = u.JoinPath(path)
	}
	return otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(u.String()))
}
