package cli

import (
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"spos/internal/archfile"
	"spos/internal/ckpt"
	"spos/latency"
)

// resolve parses a command line against what a search promised.
func resolve(t *testing.T, p *ckpt.Promise, batch int, args ...string) (Pledges, error) {
	t.Helper()
	var o PromiseFlags
	cmd := &cobra.Command{Use: "export"}
	o.Add(cmd)
	if err := cmd.ParseFlags(args); err != nil {
		t.Fatal(err)
	}
	return o.Resolve(cmd, p, batch, slog.New(slog.DiscardHandler))
}

func TestResolvePledges(t *testing.T) {
	const ms = time.Millisecond
	two := &ckpt.Promise{Limits: []ckpt.Limit{{Device: "local", MS: 4}, {Device: "pi5", MS: 60}}, Mode: "paced", Threads: 2}
	for name, c := range map[string]struct {
		promise *ckpt.Promise
		batch   int
		args    []string
		names   []string
		limits  map[string]time.Duration
		err     string
	}{
		"nothing":              {nil, 0, nil, nil, map[string]time.Duration{}, ""},
		"not asked to measure": {two, 0, nil, nil, map[string]time.Duration{}, ""},
		"no limit":             {nil, 0, []string{"--latency"}, []string{"local"}, map[string]time.Duration{}, ""},
		"the search's":         {two, 0, []string{"--latency"}, []string{"local", "pi5"}, map[string]time.Duration{"local": 4 * ms, "pi5": 60 * ms}, ""},
		"one of two devices":   {two, 0, []string{"--latency", "--device", "pi5"}, []string{"pi5"}, map[string]time.Duration{"pi5": 60 * ms}, ""},
		"given":                {two, 8, []string{"--latency", "--limit", "9ms", "--limit", "pi5=99ms"}, []string{"local", "pi5"}, map[string]time.Duration{"local": 9 * ms, "pi5": 99 * ms}, ""},
		"another batch":        {two, 8, []string{"--latency"}, nil, nil, "about batch 1, and this file is for batch 8"},
		"limit alone":          {nil, 0, []string{"--limit", "4ms"}, nil, nil, "add --latency"},
		"device alone":         {nil, 0, []string{"--device", "pi5"}, nil, nil, "add --latency"},
		"no such device":       {nil, 0, []string{"--latency", "--limit", "pi5=4ms"}, nil, nil, "no --device pi5"},
	} {
		t.Run(name, func(t *testing.T) {
			ps, err := resolve(t, c.promise, c.batch, c.args...)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("%v, want %q", err, c.err)
				}
				return
			}
			if err != nil || !slices.Equal(ps.names, c.names) || !maps.Equal(ps.limits, c.limits) {
				t.Errorf("%v on %v, %v; want %v on %v", ps.limits, ps.names, err, c.limits, c.names)
			}
			if ps.Measures() && c.promise != nil && (ps.protocol.Mode != latency.Paced || ps.protocol.Threads != 2) {
				t.Errorf("measured as %+v, the search did it otherwise", ps.protocol)
			}
		})
	}
}

