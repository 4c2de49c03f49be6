package fleet_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"spos/internal/fleet"
)

// authority signs certificates into a directory.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.sign("ca", true)
	return a
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

// sign writes NAME.pem and NAME.key for 127.0.0.1.
func (a *authority) sign(name string, ca bool) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(int64(len(name))), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: ca, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	parent, signer := a.cert, a.key
	if ca {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	for ext, block := range map[string]*pem.Block{".pem": {Type: "CERTIFICATE", Bytes: der}, ".key": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(a.path(name+ext), pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

// config is the broker's side, with the certificate of that name.
func (a *authority) config(name string) *tls.Config {
	a.t.Helper()
	cert, err := tls.LoadX509KeyPair(a.path(name+".pem"), a.path(name+".key"))
	if err != nil {
		a.t.Fatal(err)
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	ours, theirs := newAuthority(t), newAuthority(t)
	ours.sign("broker", false)
	ours.sign("pi5", false)
	theirs.sign("pi5", false)
	open := broker(t, fleet.BrokerOptions{Listen: "127.0.0.1:0", TLS: ours.config("broker")}).URL()
	mutual := ours.config("broker")
	mutual.ClientAuth, mutual.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
	mutual.ClientCAs.AddCert(ours.cert)
	strict := broker(t, fleet.BrokerOptions{Listen: "127.0.0.1:0", TLS: mutual}).URL()
	bare := broker(t, fleet.BrokerOptions{Listen: "127.0.0.1:0"}).URL()
	if !strings.HasPrefix(open, "tls://") {
		t.Errorf("a broker with TLS is at %s", open)
	}
	tcp := func(url string) string { return strings.Replace(url, "tls://", "nats://", 1) }
	for name, test := range map[string]struct {
		o    fleet.Options
		want error
	}{
		"right":                     {fleet.Options{URL: open, CA: ours.path("ca.pem")}, nil},
		"nats:// and CA":            {fleet.Options{URL: tcp(open), CA: ours.path("ca.pem")}, nil},
		"with certificate":          {fleet.Options{URL: strict, CA: ours.path("ca.pem"), Cert: ours.path("pi5.pem"), Key: ours.path("pi5.key")}, nil},
		"plain client":              {fleet.Options{URL: tcp(open)}, fleet.ErrTLS},
		"no CA":                     {fleet.Options{URL: open}, fleet.ErrTLS},
		"wrong CA":                  {fleet.Options{URL: open, CA: theirs.path("ca.pem")}, fleet.ErrTLS},
		"no certificate":            {fleet.Options{URL: strict, CA: ours.path("ca.pem")}, fleet.ErrTLS},
		"certificate of another CA": {fleet.Options{URL: strict, CA: ours.path("ca.pem"), Cert: theirs.path("pi5.pem"), Key: theirs.path("pi5.key")}, fleet.ErrTLS},
		"plain broker":              {fleet.Options{URL: bare, CA: ours.path("ca.pem")}, fleet.ErrTLS},
		"tls:// to a plain broker":  {fleet.Options{URL: strings.Replace(bare, "nats://", "tls://", 1)}, fleet.ErrTLS},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := fleet.Connect(t.Context(), test.o)
			if !errors.Is(err, test.want) {
				t.Fatalf("got %v, want %v", err, test.want)
			}
			if err != nil {
				return
			}
			if _, err := c.Devices(t.Context()); err != nil {
				t.Error(err)
			}
			_ = c.Close()
		})
	}
}
