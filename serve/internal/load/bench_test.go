package load_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"spos/internal/ort"
	"spos/serve/internal/load"
)

var (
	measure = flag.Bool("measure", false, "measure a server under load, for minutes")
	server  = flag.String("server", "", "spos-edge to measure (default: one that is built from this source)")
	network = flag.String("model", "", "ONNX file of a network of 224×224 pictures to measure with (default: a ShuffleNetV2)")
	length  = flag.Duration("length", 5*time.Second, "time of one measurement")
	storm   = flag.Duration("storm", 60*time.Second, "time of one measurement of overload")
	repeats = flag.Int("repeats", 5, "how often measurements that are compared take turns")
	output  = flag.String("report", "", "file to write the measurements to, as JSON")
	only    = flag.String("only", "", "parts to measure, of: single closed open storm (default: all)")
)

// bench is a server, the same model in this process, and what was measured.
type bench struct {
	t     *testing.T
	p     *load.Process
	runs  []*ort.Fixed // one for each core
	input []byte
	jpeg  []byte
	dials map[string]load.Dial
	rows  []row
	notes map[string]float64
}

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
	at  time.Time
}

func TestMeasure(t *testing.T) {
	if !*measure {
		t.Skip("make bench-serve runs it")
	}
	b := newBench(t)
	parts := []struct {
		name string
		do   func()
	}{{"single", b.single}, {"closed", b.closed}, {"open", b.open}, {"storm", b.storm}}
	for _, p := range parts {
		if *only == "" || strings.Contains(*only, p.name) {
			p.do()
		}
	}
	b.report()
}

func newBench(t *testing.T) *bench {
	rt, edge := library(t), program(t)
	repository, model := shuffle(t, edge)
	p, err := load.Start(context.WithoutCancel(t.Context()), 2, edge, "serve", "--repository", repository, "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Errorf("the server: %v: %s", err, p.Log())
		}
	})
	b := &bench{t: t, p: p, input: pixels(), jpeg: picture(t), notes: map[string]float64{}}
	session, err := rt.OpenSession(model, ort.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { session.Close() })
	for range runtime.GOMAXPROCS(0) {
		in, err := ort.New(ort.Float32, 1, 3, 224, 224)
		if err != nil {
			t.Fatal(err)
		}
		copy(in.Data, b.input)
		f, err := session.Fix([]ort.Tensor{in}, make([]ort.Tensor, 1))
		if err != nil {
			t.Fatal(err)
		}
		b.runs = append(b.runs, f)
	}
	b.dials = map[string]load.Dial{
		"raw":  raw(p.HTTP(), b.input),
		"json": inJSON(p.HTTP(), b.input),
		"grpc": viaGRPC(p.GRPC(), b.input),
		"jpeg": classify(p.HTTP(), b.jpeg),
	}
	for name, d := range b.dials { // warm
		if r := load.Closed(t.Context(), d, 2, 500*time.Millisecond); r.Count["failed"] > 0 {
			t.Fatalf("%s: %s", name, r.Err)
		}
	}
	return b
}

