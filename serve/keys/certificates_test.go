package keys_test

import (
	"crypto/tls"

	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"spos/serve/keys"
	"spos/serve/keys/keystest"
)

// shake makes a connection and says one word over it, since a refused client of TLS 1.3 learns it from its first read.
func shake(t *testing.T, server, client *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	a, b := net.Pipe()
	done := make(chan error, 1)
	go func() {
		s := tls.Server(a, server)
		_, err := s.Write([]byte("hi"))
		done <- errors.Join(err, a.Close())
	}()
	c := tls.Client(b, client)
	word := make([]byte, 2)
	_, err := io.ReadFull(c, word)
	state := c.ConnectionState()
	err = errors.Join(err, b.Close())
	<-done
	return state, err
}

func TestCertificates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		names := keys.Files{Cert: filepath.Join(dir, "cert"), Key: filepath.Join(dir, "key"), ClientCA: filepath.Join(dir, "ca")}
		ours, theirs := keystest.NewAuthority(t, "ours"), keystest.NewAuthority(t, "theirs")
		renew := func(name string) {
			cert, key := ours.Issue(t, name)
			write(t, names.Cert, cert, 0o644)
			write(t, names.Key, key, 0o600)
		}
		renew("first")
		write(t, names.ClientCA, ours.PEM, 0o644)
		log, text := logger()
		certs, err := keys.OpenCertificates(names, log)
		if err != nil {
			t.Fatal(err)
		}
		roots := ours.Pool()
		open := certs.Config(false, "h2", "http/1.1")
		client := &tls.Config{RootCAs: roots, ServerName: "localhost", NextProtos: []string{"http/1.1", "h2"}, ClientSessionCache: tls.NewLRUClientSessionCache(8)}
		expect := func(name string) {
			t.Helper()
			state, err := shake(t, open, client)
			if err != nil {
				t.Fatal(err)
			}
			if got := state.PeerCertificates[0].Subject.CommonName; got != name || state.NegotiatedProtocol != "h2" {
				t.Errorf("certificate of %q over %q, want %q over h2", got, state.NegotiatedProtocol, name)
			}
			client.ClientSessionCache = tls.NewLRUClientSessionCache(8)
		}
		expect("first")
		renew("second")
		expect("first")
		time.Sleep(time.Second)
		expect("second")
		write(t, names.Cert, "no certificate", 0o644)
		time.Sleep(time.Second)
		expect("second")
		if !strings.Contains(text.String(), "level=ERROR") {
			t.Errorf("a broken certificate was not complained of: %s", text)
		}
		cert, key := ours.Issue(t, "third")
		write(t, names.Cert, cert, 0o644) // not yet its key
		time.Sleep(time.Second)
		expect("second")
		write(t, names.Key, key, 0o604)
		time.Sleep(time.Second)
		expect("third")
		if !strings.Contains(text.String(), "private key") {
			t.Errorf("a key that everyone may read is not warned of: %s", text)
		}

		if _, err := shake(t, open, &tls.Config{RootCAs: roots, ServerName: "localhost", MaxVersion: tls.VersionTLS11}); err == nil {
			t.Error("TLS 1.1 was spoken")
		}

		closed := certs.Config(true, "h2")
		with := func(a *keystest.Authority, name string) *tls.Config {
			return &tls.Config{
				RootCAs: roots, ServerName: "localhost", NextProtos: []string{"h2"},
				Certificates: []tls.Certificate{a.Client(t, name)}, ClientSessionCache: tls.NewLRUClientSessionCache(8),
			}
		}
		alice, mallory := with(ours, "alice"), with(theirs, "mallory")
		if _, err := shake(t, closed, alice); err != nil {
			t.Errorf("a client of our own: %v", err)
		}
		if _, err := shake(t, closed, mallory); err == nil {
			t.Error("a client of another authority was let in")
		}
		if _, err := shake(t, closed, &tls.Config{RootCAs: roots, ServerName: "localhost", NextProtos: []string{"h2"}}); err == nil {
			t.Error("a client without a certificate was let in")
		}
		write(t, names.ClientCA, theirs.PEM, 0o644)
		time.Sleep(time.Second)
		if _, err := shake(t, closed, alice); err == nil {
			t.Error("a client whose authority was replaced is still let in, perhaps by its old session")
		}
		if _, err := shake(t, closed, mallory); err != nil {
			t.Errorf("a client of the new authority: %v", err)
		}
	})
}

func TestCertificatesRefused(t *testing.T) {
	dir := t.TempDir()
	log, _ := logger()
	ca := keystest.NewAuthority(t, "ca")
	cert, key := ca.Issue(t, "a")
	_, other := ca.Issue(t, "b")
	for name, text := range map[string]string{"cert": cert, "key": key, "other": other, "empty": ""} {
		write(t, filepath.Join(dir, name), text, 0o600)
	}
	at := func(name string) string {
		if name == "" {
			return ""
		}
		return filepath.Join(dir, name)
	}
	for name, tt := range map[string]struct{ cert, key, ca string }{
		"no key": {"cert", "", ""}, "another's key": {"cert", "other", ""}, "no such file": {"cert", "absent", ""},
		"empty": {"empty", "key", ""}, "empty authorities": {"cert", "key", "empty"}, "key for authorities": {"cert", "key", "key"},
	} {
		if _, err := keys.OpenCertificates(keys.Files{Cert: at(tt.cert), Key: at(tt.key), ClientCA: at(tt.ca)}, log); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if err := os.Remove(at("empty")); err != nil {
		t.Fatal(err)
	}
}
