package keys

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
)

// Files name the PEM files of a server.
type Files struct {
	// Cert is the server's certificate, followed by those of the authorities between it and a root. Key is its
	// private key.
	Cert, Key string
	// ClientCA are the authorities that must have signed the certificates of clients. Empty: clients need none.
	ClientCA string
}

// Certificates are those of a server. Its methods are safe for concurrent use.
type Certificates struct {
	names Files
	files watched
	now   atomic.Pointer[loaded]
}

type loaded struct {
	cert    tls.Certificate
	clients *x509.CertPool
}

// OpenCertificates reads the files.
func OpenCertificates(names Files, log *slog.Logger) (*Certificates, error) {
	if names.Cert == "" || names.Key == "" {
		return nil, errors.New("TLS needs a certificate and its key")
	}
	c := &Certificates{names: names}
	c.files = watched{what: "certificates", paths: []string{names.Cert, names.Key, names.ClientCA}, load: c.load, log: log}
	if err := c.files.open(); err != nil {
		return nil, fmt.Errorf("read certificates: %w", err)
	}
	return c, nil
}

func (c *Certificates) load() error {
	cert, _, err := read(c.names.Cert)
	if err != nil {
		return err
	}
	key, info, err := read(c.names.Key)
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o007 != 0 {
		c.files.log.Warn("everyone on this machine may read the private key", "file", c.names.Key, "mode", info.Mode().Perm().String())
	}
	l := &loaded{}
	if l.cert, err = tls.X509KeyPair(cert, key); err != nil {
		return fmt.Errorf("%s and %s: %w", c.names.Cert, c.names.Key, err)
	}
	if c.names.ClientCA != "" {
		pem, _, err := read(c.names.ClientCA)
		if err != nil {
			return err
		}
		if l.clients = x509.NewCertPool(); !l.clients.AppendCertsFromPEM(pem) {
			return fmt.Errorf("%s holds no certificate in PEM form", c.names.ClientCA)
		}
	}
	c.now.Store(l)
	return nil
}

func (c *Certificates) current() *loaded {
	c.files.refresh()
	return c.now.Load()
}

// Clients reports that clients need certificates.
func (c *Certificates) Clients() bool { return c.names.ClientCA != "" }

// Config is a listener's side of TLS 1.2 or newer with application protocols, the preferred one first. Where clients
// is set it asks for their certificates, if there are authorities to hold them against.
func (c *Certificates) Config(clients bool, protocols ...string) *tls.Config {
	config := &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     protocols,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &c.current().cert, nil },
	}
	if !clients || !c.Clients() {
		return config
	}
	config.ClientAuth = tls.RequireAndVerifyClientCert
	// A session that goes on would not show its certificate to authorities that have changed.
	config.SessionTicketsDisabled = true
	config.ClientCAs = c.now.Load().clients
	base := config.Clone()
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		one := base.Clone()
		one.ClientCAs = c.current().clients
		return one, nil
	}
	return config
}
