package cli

import (
	"fmt"
	"log/slog"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"spos/internal/arch"
	"spos/latency"
)

type predictOptions struct {
	device   DeviceFlags
	measured bool
	json     bool
}

func newLatencyPredictCommand() *cobra.Command {
	var o predictOptions
	cmd := &cobra.Command{
		Use:   "predict FILE ARCH…",
		Short: "Predict the latency of nets from a table, with an interval and the table's audit",
		Long: `Predict the latency of nets from a table, with an interval and the table's audit.

The table must have been measured on the device that is asked about, under its present
settings: it refuses otherwise and says what differs. With --as-measured the answer is
for the device that it was measured on, whichever this machine is.`,
		Example: `  spos latency predict shufflenetv2-spos-local.table.json 20213301230122031203
  spos latency predict pi5.table.json 22212220 00000000 --as-measured --json`,
		Args:              cobra.MinimumNArgs(2),
		ValidArgsFunction: completeTable,
		RunE: func(cmd *cobra.Command, args []string) error {
			return latencyPredictFunc(cmd, args[0], args[1:], o)
		},
	}
	o.device.Add(cmd, false)
	cmd.Flags().BoolVar(&o.measured, "as-measured", false, "answer for the device that the table was measured on")
	jsonFlag(cmd, &o.json)
	return cmd
}

// predictionEntry is one net as `latency predict --json` prints it.
type predictionEntry struct {
	Arch    arch.Arch `json:"arch"`
	P50     float64   `json:"p50_ms"`
	Low     float64   `json:"low_ms"`
	High    float64   `json:"high_ms"`
	Outside bool      `json:"outside_audit"`
}

func latencyPredictFunc(cmd *cobra.Command, path string, archs []string, o predictOptions) error {
	t, err := latency.ReadTable(path)
	if err != nil {
		return err
	}
	if !o.measured {
		if err := answersHere(cmd, t, &o.device); err != nil {
			return err
		}
	}
	var list []predictionEntry
	for _, text := range archs {
		a, err := t.Space.Parse(text)
		if err != nil {
			return err
		}
		n, err := t.Space.Net(a)
		if err != nil {
			return err
		}
		p, err := t.Predict(n)
		if err != nil {
			return err
		}
		list = append(list, predictionEntry{a, latency.Milliseconds(p.P50), latency.Milliseconds(p.Low), latency.Milliseconds(p.High), p.Outside})
	}
	if o.json {
		return PrintJSON(cmd, struct {
			Predictions []predictionEntry   `json:"predictions"`
			Fingerprint latency.Fingerprint `json:"fingerprint"`
			Audit       latency.Audit       `json:"audit"`
		}{list, t.Fingerprint, t.Audit()})
	}
	out := cmd.OutOrStdout()
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "net\tpredicted ms\t95 % interval\t")
	for _, e := range list {
		note := ""
		if e.Outside {
			note = "outside of what the audit vouches for"
		}
		fmt.Fprintf(w, "%s\t%.4g\t%.4g – %.4g\t%s\n", e.Arch, e.P50, e.Low, e.High, note)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if err := t.WriteHead(out); err != nil {
		return err
	}
	return t.WriteAudit(out)
}

// answersHere reports whether a table answers for the device that is asked.
func answersHere(cmd *cobra.Command, t *latency.Table, d *DeviceFlags) error {
	devices, closeAll, err := d.Open(cmd.Context(), "", slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	fp, err := devices[0].Fingerprint(cmd.Context(), nil, t.Protocol)
	if cerr := closeAll(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return WithHint(t.For(fp), "make a table on this device, name the table's with --device, or ask for that one's latency with --as-measured")
}
