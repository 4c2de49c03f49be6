package serve_test

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"spos/serve"
)

// Secrets of the tokens file of tests, by what they allow.
const (
	inferSecret   = "the-secret-of-infer"
	adminSecret   = "the-secret-of-admin"
	metricsSecret = "the-secret-of-metrics"
)

// tokensFile has a token for each scope.
func tokensFile(t testing.TB) string {
	t.Helper()
	var text strings.Builder
	for name, secret := range map[string]string{"infer": inferSecret, "admin": adminSecret, "metrics": metricsSecret} {
		sum := sha256.Sum256([]byte(secret))
		fmt.Fprintf(&text, "name-of-%s %s sha256:%s\n", name, name, hex.EncodeToString(sum[:]))
	}
	path := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTokensOfRequests(t *testing.T) {
	url := start(t, serve.Options{Tokens: tokensFile(t)}, echoModel("m", fp32x3))
	body := []byte(jsonBody("[1,3]", "[1,2,3]"))
	tests := map[string]struct {
		method, path string
		auth         string
		code         int
		challenge    string
	}{
		"live is open":            {"GET", "/v2/health/live", "", 200, ""},
		"ready is open":           {"GET", "/v2/health/ready", "Bearer nonsense", 200, ""},
		"infer":                   {"POST", "/v2/models/m/infer", "Bearer " + inferSecret, 200, ""},
		"scheme in another case":  {"POST", "/v2/models/m/infer", "bEARER  " + inferSecret, 200, ""},
		"no token":                {"POST", "/v2/models/m/infer", "", 401, `Bearer realm="spos"`},
		"no token, unknown model": {"POST", "/v2/models/nope/infer", "", 401, `Bearer realm="spos"`},
		"wrong token":             {"POST", "/v2/models/m/infer", "Bearer the-secret-of-nobody", 401, `Bearer realm="spos", error="invalid_token"`},
		"the hash as a token":     {"POST", "/v2/models/m/infer", "Bearer sha256:" + hexSum(inferSecret), 401, `Bearer realm="spos", error="invalid_token"`},
		"nothing after Bearer":    {"POST", "/v2/models/m/infer", "Bearer ", 401, `Bearer realm="spos", error="invalid_token"`},
		"another scheme":          {"POST", "/v2/models/m/infer", "Basic " + inferSecret, 401, `Bearer realm="spos", error="invalid_token"`},
		"10 KB of token":          {"POST", "/v2/models/m/infer", "Bearer " + strings.Repeat("x", 10<<10), 401, `Bearer realm="spos", error="invalid_token"`},
		"in the query":            {"POST", "/v2/models/m/infer?access_token=" + inferSecret + "&token=" + inferSecret, "", 401, `Bearer realm="spos"`},
		"admin does not infer":    {"POST", "/v2/models/m/infer", "Bearer " + adminSecret, 403, `Bearer realm="spos", error="insufficient_scope", scope="infer"`},
		"metadata":                {"GET", "/v2/models/m", "Bearer " + inferSecret, 200, ""},
		"metadata without":        {"GET", "/v2/models/m", "", 401, `Bearer realm="spos"`},
		"server without":          {"GET", "/v2", "", 401, `Bearer realm="spos"`},
		"metrics":                 {"GET", "/metrics", "Bearer " + metricsSecret, 200, ""},
		"metrics with infer":      {"GET", "/metrics", "Bearer " + inferSecret, 403, `Bearer realm="spos", error="insufficient_scope", scope="metrics"`},
		"no such path":            {"GET", "/v3", "", 404, ""},
		"profiles are elsewhere":  {"GET", "/debug/pprof/", "Bearer " + adminSecret, 404, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			header := map[string]string{}
			if tt.auth != "" {
				header["Authorization"] = tt.auth
			}
			r := send(t, tt.method, url+tt.path, header, body)
			if tt.code != 200 {
				wantError(t, r, tt.code, "")
			}
			if r.code != tt.code || r.header.Get("WWW-Authenticate") != tt.challenge {
				t.Errorf("%d %q, want %d %q", r.code, r.header.Get("WWW-Authenticate"), tt.code, tt.challenge)
			}
		})
	}
	two, err := http.NewRequestWithContext(t.Context(), "GET", url+"/v2", nil)
	if err != nil {
		t.Fatal(err)
	}
	two.Header["Authorization"] = []string{"Bearer " + inferSecret, "Bearer " + inferSecret}
	resp, err := http.DefaultClient.Do(two)
	if err != nil {
		t.Fatal(err)
	}
	if resp.Body.Close(); resp.StatusCode != 401 {
		t.Errorf("two tokens: %d", resp.StatusCode)
	}
	text := string(send(t, "GET", url+"/metrics", map[string]string{"Authorization": "Bearer " + metricsSecret}, nil).body)
	for _, want := range []string{
		`spos_serve_token_requests_total{token="name-of-infer"} 4`, `spos_serve_token_requests_total{token="name-of-admin"} 1`,
		`spos_serve_refused_total{reason="no_token"} 5`, `spos_serve_refused_total{reason="scope"} 2`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s", want)
		}
	}
	if strings.Contains(text, "secret") {
		t.Error("a secret is in the metrics")
	}
}

