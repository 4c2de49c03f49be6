package cli

import (
	"context"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"spos/export"
	"spos/latency"
	"spos/serve"
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

// TestVerifyAndServeAgree: a server and latency verify hold a file to the same
// conditions.
func TestVerifyAndServeAgree(t *testing.T) {
	_, nets := smallNets(t, "01230123")
	model, err := CandidateModel(nets[0], 1)
	if err != nil {
		t.Fatal(err)
	}
	b := &board{name: "fast", factor: 1}
	fp, err := b.Fingerprint(t.Context(), nil, latency.Confirmation())
	if err != nil {
		t.Fatal(err)
	}
	here := fp.Conditions()
	if here["cpu"] != "fast" || here["threads"] != "1" {
		t.Fatalf("conditions %v", here)
	}
	for name, c := range map[string]struct {
		change func(map[string]string)
		want   []string
	}{
		"all alike":               {func(map[string]string) {}, nil},
		"another machine":         {func(m map[string]string) { m["cpu"] = "slow" }, []string{"cpu"}},
		"named here alone":        {func(m map[string]string) { delete(m, "cpu") }, []string{"cpu"}},
		"named there alone":       {func(m map[string]string) { m["governor"] = "performance" }, []string{"governor"}},
		"named later":             {func(m map[string]string) { delete(m, "smt") }, nil},
		"of those, another":       {func(m map[string]string) { m["smt"] = "on" }, []string{"smt"}},
		"of those, another build": {func(m map[string]string) { m["build"] = "y" }, []string{"build"}},
	} {
		there := maps.Clone(here)
		c.change(there)
		if got := serve.Differing(there, here); !slices.Equal(got, c.want) {
			t.Errorf("%s: serve finds %v, want %v", name, got, c.want)
		}
		m := latency.Manifest{Protocol: 1, P50: 1, Low: 1, High: 1e9, Mode: latency.Hot, Batch: 1, Dims: map[string]int64{}, Conditions: there}
		v, err := verifyPromise(t.Context(), NamedDevice{b, ThisDevice}, map[string]latency.Manifest{ThisDevice: m}, model)
		if err != nil {
			t.Fatal(err)
		}
		names := []string(nil)
		for _, words := range v.Differs {
			name, _, _ := strings.Cut(words, " was ")
			names = append(names, name)
		}
		if !slices.Equal(names, c.want) || v.Holds != (c.want == nil) {
			t.Errorf("%s: verify finds %+v, want %v", name, v, c.want)
		}
	}
}

// TestStoreNamesItsDevice: what was measured elsewhere is verified there, and
// takes nothing away that the file promises of other devices.
func TestStoreNamesItsDevice(t *testing.T) {
	_, nets := smallNets(t, "01230123")
	model, err := CandidateModel(nets[0], 1)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "m.onnx")
	if err := os.WriteFile(path, model.Bytes, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		device, first string
		us            float64
		names         []string
	}{
		{"pi5", "pi5", 10, []string{"pi5"}},
		{ThisDevice, ThisDevice, 20, []string{"local", "pi5"}},
		{"pi5", "pi5", 30, []string{"local", "pi5"}},
		{ThisDevice, ThisDevice, 40, []string{"local", "pi5"}},
	} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		m := latency.Model{Name: path, Bytes: text}
		p := latency.Confirmation()
		r, err := latency.Measure(t.Context(), &board{name: c.device, factor: 1e3 * c.us / float64(len(text))}, m, p)
		if err != nil {
			t.Fatal(err)
		}
		o := measureOptions{device: DeviceFlags{Names: []string{c.device}}}
		if err := storeLatency([]string{path}, []latency.Model{m}, []latency.Result{r}, p, o); err != nil {
			t.Fatal(err)
		}
		if text, err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
		promises, err := readManifests(text, path)
		if err != nil {
			t.Fatal(err)
		}
		now := promises[c.device]
		if !slices.Equal(slices.Sorted(maps.Keys(promises)), c.names) || math.Abs(now.P50-c.us/1e3) > 1e-5 || now.Conditions["cpu"] != c.device {
			t.Errorf("after %v on %s the file promises %+v", c.us, c.device, promises)
		}
		s, err := export.Inspect(text)
		if err != nil {
			t.Fatal(err)
		}
		if first, err := latency.ParseManifest(s.Metadata[export.KeyLatency]); err != nil || deviceOf(first) != c.first {
			t.Errorf("first in the file is %s, want %s (%v)", deviceOf(first), c.first, err)
		}
	}
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
	stored, err := Promise(text, ThisDevice, r, how, 0)
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
