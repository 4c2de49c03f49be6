package cli

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"spos/internal/arch"
	"spos/latency"
	"spos/search"
)

// predictions are of a table, in place of measurements.
type predictions struct {
	Table   string        `json:"table"`
	Outside int           `json:"nets_outside_audit"` // those that the audit does not vouch for
	Audit   latency.Audit `json:"audit"`

	table *latency.Table
}

// measuringFlags say how and where nets are measured, which a table has settled.
var measuringFlags = []string{
	"device", "device-timeout", "fleet", "mode", "threads", "batch", "provider", "provider-option", "min-share", "allow-fallback", "work-dir",
}

// predict has the table say how fast nets of the space are.
func (o *spaceLatencyOptions) predict(cmd *cobra.Command, name string, within search.Limits, st *survey) error {
	for _, flag := range measuringFlags {
		if cmd.Flags().Changed(flag) {
			return WithHint(fmt.Errorf("--%s is about measuring, and with --table nothing is measured", flag),
				"a table answers for the device and settings that it was made under; make one for others with: spos latency table "+name,
				"leave out --table to measure")
		}
	}
	t, err := latency.ReadTable(o.table)
	if err != nil {
		return err
	}
	if st.space, err = o.space(name, t.Space); err != nil {
		return err
	}
	by := &predictions{Table: o.table, Audit: t.Audit(), table: t}
	s := surveyed{name: strings.TrimSuffix(strings.TrimSuffix(filepath.Base(o.table), ".json"), ".table"), by: by}
	if st.limits, err = parseLatencyLimits(o.limits, []string{s.name}); err != nil {
		return WithHint(err, "with --table a limit is on the table's device: --limit 4.5ms")
	}
	if st.nets, err = drawNets(st.space, within, o.nets, o.seed); err != nil {
		return err
	}
	least, err := st.fewestMACs()
	if err != nil {
		return err
	}
	if s.cheapest, err = by.result(least); err != nil {
		return err
	}
	for _, n := range st.nets {
		r, err := by.result(n)
		if err != nil {
			return err
		}
		if by.unvouched(r) {
			by.Outside++
		}
		s.results = append(s.results, r)
	}
	st.devices = []surveyed{s}
	return nil
}

// result is a prediction in the shape of a measurement.
func (p *predictions) result(n *arch.Net) (latency.Result, error) {
	said, err := p.table.Predict(n)
	if errors.Is(err, latency.ErrUnmeasured) {
		in := p.table.Space.In
		err = WithHint(fmt.Errorf("%s: %w", p.Table, err),
			fmt.Sprintf("the table is of %s for %d×%d×%d images and %d classes", p.table.Space.Name, in.C, in.H, in.W, p.table.Space.Classes))
	}
	return latency.Result{
		Model: string(n.Arch), Estimate: latency.Estimate{P50: said.P50, Low: said.Low, High: said.High}, Fingerprint: p.table.Fingerprint,
	}, err
}

// unvouched reports whether a net of this latency is outside of what the
// table's audit vouches for. Of measured nets none is.
func (p *predictions) unvouched(r latency.Result) bool {
	return p != nil && !p.Audit.Vouches(r.P50)
}

// write says what belongs beside predictions.
func (p *predictions) write(out io.Writer, nets int) error {
	if p == nil {
		return nil
	}
	switch {
	case p.Outside > 0 && p.Audit.From == p.Audit.To:
		fmt.Fprintln(out, "warning: the table's audit vouches for no net")
	case p.Outside > 0:
		fmt.Fprintf(out, "warning: %d of %d nets are outside of what the table's audit vouches for, %.4g to %.4g ms\n", p.Outside, nets, p.Audit.From, p.Audit.To)
	}
	if _, err := fmt.Fprintln(out); err != nil {
		return err
	}
	return p.table.WriteAudit(out)
}
