package load_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"spos/internal/ort"
	"spos/serve/internal/load"
)

var (
	measure  = flag.Bool("measure", false, "measure a server under load, for minutes")
	server   = flag.String("server", "", "spos-edge to test (default: one that is built from this source)")
	network  = flag.String("model", "", "ONNX file of a network of 224×224 pictures to measure with (default: a ShuffleNetV2)")
	peer     = flag.String("peer", "", "gRPC address of another server of the same network, called shuffle, to compare with")
	length   = flag.Duration("length", 5*time.Second, "time of one measurement")
	storm    = flag.Duration("storm", 60*time.Second, "time of one measurement of overload")
	repeats  = flag.Int("repeats", 5, "how often measurements that are compared take turns")
	output   = flag.String("report", "", "file to write the measurements to, as JSON")
	only     = flag.String("only", "single closed open storm", "parts to measure")
	storms   = flag.String("storms", "jpeg raw grpc", "what overload is of")
	requests = flag.Int("requests", 20_000, "how many requests look for memory that is left behind")
)

// bench is a server, the same model in this process, and what was measured.
type bench struct {
	t     *testing.T
	p     *load.Process
	cores int
	runs  []*ort.Fixed // one for each core
	jpeg  []byte
	names []string // of dials, in order
	least load.Dial
	dials map[string]load.Dial
	rows  []row
	notes []note
}

// TestMeasure is `make bench-serve`. It fails on answers that are wrong, not on figures: those are for people, who know
// what else their machine does.
func TestMeasure(t *testing.T) {
	if !*measure {
		t.Skip("make bench-serve runs it")
	}
	b := newBench(t)
	for _, p := range []struct {
		name string
		do   func()
	}{{"single", b.single}, {"closed", b.closed}, {"open", b.open}, {"storm", b.storm}} {
		if strings.Contains(*only, p.name) {
			p.do()
		}
	}
	b.report()
}

func newBench(t *testing.T) *bench {
	rt := library(t)
	repository, model := shuffle(t)
	p := serving(t, repository)
	b := &bench{t: t, p: p, cores: runtime.GOMAXPROCS(0), jpeg: picture(t)}
	session, err := rt.OpenSession(model, ort.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { session.Close() })
	input := pixels()
	for range b.cores {
		in, err := ort.New(ort.Float32, 1, 3, 224, 224)
		if err != nil {
			t.Fatal(err)
		}
		copy(in.Data, input)
		f, err := session.Fix([]ort.Tensor{in}, make([]ort.Tensor, 1))
		if err != nil {
			t.Fatal(err)
		}
		b.runs = append(b.runs, f)
	}
	b.names = []string{"raw", "grpc", "json", "jpeg"}
	b.dials = map[string]load.Dial{
		"raw": raw(p.HTTP(), input), "grpc": viaGRPC(p.GRPC(), input), "json": inJSON(p.HTTP(), input), "jpeg": classify(p.HTTP(), b.jpeg),
	}
	if *peer != "" {
		b.names = append(b.names, "peer")
		b.dials["peer"] = viaGRPC(*peer, input)
	}
	b.least = bare(t, model, input, len(b.runs[0].Outputs()[0].Data))
	for name, d := range b.dials { // warm
		if r := load.Closed(t.Context(), d, 2, 500*time.Millisecond); r.Count["failed"] > 0 {
			t.Fatalf("%s: %s", name, r.Err)
		}
	}
	return b
}

// inProcess is the loop that a server is held against: runs, and nothing else.
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

// decoding is the way from a picture to the model's input, in this process, or to its answer.
type decoding struct {
	b    *bench
	into []float32
	run  bool
}

func (c decoding) Do() (load.Outcome, error) {
	decoded(c.b.t, c.b.jpeg, c.into)
	if c.run {
		return load.Answered, c.b.runs[0].Run()
	}
	return load.Answered, nil
}
func (c decoding) Close() error { return nil }

func (b *bench) loop(name string, dial load.Dial, clients int, d time.Duration) row {
	return b.measured(fmt.Sprintf("%s c=%d", name, clients), func() load.Result {
		return load.Closed(b.t.Context(), dial, clients, d)
	})
}

