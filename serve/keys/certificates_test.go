package keys_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"spos/serve/keys"
)

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))}
}

// issue signs a certificate for a name and returns it and its key.
func (a *authority) issue(t *testing.T, name string) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{"localhost"},
		NotBefore: a.cert.NotBefore, NotAfter: a.cert.NotAfter,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, &k.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	kder, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: kder}))
}

func (a *authority) client(t *testing.T, name string) tls.Certificate {
	t.Helper()
	cert, err := tls.X509KeyPair(pair(a.issue(t, name)))
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func pair(a, b string) ([]byte, []byte) { return []byte(a), []byte(b) }

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
		ours, theirs := newAuthority(t, "ours"), newAuthority(t, "theirs")
		renew := func(name string) {
			cert, key := ours.issue(t, name)
			write(t, names.Cert, cert, 0o644)
			write(t, names.Key, key, 0o600)
		}
		renew("first")
		write(t, names.ClientCA, ours.pem, 0o644)
		log, text := logger()
		certs, err := keys.OpenCertificates(names, log)
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AddCert(ours.cert)
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
		cert, key := ours.issue(t, "third")
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
		with := func(a *authority, name string) *tls.Config {
			return &tls.Config{
				RootCAs: roots, ServerName: "localhost", NextProtos: []string{"h2"},
				Certificates: []tls.Certificate{a.client(t, name)}, ClientSessionCache: tls.NewLRUClientSessionCache(8),
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
		write(t, names.ClientCA, theirs.pem, 0o644)
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
	ca := newAuthority(t, "ca")
	cert, key := ca.issue(t, "a")
	_, other := ca.issue(t, "b")
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
