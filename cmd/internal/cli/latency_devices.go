package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"spos/internal/fleet"
	"spos/latency"
)

type devicesOptions struct {
	fleet         FleetFlags
	pause, resume []string
	forget        []string
	json          bool
}

func newLatencyDevicesCommand() *cobra.Command {
	var o devicesOptions
	cmd := &cobra.Command{
		Use:   "devices --fleet nats://HOST:4222",
		Short: "List the devices of a fleet: what they are, what they do, how steady they are",
		Long: `List the devices of a fleet. The drift is how much longer the agent's own network
took when it was last measured than when the agent started; beyond 3 % the device
rests, and what it measures carries a warning.

--pause has a device take no more work until --resume: what is asked of it waits.

--forget takes a device that is gone off the list, and drops what waits for it and
what it answered. One that is connected is not forgotten. Take its line out of the
access file first, where the broker has one, or the next start lists it again.`,
		Example: `  spos latency devices --fleet nats://host:4222
  spos latency devices --json
  spos latency devices --pause pi5
  spos latency devices --forget pi4`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return latencyDevicesFunc(cmd, o)
		},
	}
	o.fleet.Add(cmd, "fleet")
	jsonFlag(cmd, &o.json)
	f := cmd.Flags()
	f.StringSliceVar(&o.pause, "pause", nil, "have this device take no more work")
	f.StringSliceVar(&o.resume, "resume", nil, "have it work again")
	f.StringSliceVar(&o.forget, "forget", nil, "take this device, which is gone, off the list, with what waits for it")
	complete := func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		return (&DeviceFlags{fleet: o.fleet}).complete(cmd, args, typed)
	}
	_ = cmd.RegisterFlagCompletionFunc("pause", complete)
	_ = cmd.RegisterFlagCompletionFunc("resume", complete)
	_ = cmd.RegisterFlagCompletionFunc("forget", complete)
	return cmd
}

// listedDevice is a line of the list.
type listedDevice struct {
	Name        string               `json:"name"`
	State       string               `json:"state"`
	Queue       int                  `json:"queue"` // tasks that wait, the one in work among them
	Seen        float64              `json:"seen_s_ago"`
	Version     string               `json:"version,omitempty"`
	Fingerprint *latency.Fingerprint `json:"fingerprint,omitempty"`
	Tasks       int                  `json:"tasks"`           // answered since the agent started
	Drift       *float64             `json:"drift,omitempty"` // 0.01: the sentinel takes 1 % longer than at first
	Looked      float64              `json:"drift_s_ago,omitempty"`
	SentinelMS  float64              `json:"sentinel_ms,omitempty"`
	Celsius     float64              `json:"celsius,omitempty"`
}

func latencyDevicesFunc(cmd *cobra.Command, o devicesOptions) error {
	log, err := Logger(cmd, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	conn, err := o.fleet.Connect(cmd.Context(), clientName(), log)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := o.setPauses(cmd.Context(), conn, log); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), 10*time.Second)
	defer cancel()
	for _, name := range o.forget {
		if err := forgetDevice(ctx, conn, name, log); err != nil {
			return err
		}
	}
	present, err := conn.Devices(ctx)
	if errors.Is(err, fleet.ErrDenied) {
		err = WithHint(err, "that secret is a device's: give a client's, which `spos fleet access --client NAME` makes")
	}
	if err != nil {
		return err
	}
	list := make([]listedDevice, len(present))
	for i, p := range present {
		list[i] = listDevice(p)
	}
	if o.json {
		return PrintJSON(cmd, list)
	}
	return writeDevices(cmd.OutOrStdout(), list)
}

// setPauses waits for the device's answer, though not for a device that is
// away.
func (o *devicesOptions) setPauses(ctx context.Context, conn *fleet.Conn, log *slog.Logger) error {
	for _, pause := range []bool{true, false} {
		names := o.resume
		if pause {
			names = o.pause
		}
		for _, name := range names {
			r := latency.Remote{Courier: conn, Name: name, Version: Version, Timeout: 10 * time.Second, Log: log}
			if err := r.SetPause(ctx, pause); err != nil {
				return err
			}
		}
	}
	return nil
}

func forgetDevice(ctx context.Context, conn *fleet.Conn, name string, log *slog.Logger) error {
	f, err := conn.Forget(ctx, name)
	switch {
	case errors.Is(err, fleet.ErrPresent):
		return WithHint(err, "end its agent; one that was killed counts as gone after a few seconds",
			"to keep it and give it no more work: --pause "+name)
	case errors.Is(err, fleet.ErrUnknown):
		return WithHint(err, "without --forget, spos latency devices lists those that it knows")
	case err != nil:
		return err
	}
	log.Info("device is forgotten", "device", name, "jobs_dropped", f.Jobs, "answers_dropped", f.Answers)
	return nil
}

func listDevice(p fleet.Presence) listedDevice {
	d := listedDevice{Name: p.Name, State: string(p.State), Queue: p.Queue, Seen: p.Age.Seconds()}
	s, err := latency.ParseStatus(p.Info)
	if err != nil {
		return d // one that has not spoken, or of another kind
	}
	if p.State == fleet.Idle || p.State == fleet.Busy {
		d.State = string(s.State)
	}
	d.Version, d.Tasks, d.Celsius, d.SentinelMS = s.Version, s.Tasks, s.Celsius, latency.Milliseconds(s.Sentinel)
	if s.Fingerprint.Host.Arch != "" {
		d.Fingerprint = &s.Fingerprint
	}
	if s.Drift != 0 {
		d.Drift, d.Looked = new(s.Drift-1), (s.LookedAgo + p.Age).Seconds()
	}
	return d
}

func writeDevices(w io.Writer, list []listedDevice) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(w, "no devices: start one with spos-edge agent --connect nats://HOST:4222 --name NAME")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "name\tstate\tqueue\tdrift\tseen\tversion\tdevice")
	for _, d := range list {
		drift, seen := "–", "–"
		if d.Drift != nil {
			drift = fmt.Sprintf("%+.1f %%, %s ago", 100**d.Drift, inSeconds(d.Looked))
		}
		if d.State != string(fleet.Unseen) {
			seen = inSeconds(d.Seen) + " ago"
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%s\t%s\t%s\n", d.Name, d.State, d.Queue, drift, seen, cmp.Or(d.Version, "–"), deviceWords(d))
	}
	return t.Flush()
}

func inSeconds(s float64) string { return time.Duration(s * 1e9).Round(time.Second).String() }

// deviceWords is a fingerprint for people.
func deviceWords(d listedDevice) string {
	if d.Fingerprint == nil {
		return "–"
	}
	h, s := d.Fingerprint.Host, d.Fingerprint.Session
	words := []string{cmp.Or(h.CPU, "processor unknown"), fmt.Sprintf("%d cores", h.Cores), h.Arch, "ONNX Runtime " + s.Runtime}
	if len(s.Affinity) > 0 {
		words = append(words, fmt.Sprintf("on processor %v", s.Affinity[0]))
	}
	if h.Governor != "" {
		words = append(words, "governor "+h.Governor)
	}
	if h.Quota != "" {
		words = append(words, "quota "+h.Quota)
	}
	if d.Celsius != 0 {
		words = append(words, fmt.Sprintf("%.0f °C", d.Celsius))
	}
	return strings.Join(words, ", ")
}
