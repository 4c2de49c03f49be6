package load_test

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"spos/serve/internal/load"
)

// row is one measurement.
type row struct {
	Name string `json:"name"`
	load.Result
	// ServerCPU and ClientCPU are milliseconds a request, answered or refused.
	ServerCPU float64 `json:"server_cpu_ms"`
	ClientCPU float64 `json:"client_cpu_ms"`
	// Others is how many cores other programs kept busy.
	Others float64 `json:"others"`
	// RSS is the server's memory in MiB afterwards.
	RSS float64 `json:"rss_mib"`
}

// note is a figure that follows from measurements, and what it should be.
type note struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	// Least or Most is what it should be; both 0: it is for information.
	Least float64 `json:"least,omitempty"`
	Most  float64 `json:"most,omitempty"`
}

func (n note) verdict() string {
	switch {
	case n.Least == 0 && n.Most == 0:
		return ""
	case n.Least > 0 && n.Value < n.Least:
		return fmt.Sprintf("below %g", n.Least)
	case n.Most > 0 && n.Value > n.Most:
		return fmt.Sprintf("above %g", n.Most)
	case n.Least > 0:
		return fmt.Sprintf("ok, at least %g", n.Least)
	}
	return fmt.Sprintf("ok, at most %g", n.Most)
}

// measured runs a load and notes what it cost.
func (b *bench) measured(name string, do func() load.Result) row {
	b.t.Helper()
	serverBefore, err := b.p.CPU()
	if err != nil {
		b.t.Fatal(err)
	}
	ownBefore, busyBefore, start := load.OwnCPU(), load.Busy(), time.Now()
	r := row{Name: name, Result: do()}
	wall := time.Since(start)
	serverAfter, err := b.p.CPU()
	if err != nil {
		b.t.Fatal(err)
	}
	own, busy := load.OwnCPU()-ownBefore, load.Busy()-busyBefore
	n := float64(max(r.Count["answered"]+r.Count["refused"], 1))
	r.ServerCPU = (serverAfter - serverBefore).Seconds() * 1e3 / n
	r.ClientCPU = own.Seconds() * 1e3 / n
	r.Others = (busy - own - (serverAfter - serverBefore)).Seconds() / wall.Seconds()
	now, _, err := b.p.Memory()
	if err != nil {
		b.t.Fatal(err)
	}
	r.RSS = float64(now) / (1 << 20)
	if r.Count["failed"] > 0 {
		b.t.Errorf("%s: %d requests failed: %s", name, r.Count["failed"], r.Err)
	}
	b.rows = append(b.rows, r)
	return r
}

// report prints what was measured, and writes it where a flag says.
func (b *bench) report() {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "load\tanswered/s\tp50/p90/p99/p99.9/max ms\trefused\ttheirs\tlate p99\tserver CPU ms\tclient CPU ms\tothers, cores\tRSS MiB\t")
	for _, r := range b.rows {
		fmt.Fprintf(w, "%s\t%.0f\t%s\t%d\t%s\t%.1f\t%.2f\t%.2f\t%.2f\t%.0f\t\n", r.Name, r.Rate, r.Latency, r.Count["refused"], r.Refusal,
			r.Late.P99, r.ServerCPU, r.ClientCPU, r.Others, r.RSS)
	}
	fmt.Fprintln(w)
	for _, n := range b.notes {
		fmt.Fprintf(w, "%s\t%.3f\t%s\t\n", n.Name, n.Value, n.verdict())
	}
	if err := w.Flush(); err != nil {
		b.t.Error(err)
	}
	if *output == "" {
		return
	}
	text, err := json.MarshalIndent(map[string]any{"machine": machine(), "rows": b.rows, "notes": b.notes}, "", "  ")
	if err == nil {
		err = os.WriteFile(*output, append(text, '\n'), 0o644)
	}
	if err != nil {
		b.t.Error(err)
	}
}

// machine is what figures depend on.
func machine() map[string]string {
	first := func(file, key string) string {
		text, err := os.ReadFile(file)
		if err != nil {
			return ""
		}
		for line := range strings.Lines(string(text)) {
			if rest, ok := strings.CutPrefix(line, key); ok {
				return strings.TrimLeft(strings.TrimSpace(rest), ":\t ")
			}
		}
		return ""
	}
	return map[string]string{
		"processor": first("/proc/cpuinfo", "model name"), "cores": fmt.Sprint(runtime.NumCPU()), "load": first("/proc/loadavg", ""),
		"go": runtime.Version(), "system": runtime.GOOS + "/" + runtime.GOARCH, "at": time.Now().UTC().Format(time.RFC3339),
	}
}

// TestVerdict holds the report's judgement to the direction of its limits.
func TestVerdict(t *testing.T) {
	for _, n := range []note{{Value: 1, Least: 2}, {Value: 2, Most: 1}} {
		if v := n.verdict(); strings.HasPrefix(v, "ok") {
			t.Errorf("%+v: %s", n, v)
		}
	}
	for _, n := range []note{{Value: 2, Least: 2}, {Value: -1, Most: 1}} {
		if v := n.verdict(); !strings.HasPrefix(v, "ok") {
			t.Errorf("%+v: %s", n, v)
		}
	}
}

// medians gathers figures of the same name over repeats.
type medians map[string][]float64

func (m medians) add(name string, v float64) { m[name] = append(m[name], v) }

func (m medians) of(name string) float64 { return load.Median(m[name]) }