func hexSum(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

func TestProtectedHealth(t *testing.T) {
	url := start(t, serve.Options{Tokens: tokensFile(t), ProtectHealth: true}, echoModel("m", fp32x3))
	wantError(t, send(t, "GET", url+"/v2/health/ready", nil, nil), 401, "token")
	if r := send(t, "GET", url+"/v2/health/ready", map[string]string{"Authorization": "Bearer " + inferSecret}, nil); r.code != 200 {
		t.Errorf("with a token: %d", r.code)
	}
}

// TestHost asks as a browser does whose page's name was bound to this machine.
func TestHost(t *testing.T) {
	any4, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	listed, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	port := func(url string) string { return url[strings.LastIndex(url, ":"):] }
	loopback := start(t, serve.Options{AllowedHosts: []string{"Lab.example:8000"}}, echoModel("m", fp32x3))
	public := start(t, serve.Options{Listener: any4}, echoModel("m", fp32x3))
	named := start(t, serve.Options{Listener: listed, AllowedHosts: []string{"lab.example"}}, echoModel("m", fp32x3))
	for host, want := range map[string][3]int{ // on loopback, public, public with names
		"localhost":          {200, 200, 200},
		"LOCALHOST:80":       {200, 200, 200},
		"app.localhost":      {200, 200, 200},
		"127.0.0.1:8000":     {200, 200, 200},
		"[::1]:8000":         {200, 200, 200},
		"[::1]":              {200, 200, 200},
		"10.1.2.3:8000":      {403, 200, 200},
		"lab.example":        {200, 200, 200},
		"lab.example.:1":     {200, 200, 200},
		"evil.example":       {403, 200, 403},
		"evil.example:8000":  {403, 200, 403},
		"localhost.evil.org": {403, 200, 403},
		"127.0.0.1.nip.io":   {403, 200, 403},
	} {
		for i, url := range []string{loopback, public, named} {
			r, err := http.NewRequestWithContext(t.Context(), "GET", "http://127.0.0.1"+port(url)+"/v2/health/live", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Host = host
			resp, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			if resp.Body.Close(); resp.StatusCode != want[i] {
				t.Errorf("%s on %s: %d, want %d", host, url, resp.StatusCode, want[i])
			}
		}
	}
	for head, want := range map[string]string{
		"GET /v2 HTTP/1.1\r\n\r\n":                               "400",
		"GET /v2 HTTP/1.1\r\nHost: localhost\r\nHost: a\r\n\r\n": "400",
		"GET /v2 HTTP/1.0\r\n\r\n":                               "200", // load balancers probe like this, browsers never
	} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(loopback, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, head); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil || !strings.Contains(line, want) {
			t.Errorf("%q: %q %v, want %s", head, line, err, want)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestPagesOfOtherOrigins(t *testing.T) {
	url := start(t, serve.Options{AllowedOrigins: []string{"https://lab.example"}}, echoModel("m", fp32x3))
	body := []byte(jsonBody("[1,3]", "[1,2,3]"))
	host := strings.TrimPrefix(url, "http://")
	for name, tt := range map[string]struct {
		method, origin, site string
		code                 int
		allowed              string
	}{
		"no browser":              {"POST", "", "", 200, ""},
		"our own page":            {"POST", "http://" + host, "same-origin", 200, ""},
		"an allowed page":         {"POST", "https://lab.example", "cross-site", 200, "https://lab.example"},
		"another page":            {"POST", "https://evil.example", "cross-site", 403, ""},
		"another page, old style": {"POST", "https://evil.example", "", 403, ""},
		"a page without origin":   {"POST", "null", "cross-site", 403, ""},
		"a page's preflight":      {"OPTIONS", "https://evil.example", "cross-site", 204, ""},
		"allowed preflight":       {"OPTIONS", "https://lab.example", "cross-site", 204, "https://lab.example"},
	} {
		t.Run(name, func(t *testing.T) {
			header := map[string]string{}
			if tt.origin != "" {
				header["Origin"] = tt.origin
			}
			if tt.site != "" {
				header["Sec-Fetch-Site"] = tt.site
			}
			r := send(t, tt.method, url+"/v2/models/m/infer", header, body)
			if got := r.header.Get("Access-Control-Allow-Origin"); r.code != tt.code || got != tt.allowed {
				t.Errorf("%d, allowed %q, want %d and %q: %s", r.code, got, tt.code, tt.allowed, r.body)
			}
			if preflight := r.header.Get("Access-Control-Allow-Headers") != ""; preflight != (tt.allowed != "" && tt.method == "OPTIONS") {
				t.Errorf("answered as to a preflight: %v", preflight)
			}
		})
	}
	for _, bad := range []string{"lab.example", "https://lab.example/", "https://lab.example/page", "*"} {
		_, err := serve.New(serve.Options{HTTP: "127.0.0.1:0", Logger: quiet(), AllowedOrigins: []string{bad}})
		if err == nil || !strings.Contains(err.Error(), "origin") {
			t.Errorf("%s as an origin: %v", bad, err)
		}
	}
}

func TestOperatorsListener(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	own := "http://" + ln.Addr().String()
	url := start(t, serve.Options{MetricsListener: ln, Pprof: true, Tokens: tokensFile(t)}, echoModel("m", fp32x3))
	admin, metrics := map[string]string{"Authorization": "Bearer " + adminSecret}, map[string]string{"Authorization": "Bearer " + metricsSecret}
	for name, tt := range map[string]struct {
		url    string
		header map[string]string
		code   int
		part   string
	}{
		"metrics":               {own + "/metrics", metrics, 200, "spos_serve_in_flight"},
		"metrics, no token":     {own + "/metrics", nil, 401, ""},
		"metrics, main":         {url + "/metrics", metrics, 404, ""},
		"health":                {own + "/v2/health/ready", nil, 200, "true"},
		"no models":             {own + "/v2/models/m", admin, 404, ""},
		"profiles":              {own + "/debug/pprof/", admin, 200, "goroutine"},
		"a profile":             {own + "/debug/pprof/heap", admin, 200, ""},
		"a profile over time":   {own + "/debug/pprof/profile?seconds=1", admin, 200, ""},
		"profiles, no token":    {own + "/debug/pprof/heap", nil, 401, ""},
		"profiles, wrong scope": {own + "/debug/pprof/heap", metrics, 403, ""},
		"the command line":      {own + "/debug/pprof/cmdline", admin, 404, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := send(t, "GET", tt.url, tt.header, nil)
			if tt.code != 200 {
				wantError(t, r, tt.code, "")
			} else if r.code != 200 || !strings.Contains(string(r.body), tt.part) {
				t.Errorf("%d %.200q", r.code, r.body)
			}
		})
	}
	evil, err := http.NewRequestWithContext(t.Context(), "GET", own+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	evil.Host = "evil.example"
	resp, err := http.DefaultClient.Do(evil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.Body.Close(); resp.StatusCode != 403 {
		t.Errorf("a rebound name reads metrics: %d", resp.StatusCode)
	}
}

// TestStopDoesNotWaitForProfiles leaves one running that would take longer than a stop may; start holds Run to no error.
func TestStopDoesNotWaitForProfiles(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	own := "http://" + ln.Addr().String()
	over := make(chan struct{})
	t.Cleanup(func() { <-over }) // after the server has stopped
	start(t, serve.Options{MetricsListener: ln, Pprof: true}, echoModel("m", fp32x3))
	go func() {
		defer close(over)
		resp, err := http.Get(own + "/debug/pprof/heap?seconds=1000")
		if err == nil {
			_ = resp.Body.Close()
		}
	}()
	for !strings.Contains(string(send(t, "GET", own+"/metrics", nil, nil).body), "spos_serve_in_flight 2") {
		runtime.Gosched()
	}
}

func TestSettingsThatDoNotGoTogether(t *testing.T) {
	for name, tt := range map[string]struct {
		o    serve.Options
		want string
	}{
		"profiles without a listener":  {serve.Options{Pprof: true}, "metrics' own listener"},
		"profiles in public":           {serve.Options{Pprof: true, Metrics: "0.0.0.0:0"}, "public address"},
		"no tokens file":               {serve.Options{Tokens: "/nowhere"}, "tokens"},
		"profiles in public, guarded":  {serve.Options{Pprof: true, Metrics: "0.0.0.0:0", Tokens: tokensFile(t)}, ""},
		"profiles on loopback, public": {serve.Options{Pprof: true, Metrics: "127.0.0.1:0", HTTP: "0.0.0.0:0"}, ""},
	} {
		tt.o.Logger, tt.o.Registry = quiet(), prometheus.NewRegistry()
		if tt.o.HTTP == "" {
			tt.o.HTTP = "127.0.0.1:0"
		}
		s, err := serve.New(tt.o)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
		if err == nil {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestWarnsOfStrangers(t *testing.T) {
	for name, tt := range map[string]struct {
		o    serve.Options
		want bool
	}{
		"loopback":            {serve.Options{HTTP: "127.0.0.1:0"}, false},
		"public":              {serve.Options{HTTP: "0.0.0.0:0"}, true},
		"public, with tokens": {serve.Options{HTTP: "0.0.0.0:0", Tokens: tokensFile(t)}, false},
	} {
		t.Run(name, func(t *testing.T) {
			var text lockedBuffer
			tt.o.Logger = slog.New(slog.NewTextHandler(&text, nil))
			ready := make(chan struct{})
			tt.o.Ready = func() { close(ready) }
			start(t, tt.o, echoModel("m", fp32x3))
			<-ready
			if warned := strings.Contains(text.String(), "anyone who reaches this address may use the models"); warned != tt.want {
				t.Errorf("warned: %v", warned)
			}
		})
	}
}
