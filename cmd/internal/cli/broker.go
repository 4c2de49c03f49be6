package cli

import (
	"cmp"
	"fmt"
	"log/slog"
	"net"

	"github.com/spf13/cobra"

	"spos/internal/fleet"
	"spos/serve/keys"
)

// BrokerFlags describe a broker in this process: that of `fleet serve`, or
// that of a verb that measures and is the broker of its devices meanwhile.
type BrokerFlags struct {
	listen, dir, access string
	tls                 keys.Files
	names               brokerNames
}

// brokerNames are what a verb calls the flags, and how it explains them.
type brokerNames struct {
	listen                     string // default
	dir, access, cert, key, ca string
	aboutListen, aboutDir      string
}

var (
	servingNames = brokerNames{
		"127.0.0.1:4222", "dir", "access", "tls-cert", "tls-key", "tls-ca",
		"host:port to listen on",
		"directory for what is kept",
	}
	measuringNames = brokerNames{
		"", "fleet-dir", "fleet-access", "listen-cert", "listen-key", "listen-ca",
		"run the broker for the devices here, at host:port, instead of dialling one with --fleet",
		"directory for what the broker of --listen keeps (default: beside the verb's own folder, with .fleet after its name)",
	}
)

// Add gives the flags to a command that measures.
func (b *BrokerFlags) Add(cmd *cobra.Command) {
	b.add(cmd, measuringNames)
	cmd.MarkFlagsMutuallyExclusive("listen", "fleet")
}

func (b *BrokerFlags) add(cmd *cobra.Command, names brokerNames) {
	b.names = names
	f := cmd.Flags()
	f.StringVar(&b.listen, "listen", names.listen, names.aboutListen)
	f.StringVar(&b.dir, names.dir, "", names.aboutDir)
	f.StringVar(&b.access, names.access, "", "file that says who may do what at the broker, made by spos fleet access")
	f.StringVar(&b.tls.Cert, names.cert, "", "PEM file with the broker's certificate")
	f.StringVar(&b.tls.Key, names.key, "", "PEM file with its key")
	f.StringVar(&b.tls.ClientCA, names.ca, "", "PEM file: who connects must show a certificate of this authority")
	cmd.MarkFlagsRequiredTogether(names.cert, names.key)
	_ = cmd.MarkFlagDirname(names.dir)
	for _, name := range []string{names.access, names.cert, names.key, names.ca} {
		_ = cmd.MarkFlagFilename(name)
	}
}

// Open starts the broker where --listen is given, else returns nil; dir is
// where it keeps things unless --fleet-dir says otherwise. The caller sets
// [DeviceFlags.Broker] and closes the broker after the devices.
func (b *BrokerFlags) Open(dir string, log *slog.Logger) (*fleet.Broker, error) {
	if b.listen == "" {
		for _, f := range [][2]string{{b.names.dir, b.dir}, {b.names.access, b.access}, {b.names.cert, b.tls.Cert}, {b.names.ca, b.tls.ClientCA}} {
			if f[1] != "" {
				return nil, fmt.Errorf("--%s needs --listen: it is about the broker that runs there", f[0])
			}
		}
		return nil, nil
	}
	broker, err := b.open(dir, log)
	if err != nil {
		return nil, err
	}
	log.Info("broker is ready: agents dial it with --connect", "url", broker.URL(), "dir", cmp.Or(b.dir, dir))
	return broker, nil
}

// open starts the broker, and refuses one that anybody on a network could use.
func (b *BrokerFlags) open(dir string, log *slog.Logger) (*fleet.Broker, error) {
	o := fleet.BrokerOptions{Listen: b.listen, Dir: cmp.Or(b.dir, dir), Log: log}
	host, _, err := net.SplitHostPort(b.listen)
	if err != nil {
		return nil, fmt.Errorf("--listen: want HOST:PORT: %w", err)
	}
	if b.access != "" {
		if o.Access, err = fleet.ReadAccess(b.access); err != nil {
			return nil, WithHint(err, "make one with: spos fleet access --file "+b.access+" --client search --device NAME")
		}
	} else if !loopback(host) {
		return nil, WithHint(fmt.Errorf("%s is reached from other machines, and whoever reaches it could read and answer every job", b.listen),
			"say who may: make a file with `spos fleet access --file access --client search --device NAME` and give it with --"+b.names.access,
			"or listen on 127.0.0.1 only")
	}
	switch {
	case b.tls.Cert != "":
		certs, err := keys.OpenCertificates(b.tls, log)
		if err != nil {
			return nil, fmt.Errorf("the broker's certificate: %w", err)
		}
		o.TLS = certs.Config(true)
	case b.tls.ClientCA != "":
		return nil, fmt.Errorf("--%s needs --%s and --%s: certificates of clients come with TLS", b.names.ca, b.names.cert, b.names.key)
	}
	return fleet.StartBroker(o)
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
