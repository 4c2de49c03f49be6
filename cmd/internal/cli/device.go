package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"spos/internal/config"
	"spos/internal/fleet"
	"spos/internal/ort"
	"spos/latency"
)

// ThisDevice is the name of the machine that the program runs on.
const ThisDevice = config.ThisDevice

// DeviceFlags say where models are measured.
type DeviceFlags struct {
	Names []string // in the order given; a+b is a pool of devices of one kind
	// Broker, where set, is used instead of one that the flags name.
	Broker *fleet.Broker

	fleet   FleetFlags
	timeout time.Duration
}

// deviceTimeout is how long a device may be away: a board that starts again
// takes a minute or two.
const deviceTimeout = 10 * time.Minute

// Add gives a command the flags; many allows several devices.
func (d *DeviceFlags) Add(cmd *cobra.Command, many bool) {
	f := cmd.Flags()
	if many {
		f.StringSliceVar(&d.Names, "device", []string{ThisDevice}, "where to measure: local, an agent's name, a+b for two of one kind at once; may be repeated")
	} else {
		d.Names = []string{ThisDevice}
		f.StringVar(&d.Names[0], "device", ThisDevice, "where to measure: local, an agent's name, a+b for two of one kind at once")
	}
	names := f.Lookup("device")
	names.Value = someDevice{names.Value}
	f.DurationVar(&d.timeout, "device-timeout", deviceTimeout, "how long a device may be away before the work stops; 0: for ever")
	d.fleet.Add(cmd, "fleet")
	_ = cmd.RegisterFlagCompletionFunc("device", d.complete)
}

// errNoDevice is for a list of devices that is empty.
var errNoDevice = errors.New("no device is named: give --device")

// someDevice is a flag that takes no empty value, which would be a list without a device.
type someDevice struct{ pflag.Value }

func (s someDevice) Set(text string) error {
	if strings.TrimSpace(text) == "" {
		return errNoDevice
	}
	return s.Value.Set(text)
}

// complete offers the devices of a broker that answers at once.
func (d *DeviceFlags) complete(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	names := []string{ThisDevice}
	ctx, cancel := context.WithTimeout(cmd.Context(), 300*time.Millisecond)
	defer cancel()
	conn, err := d.fleet.Connect(ctx, clientName(), slog.New(slog.DiscardHandler))
	if err != nil {
		return names, cobra.ShellCompDirectiveNoFileComp
	}
	defer conn.Close()
	list, err := conn.Devices(ctx)
	if err != nil {
		return names, cobra.ShellCompDirectiveNoFileComp
	}
	before := typed[:strings.LastIndexAny(typed, "+,")+1] // of a pool or a list
	for _, p := range list {
		if p.State != fleet.Unseen {
			names = append(names, before+p.Name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// clientName is shown in the broker's log.
func clientName() string {
	host, _ := os.Hostname()
	return fmt.Sprintf("spos@%s/%d", host, os.Getpid())
}

// LocalDevice is this machine, bound to the processors where some are given.
// Processes tell each other through the user's cache how fast it is undisturbed.
func LocalDevice(rt *ort.Runtime, cpus []int) *latency.Local {
	l := &latency.Local{Runtime: rt, CPUs: cpus}
	if cache, err := os.UserCacheDir(); err == nil {
		if dir := filepath.Join(cache, "spos"); os.MkdirAll(dir, 0o700) == nil {
			l.Quiet = filepath.Join(dir, "latency-quiet.json")
		}
	}
	return l
}

// NamedDevice is a device and what it is called.
type NamedDevice struct {
	latency.Device
	Name string
}

// Width is how many sessions it times at once; see [latency.Width].
func (d NamedDevice) Width() int { return latency.Width(d.Device) }

// Open finds the devices. Campaign names the work that they are to do, for
// remote ones keep what they measured for it: the same campaign, started
// again, gets the same samples; "" is work that is not continued. A device
// that is not there is waited for when it is asked. The caller calls close at
// the end.
func (d *DeviceFlags) Open(ctx context.Context, campaign string, log *slog.Logger) (devices []NamedDevice, closeAll func() error, err error) {
	o := deviceOpener{flags: d, campaign: campaign, log: log}
	defer func() {
		if err != nil {
			err = errors.Join(err, o.close())
		}
	}()
	for _, name := range d.Names {
		if slices.ContainsFunc(devices, func(n NamedDevice) bool { return n.Name == name }) {
			continue
		}
		device, err := o.open(ctx, name)
		if err != nil {
			return nil, nil, err
		}
		devices = append(devices, NamedDevice{device, name})
	}
	if len(devices) == 0 {
		return nil, nil, errNoDevice
	}
	return devices, o.close, nil
}

// deviceOpener opens devices over one connection.
type deviceOpener struct {
	flags    *DeviceFlags
	campaign string
	log      *slog.Logger
	conn     *fleet.Conn
}

func (o *deviceOpener) close() error {
	if o.conn == nil {
		return nil
	}
	return o.conn.Close()
}

func (o *deviceOpener) open(ctx context.Context, name string) (latency.Device, error) {
	names := strings.Split(name, "+")
	if len(names) == 1 {
		return o.one(ctx, name)
	}
	var members []latency.Member
	for _, n := range names {
		if slices.ContainsFunc(members, func(m latency.Member) bool { return m.Name == n }) {
			return nil, fmt.Errorf("device %q: %s is in it twice", name, n)
		}
		member, err := o.one(ctx, n)
		if err != nil {
			return nil, err
		}
		members = append(members, latency.Member{Device: member, Name: n})
	}
	return latency.NewPool(members...), nil
}

func (o *deviceOpener) one(ctx context.Context, name string) (latency.Device, error) {
	if name == ThisDevice {
		rt, err := OpenRuntime()
		if err != nil {
			return nil, err
		}
		return LocalDevice(rt, nil), nil
	}
	if err := fleet.CheckDevice(name); err != nil {
		return nil, WithHint(err, "--device takes "+ThisDevice+", the name of an agent, or several names with + between")
	}
	if o.conn == nil {
		if err := o.connect(ctx, name); err != nil {
			return nil, err
		}
	}
	return &latency.Remote{
		Courier: o.conn, Name: name, Version: Version, Campaign: o.campaign, Timeout: o.flags.timeout, Log: o.log,
	}, nil
}

func (o *deviceOpener) connect(ctx context.Context, device string) (err error) {
	if b := o.flags.Broker; b != nil {
		o.conn, err = fleet.Connect(ctx, fleet.Options{Broker: b, Name: clientName(), Log: o.log})
		return err
	}
	if !o.flags.fleet.Given() {
		return WithHint(fmt.Errorf("device %q is not this machine, and no broker is named that could know it", device),
			"give the broker's address with --fleet nats://host:4222, or in "+FleetEnv,
			"this machine is --device "+ThisDevice)
	}
	o.conn, err = o.flags.fleet.Connect(ctx, clientName(), o.log)
	return err
}
