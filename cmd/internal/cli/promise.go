package cli

import (
	"context"
	"encoding/json"
	"time"

	"spos/export"
	"spos/internal/ort"
	"spos/latency"
)

// Promise writes into an ONNX file what its latency was measured to be, for
// the server to hold itself to. limit is what it was to stay below; 0 is none.
func Promise(file []byte, r latency.Result, limit time.Duration) ([]byte, error) {
	text, err := json.Marshal(latency.NewManifest(r, limit))
	if err != nil {
		return nil, err
	}
	return export.SetMetadata(file, export.KeyLatency, string(text))
}

// MeasurePromise is [Promise] with a measurement on this machine, at the care
// that an exported model deserves.
func MeasurePromise(ctx context.Context, rt *ort.Runtime, name string, file []byte, batch int) ([]byte, latency.Result, error) {
	p := latency.Confirmation()
	p.Batch = max(batch, 1)
	r, err := latency.Measure(ctx, &latency.Local{Runtime: rt}, latency.Model{Name: name, Bytes: file}, p)
	if err != nil {
		return nil, r, err
	}
	file, err = Promise(file, r, 0)
	return file, r, err
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
