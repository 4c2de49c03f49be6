package cli

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"spos/latency"
)

func TestProviderFlags(t *testing.T) {
	for line, want := range map[string]struct {
		provider string
		options  map[string]string
		fallback float64
		err      string
	}{
		"":                               {},
		"--provider CPU --min-share 0.5": {},
		"--provider OpenVINOExecutionProvider --provider-option device_type=GPU --provider-option a=b=c": {provider: "openvino", options: map[string]string{"device_type": "GPU", "a": "b=c"}},
		"--provider qnn --min-share 0.75":                     {provider: "qnn", options: map[string]string{}, fallback: 0.25},
		"--provider xnnpack --allow-fallback --min-share 0.5": {provider: "xnnpack", options: map[string]string{}, fallback: 1},
		"--provider-option a=b":                               {err: "cpu provider has none"},
		"--provider cuda --provider-option =b":                {err: "NAME=VALUE"},
		"--provider cuda --min-share 1.5":                     {err: "--min-share 1.5"},
		"--provider cuda --min-share NaN":                     {err: "--min-share NaN"},
	} {
		var flags ProviderFlags
		cmd := &cobra.Command{}
		flags.Add(cmd)
		if err := cmd.ParseFlags(strings.Fields(line)); err != nil {
			t.Fatal(err)
		}
		p := latency.Screening()
		err := flags.Apply(&p)
		if (err != nil) != (want.err != "") || err != nil && !strings.Contains(err.Error(), want.err) {
			t.Errorf("%q: error %v, want %q", line, err, want.err)
			continue
		}
		if d := cmp.Diff(want.options, p.Session.ProviderConfig); d != "" || p.Session.Provider != want.provider || p.Fallback != want.fallback {
			t.Errorf("%q: %q %v %v", line, p.Session.Provider, p.Session.ProviderConfig, p.Fallback)
		}
		if err := p.Validate(); err != nil {
			t.Errorf("%q: %v", line, err)
		}
	}
}
