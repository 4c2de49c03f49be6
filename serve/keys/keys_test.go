package keys_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"spos/serve/keys"
)

func write(t testing.TB, path, text string, mode os.FileMode) {
	t.Helper()
	// A rename, as whoever renews a secret should do it.
	if err := os.WriteFile(path+"~", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path+"~", mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+"~", path); err != nil {
		t.Fatal(err)
	}
}

func hash(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// logger keeps what is logged.
func logger() (*slog.Logger, *bytes.Buffer) {
	var b bytes.Buffer
	return slog.New(slog.NewTextHandler(&b, nil)), &b
}

func TestTokens(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens")
	write(t, path, `
# who may do what
alice infer,metrics `+hash("alice-has-a-secret")+`
  bob	admin  bob-wrote-his-out
alice infer `+strings.ToUpper(hash("alice-has-another")[7:])+`
`, 0o640)
	log, text := logger()
	if _, err := keys.OpenTokens(path, log); err == nil || !strings.Contains(err.Error(), "line 5: alice: this looks like a hash") {
		t.Errorf("a hash that is not marked as one: %v", err)
	}
	text.Reset()
	write(t, path, "alice infer,metrics "+hash("alice-has-a-secret")+"\nbob admin bob-wrote-his-out\nalice infer "+hash("alice-has-another"), 0o640)
	tokens, err := keys.OpenTokens(path, log)
	if err != nil {
		t.Fatal(err)
	}
	for secret, want := range map[string]string{
		"alice-has-a-secret": "alice infer,metrics", "bob-wrote-his-out": "bob admin", "alice-has-another": "alice infer",
		"": "", "alice": "", hash("alice-has-a-secret"): "", hash("alice-has-a-secret")[7:]: "",
		"alice-has-a-secret ": "", strings.Repeat("x", 1<<20): "",
	} {
		token, ok := tokens.Find(secret)
		if ok != (want != "") || ok && token.Name+" "+token.Scopes.String() != want {
			t.Errorf("%.40q is %s %v (%v), want %q", secret, token.Name, token.Scopes, ok, want)
		}
	}
	if logged := text.String(); !strings.Contains(logged, "bob") || strings.Contains(logged, "alice") || strings.Contains(logged, "wrote") {
		t.Errorf("logged %s", logged)
	}
}

func TestTokensRefused(t *testing.T) {
	log, text := logger()
	path := filepath.Join(t.TempDir(), "tokens")
	for name, tt := range map[string]struct {
		text string
		mode os.FileMode
		want string
	}{
		"world-readable": {"a infer " + hash("a"), 0o644, "chmod 600"},
		"world-writable": {"a infer " + hash("a"), 0o602, "chmod 600"},
		"two words":      {"a the-secret-of-somebody", 0o600, "line 1: three words"},
		"unknown scope":  {"\na infer,root " + hash("a"), 0o600, `line 2: a: "root" is no scope: there are infer, admin, metrics`},
		"bad name":       {"a\x1b[2J infer " + hash("a"), 0o600, "a name is of up to 64"},
		"short hash":     {"a infer sha256:abcd", 0o600, "64 hexadecimal"},
		"long hash":      {"a infer " + hash("a") + "00", 0o600, "64 hexadecimal"},
		"not a hash":     {"a infer sha256:" + strings.Repeat("xy", 32), 0o600, "64 hexadecimal"},
		"short secret":   {"a infer hunter2", 0o600, "16 to 512"},
		"odd secret":     {"a infer the-secret-of-sömebody", 0o600, "16 to 512"},
		"twice":          {"a infer " + hash("s") + "\nb admin " + hash("s"), 0o600, `line 2: the secret of "b" has a line already`},
		"too many":       {strings.Repeat("#\n", 1<<19+1), 0o600, "larger than"},
	} {
		t.Run(name, func(t *testing.T) {
			write(t, path, tt.text, tt.mode)
			_, err := keys.OpenTokens(path, log)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want %q", err, tt.want)
			}
			for _, secret := range []string{"hunter2", "secret-of", "abcd"} {
				if strings.Contains(err.Error(), secret) || strings.Contains(text.String(), secret) {
					t.Errorf("a secret is shown: %v", err)
				}
			}
		})
	}
	if _, err := keys.OpenTokens(filepath.Dir(path), log); err == nil {
		t.Error("a directory was read")
	}
	if _, err := keys.OpenTokens(path+"-not-there", log); err == nil {
		t.Error("no file was read")
	}
}

