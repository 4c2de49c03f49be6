package latencyreport

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"spos/configs"
	"spos/internal/arch"
	"spos/latency"
)

// additive is a device on which a model takes the nanoseconds that it says.
type additive struct{}

func (additive) Fingerprint(_ context.Context, _ []byte, p latency.Protocol) (latency.Fingerprint, error) {
	return latency.Fingerprint{Host: latency.Host{CPU: "Adder"}, Session: latency.Setting{Mode: p.Mode, Batch: p.Batch, Threads: p.Threads}}, nil
}

func (a additive) Time(ctx context.Context, t latency.Task) (latency.Sample, error) {
	s := latency.Sample{Settled: true, Pinned: true, Load: -1}
	s.Fingerprint, _ = a.Fingerprint(ctx, t.Model, t.Protocol)
	var ns int64
	if _, err := fmt.Sscan(string(t.Model), &ns); err != nil {
		return s, err
	}
	for i := range t.Protocol.Runs {
		s.Runs = append(s.Runs, time.Duration(ns+int64(i)))
	}
	return s, nil
}

// TestTable: a table's file becomes its audit and a point for every net.
func TestTable(t *testing.T) {
	space, err := configs.Space("nasbench-macro")
	if err != nil {
		t.Fatal(err)
	}
	cache, err := latency.OpenCache(filepath.Join(t.TempDir(), "journal.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer cache.Close()
	p := latency.Screening()
	p.Sessions, p.Runs = 2, 3
	campaign := latency.Campaign{
		Space: space, Seed: 1, Device: additive{}, Protocol: p, Cache: cache, Nets: 12, Holdout: 20, Log: slog.New(slog.DiscardHandler),
		Model: func(n *arch.Net) (latency.Model, error) {
			return latency.Model{Name: string(n.Arch), Key: string(n.Arch), Bytes: fmt.Append(nil, n.Cost().MACs)}, nil
		},
	}
	table, err := campaign.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	file, err := table.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	in, err := Read("x.json", file)
	if err != nil {
		t.Fatal(err)
	}
	text := draw(t, in)
	audit := table.Audit()
	contains(t, text, "Predicted against measured: nasbench-macro (x.json)", "The table of nasbench-macro may be used for nets of", "Adder",
		"Audit, 20 held-out nets", "Audit, 12 left-out nets", fmt.Sprintf("MAPE %.2f %%", 100*audit.MAPE), "The ruler", audit.Verdict[0],
		"<dt>Made of</dt><dd>12 whole nets and ")
	for _, m := range table.Measurements {
		if m.Role == latency.Holdout {
			contains(t, text, fmt.Sprintf("<title>%s: predicted ", m.Arch), fmt.Sprintf("measured %.3f ms", latency.Milliseconds(m.P50)))
		}
	}
	if n := strings.Count(text, `<path class="diamond blue" `); n != 2*(20+1) {
		t.Errorf("%d diamonds, want 20 nets and the legend in two pictures", n)
	}

	_, err = Read("x.json", []byte(strings.Replace(string(file), `"version": 1`, `"version": 7`, 1)))
	if err == nil || !strings.HasPrefix(err.Error(), "x.json: ") || !strings.Contains(err.Error(), "version 7, this program reads 1") {
		t.Errorf("a table of another version: %v", err)
	}
}