// single compares one client's latencies with the same work in this process, in turns.
func (b *bench) single() {
	m := medians{}
	for range *repeats {
		run := b.loop("in process", b.inProcess(), 1, *length/5)
		pixels := make([]float32, 3*224*224)
		decode := b.loop("decode", func() (load.Client, error) { return decoding{b, pixels, false}, nil }, 1, *length/5)
		both := b.loop("decode and run", func() (load.Client, error) { return decoding{b, pixels, true}, nil }, 1, *length/5)
		least := b.loop("bare server", b.least, 1, *length/5)
		r := map[string]row{}
		for _, name := range b.names {
			r[name] = b.loop(name, b.dials[name], 1, *length/5)
		}
		m.add("run", run.Latency.P50)
		m.add("raw", r["raw"].Latency.P50-run.Latency.P50)
		m.add("raw CPU", r["raw"].ServerCPU-run.ClientCPU)
		m.add("grpc", r["grpc"].Latency.P50-run.Latency.P50)
		m.add("grpc CPU", r["grpc"].ServerCPU-run.ClientCPU)
		m.add("json", r["json"].Latency.P50/r["raw"].Latency.P50)
		m.add("jpeg", r["jpeg"].Latency.P50-both.Latency.P50)
		m.add("jpeg sum", r["jpeg"].Latency.P50-decode.Latency.P50-run.Latency.P50)
		m.add("least", least.Latency.P50-run.Latency.P50)
		m.add("raw least", r["raw"].Latency.P50-least.Latency.P50)
		m.add("grpc least", r["grpc"].Latency.P50-least.Latency.P50)
		m.add("peer", r["peer"].Latency.P50-run.Latency.P50)
	}
	b.notes = append(
		b.notes,
		note{Name: "p50 of a run in process, ms", Value: m.of("run")},
		note{Name: "p50 of raw binary beyond the run, ms", Value: m.of("raw"), Most: 0.3},
		note{Name: "p50 of gRPC beyond the run, ms", Value: m.of("grpc"), Most: 0.5},
		note{Name: "p50 of JSON, times raw binary", Value: m.of("json"), Most: 3},
		note{Name: "p50 of a JPEG beyond decoding and running, one after the other, ms", Value: m.of("jpeg"), Most: 0.5},
		note{Name: "p50 of a JPEG beyond the sum of decoding and running, each in a loop of its own, ms", Value: m.of("jpeg sum"), Most: 0.5},
		note{Name: "p50 of a bare server beyond the run, ms", Value: m.of("least")},
		note{Name: "p50 of raw binary beyond the bare server, ms", Value: m.of("raw least")},
		note{Name: "p50 of gRPC beyond the bare server, ms", Value: m.of("grpc least")},
		note{Name: "server CPU of raw binary beyond the run, ms", Value: m.of("raw CPU")},
		note{Name: "server CPU of gRPC beyond the run, ms", Value: m.of("grpc CPU")},
	)
	if *peer != "" {
		b.notes = append(b.notes, note{Name: "the other server's p50 of gRPC beyond the run, ms", Value: m.of("peer")})
	}
}

// closed looks for the most that the server answers, in turns with the loop in this process.
func (b *bench) closed() {
	m := medians{}
	for range *repeats {
		alone := b.loop("in process", b.inProcess(), b.cores, *length/5)
		for _, name := range []string{"raw", "grpc"} {
			r := b.loop(name, b.dials[name], 2*b.cores, *length/5)
			// The client took processor time that the loop in this process had for itself.
			m.add(name, r.Rate/b.left(r)/(alone.Rate/(float64(b.cores)-alone.Others)))
		}
		m.add("run", alone.Rate)
	}
	b.notes = append(
		b.notes,
		note{Name: "runs a second in process", Value: m.of("run")},
		note{Name: "rate of raw binary, times what the client leaves of that", Value: m.of("raw"), Least: 0.95},
		note{Name: "rate of gRPC, times what the client leaves of that", Value: m.of("grpc")},
	)
	for _, name := range b.names {
		for _, clients := range []int{1, 2, 4, 8, 32} {
			b.loop(name, b.dials[name], clients, *length)
		}
	}
}

// left is how many cores the server had: those that neither the client, which works on the same ones and all the harder
// the more it offers, nor other programs took.
func (b *bench) left(r row) float64 {
	requests := float64(r.Count["answered"]+r.Count["refused"]) / r.Seconds
	return float64(b.cores) - r.ClientCPU*requests/1e3 - r.Others
}

// peak is the best of closed loops: the rate that shares of load are of, and the processor time that the client took.
func (b *bench) peak(name string) (best row) {
	for _, clients := range []int{2, 4, 8} {
		if r := b.loop(name, b.dials[name], clients, *length/2); r.Rate > best.Rate {
			best = r
		}
	}
	return best
}

func (b *bench) offer(what, name string, rate float64, d time.Duration) row {
	return b.measured(what, func() load.Result {
		const most = 1000
		return load.Open(b.t.Context(), b.dials[name], rate, d, most, rand.New(rand.NewPCG(5, uint64(rate))))
	})
}

func (b *bench) open() {
	for _, name := range []string{"raw", "jpeg"} {
		capacity := b.peak(name).Rate
		for _, percent := range []int{50, 80, 95, 120, 200} {
			b.offer(fmt.Sprintf("%s at %d %%", name, percent), name, capacity*float64(percent)/100, 2**length)
		}
	}
}

// apart makes the clients as much like those of other machines as they can be: what they wait for processors is not
// the server's, and what they copy costs it none. From here on single latencies are not to be compared.
func (b *bench) apart() {
	if err := load.Ahead(); err != nil {
		b.t.Logf("the clients wait for processors as the server does, which adds to their times: %v", err)
	}
	b.dials["raw"] = rawFromFile(b.t, b.p.HTTP(), pixels())
}

// storm offers multiples of what the server can do.
func (b *bench) storm() {
	b.apart()
	for name := range strings.FieldsSeq(*storms) {
		peak := b.peak(name)
		usual := b.loop(name, b.dials[name], 1, time.Second)
		for _, times := range []float64{2, 10} {
			what := fmt.Sprintf("%s at %g times", name, times)
			r := b.offer(what, name, times*peak.Rate, *storm)
			after := b.loop("after "+what, b.dials[name], 1, time.Second)
			b.notes = append(
				b.notes,
				note{Name: what + ": goodput of the peak", Value: r.Rate / peak.Rate},
				note{Name: what + ": goodput of the peak, for the cores that the client and others left", Value: r.Rate / (peak.Rate * b.left(r) / b.left(peak)), Least: 0.9},
				note{Name: what + ": p99 of refusals, ms", Value: r.Refusal.P99, Most: 50},
				note{Name: what + ": p99 of answers, ms", Value: r.Latency.P99, Most: 1e3 * 1.5 * (100 + float64(b.cores)) / peak.Rate},
				note{Name: what + ": p50 in the second after it, times the usual", Value: after.Latency.P50 / usual.Latency.P50, Most: 1.5},
			)
		}
	}
}