// measured runs a load and notes what it cost.
func (b *bench) measured(name string, do func() load.Result) row {
	b.t.Helper()
	serverBefore, err := b.p.CPU()
	if err != nil {
		b.t.Fatal(err)
	}
	ownBefore, busyBefore, start := load.OwnCPU(), load.Busy(), time.Now()
	r := row{Name: name, Result: do(), at: start}
	wall := time.Since(start)
	serverAfter, err := b.p.CPU()
	if err != nil {
		b.t.Fatal(err)
	}
	own := load.OwnCPU() - ownBefore
	n := float64(max(r.Count["answered"]+r.Count["refused"], 1))
	r.ServerCPU = (serverAfter - serverBefore).Seconds() * 1e3 / n
	r.ClientCPU = own.Seconds() * 1e3 / n
	r.Others = (load.Busy() - busyBefore - own - (serverAfter - serverBefore)).Seconds() / wall.Seconds()
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

// inProcess is the loop that a server is held against: runs on as many goroutines as there are clients, and nothing else.
type inProcess struct{ f *ort.Fixed }

func (c inProcess) Do() (load.Outcome, error) { return load.Answered, c.f.Run() }
func (c inProcess) Close() error              { return nil }

func (b *bench) inProcess() load.Dial {
	var mu sync.Mutex
	next := 0
	return func() (load.Client, error) {
		mu.Lock()
		defer mu.Unlock()
		next++
		return inProcess{b.runs[next-1]}, nil
	}
}

// decoding is the way from a picture to the model's input, in this process.
type decoding struct {
	b    *bench
	into []float32
}

func (c decoding) Do() (load.Outcome, error) {
	decoded(c.b.t, c.b.jpeg, c.into)
	return load.Answered, nil
}
func (c decoding) Close() error { return nil }

// single compares one client's latencies with the same work in this process, in turns.
func (b *bench) single() {
	dials := map[string]load.Dial{
		"in process": b.inProcess(),
		"decode":     func() (load.Client, error) { return decoding{b, make([]float32, 3*224*224)}, nil },
	}
	names := []string{"in process", "decode"}
	for _, name := range []string{"raw", "grpc", "json", "jpeg"} {
		if b.dials[name] != nil {
			names = append(names, name)
			dials[name] = b.dials[name]
		}
	}
	medians := map[string][]float64{}
	for range *repeats {
		dials["in process"] = b.inProcess()
		p50 := map[string]float64{}
		for _, name := range names {
			r := b.measured(name+" c=1", func() load.Result {
				return load.Closed(b.t.Context(), dials[name], 1, *length/5)
			})
			p50[name] = r.Latency.P50
		}
		for name, v := range map[string]float64{
			"raw - run, ms": p50["raw"] - p50["in process"], "grpc - run, ms": p50["grpc"] - p50["in process"],
			"json / raw": p50["json"] / p50["raw"], "jpeg - decode - run, ms": p50["jpeg"] - p50["decode"] - p50["in process"],
		} {
			medians[name] = append(medians[name], v)
		}
	}
	for name, vs := range medians {
		b.notes[name] = load.Median(vs)
	}
}

// closed looks for the most that the server answers, in turns with the loop in this process.
func (b *bench) closed() {
	cores := len(b.runs)
	shares := map[string][]float64{}
	for range *repeats {
		alone := b.measured("in process", func() load.Result {
			return load.Closed(b.t.Context(), b.inProcess(), cores, *length/5)
		})
		for _, name := range []string{"raw", "grpc"} {
			if b.dials[name] == nil {
				continue
			}
			r := b.measured(fmt.Sprintf("%s c=%d", name, 2*cores), func() load.Result {
				return load.Closed(b.t.Context(), b.dials[name], 2*cores, *length/5)
			})
			// The client took processor time that the loop in this process had for itself.
			left := float64(cores) - r.ClientCPU*r.Rate/1e3
			shares[name] = append(shares[name], r.Rate/(alone.Rate*left/float64(cores)))
			b.notes["rate of runs in process"] = alone.Rate
		}
	}
	for name, vs := range shares {
		b.notes["share of the loop's rate, "+name] = load.Median(vs)
	}
	for _, name := range []string{"raw", "grpc", "json", "jpeg"} {
		for _, clients := range []int{1, 2, 4, 8, 32} {
			if b.dials[name] != nil {
				b.measured(fmt.Sprintf("%s c=%d", name, clients), func() load.Result {
					return load.Closed(b.t.Context(), b.dials[name], clients, *length)
				})
			}
		}
	}
}

// capacity is the peak of closed loops, the rate that shares of load are of.
func (b *bench) capacity() float64 {
	best := 0.
	for _, clients := range []int{2, 4, 8} {
		r := b.measured(fmt.Sprintf("peak c=%d", clients), func() load.Result {
			return load.Closed(b.t.Context(), b.dials["raw"], clients, *length/2)
		})
		best = max(best, r.Rate)
	}
	return best
}

func (b *bench) offered(name string, rate float64, d time.Duration) row {
	return b.measured(name, func() load.Result {
		const most = 1000
		return load.Open(b.t.Context(), b.dials["raw"], rate, d, most, rand.New(rand.NewPCG(5, uint64(rate))))
	})
}

func (b *bench) open() {
	capacity := b.capacity()
	for _, percent := range []int{50, 80, 95, 120, 200} {
		b.offered(fmt.Sprintf("offered %d %%", percent), capacity*float64(percent)/100, 2**length)
	}
}

func (b *bench) storm() {
	capacity := b.capacity()
	for _, times := range []float64{2, 10} {
		r := b.offered(fmt.Sprintf("offered %g times", times), times*capacity, *storm)
		b.notes[fmt.Sprintf("goodput of peak at %g times", times)] = r.Rate / capacity
		b.notes[fmt.Sprintf("refusal p99 at %g times, ms", times)] = r.Refusal.P99
		after := b.measured("afterwards c=1", func() load.Result {
			return load.Closed(b.t.Context(), b.dials["raw"], 1, time.Second)
		})
		b.notes[fmt.Sprintf("p50 in the second after %g times, ms", times)] = after.Latency.P50
	}
}

func (b *bench) report() {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "load\tanswered/s\tp50/p90/p99/p99.9/max ms\trefused\trefusal ms\tfailed\tserver CPU ms\tclient CPU ms\tothers\tRSS MiB\tlate p99\t")
	for _, r := range b.rows {
		fmt.Fprintf(w, "%s\t%.0f\t%s\t%d\t%s\t%d\t%.2f\t%.2f\t%.2f\t%.0f\t%.1f\t\n", r.Name, r.Rate, r.Latency, r.Count["refused"], r.Refusal,
			r.Count["failed"], r.ServerCPU, r.ClientCPU, r.Others, r.RSS, r.Late.P99)
	}
	if err := w.Flush(); err != nil {
		b.t.Error(err)
	}
	var names []string
	for name := range b.notes {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Printf("%s: %.3f\n", name, b.notes[name])
	}
	if *output == "" {
		return
	}
	text, err := json.MarshalIndent(map[string]any{"rows": b.rows, "notes": b.notes}, "", "  ")
	if err == nil {
		err = os.WriteFile(*output, append(text, '\n'), 0o644)
	}
	if err != nil {
		b.t.Error(err)
	}
}
