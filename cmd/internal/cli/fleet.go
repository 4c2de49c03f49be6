package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"spos/internal/fleet"
)

// NewFleetCommand is `fleet`.
func NewFleetCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "fleet",
		Short: "Run the broker between searches and the devices that measure for them",
	}
	cmd.AddCommand(newFleetServeCommand(), newFleetAccessCommand())
	return cmd
}

func newFleetServeCommand() *cobra.Command {
	var b BrokerFlags
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run a broker",
		Long: `Run a broker: a NATS server with JetStream, which keeps every job and every
answer in a directory until they are old. Agents and searches dial it; none of
them needs to be reachable. It can be killed and started again at any time:
what it said that it has, it has. Certificates and keys that are renewed are taken
up without a restart.`,
		Example: `  spos fleet serve --dir fleet
  spos fleet access --file access --client search --device pi5
  spos fleet serve --dir fleet --listen 0.0.0.0:4222 --access access \
      --tls-cert broker.pem --tls-key broker.key`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return fleetServeFunc(cmd, &b)
		},
	}
	b.add(cmd, servingNames)
	_ = cmd.MarkFlagRequired("dir")
	return cmd
}

func fleetServeFunc(cmd *cobra.Command, f *BrokerFlags) error {
	log, err := Logger(cmd, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	b, err := f.open("", log)
	if err != nil {
		return err
	}
	log.Info("broker is ready", "url", b.URL(), "dir", f.dir)
	<-cmd.Context().Done()
	return b.Close()
}

type fleetAccess struct {
	file             string
	clients, devices []string
	nkey, asJSON     bool
}

func newFleetAccessCommand() *cobra.Command {
	var f fleetAccess
	cmd := &cobra.Command{
		Use:   "access",
		Short: "Give clients and devices access to a broker",
		Long: `Make a token or an nkey for each client and device, and add what admits them to
the file that the broker is started with. A client may do everything. A device
may take the jobs of its own name and answer them, and nothing else.

Secrets are written to files of their own beside the access file, readable by
their owner only: NAME.token or NAME.nkey. The access file holds hashes and
public keys. A broker takes up a changed file within seconds: who is new is let
in, and whose line is gone is cut off.`,
		Example: `  spos fleet access --file access --client search --device pi5 --device jetson
  spos fleet access --file access --device pi5 --nkey`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return fleetAccessFunc(cmd, f)
		},
	}
	s := cmd.Flags()
	s.StringVar(&f.file, "file", "", "access file to add to; made where it is not")
	s.StringArrayVar(&f.clients, "client", nil, "who may do everything; may be repeated")
	s.StringArrayVar(&f.devices, "device", nil, "device that may do its own work; may be repeated")
	s.BoolVar(&f.nkey, "nkey", false, "make nkeys: the secret never crosses the network")
	jsonFlag(cmd, &f.asJSON)
	_ = cmd.MarkFlagRequired("file")
	_ = cmd.MarkFlagFilename("file")
	cmd.MarkFlagsOneRequired("client", "device")
	return cmd
}

// madeAccess is one secret that was made.
type madeAccess struct {
	Role   fleet.Role `json:"role"`
	Name   string     `json:"name"`
	Secret string     `json:"secret_file"`
}

func fleetAccessFunc(cmd *cobra.Command, f fleetAccess) error {
	var made []madeAccess
	for _, role := range []fleet.Role{fleet.Client, fleet.Device} {
		names := f.clients
		if role == fleet.Device {
			names = f.devices
		}
		for _, name := range names {
			m, err := f.grant(role, name)
			if err != nil {
				return err
			}
			made = append(made, m)
		}
	}
	if f.asJSON {
		return PrintJSON(cmd, made)
	}
	for _, m := range made {
		if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%s %s: secret in %s\n", m.Role, m.Name, m.Secret); err != nil {
			return err
		}
	}
	return nil
}

// grant writes a secret to a file of its own and then what admits it.
func (f *fleetAccess) grant(role fleet.Role, name string) (madeAccess, error) {
	var (
		secret string
		g      fleet.Grant
		err    error
		ext    = ".token"
	)
	if f.nkey {
		ext = ".nkey"
		var seed []byte
		seed, g, err = fleet.NewNKey(role, name)
		secret = string(seed)
	} else {
		secret, g, err = fleet.NewToken(role, name)
	}
	if err != nil {
		return madeAccess{}, err
	}
	path := filepath.Join(filepath.Dir(f.file), name+ext)
	if err := appendTo(path, os.O_EXCL, secret); err != nil {
		if errors.Is(err, os.ErrExist) {
			err = WithHint(err, name+" has a secret already: delete that file, and its line in "+f.file+", to make another")
		}
		return madeAccess{}, err
	}
	return madeAccess{role, name, path}, appendTo(f.file, os.O_APPEND, g.String())
}

// appendTo writes a line into a file that only its owner reads. A line before
// it that lacks its end gets it.
func appendTo(path string, mode int, line string) error {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|mode, 0o600)
	if err != nil {
		return err
	}
	text := strings.TrimSpace(line) + "\n"
	open, err := endsOpen(file)
	if open {
		text = "\n" + text
	}
	if err == nil {
		_, err = file.WriteString(text)
	}
	return errors.Join(err, file.Close())
}

// endsOpen reports whether a file's last line has no end.
func endsOpen(file *os.File) (bool, error) {
	info, err := file.Stat()
	if err != nil || info.Size() == 0 {
		return false, err
	}
	var last [1]byte
	_, err = file.ReadAt(last[:], info.Size()-1)
	return err == nil && last[0] != '\n', err
}
