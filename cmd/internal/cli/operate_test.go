package cli

import (
	"bytes"
	"errors"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/spf13/cobra"

	"spos/serve/keys"
)

// tap is a writer that a test opens and closes.
type tap struct {
	mu    sync.Mutex
	open  *sync.Cond
	shut  bool
	full  bool
	lines []string
}

func newTap() *tap {
	w := &tap{}
	w.open = sync.NewCond(&w.mu)
	return w
}

func (w *tap) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.shut {
		w.open.Wait()
	}
	if w.full {
		return 0, errors.New("no space left on device")
	}
	w.lines = append(w.lines, string(p))
	return len(p), nil
}

func (w *tap) set(shut, full bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.shut, w.full = shut, full
	w.open.Broadcast()
}

func TestBackgroundLog(t *testing.T) {
	out := newTap()
	l := newBackgroundLog(out)
	log := slog.New(slog.NewTextHandler(l, nil))
	l.report = func(lost int64) { log.Warn("lost", "lines", lost) }
	l.start()
	out.set(true, false) // a reader that has stopped to read
	const over = 10
	for i := range logLines + 1 + over { // one is in the hands of the writer
		log.Info("line", "i", i)
	}
	if lost := l.Lost(); lost < over || lost > over+1 {
		t.Errorf("%d lines were lost, want %d", lost, over)
	}
	out.set(false, false)
	l.Close()
	if n := len(out.lines); n < logLines || !strings.Contains(out.lines[0], "i=0") {
		t.Errorf("%d lines were written, the first is %q", n, out.lines[0])
	}

	out = newTap()
	l = newBackgroundLog(out)
	log = slog.New(slog.NewTextHandler(l, nil))
	reported := make(chan int64, 1)
	l.report = func(lost int64) { reported <- lost }
	l.start()
	out.set(false, true) // a disk that is full
	for range 5 {
		log.Info("line")
	}
	for l.Lost() < 5 {
	}
	out.set(false, false)
	log.Info("last")
	if lost := <-reported; lost != 5 {
		t.Errorf("%d lost lines were reported", lost)
	}
	l.Close()
	if len(out.lines) != 1 || !strings.Contains(out.lines[0], "last") {
		t.Errorf("written: %q", out.lines)
	}
}

type fakeListener struct {
	net.Listener
	name string
}

func TestSocketNames(t *testing.T) {
	one := func(names ...string) map[string][]net.Listener {
		m := map[string][]net.Listener{}
		for _, n := range names {
			m[n] = append(m[n], fakeListener{name: n})
		}
		return m
	}
	for name, tt := range map[string]struct {
		in   map[string][]net.Listener
		want string
		err  string
	}{
		"none":          {one(), "", ""},
		"a lone one":    {one("spos.socket"), "http", ""},
		"no name":       {one("unknown"), "http", ""},
		"all":           {one("metrics", "grpc", "http"), "grpc,http,metrics", ""},
		"metrics alone": {one("metrics"), "metrics", ""},
		"two unnamed":   {one("unknown", "unknown"), "", `called "unknown"`},
		"one unnamed":   {one("http", "spos.socket"), "", `called "spos.socket"`},
		"twice":         {one("http", "http"), "", `2 sockets of systemd are called "http"`},
	} {
		got, err := byName(tt.in)
		if names := strings.Join(slices.Sorted(maps.Keys(got)), ","); names != tt.want {
			t.Errorf("%s: %s, want %s", name, names, tt.want)
		}
		if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: %v, want %q", name, err, tt.err)
		}
	}
}

// TestSettings has the same flags in all places that they may come from.
func TestSettings(t *testing.T) {
	path := filepath.Join(t.TempDir(), "serve.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(environ []string, args ...string) (*cobra.Command, error) {
		t.Helper()
		cmd := NewServeCommand()
		NewRoot("spos", "test").AddCommand(cmd)
		if err := cmd.ParseFlags(args); err != nil {
			t.Fatal(err)
		}
		_, err := settle(cmd, environ)
		return cmd, err
	}
	write("queue: 1\ncores: 1\nhttp: 127.0.0.1:1\nallowed-hosts: [a.example, b.example]\nmodel-threads: {m: 2}\npprof: true\nlog-format: json\n")
	cmd, err := run([]string{"SPOS_SERVE_CONFIG=" + path, "SPOS_SERVE_QUEUE=2", "SPOS_SERVE_CORES=2"}, "--queue", "3")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"queue": "3", "cores": "2", "http": "127.0.0.1:1", "allowed-hosts": "[a.example,b.example]", "model-threads": "[m=2]",
		"pprof": "true", "log-format": "json", "timeout": "30s",
	} {
		if got := cmd.Flags().Lookup(name).Value.String(); got != want {
			t.Errorf("--%s is %s, want %s", name, got, want)
		}
	}
	for text, want := range map[string]string{
		"quue: 1": "serve.yaml:1:1: quue: no such key (did you mean queue?)", "config: other.yaml": "no such key", "queue: many": "serve.yaml:1:1: invalid",
	} {
		write(text)
		if _, err := run(nil, "--config", path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// TestServeToken makes tokens with the verb and uses them.
func TestServeToken(t *testing.T) {
	var file, told bytes.Buffer
	for _, args := range [][]string{{"ci", "--scopes", "infer,metrics"}, {"me"}} {
		cmd := newTokenCommand()
		cmd.SetArgs(args)
		cmd.SetOut(&file)
		cmd.SetErr(&told)
		if err := cmd.Execute(); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(path, file.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	tokens, err := keys.OpenTokens(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"ci infer,metrics", "me infer"}
	for i, line := range strings.Split(strings.TrimSpace(told.String()), "\n") {
		token, ok := tokens.Find(strings.TrimPrefix(line, "token: "))
		if got := token.Name + " " + token.Scopes.String(); !ok || got != want[i] {
			t.Errorf("%q is the token of %q (%v), want %q", line, got, ok, want[i])
		}
	}
	for _, args := range [][]string{{"ci", "--scopes", "root"}, {"c i"}, {}} {
		cmd := newTokenCommand()
		cmd.SetArgs(args)
		cmd.SilenceUsage, cmd.SilenceErrors = true, true
		cmd.SetOut(&file)
		if err := cmd.Execute(); err == nil {
			t.Errorf("%v was accepted", args)
		}
	}
}
