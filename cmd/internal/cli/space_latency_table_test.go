package cli

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"spos/configs"
	"spos/internal/arch"
	"spos/latency"
)

// boardTable is the file of a table of the small space on a board that needs a
// nanosecond a byte.
func boardTable(t *testing.T) (path string, table *latency.Table) {
	t.Helper()
	s, err := configs.Space("shufflenetv2-small")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cache, err := latency.OpenCache(filepath.Join(dir, "journal.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer cache.Close()
	p := latency.Screening()
	p.Sessions, p.Runs = 1, 1
	c := latency.Campaign{
		Space: s, Device: &board{name: "pi5", factor: 1}, Protocol: p, Cache: cache, Nets: 8, Holdout: 12,
		Model: func(n *arch.Net) (latency.Model, error) { return CandidateModel(n, 1) }, Log: slog.New(slog.DiscardHandler),
	}
	if table, err = c.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(dir, "pi5.table.json")
	if err := table.Write(path); err != nil {
		t.Fatal(err)
	}
	return path, table
}

func spaceVerb(t *testing.T, args ...string) (string, error) {
	t.Helper()
	root := NewRoot("spos", "test")
	AddVerbs(root)
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetErr(io.Discard)
	root.SetArgs(append([]string{"space", "latency"}, args...))
	err := root.ExecuteContext(t.Context())
	return out.String(), err
}

func TestSpaceLatencyFromTable(t *testing.T) {
	path, table := boardTable(t)
	audit := table.Audit()
	middle := (audit.From + audit.To) / 2
	limit := fmt.Sprintf("%fms", middle)
	text, err := spaceVerb(t, "shufflenetv2-small", "--table", path, "--limit", limit, "--limit", "1h", "--json", "--samples")
	if err != nil {
		t.Fatal(err)
	}
	var got spaceLatency
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		t.Fatal(err)
	}
	d := got.Devices[0]
	if got.Nets != predictedNets || len(d.Samples) != predictedNets || d.Device != "pi5" || d.Predicted == nil || d.Predicted.Table != path {
		t.Fatalf("%d nets, %d samples, device %q, by %+v", got.Nets, len(d.Samples), d.Device, d.Predicted)
	}
	// Every net as the table itself says it, and counted as a measured one is.
	want := limitShare{Limit: d.Limits[0].Limit}
	outside, every := 0, 0
	for _, s := range d.Samples {
		n, err := table.Space.Net(s.Arch)
		if err != nil {
			t.Fatal(err)
		}
		p, err := table.Predict(n)
		if err != nil {
			t.Fatal(err)
		}
		if s.Latency.P50 != latency.Milliseconds(p.P50) || s.Latency.High != latency.Milliseconds(p.High) || s.Outside != p.Outside {
			t.Fatalf("%+v, and the table says %+v", s, p)
		}
		if p.Outside {
			outside++
		}
		switch {
		case latency.Milliseconds(p.High) < middle:
			want.Met++
			if p.Outside {
				want.Outside++
			}
		case latency.Milliseconds(p.Low) < middle:
			want.Undecided++
		default:
			want.NotMet++
		}
		every++
	}
	want.Share = d.Limits[0].Share
	if d.Limits[0] != want || want.Met == 0 || want.NotMet == 0 {
		t.Errorf("limit %+v, want %+v", d.Limits[0], want)
	}
	if all := d.Limits[1]; all.Met != every || all.Outside != outside || d.Predicted.Outside != outside {
		t.Errorf("an hour is met by %d of %d, %d and %d of %d outside of the audit", all.Met, every, all.Outside, d.Predicted.Outside, outside)
	}

	if text, err = spaceVerb(t, "shufflenetv2-small", "--table", path, "--limit", limit, "--nets", "50", "--within", "macs=5e6"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"50 nets drawn", "predicted by " + path + ": pi5", "surely met by", "50 % of the space is left by", "verdict: "} {
		if !strings.Contains(text, want) {
			t.Errorf("the report lacks %q:\n%s", want, text)
		}
	}
}

// TestSpaceLatencyBeyondAudit has nets that an audit does not vouch for said
// with the number of them.
func TestSpaceLatencyBeyondAudit(t *testing.T) {
	_, table := boardTable(t)
	by := &predictions{Table: "x", Audit: table.Audit(), table: table}
	st := survey{space: table.Space, limits: map[string][]float64{"pi5": {1e9}}}
	var results []latency.Result
	for _, n := range []arch.Arch{"00000000", "11111111", "33333333"} {
		net, err := table.Space.Net(n)
		if err != nil {
			t.Fatal(err)
		}
		r, err := by.result(net)
		if err != nil {
			t.Fatal(err)
		}
		st.nets, results = append(st.nets, net), append(results, r)
	}
	slices.SortFunc(results, func(a, b latency.Result) int { return cmp.Compare(a.P50, b.P50) })
	st.devices = []surveyed{{name: "pi5", by: by, results: results, cheapest: results[0]}}
	for name, test := range map[string]struct {
		from, to float64
		outside  int
		want     []string
	}{
		"all vouched for": {0, 1e9, 0, nil},
		"one not":         {latency.Milliseconds(results[1].P50), 1e9, 1, []string{"warning: 1 of 3 nets are outside", "does not vouch for 1 of those"}},
		"none":            {0, 0, 3, []string{"vouches for no net", "does not vouch for 3 of those"}},
	} {
		t.Run(name, func(t *testing.T) {
			by.Audit.From, by.Audit.To, by.Outside = test.from, test.to, test.outside
			r := st.report()
			var out bytes.Buffer
			if err := r.write(&out, false); err != nil {
				t.Fatal(err)
			}
			if got := r.Devices[0].Limits[0].Outside; got != test.outside {
				t.Errorf("%d nets outside, want %d", got, test.outside)
			}
			for _, want := range test.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("the report lacks %q:\n%s", want, out.String())
				}
			}
			if test.want == nil && strings.Contains(out.String(), "vouch for") {
				t.Errorf("a complaint of nothing:\n%s", out.String())
			}
		})
	}
}

