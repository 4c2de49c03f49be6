package latency_test

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"spos/latency"
)

func measured() latency.Result {
	return latency.Result{
		Model: "net",
		Estimate: latency.Estimate{
			P50: 4100 * time.Microsecond, P90: 5 * time.Millisecond, Min: 4 * time.Millisecond,
			Low: 4050 * time.Microsecond, High: 4200 * time.Microsecond, Runs: 240, Sessions: 6,
		},
		Mode: latency.Hot,
		Fingerprint: latency.Fingerprint{
			Host: latency.Host{CPU: "Some CPU", Flags: "abc", Cores: 2, Arch: "linux/amd64", Kernel: "6.1"},
			Session: latency.Setting{
				Runtime: "1.32.0", Provider: "cpu", GraphLevel: "all", Threads: 1, Affinity: []int{1}, Priority: true,
				Mode: latency.Hot, Batch: 1, Options: map[string]string{"dim.h": "9", "no_arena": "true"},
			},
		},
		Warnings: []string{"loud"},
	}
}

func TestManifest(t *testing.T) {
	m := latency.NewManifest(measured(), latency.Confirmation(), 5*time.Millisecond)
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{
		`"protocol":1`, `"p50_ms":4.1`, `"low_ms":4.05`, `"high_ms":4.2`, `"limit_ms":5`, `"mode":"hot"`, `"batch":1`,
		`"runs":240`, `"sessions":6`, `"warnings":["loud"]`,
		`"conditions":{"cores":"2","cpu":"Some CPU","cpu_flags":"abc","graph_level":"all","kernel":"6.1","option.no_arena":"true","provider":"cpu","runtime":"1.32.0","system":"linux/amd64","threads":"1"}`,
	} {
		if !strings.Contains(string(text), part) {
			t.Errorf("no %s in %s", part, text)
		}
	}
	back, err := latency.ParseManifest(string(text))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(m, back); d != "" {
		t.Error(d)
	}
	m.Conditions["cpu"] = "a\x1b[2Jb"
	var shown strings.Builder
	if err := m.Write(&shown); err != nil {
		t.Fatal(err)
	}
	if text := shown.String(); !strings.Contains(text, "p50 4.1 ms, 95 % interval 4.05–4.2, at batch 1, limit 5 ms") || strings.Contains(text, "\x1b") {
		t.Errorf("shown as %q", text)
	}
	if free := latency.NewManifest(measured(), latency.Confirmation(), 0); free.Limit != nil {
		t.Errorf("limit %v where there was none", *free.Limit)
	}
}

// TestConditions: what a server can be held to tells machines and sessions apart, and not how it was measured.
func TestConditions(t *testing.T) {
	base := latency.NewManifest(measured(), latency.Confirmation(), 0)
	same := map[string]func(*latency.Fingerprint){
		"affinity": func(f *latency.Fingerprint) { f.Session.Affinity = nil },
		"priority": func(f *latency.Fingerprint) { f.Session.Priority = false },
		"mode":     func(f *latency.Fingerprint) { f.Session.Mode = latency.Cold },
		"batch":    func(f *latency.Fingerprint) { f.Session.Batch = 8 },
		"dims":     func(f *latency.Fingerprint) { delete(f.Session.Options, "dim.h") },
		"a pool":   func(f *latency.Fingerprint) { f.Session.Options["affinity"] = "[0] or [1]" },
		"model":    func(f *latency.Fingerprint) { f.Model.SHA256 = "x" },
	}
	other := map[string]func(*latency.Fingerprint){
		"cpu":        func(f *latency.Fingerprint) { f.Host.CPU = "Other" },
		"cpu_flags":  func(f *latency.Fingerprint) { f.Host.Flags = "x" },
		"cores":      func(f *latency.Fingerprint) { f.Host.Cores = 8 },
		"system":     func(f *latency.Fingerprint) { f.Host.Arch = "linux/arm64" },
		"kernel":     func(f *latency.Fingerprint) { f.Host.Kernel = "7" },
		"governor":   func(f *latency.Fingerprint) { f.Host.Governor = "powersave" },
		"turbo":      func(f *latency.Fingerprint) { f.Host.Turbo = "off" },
		"quota":      func(f *latency.Fingerprint) { f.Host.Quota = "1.50" },
		"runtime":    func(f *latency.Fingerprint) { f.Session.Runtime = "1.27.0" },
		"provider":   func(f *latency.Fingerprint) { f.Session.Provider = "xnnpack" },
		"graph":      func(f *latency.Fingerprint) { f.Session.GraphLevel = "basic" },
		"threads":    func(f *latency.Fingerprint) { f.Session.Threads = 2 },
		"no options": func(f *latency.Fingerprint) { f.Session.Options = nil },
	}
	for name, change := range same {
		r := measured()
		change(&r.Fingerprint)
		if m := latency.NewManifest(r, latency.Confirmation(), 0); m.Fingerprint != base.Fingerprint {
			t.Errorf("%s changes the fingerprint", name)
		}
	}
	seen := []string{base.Fingerprint}
	for _, name := range slices.Sorted(maps.Keys(other)) {
		r := measured()
		other[name](&r.Fingerprint)
		m := latency.NewManifest(r, latency.Confirmation(), 0)
		if slices.Contains(seen, m.Fingerprint) {
			t.Errorf("%s does not change the fingerprint", name)
		}
		seen = append(seen, m.Fingerprint)
	}
}

func TestParseManifestRefuses(t *testing.T) {
	for name, tt := range map[string]struct{ text, part string }{
		"not JSON":       {`{`, "manifest"},
		"a newer one":    {`{"protocol":2,"p50_ms":1,"low_ms":1,"high_ms":1}`, "protocol 2"},
		"no protocol":    {`{"p50_ms":1,"low_ms":1,"high_ms":1}`, "protocol 0"},
		"no numbers":     {`{"protocol":1}`, "interval"},
		"upside down":    {`{"protocol":1,"p50_ms":1,"low_ms":2,"high_ms":1}`, "interval"},
		"negative":       {`{"protocol":1,"p50_ms":-1,"low_ms":-2,"high_ms":1}`, "interval"},
		"limit of zero":  {`{"protocol":1,"p50_ms":1,"low_ms":1,"high_ms":1,"limit_ms":0}`, "interval"},
		"text for times": {`{"protocol":1,"p50_ms":"1"}`, "manifest"},
	} {
		if _, err := latency.ParseManifest(tt.text); err == nil || !strings.Contains(err.Error(), tt.part) {
			t.Errorf("%s: %v, want one with %q", name, err, tt.part)
		}
	}
}
