package serve_test

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"spos/serve"
	"spos/serve/keys/keystest"
	"spos/serve/oippb"
)

func TestRPCTokens(t *testing.T) {
	conn, _ := startRPC(t, serve.Options{Tokens: tokensFile(t), ModelControl: true}, echoModel("m", fp32x3))
	c := client(conn)
	infer := func(token string) error {
		_, err := c.ModelInfer(metadata.AppendToOutgoingContext(t.Context(), "authorization", token), rawRequest(floats(1, 2, 3), 1, 3))
		return err
	}
	if err := infer("Bearer " + inferSecret); err != nil {
		t.Errorf("with a token: %v", err)
	}
	wantCode(t, infer("Bearer "+adminSecret), codes.PermissionDenied, "scope infer")
	wantCode(t, infer("Bearer nonsense"), codes.Unauthenticated, "no token that this server knows")
	_, err := c.ModelInfer(t.Context(), rawRequest(floats(1, 2, 3), 1, 3))
	wantCode(t, err, codes.Unauthenticated, "a token is needed")
	wantCode(t, conn.Invoke(t.Context(), "/no/Such", &oippb.ServerLiveRequest{}, &oippb.ServerLiveResponse{}), codes.Unauthenticated, "")
	stream, err := c.ModelStreamInfer(t.Context())
	if err == nil {
		_, err = stream.Recv()
	}
	wantCode(t, err, codes.Unauthenticated, "")
	for token, code := range map[string]codes.Code{inferSecret: codes.PermissionDenied, adminSecret: codes.Unavailable} {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+token)
		_, err := c.RepositoryModelLoad(ctx, &oippb.RepositoryModelLoadRequest{ModelName: "m"})
		wantCode(t, err, code, "")
		_, err = c.RepositoryModelUnload(ctx, &oippb.RepositoryModelUnloadRequest{ModelName: "../m"})
		if code == codes.Unavailable {
			code = codes.InvalidArgument // the name is looked at once it may
		}
		wantCode(t, err, code, "")
	}
	if _, err := c.ServerReady(t.Context(), &oippb.ServerReadyRequest{}); err != nil {
		t.Errorf("readiness without a token: %v", err)
	}
	if _, err := grpc_health_v1.NewHealthClient(conn).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{}); err != nil {
		t.Errorf("health without a token: %v", err)
	}
}

func TestRPCCertificates(t *testing.T) {
	ca, other := keystest.NewAuthority(t, "ca"), keystest.NewAuthority(t, "other")
	var text lockedBuffer
	s, err := serve.New(serve.Options{
		HTTP: "127.0.0.1:0", GRPC: "127.0.0.1:0", TLS: secrets(t, ca), Logger: slog.New(slog.NewJSONHandler(&text, nil)),
	}, echoModel("m", fp32x3))
	if err != nil {
		t.Fatal(err)
	}
	runUntilEnd(t, s)
	for name, certs := range map[string][]tls.Certificate{"alice": {ca.Client(t, "alice")}, "nobody": nil, "mallory": {other.Client(t, "mallory")}} {
		conn := dial(t, s.GRPCAddr().String(), grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: ca.Pool(), Certificates: certs})))
		_, err := client(conn).ModelInfer(t.Context(), rawRequest(floats(1, 2, 3), 1, 3))
		if (err == nil) != (name == "alice") {
			t.Errorf("%s: %v", name, err)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
	if !strings.Contains(text.String(), `"certificate":"alice"`) {
		t.Errorf("the log does not name the certificate: %s", text.String())
	}
}