// A file is measured on two devices, of which one is too slow: both manifests
// are in it, the error names the slow one, and a later look finds what holds.
func TestProve(t *testing.T) {
	_, nets := smallNets(t, "01230123")
	model, err := CandidateModel(nets[0], 1)
	if err != nil {
		t.Fatal(err)
	}
	takes := time.Duration(len(model.Bytes)) // on the fast board
	ps := Pledges{limits: map[string]time.Duration{"local": 2 * takes, "pi5": 2 * takes}, protocol: latency.Confirmation()}
	fast, slow := &board{name: "fast", factor: 1}, &board{name: "slow", factor: 10}
	found, err := ps.measure(t.Context(), []NamedDevice{{fast, "local"}, {slow, "pi5"}}, model)
	if err != nil {
		t.Fatal(err)
	}
	if found[0].Verdict != "met" || found[1].Verdict != "not met" {
		t.Errorf("verdicts %+v", found)
	}
	file, err := ps.stamp("net.onnx", model.Bytes, found)
	if !errors.Is(err, ErrPromise) || !strings.Contains(err.Error(), "on pi5") || strings.Contains(err.Error(), "on local") {
		t.Errorf("%v, want the limit on pi5 missed", err)
	}
	promises, err := readManifests(file, "net.onnx")
	if err != nil || len(promises) != 2 || promises["local"].Device != "" || promises["pi5"].Verdict() != latency.NotMet || promises["local"].Verdict() != latency.Met {
		t.Fatalf("%+v, %v", promises, err)
	}
	// A board is as fast as its bytes are many: the stamped file is longer.
	fast.factor *= float64(len(model.Bytes)) / float64(len(file))
	free := maps.Clone(promises)
	m := free["local"]
	m.Limit = nil
	free["local"] = m
	slower := &board{name: "fast", factor: 3 * fast.factor}
	for name, c := range map[string]struct {
		device   NamedDevice
		promises map[string]latency.Manifest
		holds    bool
		why      string
	}{
		"limit met":        {NamedDevice{fast, "local"}, promises, true, "is met"},
		"limit missed":     {NamedDevice{slower, "local"}, promises, false, "not met"},
		"no limit, equal":  {NamedDevice{fast, "local"}, free, true, "what the file says"},
		"no limit, slower": {NamedDevice{slower, "local"}, free, false, "slower"},
		"another machine":  {NamedDevice{slow, "local"}, promises, false, `cpu was "fast" and is "slow"`},
		"only promise":     {NamedDevice{fast, "pi6"}, map[string]latency.Manifest{"local": promises["local"]}, true, "is met"},
	} {
		t.Run(name, func(t *testing.T) {
			v, err := verifyPromise(t.Context(), c.device, c.promises, latency.Model{Name: "net.onnx", Bytes: file})
			if err != nil || v.Holds != c.holds || !strings.Contains(v.Why, c.why) {
				t.Errorf("%+v, %v; want %v, %q", v, err, c.holds, c.why)
			}
		})
	}
	if _, err := verifyPromise(t.Context(), NamedDevice{fast, "pi6"}, promises, latency.Model{Bytes: file}); err == nil || !strings.Contains(err.Error(), "local, pi5") {
		t.Errorf("a device that is not promised for: %v", err)
	}
}

// Limits near the measurement get more sessions than the confirmation's.
func TestProveMeasuresMore(t *testing.T) {
	_, nets := smallNets(t, "01230123")
	model, err := CandidateModel(nets[0], 1)
	if err != nil {
		t.Fatal(err)
	}
	ps := Pledges{limits: map[string]time.Duration{"local": time.Duration(len(model.Bytes))}, protocol: latency.Confirmation()}
	b := &board{name: "fast", factor: 1}
	found, err := ps.measure(t.Context(), []NamedDevice{{b, "local"}}, model)
	if err != nil || found[0].Verdict != "undecided" || b.sessions != ps.protocol.Sessions+undecidedSessions {
		t.Errorf("%+v, %v after %d sessions", found, err, b.sessions)
	}
}

func TestPromiseOf(t *testing.T) {
	s, _ := smallNets(t)
	f, err := archfile.New(s, "01230123")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name string) string {
		path := filepath.Join(dir, name)
		if err := f.Write(path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if p := PromiseOf(write("none.yaml")); p != nil {
		t.Errorf("a file without limits promises %+v", p)
	}
	f.LatencyLimit = 4
	if d := cmp.Diff(&ckpt.Promise{Limits: []ckpt.Limit{{Device: "local", MS: 4}}}, PromiseOf(write("one.yaml"))); d != "" {
		t.Error(d)
	}
	f.Devices = []archfile.OnDevice{{Device: "pi5", Limit: 4}, {Device: "local"}}
	f.Measured = &archfile.Measured{Threads: 2}
	want := &ckpt.Promise{Limits: []ckpt.Limit{{Device: "pi5", MS: 4}, {Device: "local"}}, Threads: 2}
	if d := cmp.Diff(want, PromiseOf(write("two.yaml"))); d != "" {
		t.Error(d)
	}
	other := filepath.Join(dir, "razor.yaml")
	if err := os.WriteFile(other, []byte("stage_0_block_0: {chosen: [shuffle_3x3]}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"01230123", "spos-paper", filepath.Join(dir, "nowhere.yaml"), other} {
		if p := PromiseOf(text); p != nil {
			t.Errorf("%s promises %+v", text, p)
		}
	}
}
