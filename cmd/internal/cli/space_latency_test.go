package cli

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"math"
	"strings"
	"testing"

	"spos/configs"
	"spos/internal/config"
	"spos/search"
)

// dryNets is enough for quartiles.
const dryNets = 16

// dry measures nets of the small space on boards that need a nanosecond a
// byte, and ten.
func dry(t *testing.T, dir string, limits map[string][]float64) (*dryRun, []*board) {
	t.Helper()
	s, err := configs.Space("shufflenetv2-small")
	if err != nil {
		t.Fatal(err)
	}
	nets, err := drawNets(s, search.Limits{}, dryNets, 7)
	if err != nil {
		t.Fatal(err)
	}
	boards := []*board{{name: "fast", factor: 1}, {name: "slow", factor: 10}}
	d := &dryRun{survey: &survey{space: s, nets: nets, limits: limits}, p: &Progress{Log: slog.New(slog.DiscardHandler)}}
	devices := []NamedDevice{{boards[0], ThisDevice}, {boards[1], "pi5"}}
	if d.gauges, err = NewGauges(s, devices, make([]config.DeviceLimit, 2), config.Latency{}, d.p.Log); err != nil {
		t.Fatal(err)
	}
	forget, err := d.gauges.Remember(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer forget()
	if err := d.measure(t.Context()); err != nil {
		t.Fatal(err)
	}
	return d, boards
}

func TestSpaceLatency(t *testing.T) {
	dir := t.TempDir()
	first, boards := dry(t, dir, nil)
	st := first.report()
	fast, slow := st.Devices[0], st.Devices[1]
	if r := slow.Mean / fast.Mean; math.Abs(r-10) > 0.01 {
		t.Errorf("the slow board takes %.3f times as long, want 10", r)
	}
	// Bytes are parameters, but for the names of operators.
	if fast.TauParams == nil || *fast.TauParams < 0.95 {
		t.Errorf("tau against parameters %v", fast.TauParams)
	}
	if fast.Fastest.Latency.P50 != fast.Quantiles["1"] && fast.Fastest.Latency.P50 > fast.Quantiles["1"] || fast.Slowest.Latency.P50 < fast.Quantiles["99"] {
		t.Errorf("ends %+v %+v, quantiles %v", fast.Fastest, fast.Slowest, fast.Quantiles)
	}
	sessions := boards[0].sessions
	if sessions < dryNets {
		t.Errorf("%d sessions for so few nets", sessions)
	}

	// Limits at the quartiles, on a board each: only what they leave open is
	// measured again, and all that is met is below.
	low, high := fast.Quantiles["25"], slow.Quantiles["75"]
	second, boards := dry(t, dir, map[string][]float64{ThisDevice: {low}, "pi5": {high}})
	st = second.report()
	a, b := st.Devices[0].Limits[0], st.Devices[1].Limits[0]
	if boards[0].sessions == 0 || boards[0].sessions > dryNets*5 {
		t.Errorf("%d sessions to settle a limit", boards[0].sessions)
	}
	if a.Met+a.Undecided+a.NotMet != dryNets || a.Met < 1 || a.Met > 4 || b.Met < 8 || b.Met > 12 {
		t.Errorf("limits %+v and %+v", a, b)
	}
	if !(a.Low <= a.P && a.P <= a.High) || a.High < 0.25 {
		t.Errorf("the quarter is outside %+v", a.Share)
	}
	// The second limit is the looser one: together they leave what the first does.
	if st.Together == nil || st.Together.Met != a.Met {
		t.Errorf("together %+v, the first alone %+v", st.Together, a)
	}
	again, boards := dry(t, dir, map[string][]float64{ThisDevice: {low}, "pi5": {high}})
	if n := boards[0].sessions + boards[1].sessions; n > 0 {
		t.Errorf("a third run measured %d sessions again", n)
	}
	// What the big budget has found is there from the start now.
	if got := again.report().Devices[0].Limits[0]; got != a {
		t.Errorf("went on to %+v, was %+v", got, a)
	}

	var out bytes.Buffer
	if err := st.write(&out, true); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"on pi5: slow", "surely met by", "all limits together", "50 % of the space is left by", "█"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the report lacks %q:\n%s", want, out.String())
		}
	}
	if _, err := json.Marshal(st); err != nil {
		t.Error(err)
	}
}

func TestSpaceLatencyFlags(t *testing.T) {
	devices := []string{"local", "pi5"}
	got, err := parseLatencyLimits([]string{"2ms", "pi5=8ms", "500us"}, devices)
	if err != nil || len(got["local"]) != 2 || got["local"][1] != 0.5 || got["pi5"][0] != 8 {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"2", "-1ms", "0s", "phone=2ms", "=2ms", ""} {
		if _, err := parseLatencyLimits([]string{bad}, devices); err == nil {
			t.Errorf("--limit %q is accepted", bad)
		}
	}
	l, err := parseWithin([]string{"mmcv=330e6", "params=4e6"})
	if err != nil || l.FLOPs.Max != 330e6 || l.Counter != "mmcv" || l.Params.Max != 4e6 {
		t.Errorf("%+v, %v", l, err)
	}
	for _, bad := range [][]string{{"macs=1", "mmcv=2"}, {"flops=1"}, {"macs"}} {
		if _, err := parseWithin(bad); err == nil {
			t.Errorf("--within %v is accepted", bad)
		}
	}
	for _, bad := range []string{"28x28", "1x28x28x2", "axbxc", "0x28x28"} {
		o := spaceLatencyOptions{input: bad}
		if _, err := o.space("shufflenetv2-small", nil); err == nil {
			t.Errorf("--input %q is accepted", bad)
		}
	}
}
