package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"spos/configs"
	"spos/export"
	"spos/internal/archfile"
	"spos/internal/ckpt"
	"spos/internal/ort"
	"spos/latency"
	"spos/search"
)

// ErrPromise is wrapped where a file does not keep to what its latency was to
// stay below, or it could not be shown that it does.
var ErrPromise = errors.New("the latency limit is not kept")

// Promise writes into an ONNX file what its latency was measured to be on a
// device under p, for the server to hold itself to. limit is what it was to
// stay below; 0 is none. What the file promises of this device is replaced;
// where another one's promise stood first, it stands behind.
func Promise(file []byte, device string, r latency.Result, p latency.Protocol, limit time.Duration) ([]byte, error) {
	s, err := export.Inspect(file)
	if err != nil {
		return nil, err
	}
	if text, ok := s.Metadata[export.KeyLatency]; ok {
		if before, err := latency.ParseManifest(text); err == nil && deviceOf(before) != device {
			if file, err = export.SetMetadata(file, latencyKeyOf(deviceOf(before)), text); err != nil {
				return nil, err
			}
		}
	}
	m := manifestOn(device, r, p, limit)
	if key := latencyKeyOf(device); s.Metadata[key] != "" {
		if file, err = writeManifest(file, key, m); err != nil {
			return nil, err
		}
	}
	return writeManifest(file, export.KeyLatency, m)
}

// manifestOn is the manifest of what was measured on a device.
func manifestOn(device string, r latency.Result, p latency.Protocol, limit time.Duration) latency.Manifest {
	m := latency.NewManifest(r, p, limit)
	if device != ThisDevice {
		m.Device = device
	}
	return m
}

// deviceOf is the name of the device that a manifest is of.
func deviceOf(m latency.Manifest) string { return cmp.Or(m.Device, ThisDevice) }

func writeManifest(file []byte, key string, m latency.Manifest) ([]byte, error) {
	text, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	return export.SetMetadata(file, key, string(text))
}

// latencyKeyOf is the metadata key of the manifest of a further device.
func latencyKeyOf(device string) string { return export.KeyLatency + "." + device }

// PromiseFlags say that an exported file is to be measured, where, and what it
// is to stay below.
type PromiseFlags struct {
	Measure bool
	Devices DeviceFlags
	limits  []string
}

// Add gives a command the flags.
func (o *PromiseFlags) Add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&o.Measure, "latency", false, "measure the file, keep the result in its metadata, and fail where it misses its limit")
	f.StringArrayVar(&o.limits, "limit", nil, "with --latency, what it must stay below: 4.5ms, or DEVICE=4.5ms (default: what the search promised)")
	o.Devices.Add(cmd, true)
	f.Lookup("device").Usage = "with --latency, measure on this device; may be repeated (default: the search's devices, or local)"
}

// Resolve sets the flags against what the search promised, nil for nothing.
// It is called once, when the command line has been parsed.
func (o *PromiseFlags) Resolve(cmd *cobra.Command, p *ckpt.Promise, batch int, log *slog.Logger) (Pledges, error) {
	ps := Pledges{protocol: latency.Confirmation(), limits: map[string]time.Duration{}}
	if !o.Measure {
		if len(o.limits) > 0 || cmd.Flags().Changed("device") {
			return ps, errors.New("--limit and --device are about a measurement: add --latency")
		}
		return ps, nil
	}
	if p == nil {
		p = &ckpt.Promise{}
	}
	ps.names = o.Devices.Names
	if !cmd.Flags().Changed("device") && len(p.Limits) > 0 {
		ps.names = nil
		for _, l := range p.Limits {
			ps.names = append(ps.names, l.Device)
		}
	}
	given, err := parseLatencyLimits(o.limits, ps.names)
	if err != nil {
		return ps, err
	}
	if p.Mode != "" {
		ps.protocol.Mode = latency.Mode(p.Mode)
	}
	ps.protocol.Threads = max(p.Threads, 1)
	ps.protocol.Batch = max(batch, p.Batch, 1)
	for _, l := range p.Limits {
		switch {
		case l.MS == 0 || given[l.Device] != nil:
		case !slices.Contains(ps.names, l.Device):
			log.Warn("a limit of the search is not proved: its device is not measured on", "device", l.Device, "limit_ms", l.MS)
		case ps.protocol.Batch != max(p.Batch, 1):
			return ps, WithHint(fmt.Errorf("the search's limit on %s is about batch %d, and this file is for batch %d", l.Device, max(p.Batch, 1), batch),
				"give the limit that this batch must keep to with --limit")
		default:
			ps.limits[l.Device] = duration(l.MS)
		}
	}
	for device, ms := range given {
		ps.limits[device] = duration(slices.Min(ms))
	}
	return ps, nil
}

// Pledges are where a file is to be measured, how, and what it is to stay
// below there.
type Pledges struct {
	names    []string // of devices; none: it is not measured
	limits   map[string]time.Duration
	protocol latency.Protocol
}

// Promised is what was found of a file on one device.
type Promised struct {
	Device  string          `json:"device"`
	Latency search.Interval `json:"latency_ms"`
	Limit   float64         `json:"limit_ms,omitempty"`
	Verdict string          `json:"verdict,omitempty"` // where there is a limit

	result latency.Result
}

