package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"

	"spos/internal/arch"
	"spos/internal/config"
	"spos/latency"
	"spos/search"
)

// Gauge is one device that nets are measured on, with its limit in
// milliseconds; 0 is none.
type Gauge struct {
	Device string
	Limit  float64
	*Meter
}

// Gauges are the devices of a search. The first one's latency stands for a
// net where only one can.
type Gauges []Gauge

// NewGauges makes a meter of the space's nets on each device; limits are in
// the order of the devices.
func NewGauges(s *arch.Space, devices []NamedDevice, limits []config.DeviceLimit, c config.Latency, log *slog.Logger) (Gauges, error) {
	var gs Gauges
	for i, d := range devices {
		log := log
		if len(devices) > 1 {
			log = log.With("device", d.Name)
		}
		m, err := NewMeter(s, d, c, log)
		if err != nil {
			return nil, err
		}
		gs = append(gs, Gauge{d.Name, limits[i].MS, m})
	}
	return gs, nil
}

// Remember opens a cache for each device in a directory: latency.jsonl of the
// first, latency-NAME.jsonl of the others.
func (gs Gauges) Remember(dir string) (closeAll func() error, err error) {
	var open []*latency.Cache
	closeAll = func() error {
		var errs []error
		for _, c := range open {
			errs = append(errs, c.Close())
		}
		return errors.Join(errs...)
	}
	for i, g := range gs {
		name := "latency.jsonl"
		if i > 0 {
			name = "latency-" + url.PathEscape(g.Device) + ".jsonl"
		}
		c, err := latency.OpenCache(filepath.Join(dir, name))
		if err != nil {
			return nil, errors.Join(err, closeAll())
		}
		open = append(open, c)
		g.Meter.Remember(c)
	}
	return closeAll, nil
}

// Limited tells whether any device has a limit.
func (gs Gauges) Limited() bool {
	for _, g := range gs {
		if g.Limit > 0 {
			return true
		}
	}
	return false
}

// Width is how many nets the widest device measures at once.
func (gs Gauges) Width() int {
	width := 1
	for _, g := range gs {
		width = max(width, latency.Width(g.Runner()))
	}
	return width
}

// What names a device's latency; this machine's needs no name.
func (g Gauge) What() string {
	if g.Device == ThisDevice {
		return "latency"
	}
	return "latency on " + g.Device
}

// Tell is a trial's latencies in a few words.
func (gs Gauges) Tell(t search.Trial) string {
	if len(gs) == 1 {
		return fmt.Sprintf("%.3f ms", t.Latency.P50)
	}
	words := make([]string, len(gs))
	for i, g := range gs {
		words[i] = fmt.Sprintf("%.3f ms on %s", t.Devices[g.Device].P50, g.Device)
	}
	return strings.Join(words, ", ")
}

// Constraint is met where every device's limit is.
func (gs Gauges) Constraint() search.Constraint {
	below := func(what string, g Gauge) search.Below {
		return search.Below{What: what, Unit: "ms", Limit: g.Limit, Efforts: SearchEfforts, Measure: g.Nets}
	}
	if len(gs) == 1 {
		return below(gs[0].What(), gs[0])
	}
	var each search.EachBelow
	for _, g := range gs {
		each = append(each, search.OnDevice{Device: g.Device, Below: below("latency", g)})
	}
	return each
}

// Each runs f for every device at the same time. The error names its device
// where there are several.
func (gs Gauges) Each(ctx context.Context, f func(ctx context.Context, i int, g Gauge) error) error {
	group, ctx := errgroup.WithContext(ctx)
	for i, g := range gs {
		group.Go(func() error {
			err := f(ctx, i, g)
			if err != nil && len(gs) > 1 {
				return fmt.Errorf("%s: %w", g.Device, err)
			}
			return err
		})
	}
	return group.Wait()
}

// Confirm measures a finalist on every device; see [Meter.Confirm].
func (gs Gauges) Confirm(ctx context.Context, n *arch.Net, round int) ([]search.Interval, error) {
	found := make([]search.Interval, len(gs))
	err := gs.Each(ctx, func(ctx context.Context, i int, g Gauge) (err error) {
		found[i], err = g.Meter.Confirm(ctx, n, round)
		return err
	})
	return found, err
}

// Keeps tells whether a net with those latencies, one a device, surely keeps
// to every limit.
func (gs Gauges) Keeps(found []search.Interval) bool {
	for i, g := range gs {
		if g.Limit > 0 && found[i].High >= g.Limit {
			return false
		}
	}
	return true
}
