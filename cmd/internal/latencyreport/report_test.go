package latencyreport

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"html"
	"io"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"time"

	"spos/internal/report/page"
	"spos/internal/runs"
	"spos/latency"
)

const maxReport = 2_000_000 // bytes

var reportStart = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// timedNet makes up a result: runs around at, sessions of them.
func timedNet(name string, at time.Duration, sessions, runs int) latency.Result {
	rng := rand.New(rand.NewPCG(uint64(at), uint64(runs)))
	r := latency.Result{
		Model:    name,
		Estimate: latency.Estimate{P50: at, Low: at * 99 / 100, High: at * 102 / 100, P90: at * 105 / 100, Min: at * 97 / 100, Runs: sessions * runs, Sessions: sessions},
		Mode:     latency.Hot,
		Fingerprint: latency.Fingerprint{
			Host:    latency.Host{CPU: "Fast 9000", Cores: 4, Arch: "linux/arm64", Kernel: "6.1", Governor: "performance"},
			Session: latency.Setting{Runtime: "1.32.0", Provider: "cpu", GraphLevel: "all", Threads: 1, Affinity: []int{3}, Mode: latency.Hot, Batch: 1},
		},
	}
	for i := range sessions {
		s := latency.Sample{Started: reportStart.Add(time.Duration(i) * time.Minute), Settled: true, Pinned: true, Warmup: []time.Duration{2 * at}}
		for range runs {
			s.Runs = append(s.Runs, time.Duration(float64(at)*(1+0.01*rng.NormFloat64())))
		}
		r.Samples = append(r.Samples, s)
	}
	return r
}

