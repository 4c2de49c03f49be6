//go:build !linux

package latency

import (
	"context"
	"errors"
	"io/fs"
	"runtime"
	"time"
)

// Elsewhere than on Linux a fingerprint holds what Go itself knows, and
// threads cannot be bound.

func readHost(fs.FS) Host {
	return Host{Arch: runtime.GOOS + "/" + runtime.GOARCH, Cores: runtime.NumCPU()}
}

type counters struct{ at time.Time }

func count(fs.FS) counters { return counters{time.Now()} }

func (c counters) since(before counters, _ []int, _ fs.FS) Disturbance {
	return Disturbance{Window: c.at.Sub(before.at)}
}

func loadAverage(fs.FS) float64                    { return -1 }
func lastLevelCache(fs.FS) int                     { return 0 }
func allowed() []int                               { return nil }
func favour() func()                               { return func() {} }
func preemptions() int64                           { return 0 }
func turn(context.Context, string) (func(), error) { return func() {}, nil }
func bind(...int) (func(), error)                  { return nil, errors.New("binding a thread needs Linux") }
