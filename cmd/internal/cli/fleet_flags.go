package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"spos/internal/fleet"
)

// FleetEnv names the broker where --fleet does not.
const FleetEnv = "SPOS_FLEET"

// FleetFlags say where a broker is and how it is entered.
type FleetFlags struct {
	URL       string
	TokenFile string
	NKey      string
	CA        string
	Cert, Key string
}

// Add gives a command the flags. Flag is what the broker's address is called:
// fleet, or connect where a device dials it.
func (f *FleetFlags) Add(cmd *cobra.Command, flag string) {
	s := cmd.Flags()
	s.StringVar(&f.URL, flag, "", "broker of the fleet, as nats://host:port or tls://host:port (default $"+FleetEnv+")")
	s.StringVar(&f.TokenFile, "fleet-token", "", "file with the token that the broker admits")
	s.StringVar(&f.NKey, "fleet-nkey", "", "file with the seed of the nkey that the broker admits")
	s.StringVar(&f.CA, "fleet-ca", "", "PEM file: the broker must show a certificate of this authority")
	s.StringVar(&f.Cert, "fleet-cert", "", "PEM file with our certificate, where the broker wants one")
	s.StringVar(&f.Key, "fleet-key", "", "PEM file with the key of --fleet-cert")
	cmd.MarkFlagsMutuallyExclusive("fleet-token", "fleet-nkey")
	cmd.MarkFlagsRequiredTogether("fleet-cert", "fleet-key")
}

// Given tells whether a broker is named, by flag or environment.
func (f *FleetFlags) Given() bool { return f.address() != "" }

func (f *FleetFlags) address() string { return cmp.Or(f.URL, os.Getenv(FleetEnv)) }

// Connect connects under a name: a device's connection carries the device's
// name. The caller closes it.
func (f *FleetFlags) Connect(ctx context.Context, name string, log *slog.Logger) (*fleet.Conn, error) {
	o := fleet.Options{URL: f.address(), Name: name, NKey: f.NKey, CA: f.CA, Cert: f.Cert, Key: f.Key, Log: log}
	if o.URL == "" {
		return nil, WithHint(errors.New("no broker is named"),
			"give its address with --fleet nats://host:4222, or in "+FleetEnv,
			"start one with: spos fleet serve --dir DIR")
	}
	if f.TokenFile != "" {
		text, err := os.ReadFile(f.TokenFile)
		if err != nil {
			return nil, fmt.Errorf("read the fleet's token: %w", err)
		}
		if o.Token = strings.TrimSpace(string(text)); o.Token == "" {
			return nil, fmt.Errorf("read the fleet's token: %s is empty", f.TokenFile)
		}
	}
	c, err := fleet.Connect(ctx, o)
	switch {
	case errors.Is(err, fleet.ErrNoBroker):
		err = WithHint(err, "start one there with: spos fleet serve --listen HOST:PORT --dir DIR --access FILE")
	case errors.Is(err, fleet.ErrRefused):
		err = WithHint(err, "give the secret that `spos fleet access` made with --fleet-token FILE or --fleet-nkey FILE")
	case errors.Is(err, fleet.ErrTLS):
		err = WithHint(err, "a broker with TLS wants tls:// and --fleet-ca FILE with the authority of its certificate, and may want --fleet-cert and --fleet-key",
			"one without TLS wants nats:// and none of these")
	}
	return c, err
}