// draw is the report of a text as the verb writes it.
func draw(t testing.TB, in ...Input) string {
	t.Helper()
	var b bytes.Buffer
	if err := page.Write(&b, newReport(in).page("Latency")); err != nil {
		t.Fatal(err)
	}
	if b.Len() > maxReport {
		t.Errorf("the report has %d bytes, at most %d are wanted", b.Len(), maxReport)
	}
	for d := xml.NewDecoder(bytes.NewReader(b.Bytes())); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return b.String()
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func contains(t *testing.T, text string, wanted ...string) {
	t.Helper()
	for _, w := range wanted {
		if !strings.Contains(text, w) && !strings.Contains(html.UnescapeString(text), w) {
			t.Errorf("the report lacks %q", w)
		}
	}
}

// TestNumbers: every number of the input that a reader would ask for.
func TestNumbers(t *testing.T) {
	a, b := timedNet("slow.onnx", 2500*time.Microsecond, 3, 20), timedNet("fast.onnx", 400*time.Microsecond, 3, 20)
	a.Warnings = []string{"runs of one session vary by 12 % (standard deviation over mean)", "the load average is about 3 on 4 processors"}
	b.Warnings = []string{"runs of one session vary by 18 % (standard deviation over mean)"}
	a.Samples[1].Runs[7] = 99 * time.Millisecond // a spike
	text := draw(t, Input{name: "lat.json", results: []latency.Result{a, b}})
	contains(t, text,
		"Doubtful: 2 models of 0.400 to 2.500 ms. Intervals are ±1.5 % in the median and ±1.5 % at worst; 2 of 2 models carry warnings.",
		"Fast 9000, 4 processors, linux/arm64, kernel 6.1, governor performance", "ONNX Runtime 1.32.0, cpu, graph level all, 1 thread, bound to processor 3, hot (back to back), batch 1",
		"3 sessions a model, 20 timed runs a session", "2026-03-01 12:00:00 to 12:02:00 UTC", "lat.json",
		`<tr><td>slow.onnx</td><td class="n">2.500</td><td class="n">2.475</td><td class="n">2.550</td><td class="n">1.5</td><td class="n">2.625</td><td class="n">2.425</td><td class="n">3</td><td class="n">60</td><td>hot</td><td>1, 2</td></tr>`,
		`<li>runs of one session vary by 12–18 % (standard deviation over mean)</li>`,
		`<li>the load average is about 3 on 4 processors <span class="soft">(slow.onnx)</span></li>`,
		"runs in order; 1 run beyond the axis, up to 99.00 ms", "seconds since 12:00:00 UTC",
		"fast.onnx: p50 0.400 ms (0.396 to 0.408), p90 0.420, min 0.388, 60 runs of 3 sessions",
	)
	specks, arrows := 0, 0
	for _, m := range regexp.MustCompile(`<path class="(speck|arrow) blue" d="([^"]*)">`).FindAllStringSubmatch(text, -1) {
		if m[1] == "arrow" {
			arrows += strings.Count(m[2], "M")
		} else {
			specks += strings.Count(m[2], "M")
		}
	}
	// 120 runs, 6 medians of sessions over time, and a dot of the legend for
	// runs and one for sessions.
	if want := 120 + 6 + 2 - 1; specks != want || arrows != 1 {
		t.Errorf("%d dots and %d arrows, want %d and the spike", specks, arrows, want)
	}
}

func TestVerdict(t *testing.T) {
	good := timedNet("a", time.Millisecond, 2, 5)
	warned, other := good, timedNet("b", time.Millisecond, 2, 5)
	warned.Model, warned.Warnings = "w", []string{"x"}
	other.Fingerprint.Host.CPU = "Slow 1"
	kept := latency.Look{Sentinel: "s", P50: 1, Ratio: 1.2, Allowed: 0.03, Kept: true}
	for name, c := range map[string]struct {
		in   Input
		want string
	}{
		"good":    {Input{results: []latency.Result{good}}, "To be trusted: 1 model of 1.000 ms."},
		"warned":  {Input{results: []latency.Result{good, good, warned}}, "To be read with care: 3 models of 1.000 ms. Intervals are ±1.5 % in the median and ±1.5 % at worst; 1 of 3 models carry warnings."},
		"drifted": {Input{results: []latency.Result{good}, looks: []latency.Look{kept}}, "at worst; 1 stretch was kept although the device had drifted."},
		"two":     {Input{results: []latency.Result{good, other}}, "they are of 2 devices or settings and may be compared only within one."},
		"looks":   {Input{looks: []latency.Look{kept}}, "No measurement, only 1 look at the sentinel."},
	} {
		t.Run(name, func(t *testing.T) { contains(t, draw(t, c.in), c.want) })
	}
	contains(t, draw(t, Input{results: []latency.Result{good, other}}), "<dt>Device B</dt><dd>Slow 1", "<td>B</td>")
}

// TestSize: whatever is drawn, the file stays small.
func TestSize(t *testing.T) {
	var many []latency.Result
	for i := range 3000 {
		r := timedNet(strings.Repeat("<\"'&\u4e16", 300)+fmt.Sprint(i), time.Duration(1+i)*time.Microsecond*10, 2, 20)
		r.Warnings = []string{strings.Repeat("\"", 5000) + strings.Repeat("x", i)}
		r.Fingerprint.Host.CPU = strings.Repeat("'", i)
		many = append(many, r)
	}
	var looks []latency.Look
	for i := range 20_000 {
		looks = append(looks, latency.Look{At: reportStart.Add(time.Duration(i) * time.Second), Sentinel: many[i%9].Model, P50: 1, Ratio: 1 + 0.001*float64(i%50), Allowed: 0.03})
	}
	text := draw(t, Input{name: strings.Repeat("\"", 1000), results: many, looks: looks})
	contains(t, text, "2000 further models are left out", "Of 3000 models, the 24 with the widest intervals")

	long := timedNet("long", time.Millisecond, 20, latency.MaxRuns)
	long.Samples[7].Runs[5000] = 1140 * time.Microsecond // seen in its bucket, or beyond
	contains(t, draw(t, Input{results: []latency.Result{long}}), "least to greatest of neighbours", "p50 1.000 ms")
}

// TestDrift: a look is drawn as what came of it.
func TestDrift(t *testing.T) {
	var looks []latency.Look
	for i, ratio := range []float64{1, 1.01, 1.1, 1.12, 0.98} {
		looks = append(looks, latency.Look{
			At: reportStart.Add(time.Duration(i) * 2 * time.Minute), Sentinel: "tiny", Environment: "e", P50: time.Duration(1e6 * ratio), Ratio: ratio,
			Allowed: 0.05, Again: i == 2, Kept: i == 3,
		})
	}
	text := draw(t, Input{looks: looks})
	contains(t, text, "5 looks, -2.0 % to +12.0 % of the first; 1 stretch measured again, 1 stretch kept with a warning", "±5 % allowed",
		"minutes since 12:00:00 UTC", "<title>+10.0 %, 1.100 ms</title>", "drifted, kept", "drifted, measured again")
	for class, want := range map[string]int{"dot blue": 3, "diamond orange": 1, "cross red": 1} {
		if n := strings.Count(text, fmt.Sprintf(`<path class="%s" `, class)); n != want+1 { // and the legend's
			t.Errorf("%d of %s, want %d", n-1, class, want)
		}
	}
}

func TestAudit(t *testing.T) {
	net := func(name string, predicted, measured float64) auditedNet {
		return auditedNet{name, predicted, predicted * 0.97, predicted * 1.03, measured, measured * 0.99, measured * 1.01}
	}
	table := auditedTable{
		name: "small", facts: []page.Fact{{Name: "MAPE", Value: "1.3 %"}}, verdict: []string{"use it"},
		held: []auditedNet{net("0<1", 1.02, 1), net("22", 2, 2.2)}, made: []auditedNet{net("11", 1.5, 1.5)}, inSitu: []auditedNet{net("00", 0.5, 0.5)},
	}
	var b bytes.Buffer
	if err := page.Write(&b, page.Page{Sections: []page.Section{table.section()}}); err != nil {
		t.Fatal(err)
	}
	contains(t, b.String(), "MAPE", "1.3 %", "use it", "predicted, ms", "measured, ms", "error, %",
		"0<1: predicted 1.020 ms (0.989 to 1.051), measured 1.000 ms (0.990 to 1.010), +2.0 %", "held out", "whole nets that it was fitted to")
	if n := strings.Count(b.String(), `<path class="diamond blue" `); n != 2*3 {
		t.Errorf("%d diamonds, want two nets and the legend in two pictures", n)
	}
}

func TestRead(t *testing.T) {
	list, err := json.Marshal([]latency.Result{timedNet("a", time.Millisecond, 2, 3), timedNet("b", time.Millisecond, 1, 3)})
	if err != nil {
		t.Fatal(err)
	}
	one := string(list[1 : bytes.Index(list, []byte(`},{"model":"b"`))+1])
	line := func(key, result string) string { return fmt.Sprintf(`{"key":%q,"result":%s}`, key, result) + "\n" }
	look := `{"look":{"sentinel":"s","environment":"e","p50_ns":5,"ratio":1,"allowed":0.03}}` + "\n"
	for name, c := range map[string]struct {
		text           string
		results, looks int
		want           string // of the error
	}{
		"list":           {string(list), 2, 0, ""},
		"with a mark":    {"\xef\xbb\xbf" + string(list) + "\r\n", 2, 0, ""},
		"one":            {one, 1, 0, ""},
		"journal":        {look + line("x@e", one) + line("y@e", one) + look + line("x@e", one), 2, 2, ""},
		"torn journal":   {line("x@e", one) + `{"key":"y`, 1, 0, ""},
		"empty":          {"", 0, 0, "x: no latency measurements: the file is empty"},
		"blank":          {" \n", 0, 0, "the file is empty"},
		"text":           {"p50 3 ms", 0, 0, "it is no JSON: give what spos latency measure --json --samples printed"},
		"picture":        {"\x89PNG\r\n", 0, 0, "it is no JSON"},
		"none":           {"[]", 0, 0, "it holds none"},
		"numbers":        {"[1,2]", 0, 0, "a list of results was expected"},
		"cut":            {string(list[:100]), 0, 0, "a list of results was expected: unexpected end"},
		"other list":     {`[{"name":"a"}]`, 0, 0, "entry 1: it names no model"},
		"other object":   {`{"space":"x","blocks":[]}`, 0, 0, `it is JSON of something else, with the fields "blocks space"`},
		"two in one":     {one + one, 0, 0, "no latency measurements: invalid character"},
		"cut object":     {`{"key":`, 0, 0, "unexpected EOF"},
		"damaged":        {line("x@e", one) + "{]\n" + line("y@e", one), 0, 0, "line 2 is no JSON"},
		"backwards":      {`[{"model":"m","p50_ms":1,"low_ms":2,"high_ms":3,"min_ms":1,"p90_ms":1,"runs":1,"sessions":1}]`, 0, 0, "m: its times are no latency"},
		"no runs":        {`[{"model":"m","p50_ms":1,"low_ms":1,"high_ms":1,"min_ms":1,"p90_ms":1}]`, 0, 0, "m: 0 sessions of 0 runs"},
		"empty session":  {`[{"model":"m","p50_ms":1,"low_ms":1,"high_ms":1,"min_ms":1,"p90_ms":1,"runs":1,"sessions":1,"samples":[{}]}]`, 0, 0, "session 1 has no runs"},
		"negative run":   {`[{"model":"m","p50_ms":1,"low_ms":1,"high_ms":1,"min_ms":1,"p90_ms":1,"runs":1,"sessions":1,"samples":[{"runs_ns":[-1]}]}]`, 0, 0, "session 1 has a run of -1ns"},
		"other look":     {`{"look":{"sentinel":"s"}}` + "\n", 0, 0, "a look at s found 0s"},
		"journal of two": {line("confirmed0/x@e", one) + line("x@e", one), 2, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			in, err := Read("x", []byte(c.text))
			if c.want == "" {
				if err != nil || len(in.results) != c.results || len(in.looks) != c.looks {
					t.Errorf("%d results, %d looks, %v; want %d and %d", len(in.results), len(in.looks), err, c.results, c.looks)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "x: ") || !(errors.Is(err, ErrInput) || errors.Is(err, runs.ErrCorrupt)) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// FuzzRead: what is accepted can be drawn.
func FuzzRead(f *testing.F) {
	one, err := json.Marshal(timedNet("a", time.Millisecond, 2, 3))
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte("[" + string(one) + "]"))
	f.Add(one)
	f.Add([]byte(`{"key":"x","result":` + string(one) + "}\n" + `{"look":{"at":"2026-01-01T00:00:00Z","sentinel":"s","p50_ns":5,"ratio":1.5,"allowed":0.03,"kept":true}}` + "\n"))
	f.Add([]byte(`{"look":`))
	f.Fuzz(func(t *testing.T, text []byte) {
		in, err := Read("x", text)
		if err == nil {
			draw(t, in)
		}
	})
}
