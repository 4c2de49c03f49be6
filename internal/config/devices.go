package config

import (
	"fmt"
	"math"
	"slices"
)

// ThisDevice is the name of the machine that a program runs on.
const ThisDevice = "local"

// DeviceLimit is what a net may take on one device.
type DeviceLimit struct {
	Device string  `yaml:"device"`
	MS     float64 `yaml:"ms"`
}

// MeasuredOn lists the devices that a search measures on, with their limits in
// milliseconds; 0 is none. The first is the one that limits.latency_ms is
// about: of those that are named, by latency.devices before limits.latency,
// the first; this machine where none is named, and where latency_ms is given
// and latency.devices names none.
func (s Search) MeasuredOn() []DeviceLimit {
	var on []DeviceLimit
	at := func(name string) *DeviceLimit {
		i := slices.IndexFunc(on, func(d DeviceLimit) bool { return d.Device == name })
		if i < 0 {
			on, i = append(on, DeviceLimit{Device: name}), len(on)
		}
		return &on[i]
	}
	for _, name := range s.Latency.Devices {
		at(name)
	}
	if len(on) == 0 && (s.Limits.LatencyMS > 0 || len(s.Limits.Latency) == 0) {
		at(ThisDevice)
	}
	for _, l := range s.Limits.Latency {
		at(l.Device).MS = l.MS
	}
	if s.Limits.LatencyMS > 0 {
		on[0].MS = s.Limits.LatencyMS
	}
	return on
}

// devices checks what is said of them in the two places.
func (s Search) devices() error {
	seen := map[string]bool{}
	for i, name := range s.Latency.Devices {
		if name == "" || seen[name] || IsTorchDevice(name) {
			return fmt.Errorf("latency.devices[%d]: %q is empty, named twice or where tensors live", i, name)
		}
		seen[name] = true
	}
	clear(seen)
	for i, l := range s.Limits.Latency {
		switch {
		case l.Device == "":
			return fmt.Errorf("limits.latency[%d].device: name the device", i)
		case IsTorchDevice(l.Device):
			return fmt.Errorf("limits.latency[%d].device: %s is where tensors live; this machine's name is %s", i, l.Device, ThisDevice)
		case seen[l.Device]:
			return fmt.Errorf("limits.latency[%d].device: %s has a limit already", i, l.Device)
		case !(l.MS > 0 && l.MS < math.Inf(1)):
			return fmt.Errorf("limits.latency[%d].ms: %v is no limit", i, l.MS)
		}
		seen[l.Device] = true
	}
	if first := s.MeasuredOn()[0].Device; s.Limits.LatencyMS > 0 && seen[first] {
		return fmt.Errorf("limits.latency_ms: limits.latency limits %s already: give one of the two", first)
	}
	return nil
}
