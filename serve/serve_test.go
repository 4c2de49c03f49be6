package serve_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"io"
	"log/slog"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"spos/serve"
)

// fake is a Model of a function.
type fake struct {
	info serve.ModelInfo
	run  func(ctx context.Context, in, out []serve.Tensor) error
}

func (f *fake) Info() serve.ModelInfo { return f.info }

func (f *fake) Run(ctx context.Context, in, out []serve.Tensor) error { return f.run(ctx, in, out) }

// echo returns every input as the output of the same place, out[i] for in[i].
func echo(_ context.Context, in, out []serve.Tensor) error {
	for i := range out {
		at := slices.IndexFunc(in, func(t serve.Tensor) bool { return "out_"+t.Name == out[i].Name })
		out[i].Shape = slices.Clone(in[at].Shape)
		out[i].Data = append(out[i].Data[:0], in[at].Data...)
	}
	return nil
}

// echoModel has an input per info and an output "out_"+name of the same kind.
func echoModel(name string, inputs ...serve.TensorInfo) *fake {
	info := serve.ModelInfo{Name: name, Version: "1", Platform: "test", Inputs: inputs}
	for _, in := range inputs {
		in.Name = "out_" + in.Name
		info.Outputs = append(info.Outputs, in)
	}
	return &fake{info, echo}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// start runs a server until the test ends and returns its address as a URL.
func start(t testing.TB, o serve.Options, models ...serve.Model) string {
	t.Helper()
	if o.Logger == nil {
		o.Logger = quiet()
	}
	if o.HTTP == "" {
		o.HTTP = "127.0.0.1:0"
	}
	s, err := serve.New(o, models...)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return "http://" + s.Addr().String()
}

type reply struct {
	code   int
	header http.Header
	body   []byte
}

func send(t testing.TB, method, url string, header map[string]string, body []byte) reply {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		r.Header.Set(k, v)
	}
	resp, err := http.DefaultTransport.RoundTrip(r) // follows no redirects
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, b}
}

// wantError holds every failure to the protocol's form.
func wantError(t *testing.T, r reply, code int, part string) {
	t.Helper()
	var e map[string]string
	if err := json.Unmarshal(r.body, &e); err != nil || len(e) != 1 || e["error"] == "" {
		t.Fatalf("status %d, body %q is not {\"error\": text}", r.code, r.body)
	}
	if r.code != code || !strings.Contains(e["error"], part) {
		t.Errorf("got %d %q, want %d with %q", r.code, e["error"], code, part)
	}
	if ct := r.header.Get("Content-Type"); ct != "application/json" {
		t.Errorf("Content-Type %q", ct)
	}
	if strings.Contains(e["error"], "/tmp") || strings.Contains(e["error"], ".go:") {
		t.Errorf("the error shows the inside: %q", e["error"])
	}
}

// floats is the little-endian form.
func floats(xs ...float32) []byte {
	var b []byte
	for _, x := range xs {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return b
}

var fp32x3 = serve.TensorInfo{Name: "x", Type: serve.FP32, Shape: []int64{-1, 3}}

func TestHealthAndMetadata(t *testing.T) {
	one, two := echoModel("m", fp32x3), echoModel("m", fp32x3)
	one.info.Version, two.info.Version = "9", "10"
	two.info.Properties = map[string]string{"arch": "0123"}
	url := start(t, serve.Options{Version: "v1.2"}, one, two, serve.Unavailable("broken", "1", io.ErrUnexpectedEOF))
	tests := map[string]struct {
		path string
		code int
		body string
	}{
		"server":        {"/v2", 200, `{"name":"spos","version":"v1.2","extensions":["binary_tensor_data","classification","model_configuration","model_repository","model_repository(unload_dependents)","statistics"]}`},
		"server, slash": {"/v2/", 200, `{"name":"spos","version":"v1.2","extensions":["binary_tensor_data","classification","model_configuration","model_repository","model_repository(unload_dependents)","statistics"]}`},
		"all models": {"/v2/models", 200, `{"models":[` +
			`{"name":"broken","state":"UNAVAILABLE","reason":"model is not available: unexpected EOF"},` +
			`{"name":"m","state":"READY","versions":["9","10"],"platform":"test","inputs":[{"name":"x","datatype":"FP32","shape":[-1,3]}],` +
			`"outputs":[{"name":"out_x","datatype":"FP32","shape":[-1,3]}],"properties":{"arch":"0123"}}]}`},
		"live":              {"/v2/health/live", 200, `{"live":true}`},
		"ready":             {"/v2/health/ready", 200, `{"ready":true}`},
		"model ready":       {"/v2/models/m/ready", 200, `{"name":"m","ready":true}`},
		"version ready":     {"/v2/models/m/versions/9/ready", 200, `{"name":"m","ready":true}`},
		"broken, not ready": {"/v2/models/broken/ready", 503, ""},
		"broken, metadata":  {"/v2/models/broken", 503, ""},
		"metadata of the highest": {"/v2/models/m", 200, `{"name":"m","versions":["9","10"],"platform":"test",` +
			`"inputs":[{"name":"x","datatype":"FP32","shape":[-1,3]}],"outputs":[{"name":"out_x","datatype":"FP32","shape":[-1,3]}],` +
			`"properties":{"arch":"0123"}}`},
		"metadata of one version": {"/v2/models/m/versions/9", 200, `{"name":"m","versions":["9","10"],"platform":"test",` +
			`"inputs":[{"name":"x","datatype":"FP32","shape":[-1,3]}],"outputs":[{"name":"out_x","datatype":"FP32","shape":[-1,3]}]}`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := send(t, "GET", url+tt.path, nil, nil)
			if tt.code != 200 {
				wantError(t, r, tt.code, "")
				return
			}
			if got := strings.TrimSpace(string(r.body)); r.code != 200 || got != tt.body {
				t.Errorf("got %d %s\nwant %s", r.code, got, tt.body)
			}
			head := send(t, "HEAD", url+tt.path, nil, nil)
			if head.code != 200 || len(head.body) != 0 {
				t.Errorf("HEAD: %d with %d bytes", head.code, len(head.body))
			}
		})
	}
}

