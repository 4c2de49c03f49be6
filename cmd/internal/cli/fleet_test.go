package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"spos/internal/fleet"
	"spos/serve/keys/keystest"
)

func runFleet(ctx context.Context, stderr io.Writer, args ...string) (string, error) {
	root := NewRoot("spos", "test")
	root.AddCommand(NewFleetCommand())
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetErr(stderr)
	root.SetArgs(append([]string{"--log-format", "json", "fleet"}, args...))
	err := root.ExecuteContext(ctx)
	return out.String(), err
}

// serveFleet runs `fleet serve` until the test ends, and returns where.
func serveFleet(t *testing.T, args ...string) (url string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		_, err := runFleet(ctx, w, append([]string{"serve", "--listen", "127.0.0.1:0", "--dir", t.TempDir()}, args...)...)
		ended <- errors.Join(err, w.Close())
	}()
	t.Cleanup(func() {
		cancel()
		_, _ = io.Copy(io.Discard, r)
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	lines := bufio.NewScanner(r)
	for url == "" && lines.Scan() {
		var line struct{ Msg, URL string }
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			t.Fatalf("%s: %v", lines.Text(), err)
		}
		url = line.URL
	}
	go func() { _, _ = io.Copy(io.Discard, r) }()
	if url == "" {
		t.Fatal("the broker is not ready")
	}
	return url
}

func TestFleetAccess(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "access")
	out, err := runFleet(t.Context(), io.Discard, "access", "--file", file, "--client", "search", "--device", "pi5", "--json")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out, `"secret_file": "`+filepath.Join(dir, "pi5.token")+`"`) {
		t.Errorf("got %s", out)
	}
	if err := cutEnd(file); err != nil { // as an editor may leave it
		t.Fatal(err)
	}
	if _, err := runFleet(t.Context(), io.Discard, "access", "--file", file, "--device", "jetson", "--nkey"); err != nil {
		t.Fatal(err)
	}
	if _, err := runFleet(t.Context(), io.Discard, "access", "--file", file, "--device", "pi5"); !errors.Is(err, os.ErrExist) {
		t.Errorf("a second secret of pi5: %v", err)
	}
	for _, name := range []string{"access", "search.token", "pi5.token", "jetson.nkey"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil || strings.Count(string(text), "\n") != 3 {
		t.Errorf("the access file holds %q, %v", text, err)
	}

	log := slog.New(slog.DiscardHandler)
	url := serveFleet(t, "--access", file)
	for name, f := range map[string]FleetFlags{
		"search": {TokenFile: filepath.Join(dir, "search.token")},
		"pi5":    {TokenFile: filepath.Join(dir, "pi5.token")},
		"jetson": {NKey: filepath.Join(dir, "jetson.nkey")},
	} {
		f.URL = url
		c, err := f.Connect(t.Context(), name, log)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		_, err = c.Devices(t.Context())
		if denied := errors.Is(err, fleet.ErrDenied); denied != (name != "search") {
			t.Errorf("%s lists devices: %v", name, err)
		}
		_ = c.Close()
	}
	f := FleetFlags{URL: url, TokenFile: file}
	if _, err := f.Connect(t.Context(), "pi5", log); !errors.Is(err, fleet.ErrRefused) || hintsOf(err) == "" {
		t.Errorf("a wrong token: %v, %s", err, hintsOf(err))
	}
	t.Setenv(FleetEnv, url)
	f = FleetFlags{TokenFile: filepath.Join(dir, "none")}
	if _, err := f.Connect(t.Context(), "pi5", log); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no token file: %v", err)
	}
}

// cutEnd takes the last byte off a file.
func cutEnd(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	return os.Truncate(path, info.Size()-1)
}

func hintsOf(err error) string {
	var out bytes.Buffer
	PrintError(&out, "spos", err)
	_, hints, _ := strings.Cut(out.String(), "\n")
	return hints
}

func TestFleetServeRefuses(t *testing.T) {
	dir := t.TempDir()
	broken := filepath.Join(dir, "broken")
	if err := os.WriteFile(broken, []byte("client search hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cert, key := filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	issue(t, keystest.NewAuthority(t, "ca"), "broker", cert, key)
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"everybody":     {[]string{"--listen", "0.0.0.0:0"}, "fleet access --file"},
		"every address": {[]string{"--listen", ":0"}, "reached from other machines"},
		"no port":       {[]string{"--listen", "localhost"}, "missing port"},
		"broken access": {[]string{"--access", broken}, "line 1: key of search"},
		"no access":     {[]string{"--access", filepath.Join(dir, "none")}, "no such file"},
		"no key":        {[]string{"--tls-cert", broken}, "tls-key"},
		"CA alone":      {[]string{"--tls-ca", broken}, "--tls-cert and --tls-key"},
		"bad CA":        {[]string{"--tls-cert", cert, "--tls-key", key, "--tls-ca", key}, "no certificate in PEM"},
		"bad pair":      {[]string{"--tls-cert", broken, "--tls-key", broken}, "broker's certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := runFleet(t.Context(), io.Discard, append([]string{"serve", "--dir", filepath.Join(dir, "store")}, test.args...)...)
			if err == nil {
				t.Fatal("it serves")
			}
			var out bytes.Buffer
			PrintError(&out, "spos", err)
			if !strings.Contains(out.String(), test.want) {
				t.Errorf("got %s, want %s", out.String(), test.want)
			}
		})
	}
	f := FleetFlags{}
	if _, err := f.Connect(t.Context(), "x", slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(hintsOf(err), "--fleet nats://") {
		t.Errorf("no address: %v", err)
	}
	f.URL = "nats://127.0.0.1:1"
	if _, err := f.Connect(t.Context(), "x", slog.New(slog.DiscardHandler)); !errors.Is(err, fleet.ErrNoBroker) || !strings.Contains(hintsOf(err), "fleet serve") {
		t.Errorf("nobody there: %v", err)
	}
}