func TestSpaceLatencyTableRefuses(t *testing.T) {
	path, _ := boardTable(t)
	none := filepath.Join(t.TempDir(), "none.json")
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"a device":      {[]string{"shufflenetv2-small", "--table", path, "--device", "pi5"}, "--device is about measuring"},
		"this device":   {[]string{"shufflenetv2-small", "--table", path, "--device", "local"}, "leave out --table"},
		"a mode":        {[]string{"shufflenetv2-small", "--table", path, "--mode", "cold"}, "--mode is about measuring"},
		"a folder":      {[]string{"shufflenetv2-small", "--table", path, "--work-dir", none}, "--work-dir is about measuring"},
		"other's limit": {[]string{"shufflenetv2-small", "--table", path, "--limit", "jetson=1ms"}, "a limit is on the table's device"},
		"other images":  {[]string{"shufflenetv2-small", "--table", path, "--input", "1x16x16"}, "1×28×28 images"},
		"other space":   {[]string{"shufflenetv2-spos", "--table", path}, "the table is of shufflenetv2-small"},
		"no nets":       {[]string{"shufflenetv2-small", "--table", path, "--nets", "0"}, "at least two"},
		"no file":       {[]string{"shufflenetv2-small", "--table", none}, "none.json"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := spaceVerb(t, test.args...)
			if err == nil {
				t.Fatal("it answers")
			}
			var out bytes.Buffer
			PrintError(&out, "spos", err)
			if !strings.Contains(out.String(), test.want) {
				t.Errorf("got %s, want %s", out.String(), test.want)
			}
		})
	}
	if _, err := spaceVerb(t, "shufflenetv2-small", "--table", none); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}
