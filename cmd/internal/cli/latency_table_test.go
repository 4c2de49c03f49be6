package cli_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"spos/cmd/internal/cli"
	"spos/internal/native"
	"spos/latency"
)

// tiny is a space of nets that take microseconds.
const tiny = `name: tiny
input: [3, 16, 16]
classes: 4
init: torch
norm: {eps: 1.0e-5, momentum: 0.1, supernet_affine: true}
stem:
  - {out: 8, kernel: 3, stride: 2, act: relu}
candidates:
  - {name: k3, block: mbconv, kernel: 3, expand: 2, act: relu}
  - {name: k5, block: mbconv, kernel: 5, expand: 4, act: relu}
stages:
  - {out: 8, blocks: 3, stride: 1}
tail:
  - {out: 16, kernel: 1, act: relu}
head: {bias: true}
`

func TestTableVerbs(t *testing.T) {
	if _, err := native.ONNXRuntime(); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	spec, file := filepath.Join(dir, "tiny.yaml"), filepath.Join(dir, "tiny.table.json")
	if err := os.WriteFile(spec, []byte(tiny), 0o644); err != nil {
		t.Fatal(err)
	}
	verb := []string{"latency", "table", spec, "-o", file, "--nets", "1", "--holdout", "1", "--sessions", "1", "--runs", "2"}
	out, err := edge(t, verb...)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"space        tiny, 3 blocks", "held-out", "the ruler", "verdict: "} {
		if !strings.Contains(out, want) {
			t.Errorf("a table without %q:\n%s", want, out)
		}
	}
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := edge(t, verb...); err != nil {
		t.Fatal(err)
	}
	if after, err := os.ReadFile(file); err != nil || !bytes.Equal(after, before) {
		t.Errorf("made again, it is another table (%v)", err)
	}
	if out, err = edge(t, "latency", "table", "show", file); err != nil || !strings.Contains(out, "k5") || !strings.Contains(out, "verdict: ") {
		t.Errorf("show: %v\n%s", err, out)
	}
	out, err = edge(t, "latency", "predict", file, "010", "111", "--json")
	if err != nil {
		t.Fatal(err)
	}
	var said struct {
		Predictions []struct {
			Low float64 `json:"low_ms"`
			P50 float64 `json:"p50_ms"`
		}
		Audit latency.Audit
	}
	if err := json.Unmarshal([]byte(out), &said); err != nil || len(said.Predictions) != 2 || !(said.Predictions[0].P50 > 0) || said.Audit.Nets == 0 {
		t.Errorf("predict: %v\n%s", err, out)
	}

	elsewhere := filepath.Join(dir, "elsewhere.table.json")
	if err := os.WriteFile(elsewhere, bytes.Replace(before, []byte(`"kernel": "`), []byte(`"kernel": "x`), 1), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := edge(t, "latency", "predict", elsewhere, "010"); !errors.Is(err, latency.ErrIncomparable) {
		t.Errorf("a table of another machine: %v, want it to refuse", err)
	}
	if _, err := edge(t, "latency", "predict", elsewhere, "010", "--as-measured"); err != nil {
		t.Errorf("as measured: %v", err)
	}
}

// BenchmarkTableProof makes the tables of the small space and the official one
// as a user would and audits them on 200 and 60 nets that were held out and
// measured in turns with those that the table is made of. It reports, of each
// space,
//
//	within5   share of held-out nets within ±5 %: 0.95 is wanted
//	tau       Kendall's, of the held-out nets: 0.97 is wanted; a perfect table's is tau-ruler
//	mape-%    mean size of the error; mape-ruler-% is what the measurement's own would leave
//	bias-%    mean error
//	covered   share of measurements within the prediction's interval: 0.95 is nominal
//	audit     error as the table told it without held-out nets, over the error on them:
//	          between 2/3 and 4/3 is wanted
//	seconds   it took
//
// Run it by make latency-table-proof on a quiet machine. $SPOS_TABLE_SESSIONS
// is how often a net is measured, small space and official one ("6,36");
// $SPOS_TABLE_DIR keeps the tables, and what was measured when it was ended.
func BenchmarkTableProof(b *testing.B) {
	if _, err := native.ONNXRuntime(); err != nil {
		b.Skip(err)
	}
	sessions := strings.Split(os.Getenv("SPOS_TABLE_SESSIONS"), ",")
	if len(sessions) != 2 {
		b.Skip("takes minutes: make latency-table-proof")
	}
	dir := os.Getenv("SPOS_TABLE_DIR")
	if dir == "" {
		dir = b.TempDir()
	}
	for i, c := range []struct {
		space   string
		holdout int
	}{{"nasbench-macro", 200}, {"shufflenetv2-spos", 60}} {
		b.Run(c.space, func(b *testing.B) {
			for b.Loop() {
				file, start := filepath.Join(dir, c.space+".table.json"), time.Now()
				root := cli.NewRoot("spos-edge", "")
				cli.AddVerbs(root)
				var out bytes.Buffer
				root.SetOut(&out)
				root.SetArgs([]string{
					"latency", "table", c.space, "-o", file, "--nets", "40",
					"--holdout", strconv.Itoa(c.holdout), "--sessions", sessions[i],
				})
				if err := root.ExecuteContext(b.Context()); err != nil {
					b.Fatal(err)
				}
				b.Log("\n" + out.String())
				t, err := latency.ReadTable(file)
				if err != nil {
					b.Fatal(err)
				}
				a := t.Audit()
				for unit, v := range map[string]float64{
					"within5": a.Within5, "tau": a.Tau, "tau-ruler": a.Ruler.Tau, "mape-%": 100 * a.MAPE,
					"mape-ruler-%": 100 * a.Ruler.MAPE, "bias-%": 100 * a.Bias, "covered": a.Covered,
					"audit": t.CrossValidation().MAPE / a.MAPE, "seconds": time.Since(start).Seconds(),
				} {
					b.ReportMetric(v, unit)
				}
			}
		})
	}
}