func TestPaths(t *testing.T) {
	url := start(t, serve.Options{}, echoModel("m", fp32x3), echoModel("a b", fp32x3))
	tests := map[string]struct {
		method, path string
		code         int
		part         string
	}{
		"above the root":       {"GET", "/..", 404, "no such path"},
		"POST on the page":     {"POST", "/", 405, "GET, HEAD"},
		"double slash":         {"GET", "/v2//health/live", 404, "no such path"},
		"dots":                 {"GET", "/v2/./health/live", 404, "no such path"},
		"up":                   {"GET", "/v2/models/../health/live", 404, ""},
		"trailing slash":       {"GET", "/v2/models/m/", 404, ""},
		"unknown model":        {"POST", "/v2/models/nope/infer", 404, `unknown model "nope"`},
		"traversal":            {"POST", "/v2/models/..%2f..%2fetc/infer", 404, "unknown model"},
		"dots as a name":       {"POST", "/v2/models/%2e%2e/infer", 404, ""},
		"nul":                  {"POST", "/v2/models/a%00b/infer", 404, `unknown model`},
		"backslash":            {"POST", `/v2/models/a%5c..%5cb/infer`, 404, ""},
		"long name":            {"POST", "/v2/models/" + strings.Repeat("x", 10<<10) + "/infer", 404, "…"},
		"not UTF-8":            {"POST", "/v2/models/%ff%fe/infer", 404, ""},
		"version -1":           {"POST", "/v2/models/m/versions/-1/infer", 404, "no version"},
		"version 0x1":          {"POST", "/v2/models/m/versions/0x1/infer", 404, "no version"},
		"version 01":           {"POST", "/v2/models/m/versions/01/infer", 404, "no version"},
		"version huge":         {"GET", "/v2/models/m/versions/99999999999999999999", 404, "no version"},
		"version traversal":    {"GET", "/v2/models/m/versions/1%2f..%2f2", 404, "no version"},
		"PUT on infer":         {"PUT", "/v2/models/m/infer", 405, "POST"},
		"GET on infer":         {"GET", "/v2/models/m/infer", 405, "POST"},
		"POST on health":       {"POST", "/v2/health/live", 405, "GET, HEAD"},
		"unknown method":       {"FOO", "/v2", 405, "GET, HEAD"},
		"name that has spaces": {"POST", "/v2/models/a%20b/infer", 400, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := send(t, tt.method, url+tt.path, nil, nil)
			wantError(t, r, tt.code, tt.part)
			if allow := r.header.Get("Allow"); (r.code == 405) != (allow != "") {
				t.Errorf("Allow %q with status %d", allow, r.code)
			}
		})
	}
	for _, method := range []string{"TRACE", "PATCH", "DELETE", "CONNECT"} {
		wantError(t, send(t, method, url+"/v2/models/m/infer", nil, nil), 405, "POST")
	}
	if r := send(t, "HEAD", url+"/v2/models/m/infer", nil, nil); r.code != 405 || r.header.Get("Allow") != "POST, OPTIONS" || len(r.body) != 0 {
		t.Errorf("HEAD on a route of POST: %d, Allow %q", r.code, r.header.Get("Allow"))
	}
	if r := send(t, "OPTIONS", url+"/v2", nil, nil); r.code != 204 || r.header.Get("Allow") != "GET, HEAD, OPTIONS" {
		t.Errorf("OPTIONS: %d, Allow %q", r.code, r.header.Get("Allow"))
	}
	wantError(t, send(t, "OPTIONS", url+"/nowhere", nil, nil), 404, "no such path")
	if r := send(t, "OPTIONS", url+"/v2/models/m/infer", nil, nil); r.code != 204 || r.header.Get("Allow") != "POST, OPTIONS" {
		t.Errorf("OPTIONS: %d, Allow %q", r.code, r.header.Get("Allow"))
	}
}

// lockedBuffer is a log that a test reads while a server writes it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
