package serve

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"spos/internal/imaging"
	"spos/serve/keys"
)

// FuzzNames asks for models and versions by any names: none but those that there are is found, and what may be loaded
// could be one directory below a root.
func FuzzNames(f *testing.F) {
	for _, name := range []string{"c", "..", "../../etc", "a\x00b", `a\b`, ".", "", " ..", "\xff", "м", "x\u200b", strings.Repeat("x", 300), "/etc", "c/", "a:b"} {
		f.Add(name, "1")
		f.Add("c", name)
	}
	s, err := New(Options{Logger: slog.New(slog.DiscardHandler), HTTP: "127.0.0.1:0"}, classifier())
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		if err := s.Close(); err != nil {
			f.Error(err)
		}
	})
	f.Fuzz(func(t *testing.T, name, version string) {
		if checkModelName(name) == nil {
			if !utf8.ValidString(name) || strings.ContainsFunc(name, func(c rune) bool { return !unicode.IsPrint(c) }) || len(name) > maxName ||
				name != "." && !filepath.IsLocal(name) || filepath.Base(name) != name {
				t.Errorf("%q may be loaded", name)
			}
		}
		r := httptest.NewRequest("GET", "/", nil)
		r.Host = "localhost" // others are refused before a name is looked at
		r.URL = &url.URL{Path: "/v2/models/" + name + "/versions/" + version, RawPath: "/v2/models/" + url.PathEscape(name) + "/versions/" + url.PathEscape(version)}
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if found := name == "c" && version == "1"; (w.Code == http.StatusOK) != found || w.Code != http.StatusOK && w.Code != http.StatusNotFound {
			t.Errorf("%q version %q: %d", name, version, w.Code)
		}
	})
}

// FuzzImage reads the header of anything, and the pixels of what passes.
func FuzzImage(f *testing.F) {
	for _, data := range seedImages(f) {
		f.Add(data)
		f.Add(data[:len(data)/2])
	}
	f.Add([]byte("\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR\x00\x00\xea\x60\x00\x00\xea\x60\x08\x06\x00\x00\x00"))
	limits := imaging.Limits{Bytes: 1 << 20, Pixels: 1 << 16}
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := imaging.Probe(data, limits)
		if err != nil {
			return
		}
		if int64(e.W)*int64(e.H) > limits.Pixels || e.W < 1 || e.H < 1 {
			t.Fatalf("accepted %d×%d", e.W, e.H)
		}
		if img, err := e.Decode(); err == nil && (img.W != e.W || img.H != e.H) {
			t.Fatalf("announced %d×%d, decoded %v", e.W, e.H, img)
		}
	})
}

// FuzzAcceptEncoding reads any list of codings.
func FuzzAcceptEncoding(f *testing.F) {
	for _, value := range []string{"gzip", "gzip;q=nan, *;q=0", "identity;q=0", "deflate;q=0.5,gzip;q=0.5", "x-gzip;Q=1.000", ";;,,q=", "*;q=1.001", "gzip ; q=0.1234"} {
		f.Add(value, "")
		f.Add("br", value)
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		got := preferredCoding([]string{a, b})
		if got != preferredCoding([]string{a + "," + b}) {
			t.Error("two lines mean something else than one")
		}
		all := strings.ToLower(a + "," + b)
		if got != "" && got != "gzip" && got != "deflate" || got != "" && !strings.Contains(all, got) && !strings.Contains(all, "*") {
			t.Errorf("%q for %q", got, all)
		}
	})
}

// FuzzAuthorization shows any header to a server of one token.
func FuzzAuthorization(f *testing.F) {
	const secret = "the-secret-of-infer"
	for _, value := range []string{"Bearer " + secret, "bearer   " + secret, "Bearer", "Bearer ", secret, "Basic " + secret, "Bearer " + secret + "x", "Bearer \x00", "Bearer " + strings.Repeat("x", 600)} {
		f.Add(value)
	}
	a := &access{tokens: fuzzTokens(f, secret), met: fuzzMetrics(f)}
	f.Fuzz(func(t *testing.T, value string) {
		name, err := a.authorize(a.scopeOf("infer"), []string{value})
		scheme, rest, _ := strings.Cut(value, " ")
		right := strings.EqualFold(scheme, "bearer") && strings.TrimSpace(rest) == secret
		if (err == nil) != right || right && name != "fuzz" {
			t.Errorf("%q admitted as %q: %v", value, name, err)
		}
		if e := answer(err, ""); !right && (e.code != http.StatusUnauthorized || e.challenge == "" || strings.Contains(e.msg, secret)) {
			t.Errorf("%q got %d %s", value, e.code, e.msg)
		}
	})
}

func fuzzTokens(f *testing.F, secret string) *keys.Tokens {
	f.Helper()
	path := filepath.Join(f.TempDir(), "tokens")
	if err := os.WriteFile(path, []byte("fuzz infer "+secret+"\n"), 0o600); err != nil {
		f.Fatal(err)
	}
	tokens, err := keys.OpenTokens(path, slog.New(slog.DiscardHandler))
	if err != nil {
		f.Fatal(err)
	}
	return tokens
}

func fuzzMetrics(f *testing.F) *metrics {
	f.Helper()
	m, err := newMetrics(prometheus.NewRegistry())
	if err != nil {
		f.Fatal(err)
	}
	return m
}
