package cli

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"spos/internal/fleet"
	"spos/serve/keys/keystest"
)

// issue writes a certificate and its key.
func issue(t *testing.T, a *keystest.Authority, name, cert, key string) {
	t.Helper()
	c, k := a.Issue(t, name)
	for path, text := range map[string]string{key: k, cert: c} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// shown is the certificate that a broker shows, by a handshake of TLS.
func shown(t *testing.T, url string, roots *x509.CertPool) (*x509.Certificate, error) {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(url, "tls://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if info, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.HasPrefix(info, "INFO ") {
		t.Fatalf("the broker says %q, %v", info, err)
	}
	c := tls.Client(conn, &tls.Config{RootCAs: roots, ServerName: "localhost"})
	if err := c.HandshakeContext(t.Context()); err != nil {
		return nil, err
	}
	return c.ConnectionState().PeerCertificates[0], nil
}

// TestBrokerRenews replaces the certificate and the authority of clients of a
// broker that runs.
func TestBrokerRenews(t *testing.T) {
	dir := t.TempDir()
	cert, key, clients := filepath.Join(dir, "cert"), filepath.Join(dir, "key"), filepath.Join(dir, "clients")
	old, renewed := keystest.NewAuthority(t, "old"), keystest.NewAuthority(t, "renewed")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	issue(t, old, "first", cert, key)
	write(clients, old.PEM)
	roots := filepath.Join(dir, "roots")
	write(roots, old.PEM+renewed.PEM)
	open := serveFleet(t, "--tls-cert", cert, "--tls-key", key)
	mutual := serveFleet(t, "--tls-cert", cert, "--tls-key", key, "--tls-ca", clients)

	mine := filepath.Join(dir, "mine")
	issue(t, old, "pi5", mine+".pem", mine+".key")
	log := slog.New(slog.DiscardHandler)
	dial := func(url string, f FleetFlags) error {
		f.URL, f.CA = url, roots
		c, err := f.Connect(t.Context(), "search", log)
		if err != nil {
			return err
		}
		_, err = c.Devices(t.Context())
		_ = c.Close()
		return err
	}
	stays, err := (&FleetFlags{URL: open, CA: roots}).Connect(t.Context(), "stays", log)
	if err != nil {
		t.Fatal(err)
	}
	defer stays.Close()
	if err := dial(mutual, FleetFlags{Cert: mine + ".pem", Key: mine + ".key"}); err != nil {
		t.Fatal(err)
	}
	if c, err := shown(t, open, old.Pool()); err != nil || c.Subject.CommonName != "first" {
		t.Fatalf("the broker shows %v, %v", c, err)
	}

	issue(t, renewed, "second", cert, key)
	write(clients, renewed.PEM)
	for { // it looks once a second, and the test's own deadline bounds this
		c, err := shown(t, open, renewed.Pool())
		if err == nil && c.Subject.CommonName == "second" {
			break
		}
	}
	if _, err := shown(t, open, old.Pool()); err == nil {
		t.Error("the old certificate is still shown")
	}
	if _, err := stays.Devices(t.Context()); err != nil {
		t.Errorf("a connection from before: %v", err)
	}

	for dial(mutual, FleetFlags{Cert: mine + ".pem", Key: mine + ".key"}) == nil {
	}
	issue(t, renewed, "pi5", mine+".pem", mine+".key")
	if err := dial(mutual, FleetFlags{Cert: mine + ".pem", Key: mine + ".key"}); err != nil {
		t.Errorf("a client of the new authority: %v", err)
	}
}

// TestBrokerFlags has both verbs that run a broker do it by the names that
// each has for the same flags.
func TestBrokerFlags(t *testing.T) {
	dir := t.TempDir()
	cert, key, access := filepath.Join(dir, "cert"), filepath.Join(dir, "key"), filepath.Join(dir, "access")
	ca := keystest.NewAuthority(t, "ca")
	issue(t, ca, "broker", cert, key)
	_, grant, err := fleet.NewToken(fleet.Client, "search")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(access, []byte(grant.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	open := func(args ...string) (*fleet.Broker, error) {
		var b BrokerFlags
		var d DeviceFlags
		var broker *fleet.Broker
		cmd := &cobra.Command{Use: "search", SilenceErrors: true, SilenceUsage: true, RunE: func(*cobra.Command, []string) (err error) {
			broker, err = b.Open(filepath.Join(dir, "store"), slog.New(slog.DiscardHandler))
			return err
		}}
		d.Add(cmd, true)
		b.Add(cmd)
		cmd.SetArgs(args)
		err := cmd.ExecuteContext(t.Context())
		return broker, err
	}
	if b, err := open(); b != nil || err != nil {
		t.Errorf("no --listen: %v, %v", b, err)
	}
	b, err := open("--listen", "127.0.0.1:0", "--fleet-dir", filepath.Join(dir, "mine"), "--fleet-access", access, "--listen-cert", cert, "--listen-key", key)
	if err != nil {
		t.Fatal(err)
	}
	if c, err := shown(t, b.URL(), ca.Pool()); err != nil || c.Subject.CommonName != "broker" {
		t.Errorf("the broker shows %v, %v", c, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "mine", "lock")); err != nil {
		t.Error(err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"CA alone":        {[]string{"--listen", "127.0.0.1:0", "--listen-ca", cert}, "--listen-ca needs --listen-cert and --listen-key"},
		"everybody":       {[]string{"--listen", "0.0.0.0:0"}, "give it with --fleet-access"},
		"nowhere":         {[]string{"--listen-cert", cert, "--listen-key", key}, "--listen-cert needs --listen"},
		"access nowhere":  {[]string{"--fleet-access", access}, "--fleet-access needs --listen"},
		"here and abroad": {[]string{"--listen", "127.0.0.1:0", "--fleet", "nats://127.0.0.1:1"}, "fleet"},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := open(test.args...)
			if err == nil {
				_ = b.Close()
				t.Fatal("it is taken")
			}
			var out bytes.Buffer
			PrintError(&out, "spos", err)
			if !strings.Contains(out.String(), test.want) {
				t.Errorf("got %s, want %s", out.String(), test.want)
			}
		})
	}
}
