package latency

import (
	"fmt"
	"io"
	"time"

	"spos/internal/runs"
)

// Look is one look at the sentinel: what the machine was like between two
// stretches of measurements.
type Look struct {
	At          time.Time     `json:"at,omitzero"`    // by the clock of the device
	Sentinel    string        `json:"sentinel"`       // the model's name
	Environment string        `json:"environment"`    // [Fingerprint.Key] of the device and its settings
	P50         time.Duration `json:"p50_ns"`         // the sentinel's time
	Ratio       float64       `json:"ratio"`          // over its time at the start; the first look has 1
	Allowed     float64       `json:"allowed"`        // the change that counts as drift, as a fraction
	Again       bool          `json:"again,omitzero"` // drifted: the stretch was measured again
	Kept        bool          `json:"kept,omitzero"`  // drifted: the stretch was kept, with a warning
}

// Record is one line of a journal that a [Cache] keeps: a result under its
// key, or a look.
type Record struct {
	Key    string `json:"key,omitempty"`
	Result Result `json:"result,omitzero"`
	Look   *Look  `json:"look,omitempty"`
}

// IsZero reports whether r is of no measurement.
func (r Result) IsZero() bool { return r.Runs == 0 && r.Model == "" && r.Samples == nil }

// DecodeJournal reads all that the journal of a [Cache] says: lines of one key
// replace one another in the cache, here all are returned. It wraps
// [runs.ErrCorrupt] where the text is damaged.
func DecodeJournal(r io.Reader) ([]Record, error) {
	records, err := runs.DecodeJournal[Record](r)
	if err != nil {
		return nil, fmt.Errorf("latency %w", err)
	}
	return records, nil
}
