package cli

import (
	"context"
	"fmt"

	"spos/internal/arch"
	"spos/latency"
	"spos/search"
)

// Foresee has a table refuse, without measurement, nets that it predicts
// wholly above the first device's limit. A table of another device, or of
// other settings, is an error that wraps [latency.ErrIncomparable]. Nets that
// it does not know, or that its audit does not vouch for, are measured.
func (gs Gauges) Foresee(ctx context.Context, t *latency.Table, then search.Constraint) (search.Constraint, error) {
	first := gs[0]
	d, ok := first.Runner().(latency.Describer)
	if !ok {
		return nil, fmt.Errorf("%s does not tell its fingerprint", first.Device)
	}
	fp, err := d.Fingerprint(ctx, nil, first.Protocol(0))
	if err != nil {
		return nil, err
	}
	if err := t.For(fp); err != nil {
		return nil, WithHint(err, "make one for it with: spos latency table "+t.Space.Name+" --device "+first.Device)
	}
	return search.Foreseen{
		Below: search.Below{What: first.What(), Unit: "ms", Limit: first.Limit},
		Then:  then,
		Predict: func(n *arch.Net) (search.Interval, bool) {
			p, err := t.Predict(n)
			if err != nil || p.Outside {
				return search.Interval{}, false
			}
			return Interval(latency.Estimate{P50: p.P50, Low: p.Low, High: p.High}), true
		},
	}, nil
}
