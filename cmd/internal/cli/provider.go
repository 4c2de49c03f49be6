package cli

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

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
	if !(p.minShare >= 0 && p.minShare <= 1) {
		return fmt.Errorf("--min-share %v is not between 0 and 1", p.minShare)
	}
	config := maps.Clone(to.Session.ProviderConfig)
	for _, option := range p.options {
		name, value, ok := strings.Cut(option, "=")
		if !ok || name == "" {
			return fmt.Errorf("--provider-option %q is not NAME=VALUE", option)
		}
		if config == nil {
			config = map[string]string{}
		}
		config[name] = value
	}
	name := ort.ProviderName(p.name)
	if name == ort.CPU && len(p.options) > 0 {
		return fmt.Errorf("--provider-option: the cpu provider has none; name another with --provider (%s)",
			strings.Join(slices.DeleteFunc(ort.Providers(), func(n string) bool { return n == ort.CPU }), ", "))
	}
	to.Session.Provider, to.Session.ProviderConfig = name, config
	if name == ort.CPU {
		to.Session.Provider = "" // as everything that names none
	}
	to.Fallback = 1 - p.minShare
	if p.fallback {
		to.Fallback = 1
	}
	return nil
}