// undecidedSessions are what a file gets at most beyond the confirmation
// while its limit is undecided.
const undecidedSessions = 12

// Prove measures a file on all devices at the same time, at the care that an
// exported model deserves and more where a limit is undecided, and returns the
// file with a manifest of each: the first device's under spos.latency, that of
// another under spos.latency.NAME. Where a limit is not shown to be kept the
// error wraps [ErrPromise], and the file, which says so, is returned as well.
func (ps Pledges) Prove(ctx context.Context, flags DeviceFlags, name string, file []byte, log *slog.Logger) ([]byte, []Promised, error) {
	flags.Names = ps.names
	devices, release, err := flags.Open(ctx, "", log)
	if err != nil {
		return nil, nil, err
	}
	found, err := ps.measure(ctx, Watch(devices, log, nil), latency.Model{Name: name, Bytes: file})
	if err := errors.Join(err, release()); err != nil {
		return nil, nil, err
	}
	file, err = ps.stamp(name, file, found)
	return file, found, err
}

// stamp writes what was found into the file.
func (ps Pledges) stamp(name string, file []byte, found []Promised) (_ []byte, err error) {
	var broken []string
	for i, f := range found {
		limit := ps.limits[f.Device]
		m, key := manifestOn(f.Device, f.result, ps.protocol, limit), export.KeyLatency
		if i > 0 {
			key = latencyKeyOf(f.Device)
		}
		if file, err = writeManifest(file, key, m); err != nil {
			return nil, err
		}
		if limit > 0 && m.Verdict() != latency.Met {
			broken = append(broken, fmt.Sprintf("on %s it takes %v ms, the limit of %v is %v", f.Device, f.Latency, limit, m.Verdict()))
		}
	}
	if broken != nil {
		err = WithHint(fmt.Errorf("%s: %w: %s", name, ErrPromise, strings.Join(broken, "; ")),
			"the file is there and says so; if other work slowed the device, measure again when it is quiet")
	}
	return file, err
}

func (ps Pledges) measure(ctx context.Context, devices []NamedDevice, m latency.Model) ([]Promised, error) {
	more := ps.protocol
	more.Sessions = undecidedSessions
	found := make([]Promised, len(devices))
	group, ctx := errgroup.WithContext(ctx)
	for i, d := range devices {
		group.Go(func() error {
			limit := ps.limits[d.Name]
			var (
				r   latency.Result
				v   latency.Verdict
				err error
			)
			if limit > 0 {
				r, v, err = latency.Settle(ctx, d, m, limit, ps.protocol, more)
			} else {
				r, err = latency.Measure(ctx, d, m, ps.protocol)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", d.Name, err)
			}
			found[i] = Promised{Device: d.Name, Latency: Interval(r.Estimate), Limit: latency.Milliseconds(limit), result: r}
			if limit > 0 {
				found[i].Verdict = v.String()
			}
			return nil
		})
	}
	return found, group.Wait()
}

// Measures tells whether the file is to be measured at all.
func (ps Pledges) Measures() bool { return len(ps.names) > 0 }

// WritePromised prints a line for each device.
func WritePromised(w io.Writer, found []Promised) {
	for _, f := range found {
		where, limit := "on "+f.Device, ""
		if f.Device == ThisDevice {
			where = "on this machine"
		}
		if f.Limit > 0 {
			limit = fmt.Sprintf("; the limit of %g ms is %s", f.Limit, f.Verdict)
		}
		fmt.Fprintf(w, "takes %.3f ms (95 %% interval %.3f–%.3f) %s%s\n", f.Latency.P50, f.Latency.Low, f.Latency.High, where, limit)
	}
}

// PromiseOf is what a search promised of the net in a best.yaml; nil where the
// text names no such file, or it promises nothing.
func PromiseOf(arch string) *ckpt.Promise {
	if !configs.IsPath(arch) {
		return nil
	}
	f, err := archfile.Read(arch)
	if err != nil { // a file in another format promises nothing
		return nil
	}
	p := &ckpt.Promise{}
	for _, d := range f.Devices {
		p.Limits = append(p.Limits, ckpt.Limit{Device: d.Device, MS: d.Limit})
	}
	if p.Limits == nil && f.LatencyLimit > 0 {
		p.Limits = []ckpt.Limit{{Device: ThisDevice, MS: f.LatencyLimit}}
	}
	if p.Limits == nil {
		return nil
	}
	if m := f.Measured; m != nil {
		p.Mode, p.Batch, p.Threads = m.Mode, m.Batch, m.Threads
	}
	return p
}

// conditionsHere tells what latencies depend on when this machine serves with
// a number of threads a run; see [latency.Fingerprint.Conditions].
func conditionsHere(ctx context.Context, rt *ort.Runtime) func(threads int) map[string]string {
	return func(threads int) map[string]string {
		p := latency.Confirmation()
		p.Threads, p.Pin = threads, false
		if threads > 1 {
			p.Session.Spinning = new(false) // as the repository runs it
		}
		f, err := (&latency.Local{Runtime: rt}).Fingerprint(ctx, nil, p)
		if err != nil {
			return nil
		}
		return f.Conditions()
	}
}
