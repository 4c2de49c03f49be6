package cli

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"spos/latency"
)

// waitsAfter is when a session has taken so long that people should hear of
// it: a device has gone, or does other work first.
const waitsAfter = 30 * time.Second

// Watch makes devices say when they are waited for: in the log, and to
// changed, which hears the names of those that are, in order, and may be nil.
// Nothing else changes: whoever asks goes on waiting.
func Watch(devices []NamedDevice, log *slog.Logger, changed func(waiting []string)) []NamedDevice {
	w := &watch{log: log, changed: changed}
	watched := make([]NamedDevice, len(devices))
	for i, d := range devices {
		watched[i] = NamedDevice{watchedDevice{d, w}, d.Name}
	}
	return watched
}

type watch struct {
	log     *slog.Logger
	changed func([]string)

	mu      sync.Mutex
	waiting []string // sorted
}

func (w *watch) set(name string, waits bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	at, found := slices.BinarySearch(w.waiting, name)
	switch {
	case waits && !found:
		w.waiting = slices.Insert(w.waiting, at, name)
	case !waits && found:
		w.waiting = slices.Delete(w.waiting, at, at+1)
	}
	if w.changed != nil {
		w.changed(slices.Clone(w.waiting))
	}
}

type watchedDevice struct {
	NamedDevice
	w *watch
}

// Width is the device's.
func (d watchedDevice) Width() int { return latency.Width(d.NamedDevice.Device) }

// Time implements [latency.Runner].
func (d watchedDevice) Time(ctx context.Context, t latency.Task) (latency.Sample, error) {
	start := time.Now()
	said := make(chan struct{})
	timer := time.AfterFunc(waitsAfter, func() {
		defer close(said)
		d.w.log.Info("waiting for a device", "device", d.Name)
		d.w.set(d.Name, true)
	})
	s, err := d.NamedDevice.Time(ctx, t)
	if !timer.Stop() {
		<-said
		d.w.set(d.Name, false)
		if err == nil {
			d.w.log.Info("the device has answered", "device", d.Name, "seconds", time.Since(start).Round(time.Second).Seconds())
		}
	}
	return s, err
}
