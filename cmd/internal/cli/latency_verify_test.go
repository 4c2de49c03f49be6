package cli

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"spos/latency"
)

// asked is a board that keeps what it was last asked.
type asked struct {
	board
	last latency.Protocol
}

func (a *asked) Time(ctx context.Context, t latency.Task) (latency.Sample, error) {
	a.last = t.Protocol
	return a.board.Time(ctx, t)
}

// TestVerifyAsMeasured: a file is verified as it was measured, and one that
// does not say how that was is not.
func TestVerifyAsMeasured(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "latency", "testdata", "tokens.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	b := &asked{board: board{name: "fast", factor: 1000}}
	device, model := NamedDevice{b, ThisDevice}, latency.Model{Name: "tokens.onnx", Bytes: text}
	how := latency.Confirmation()
	how.Mode, how.Gap, how.Dims = latency.Paced, 50*time.Millisecond, map[string]int64{"length": 128}
	r, err := latency.Measure(t.Context(), b, model, how)
	if err != nil {
		t.Fatal(err)
	}
	stored, err := Promise(text, r, how, 0)
	if err != nil {
		t.Fatal(err)
	}
	promises, err := readManifests(stored, model.Name)
	if err != nil {
		t.Fatal(err)
	}
	v, err := verifyPromise(t.Context(), device, promises, model)
	if err != nil || !v.Holds || b.last.Gap != how.Gap || b.last.Dims["length"] != 128 {
		t.Errorf("%+v, %v, measured with dimensions %v and idle for %v", v, err, b.last.Dims, b.last.Gap)
	}
	for why, change := range map[string]func(*latency.Manifest){
		"does not say how long dimension length of input": func(m *latency.Manifest) { m.Dims = nil },
		"how long the machine was idle":                   func(m *latency.Manifest) { m.Gap = 0 },
		"option backend_path=evil.so": func(m *latency.Manifest) {
			m.Conditions = map[string]string{"provider": "qnn", "option.provider.backend_path": "evil.so"}
		},
	} {
		m := promises[ThisDevice]
		change(&m)
		before := b.sessions
		v, err := verifyPromise(t.Context(), device, map[string]latency.Manifest{ThisDevice: m}, model)
		if err != nil || v.Holds || !strings.Contains(v.Why, why) || b.sessions != before {
			t.Errorf("%+v, %v after %d sessions, want none and %q", v, err, b.sessions-before, why)
		}
	}
}
