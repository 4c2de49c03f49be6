package cli

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"spos/configs"
	"spos/internal/arch"
	"spos/internal/native"
	"spos/latency"
	"spos/search"
)

const (
	envRepeat   = "SPOS_REPEAT"    // spaces; SPACE@160,224 for nets of those input sizes in turn
	envNets     = "SPOS_NETS"      // of each
	envSessions = "SPOS_SESSIONS"  // of a net
	envTimes    = "SPOS_TIMES"     // that each space is measured
	envWithLoad = "SPOS_WITH_LOAD" // another process at work
	envLoad     = "SPOS_IS_LOAD"   // this process is it
	envKeep     = "SPOS_KEEP"      // directory for the measurements with their samples
)

// load works on memory that no cache holds, as a neighbour does, until it is
// killed, for an hour at most.
func load() {
	b := make([]uint64, 8<<20)
	for until := time.Now().Add(time.Hour); time.Now().Before(until); {
		for i := range b {
			b[i] = b[i]*6364136223846793005 + uint64(i)
		}
	}
	os.Exit(0)
}

// TestLatencyRepeat measures nets in one process and again in others, the
// spaces in turns, and says how far they agree.
func TestLatencyRepeat(t *testing.T) {
	spaces := strings.Fields(os.Getenv(envRepeat))
	if len(spaces) == 0 {
		t.Skipf("minutes on a quiet machine: make latency-repeat, or name spaces in %s", envRepeat)
	}
	if _, err := native.ONNXRuntime(); err != nil {
		t.Fatal(err)
	}
	number := func(name string, otherwise int) int {
		if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
			return n
		}
		return otherwise
	}
	nets, times := number(envNets, 40), max(2, number(envTimes, 2))
	dirs := make([]string, len(spaces))
	for i, name := range spaces {
		dirs[i] = t.TempDir()
		randomNets(t, name, nets, dirs[i])
	}
	if os.Getenv(envWithLoad) != "" {
		neighbour := exec.CommandContext(t.Context(), os.Args[0])
		neighbour.Env = append(os.Environ(), envLoad+"=1")
		if err := neighbour.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { _, _ = neighbour.Process.Kill(), neighbour.Wait() }()
	}
	found := make([][][]latency.Result, len(spaces))
	for time := range times {
		for i, dir := range dirs {
			found[i] = append(found[i], measureApart(t, dir, fmt.Sprintf("%s-%d.json", spaces[i], time+1)))
		}
	}
	for i, name := range spaces {
		t.Logf("%s:\n%s", name, agreement(found[i]))
	}
}

// randomNets writes the models of n random nets of a space.
func randomNets(t *testing.T, name string, n int, dir string) {
	t.Helper()
	name, sizes, _ := strings.Cut(name, "@")
	s, err := configs.Space(name)
	if err != nil {
		t.Fatal(err)
	}
	drawn, err := drawNets(s, search.Limits{}, n, 1)
	if err != nil {
		t.Fatal(err)
	}
	sides := strings.Split(sizes, ",")
	for i, net := range drawn {
		if size := sides[i%len(sides)]; size != "" {
			side, err := strconv.Atoi(size)
			if err != nil {
				t.Fatal(err)
			}
			net = sized(t, s, net.Arch, side)
		}
		writeModel(t, net, dir)
	}
}

