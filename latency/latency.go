// Package latency measures how long a model takes on the device that will
// serve it, with the session options that will serve it, and says how far the
// number can be trusted: an interval, a fingerprint of everything the number
// depends on, and warnings in words.
//
// A [Runner] times one session of one model: [Local] does it in this process
// through ONNX Runtime. [MeasureAll] interleaves sessions of several models so
// that drift hits all alike, [Estimate] turns raw runs into quantiles and an
// interval, [Settle] spends more sessions only where a limit is not decided,
// and [Meter] adds a sentinel against drift and a [Cache] for resumed work.
//
// The package knows nothing of training, search, export or serving; those
// meet it in cmd.
package latency

import (
	"context"
	"time"

	"spos/internal/ort"
)

// Runner times one session of a model: it makes the session, warms it up, runs
// it and frees it. Here or on another machine.
type Runner interface {
	Time(ctx context.Context, t Task) (Sample, error)
}

// Task is one session to time.
type Task struct {
	Model    []byte // serialised ONNX
	Protocol Protocol
	// Key names this session among all that its owner ever asks for: a runner
	// whose work outlives the asker answers a key that it has seen with the
	// sample that it has, so what a killed process had measured is not
	// measured again. "" is always timed anew.
	Key string
}

// Describer is a Runner that can say, without measuring, what a measurement
// of a model would depend on. A [Cache] needs it.
type Describer interface {
	Fingerprint(ctx context.Context, model []byte, p Protocol) (Fingerprint, error)
}

// Device is where models are measured: this machine ([Local]) or another.
type Device interface {
	Runner
	Describer
}

// Sample is what one session did: raw times and what could have disturbed
// them.
type Sample struct {
	Runs    []time.Duration `json:"runs_ns"`          // in the order they ran
	Warmup  []time.Duration `json:"warmup_ns"`        // the runs thrown away before
	Started time.Time       `json:"started,omitzero"` // of making the session, by the device's clock
	Settled bool            `json:"settled"`          // the warm-up ended because times had settled
	Create  time.Duration   `json:"create_ns"`        // making the session

	Pinned    bool    `json:"pinned"`    // the timing thread was bound to its processor
	Preempted int64   `json:"preempted"` // times the thread was taken off its processor during Runs
	Load      float64 `json:"load"`      // the machine's load average at the start, -1 where unknown

	Reference   Reference   `json:"reference,omitzero"`
	Memory      Memory      `json:"memory,omitzero"` // of a model that does not stay in its core's own cache
	Disturbance Disturbance `json:"disturbance,omitzero"`

	Fingerprint Fingerprint `json:"fingerprint"`
	// Placement is where the nodes ran; nil where only the processor was asked for.
	Placement *ort.Placement `json:"placement,omitempty"`

	Notes []string `json:"notes,omitempty"` // what had to be assumed about the model's inputs, and what is to be known of the machine
}