// TestRPCAccounts holds metrics and the log to what was called, and to no more names than there are.
func TestRPCAccounts(t *testing.T) {
	var text lockedBuffer
	conn, url := startRPC(t, serve.Options{Registry: prometheus.NewRegistry(), Logger: slog.New(slog.NewJSONHandler(&text, nil))}, echoModel("m", fp32x3))
	c := client(conn)
	var header metadata.MD
	ctx := metadata.AppendToOutgoingContext(t.Context(), "x-request-id", "my-1")
	q := rawRequest(floats(1, 2, 3, 4, 5, 6), 2, 3)
	if _, err := c.ModelInfer(ctx, q, grpc.Header(&header)); err != nil {
		t.Fatal(err)
	}
	if got := header.Get("x-request-id"); len(got) != 1 || got[0] != "my-1" {
		t.Errorf("request id %q", got)
	}
	stream, err := c.ModelStreamInfer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := stream.Send(q); err != nil {
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
	for i := range 20 {
		made := fmt.Sprintf("made-up-%d", i)
		_, err := c.ModelInfer(t.Context(), rpcRequest(made, nil))
		wantCode(t, err, codes.NotFound, made)
		wantCode(t, conn.Invoke(t.Context(), "/"+made+"/"+made, &oippb.ServerLiveRequest{}, &oippb.ServerLiveResponse{}), codes.Unimplemented, "")
	}
	_, err = c.ModelConfig(t.Context(), &oippb.ModelConfigRequest{Name: "m", Version: strings.Repeat("x", 300<<10)})
	wantCode(t, err, codes.ResourceExhausted, "")
	metrics := string(send(t, "GET", url+"/metrics", nil, nil).body)
	for _, want := range []string{
		`spos_serve_requests_total{code="OK",model="m",route="ModelInfer",version="1"} 1`,
		`spos_serve_requests_total{code="OK",model="m",route="ModelStreamInfer",version="1"} 2`,
		`spos_serve_requests_total{code="NotFound",model="",route="ModelInfer",version=""} 20`,
		`spos_serve_requests_total{code="Unimplemented",model="",route="unknown",version=""} 20`,
		`spos_serve_requests_total{code="ResourceExhausted",model="",route="ModelConfig",version=""} 1`,
		`spos_serve_inferences_total{model="m",version="1"} 6`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("no %s", want)
		}
	}
	if strings.Contains(metrics, "made") {
		t.Error("a call's own name became a label")
	}
	var line map[string]any
	for text := range strings.Lines(text.String()) {
		if strings.Contains(text, `"my-1"`) {
			if err := json.Unmarshal([]byte(text), &line); err != nil {
				t.Fatalf("%s: %v", text, err)
			}
		}
	}
	for key, want := range map[string]any{
		"request_id": "my-1", "method": "gRPC", "path": "/inference.GRPCInferenceService/ModelInfer", "route": "ModelInfer", "status": "OK",
		"model": "m", "version": "1", "bytes_in": float64(len(message(t, q)) - 5),
	} {
		if line[key] != want {
			t.Errorf("%s is %v, want %v", key, line[key], want)
		}
	}
}

// TestRPCStreamsThatOnlyWait are ended, or there would soon be no room for others.
func TestRPCStreamsThatOnlyWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newGated()
		b := newRPCBubble(t, serve.Options{IdleTimeout: time.Minute, Timeout: time.Hour}, m)
		defer b.finish()
		start := time.Now()
		idle, err := client(b.conn).ModelStreamInfer(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		busy, err := client(b.conn).ModelStreamInfer(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := busy.Send(rawRequest(floats(1, 2, 3), 1, 3)); err != nil {
			t.Fatal(err)
		}
		_, err = idle.Recv()
		wantCode(t, err, codes.Unavailable, "no request came")
		if waited := time.Since(start); waited != time.Minute {
			t.Errorf("the idle stream ended after %v", waited)
		}
		time.Sleep(10 * time.Minute)
		close(m.gate)
		if r, err := busy.Recv(); err != nil || r.GetErrorMessage() != "" {
			t.Errorf("the busy stream: %v, %v", r, err)
		}
		start = time.Now()
		for _, method := range []string{"/inference.GRPCInferenceService/ModelReady", "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"} {
			s, err := b.conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method)
			if err != nil {
				t.Fatal(err)
			}
			wantCode(t, s.RecvMsg(&oippb.ModelReadyResponse{}), codes.Canceled, "") // grpc's own answer to what ends a wait
		}
		if waited := time.Since(start); waited != 30*time.Second {
			t.Errorf("three calls without a message took %v", waited)
		}
	})
}

// TestRPCCompression sends messages compressed, and bombs.
func TestRPCCompression(t *testing.T) {
	big := echoModel("m", serve.TensorInfo{Name: "x", Type: serve.FP32, Shape: []int64{-1}})
	conn, _ := startRPC(t, serve.Options{MaxBody: 1 << 20}, big)
	data := bytes.Repeat(floats(1, 2, 3, 4), 1000)
	for _, how := range []string{"gzip", "deflate"} {
		r, err := client(conn).ModelInfer(t.Context(), rawRequest(data, 4000), grpc.UseCompressor(how))
		if err != nil || !bytes.Equal(r.GetRawOutputContents()[0], data) {
			t.Errorf("%s: %v", how, err)
		}
		if _, err := client(conn).ModelReady(t.Context(), &oippb.ModelReadyRequest{Name: "m"}, grpc.UseCompressor(how)); err != nil {
			t.Errorf("%s, a small message: %v", how, err)
		}
		_, err = client(conn).ModelInfer(t.Context(), rawRequest(make([]byte, 8<<20), 2<<20), grpc.UseCompressor(how))
		wantCode(t, err, codes.ResourceExhausted, "larger than the server accepts")
	}
}
