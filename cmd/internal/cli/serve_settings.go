package cli

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"spos/internal/config"
)

// servePrefix begins the variables that stand for flags of serve: SPOS_SERVE_DRAIN_TIMEOUT is --drain-timeout.
const servePrefix = "SPOS_SERVE_"

// configFlag names a file with values for the other flags.
const configFlag = "config"

// settle gives the flags that the command line left out the values that the environment has for them, and those that
// it leaves out the ones of the file that --config names. An empty variable is none. It returns the names of variables
// that stand for no flag.
func settle(cmd *cobra.Command, environ []string) (unknown []string, err error) {
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		rest, ours := strings.CutPrefix(name, servePrefix)
		if !ours || value == "" {
			continue
		}
		flag := cmd.Flags().Lookup(strings.ReplaceAll(strings.ToLower(rest), "_", "-"))
		switch {
		case flag == nil || flag.Name == "help":
			unknown = append(unknown, name)
		case flag.Changed:
		default:
			if err := cmd.Flags().Set(flag.Name, value); err != nil {
				return nil, fmt.Errorf("%s=%s: %w", name, value, err)
			}
		}
	}
	slices.Sort(unknown)
	return unknown, settleFile(cmd)
}

// settleFile takes from the file what neither the command line nor the environment said.
func settleFile(cmd *cobra.Command) error {
	path, err := cmd.Flags().GetString(configFlag)
	if err != nil || path == "" {
		return err
	}
	var known []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Name != configFlag && f.Name != "help" {
			known = append(known, f.Name)
		}
	})
	settings, err := config.Flat(path, known)
	if err != nil {
		return err
	}
	for _, s := range settings {
		if flag := cmd.Flags().Lookup(s.Key); !flag.Changed {
			if err := cmd.Flags().Set(s.Key, s.Value); err != nil {
				return fmt.Errorf("%s: %w", s.Where, err)
			}
		}
	}
	return nil
}

// warnUnknown tells of what settle did not know, except for what Kubernetes sets in containers beside a service of
// this name.
func warnUnknown(log *slog.Logger, unknown []string) {
	for _, name := range unknown {
		rest := strings.TrimPrefix(name, servePrefix)
		if strings.HasPrefix(rest, "SERVICE_") || strings.HasPrefix(rest, "PORT") {
			continue
		}
		log.Warn("a variable stands for no flag of serve", "variable", name)
	}
}
