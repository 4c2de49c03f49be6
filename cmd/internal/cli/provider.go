package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"spos/internal/config"
	"spos/internal/ort"
	"spos/latency"
)

// ProviderFlags say on which of ONNX Runtime's execution providers models are
// measured, and how much of them must really run there.
type ProviderFlags struct {
	name     string
	options  []string
	minShare float64
	fallback bool
}

// Add gives a command the flags.
func (p *ProviderFlags) Add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&p.name, "provider", ort.CPU, "execution provider of ONNX Runtime: "+strings.Join(ort.Providers(), ", "))
	f.StringArrayVar(&p.options, "provider-option", nil, "NAME=VALUE for the provider, in its own spelling; may be repeated")
	f.Float64Var(&p.minShare, "min-share", 1, "part of the nodes, and of their time, that must run on the provider")
	f.BoolVar(&p.fallback, "allow-fallback", false, "measure even where the provider leaves nodes to the processor")
	_ = cmd.RegisterFlagCompletionFunc("provider", cobra.FixedCompletions(ort.Providers(), cobra.ShellCompDirectiveNoFileComp))
}

// Apply puts what the flags say into a protocol.
func (p *ProviderFlags) Apply(to *latency.Protocol) error {
	var c config.Latency
	if err := p.Configure(&c); err != nil {
		return err
	}
	to.Session.Provider, to.Session.ProviderConfig, to.Fallback = c.Provider, c.ProviderOptions, c.Fallback
	return nil
}

// Configure puts it into the protocol of a search.
func (p *ProviderFlags) Configure(to *config.Latency) error {
	if !(p.minShare >= 0 && p.minShare <= 1) {
		return fmt.Errorf("--min-share %v is not between 0 and 1", p.minShare)
	}
	name := ort.ProviderName(p.name)
	if name == ort.CPU {
		if len(p.options) > 0 {
			return fmt.Errorf("--provider-option: the cpu provider has none; name another with --provider (%s)", strings.Join(ort.Providers(), ", "))
		}
		return nil // which is as everything that names none
	}
	options := map[string]string{}
	for _, option := range p.options {
		key, value, ok := strings.Cut(option, "=")
		if !ok || key == "" {
			return fmt.Errorf("--provider-option %q is not NAME=VALUE", option)
		}
		options[key] = value
	}
	to.Provider, to.ProviderOptions, to.Fallback = name, options, 1-p.minShare
	if p.fallback {
		to.Fallback = 1
	}
	return nil
}