// sized is a net for pictures of another size.
func sized(t testing.TB, s *arch.Space, a arch.Arch, side int) *arch.Net {
	t.Helper()
	in := s.In
	in.H, in.W = side, side
	s, err := s.With(in, s.Classes)
	if err != nil {
		t.Fatal(err)
	}
	n, err := s.Net(a)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func writeModel(t *testing.T, net *arch.Net, dir string) {
	t.Helper()
	m, err := CandidateModel(net, 1)
	if err != nil {
		t.Fatal(err)
	}
	file := fmt.Sprintf("%s-%d.onnx", m.Name, net.In.H)
	if err := os.WriteFile(filepath.Join(dir, file), m.Bytes, 0o600); err != nil {
		t.Fatal(err)
	}
}

// measureApart measures the models of a directory in a process of its own. Name
// is the file in which the measurement is kept, where that is asked for.
func measureApart(t *testing.T, dir, name string) []latency.Result {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	args := append([]string{"latency", "measure", "--json", "--samples"}, files...)
	if n := os.Getenv(envSessions); n != "" {
		args = append(args, "--sessions", n)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), "SPOS_IS_PROGRAM=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if keep := os.Getenv(envKeep); keep != "" {
		if err := os.WriteFile(filepath.Join(keep, name), out, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var results []latency.Result
	if err := json.Unmarshal(out, &results); err != nil {
		t.Fatal(err)
	}
	return results
}

// numbers are what warnings of one kind differ in.
var numbers = regexp.MustCompile(`\d+(\.\d+)?`)

// agreement says what the targets of a repeat are about, of each measurement
// with each other one.
func agreement(times [][]latency.Result) string {
	var off, taus, least, covers []float64
	var width, squares float64
	for i, b := range times {
		for _, a := range times[:i] {
			var x, y []float64
			covered := 0.0
			for k := range a {
				p, q := latency.Milliseconds(a[k].P50), latency.Milliseconds(b[k].P50)
				x, y = append(x, p), append(y, q)
				log := math.Log(q / p)
				off = append(off, math.Abs(log))
				squares += log * log
				for _, r := range [][2]latency.Result{{a[k], b[k]}, {b[k], a[k]}} {
					if r[0].Low <= r[1].P50 && r[1].P50 <= r[0].High {
						covered += 0.5
					}
				}
			}
			taus, covers = append(taus, search.Tau(x, y)), append(covers, covered/float64(len(a)))
			least = append(least, slices.Min(x), slices.Max(x))
		}
	}
	warned := map[string]int{}
	results := slices.Concat(times...)
	for _, r := range results {
		width += math.Log(float64(r.High)/float64(r.Low)) / 2 / float64(len(results))
		for _, w := range r.Warnings {
			warned[numbers.ReplaceAllString(w, "…")]++
		}
	}
	slices.Sort(off)
	var s strings.Builder
	fmt.Fprintf(&s, "p50 %.3f to %.3f ms, %d nets, %d sessions each, %d times\n", slices.Min(least), slices.Max(least), len(times[0]), results[0].Sessions, len(times))
	fmt.Fprintf(&s, "difference: median %.2f %%, root mean square %.2f %%, largest %.2f %%\n",
		100*off[len(off)/2], 100*math.Sqrt(squares/float64(len(off))), 100*off[len(off)-1])
	fmt.Fprintf(&s, "tau %.3f (least %.3f)\n", average(taus), slices.Min(taus))
	fmt.Fprintf(&s, "covered %.1f %% (least %.1f), half width %.2f %%\n", 100*average(covers), 100*slices.Min(covers), 100*width)
	for _, w := range slices.Sorted(maps.Keys(warned)) {
		fmt.Fprintf(&s, "warned %d of %d: %s\n", warned[w], len(results), w)
	}
	return s.String()
}

func average(x []float64) float64 {
	sum := 0.0
	for _, v := range x {
		sum += v / float64(len(x))
	}
	return sum
}

func TestAgreement(t *testing.T) {
	result := func(p50, low, high int) latency.Result {
		return latency.Result{
			Estimate: latency.Estimate{P50: time.Duration(p50), Low: time.Duration(low), High: time.Duration(high), Sessions: 6}, Warnings: []string{"loud"},
		}
	}
	a := []latency.Result{result(1e6, 9e5, 11e5), result(2e6, 19e5, 21e5)}
	b := []latency.Result{result(105e4, 9e5, 11e5), result(22e5, 215e4, 225e4)}
	c := []latency.Result{result(1e6, 9e5, 11e5), result(9e5, 8e5, 11e5)}
	got := agreement([][]latency.Result{a, b})
	for _, want := range []string{"p50 1.000 to 2.000 ms", "largest 9.53 %", "tau 1.000 (least 1.000)", "covered 50.0 % (least 50.0)", "warned 4 of 4: loud"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	got = agreement([][]latency.Result{a, a, c})
	for _, want := range []string{"3 times", "tau -0.333 (least -1.000)", "covered 66.7 % (least 50.0)", "warned 6 of 6: loud"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

// BenchmarkScreening is what a search pays for one candidate, its export and
// session included, on nets of 0.2 to 8 ms.
func BenchmarkScreening(b *testing.B) {
	rt, err := OpenRuntime()
	if err != nil {
		b.Skip(err)
	}
	l := &latency.Local{Runtime: rt}
	for _, c := range []struct {
		space string
		arch  arch.Arch
		side  int
	}{
		{"shufflenetv2-small", "01230123", 28}, {"nasbench-macro", "22222222", 32},
		{"shufflenetv2-spos", "21012020202300003233", 160}, {"shufflenetv2-spos", "21012020202300003233", 224},
	} {
		b.Run(fmt.Sprintf("%s/%s/%d", c.space, c.arch, c.side), func(b *testing.B) {
			s, err := configs.Space(c.space)
			if err != nil {
				b.Fatal(err)
			}
			n := sized(b, s, c.arch, c.side)
			var p50 float64
			for b.Loop() {
				m, err := CandidateModel(n, 1)
				if err != nil {
					b.Fatal(err)
				}
				r, err := latency.Measure(b.Context(), l, m, latency.Screening())
				if err != nil {
					b.Fatal(err)
				}
				p50 += latency.Milliseconds(r.P50)
			}
			b.ReportMetric(p50/float64(b.N), "p50-ms")
			b.ReportMetric(b.Elapsed().Seconds()/float64(b.N), "s/screening")
		})
	}
}