// TestTokensChange changes the file under a clock that the bubble owns.
func TestTokensChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "tokens")
		log, text := logger()
		known := func(tokens *keys.Tokens, secret string) bool {
			_, ok := tokens.Find(secret)
			return ok
		}
		write(t, path, "a infer "+hash("first"), 0o600)
		tokens, err := keys.OpenTokens(path, log)
		if err != nil {
			t.Fatal(err)
		}
		write(t, path, "a infer "+hash("second"), 0o600)
		if !known(tokens, "first") {
			t.Error("the file was looked at within the second")
		}
		time.Sleep(time.Second)
		if known(tokens, "first") || !known(tokens, "second") {
			t.Error("a changed file was not read")
		}
		for _, broken := range []func(){
			func() { write(t, path, "a infer", 0o600) },
			func() { write(t, path, "a infer "+hash("third"), 0o644) },
			func() { _ = os.Remove(path) },
		} {
			text.Reset()
			broken()
			for range 3 {
				time.Sleep(time.Second)
				if !known(tokens, "second") {
					t.Fatal("a broken file took the tokens away")
				}
			}
			if n := strings.Count(text.String(), "level=ERROR"); n != 1 {
				t.Errorf("%d complaints:\n%s", n, text)
			}
		}
		write(t, path, "", 0o600)
		time.Sleep(time.Second)
		if known(tokens, "second") || !strings.Contains(text.String(), "nobody is admitted") {
			t.Errorf("an empty file does not revoke, or says nothing: %s", text)
		}
	})
}

func TestNewToken(t *testing.T) {
	secret, line, err := keys.NewToken("ci.1", keys.Infer|keys.Metrics)
	if err != nil {
		t.Fatal(err)
	}
	other, _, err := keys.NewToken("ci.1", keys.Infer)
	if err != nil || other == secret || len(secret) < 26 || strings.Contains(line, secret) {
		t.Errorf("secrets %q and %q, line %q, %v", secret, other, line, err)
	}
	path := filepath.Join(t.TempDir(), "tokens")
	write(t, path, line, 0o600)
	log, text := logger()
	tokens, err := keys.OpenTokens(path, log)
	if err != nil {
		t.Fatal(err)
	}
	if token, ok := tokens.Find(secret); !ok || token.Name != "ci.1" || token.Scopes != keys.Infer|keys.Metrics || text.Len() > 0 {
		t.Errorf("found %+v %v, logged %s", token, ok, text)
	}
	if _, _, err := keys.NewToken("a b", keys.Infer); err == nil {
		t.Error("a name with a space was taken")
	}
}

func FuzzTokens(f *testing.F) {
	f.Add("a infer "+hash("x"), "x")
	f.Add("# comment\n\na infer,admin,metrics the-secret-of-somebody\n", "the-secret-of-somebody")
	f.Add("a infer sha256:zz\r\nb", "")
	path := filepath.Join(f.TempDir(), "tokens")
	log := slog.New(slog.DiscardHandler)
	f.Fuzz(func(t *testing.T, text, secret string) {
		write(t, path, text, 0o600)
		tokens, err := keys.OpenTokens(path, log)
		if err != nil {
			return
		}
		if token, ok := tokens.Find(secret); ok && !strings.Contains(text, secret) && !strings.Contains(strings.ToLower(text), hash(secret)) {
			t.Errorf("%q found %+v in %q", secret, token, text)
		}
	})
}

func BenchmarkFind(b *testing.B) {
	var text strings.Builder
	for i := range 32 {
		text.WriteString("a infer " + hash(string(rune('a'+i))) + "\n")
	}
	path := filepath.Join(b.TempDir(), "tokens")
	write(b, path, text.String(), 0o600)
	tokens, err := keys.OpenTokens(path, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	secret, _, _ := keys.NewToken("a", keys.Infer)
	b.ReportAllocs()
	for b.Loop() {
		tokens.Find(secret)
	}
}
