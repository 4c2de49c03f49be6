package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"spos/internal/config"
	"spos/latency"
)

// ThisDevice is the name of the machine that the program runs on.
const ThisDevice = config.ThisDevice

// DeviceFlags say where models are measured.
type DeviceFlags struct {
	Names []string // in the order given, without repetition
	many  bool
}

// Add gives a command the flags; many allows several devices.
func (d *DeviceFlags) Add(cmd *cobra.Command, many bool) {
	d.many = many
	f := cmd.Flags()
	if many {
		f.StringSliceVar(&d.Names, "device", []string{ThisDevice}, "where to measure; may be repeated")
	} else {
		d.Names = []string{ThisDevice}
		f.StringVar(&d.Names[0], "device", ThisDevice, "where to measure")
	}
}

// NamedDevice is a device and what it is called.
type NamedDevice struct {
	latency.Device
	Name string
}

// Open finds the devices. Campaign names the work that they are to do, for
// remote ones keep what they measured for it: the same campaign, started
// again, gets the same samples; "" is work that is not continued. The caller
// calls close at the end.
func (d *DeviceFlags) Open(_ context.Context, campaign string, log *slog.Logger) (devices []NamedDevice, closeAll func() error, err error) {
	for _, name := range d.Names {
		if name != ThisDevice {
			return nil, nil, fmt.Errorf("device %q is unknown", name)
		}
		rt, err := OpenRuntime()
		if err != nil {
			return nil, nil, err
		}
		devices = append(devices, NamedDevice{&latency.Local{Runtime: rt}, name})
	}
	if len(devices) == 0 {
		return nil, nil, errors.New("no device is named: give --device")
	}
	return devices, func() error { return nil }, nil
}
