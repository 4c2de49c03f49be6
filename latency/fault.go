package latency

import (
	"errors"
	"fmt"
	"strings"

	"spos/internal/ort"
)

// Reason says what about a model keeps it from being timed.
type Reason string

// The reasons.
const (
	NoLoad   Reason = "load"   // the runtime does not take it
	NoInput  Reason = "input"  // an input that cannot be made up
	NoMemory Reason = "memory" // it asks for more than is granted
	NoRun    Reason = "run"    // a run of it fails
	Crash    Reason = "crash"  // the process that ran it died, twice
	Hang     Reason = "hang"   // it gave no answer in time
)

var reasonWords = map[Reason]string{
	NoLoad:   "the model does not load",
	NoInput:  "an input of the model cannot be made",
	NoMemory: "the model needs more memory than it may have",
	NoRun:    "the model does not run",
	Crash:    "the model crashes ONNX Runtime",
	Hang:     "the model gives no answer",
}

// ModelError is a model that has no latency on a device, by its own doing: it
// would fail there again, and other models go on.
type ModelError struct {
	Reason Reason
	Err    error // what happened, in the runtime's words or ours
}

func (e *ModelError) Error() string {
	return fmt.Sprintf("latency: %s: %v", reasonWords[e.Reason], e.Err)
}
func (e *ModelError) Unwrap() error { return e.Err }

// modelFault is err as a fault of the model; what the runtime says of memory
// decides over the reason. A provider that is not there is nobody's fault.
func modelFault(reason Reason, err error) error {
	if errors.Is(err, ort.ErrProvider) {
		return fmt.Errorf("latency: %w", err)
	}
	if outOfMemory(err.Error()) {
		reason = NoMemory
	}
	return &ModelError{Reason: reason, Err: err}
}

// outOfMemory knows the words of ONNX Runtime, of C++ and of Go's runtime.
func outOfMemory(text string) bool {
	for _, words := range []string{"Failed to allocate memory", "bad_alloc", "out of memory", "cannot allocate memory"} {
		if strings.Contains(text, words) {
			return true
		}
	}
	return false
}

// fault is an error between processes.
type fault struct {
	Reason Reason `json:"reason,omitempty"` // "": not the model's
	Text   string `json:"text"`
	cause  error  // in the process where it happened
}

func newFault(err error) *fault {
	if e, ok := errors.AsType[*ModelError](err); ok {
		return &fault{Reason: e.Reason, Text: e.Err.Error(), cause: err}
	}
	return &fault{Text: err.Error(), cause: err}
}

func (f *fault) err() error {
	if reasonWords[f.Reason] == "" {
		return errors.New(f.Text)
	}
	return &ModelError{Reason: f.Reason, Err: errors.New(f.Text)}
}
