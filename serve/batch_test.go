package serve_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"spos/serve"
)

// steady is an echo of [-1,3] whose every run takes 10 ms. It keeps a log of "start+items" in milliseconds, and fails
// where a value is negative.
type steady struct {
	fake
	start time.Time
	mu    sync.Mutex
	log   []string
	cut   int // runs that were cancelled
}

func newSteady(batching serve.Batching) *steady {
	m := &steady{start: time.Now()}
	m.info = echoModel("m", fp32x3).info
	m.info.Options.Batching = batching
	m.run = func(ctx context.Context, in, out []serve.Tensor) error {
		m.mu.Lock()
		m.log = append(m.log, fmt.Sprintf("%d+%d", time.Since(m.start).Milliseconds(), in[0].Shape[0]))
		m.mu.Unlock()
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			m.mu.Lock()
			defer m.mu.Unlock()
			m.cut++
			return context.Cause(ctx)
		}
		for i := 3; i < len(in[0].Data); i += 4 {
			if in[0].Data[i]&0x80 != 0 {
				return errors.New("a value is negative")
			}
		}
		return echo(ctx, in, out)
	}
	return m
}

// rowsOf is the JSON of n rows that no other request has, and how they come back.
func rowsOf(first, n int) (request, answer string) {
	var values []string
	for i := range 3 * n {
		values = append(values, fmt.Sprint(1000*first+i))
	}
	data := "[" + strings.Join(values, ",") + "]"
	return jsonBody(fmt.Sprintf("[%d,3]", n), data), fmt.Sprintf(`"shape":[%d,3],"data":%s`, n, data)
}

func TestBatching(t *testing.T) {
	type arrival struct {
		at, rows int // ms, items
		timeout  int // ms; 0: none
		leave    int // ms after at; 0: stays
		bad      bool
		code     int // 0: 200
	}
	four := serve.Batching{Max: 4}
	for name, tt := range map[string]struct {
		options  serve.Batching
		cores    int
		arrivals []arrival
		runs     string
	}{
		"off":                     {serve.Batching{}, 1, []arrival{{at: 0, rows: 1}, {at: 1, rows: 1}, {at: 2, rows: 1}}, "0+1 10+1 20+1"},
		"with free cores":         {four, 2, []arrival{{at: 0, rows: 1}, {at: 1, rows: 1}}, "0+1 1+1"},
		"while cores are busy":    {four, 1, []arrival{{at: 0, rows: 1}, {at: 1, rows: 1}, {at: 2, rows: 1}, {at: 3, rows: 1}}, "0+1 10+3"},
		"more than a batch":       {four, 1, []arrival{{at: 0, rows: 1}, {at: 1, rows: 2}, {at: 2, rows: 2}, {at: 3, rows: 1}}, "0+1 10+4 20+1"},
		"what does not fit":       {four, 1, []arrival{{at: 0, rows: 1}, {at: 1, rows: 3}, {at: 2, rows: 2}, {at: 3, rows: 2}}, "0+1 10+3 20+4"},
		"larger than a batch":     {four, 1, []arrival{{at: 0, rows: 9}, {at: 1, rows: 1}, {at: 2, rows: 1}}, "0+9 10+2"},
		"waits for company":       {serve.Batching{Max: 4, Delay: 5e6}, 2, []arrival{{at: 0, rows: 1}, {at: 3, rows: 1}, {at: 6, rows: 1}}, "5+2 11+1"},
		"a full one does not":     {serve.Batching{Max: 2, Delay: 5e6}, 2, []arrival{{at: 0, rows: 1}, {at: 3, rows: 1}}, "3+2"},
		"a preferred one neither": {serve.Batching{Max: 4, Delay: 5e6, Preferred: []int{2}}, 2, []arrival{{at: 0, rows: 1}, {at: 3, rows: 1}, {at: 4, rows: 1}}, "3+2 9+1"},
		"preferred grows still":   {serve.Batching{Max: 4, Delay: 5e6, Preferred: []int{2}}, 1, []arrival{{at: 0, rows: 2}, {at: 1, rows: 2}, {at: 2, rows: 1}}, "0+2 10+3"},
		"an urgent one":           {serve.Batching{Max: 4, Delay: 50e6}, 2, []arrival{{at: 0, rows: 1}, {at: 2, rows: 1, timeout: 30}}, "17+2"},
		"time out in the queue":   {four, 1, []arrival{{at: 0, rows: 1}, {at: 1, rows: 1, timeout: 5, code: 503}, {at: 2, rows: 1}}, "0+1 10+1"},
		"time out at work":        {four, 1, []arrival{{at: 0, rows: 1}, {at: 1, rows: 1, timeout: 14, code: 504}, {at: 2, rows: 1}}, "0+1 10+2"},
		"leaves the queue":        {four, 1, []arrival{{at: 0, rows: 1}, {at: 1, rows: 1, leave: 4}, {at: 2, rows: 2}}, "0+1 10+2"},
		"all leave the queue":     {four, 1, []arrival{{at: 0, rows: 1}, {at: 1, rows: 1, leave: 4}, {at: 2, rows: 2, leave: 2}, {at: 6, rows: 3}}, "0+1 10+3"},
		"leaves at work":          {four, 1, []arrival{{at: 0, rows: 1}, {at: 1, rows: 1, leave: 14}, {at: 2, rows: 2}, {at: 16, rows: 1}}, "0+1 10+3 20+1"},
		"all leave at work":       {four, 1, []arrival{{at: 0, rows: 1}, {at: 1, rows: 1, leave: 12}, {at: 2, rows: 2, leave: 12}, {at: 16, rows: 1}}, "0+1 10+3 16+1"},
		"one is bad":              {four, 1, []arrival{{at: 0, rows: 1}, {at: 1, rows: 1}, {at: 2, rows: 1, bad: true, code: 500}, {at: 3, rows: 1}}, "0+1 10+3 20+1 30+1 40+1"},
		"one is bad, one leaves":  {four, 1, []arrival{{at: 0, rows: 1}, {at: 1, rows: 1, leave: 21}, {at: 2, rows: 1, bad: true, code: 500}, {at: 3, rows: 1}}, "0+1 10+3 20+1 22+1 32+1"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newSteady(tt.options)
				b := newBubble(t, serve.Options{Cores: tt.cores}, m)
				defer b.finish()
				m.start = time.Now()
				var requests sync.WaitGroup
				for i, a := range tt.arrivals {
					requests.Go(func() {
						time.Sleep(time.Duration(a.at) * time.Millisecond)
						ctx := t.Context()
						if a.leave > 0 {
							var cancel context.CancelFunc
							ctx, cancel = context.WithTimeout(ctx, time.Duration(a.leave)*time.Millisecond)
							defer cancel()
						}
						request, answer := rowsOf(i+1, a.rows)
						if a.bad {
							request = jsonBody("[1,3]", "[-1,-2,-3]")
						}
						if a.timeout > 0 {
							request = fmt.Sprintf(`{"parameters":{"timeout":%d},`, 1000*a.timeout) + request[1:]
						}
						o := <-b.do(ctx, "POST", "/v2/models/m/infer", request)
						switch {
						case a.leave > 0:
							if o.err == nil {
								t.Errorf("request %d was to leave and got %+v", i, o)
							}
						case a.code == 0 && (o.code != 200 || !strings.Contains(o.body, answer)):
							t.Errorf("request %d got %+v, want %s", i, o, answer)
						case a.code != 0 && o.code != a.code:
							t.Errorf("request %d got %+v, want %d", i, o, a.code)
						}
					})
				}
				requests.Wait()
				synctest.Wait()
				if runs := strings.Join(m.log, " "); runs != tt.runs {
					t.Errorf("runs %s, want %s", runs, tt.runs)
				}
				if text := b.metrics(); !strings.Contains(text, `spos_serve_queued{model="m",version="1"} 0`) ||
					!strings.Contains(text, `spos_serve_running{model="m",version="1"} 0`) {
					t.Error("afterwards some are counted as queued or running")
				}
			})
		})
	}
}

func (b *bubble) metrics() string {
	b.t.Helper()
	return (<-b.do(b.t.Context(), "GET", "/metrics", "")).body
}

func TestBatchingDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newSteady(serve.Batching{Max: 4, Delay: 5 * time.Millisecond})
		b := newBubble(t, serve.Options{Cores: 1}, m)
		var all []<-chan outcome
		for i := range 10 {
			request, _ := rowsOf(i, 1)
			all = append(all, b.do(t.Context(), "POST", "/v2/models/m/infer", request))
		}
		synctest.Wait()
		b.finish()
		for i, c := range all {
			if o := <-c; o.code != 200 {
				t.Errorf("request %d got %+v", i, o)
			}
		}
	})
}

func TestBatchingStopsWhatDoesNotEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newGated()
		m.info.Options.Batching.Max = 2
		b := newBubble(t, serve.Options{Cores: 1, Timeout: time.Hour, DrainTimeout: 10 * time.Second}, m)
		var all []<-chan outcome
		for range 5 {
			all = append(all, b.infer(t.Context(), ""))
		}
		synctest.Wait()
		b.stop()
		for _, c := range all {
			if o := <-c; o.code != 503 || !strings.Contains(o.body, "stopped") {
				t.Errorf("a cut request got %+v", o)
			}
		}
		b.client.CloseIdleConnections()
		if err := <-b.done; err == nil || !strings.Contains(err.Error(), "10s") {
			t.Errorf("Run: %v", err)
		}
		if m.late.Load() || !m.closed.Load() {
			t.Errorf("closed %v, run after close %v", m.closed.Load(), m.late.Load())
		}
	})
}

func TestBatchingIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newGated()
		m.info.Options.Batching.Max = 2
		b := newBubble(t, serve.Options{Cores: 1, Queue: 3}, m)
		defer b.finish()
		var all []<-chan outcome
		for range 5 { // 2 at work and 3 in the queue
			all = append(all, b.infer(t.Context(), ""))
		}
		synctest.Wait()
		if o := <-b.infer(t.Context(), ""); o.code != 503 || o.retry != "1" {
			t.Errorf("one too many got %+v", o)
		}
		close(m.gate)
		for _, c := range all {
			if o := <-c; o.code != 200 {
				t.Errorf("got %+v", o)
			}
		}
	})
}

// TestRetryAfter: a client that is refused is told when what is before it will be done.
func TestRetryAfter(t *testing.T) {
	for name, tt := range map[string]struct {
		run  time.Duration
		want string
	}{"quick": {time.Millisecond, "1"}, "slow": {3 * time.Second, "17"}, "very slow": {25 * time.Second, "60"}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := echoModel("m", fp32x3)
				m.run = func(ctx context.Context, in, out []serve.Tensor) error {
					time.Sleep(tt.run)
					return echo(ctx, in, out)
				}
				b := newBubble(t, serve.Options{Cores: 2, Queue: 9, Timeout: time.Hour}, m)
				defer b.finish()
				<-b.infer(t.Context(), "")
				var all []<-chan outcome
				for range 11 {
					all = append(all, b.infer(t.Context(), ""))
				}
				synctest.Wait()
				if o := <-b.infer(t.Context(), ""); o.code != 503 || o.retry != tt.want {
					t.Errorf("refused with %+v, want Retry-After %s", o, tt.want)
				}
				for _, c := range all {
					<-c
				}
			})
		})
	}
}

// TestBatchingMixes has many clients with sizes, deadlines and patience of all kinds. Whoever gets an answer gets its own.
func TestBatchingMixes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newSteady(serve.Batching{Max: 8, Delay: 3 * time.Millisecond, Preferred: []int{4}})
		b := newBubble(t, serve.Options{Cores: 2, Queue: 50}, m)
		defer b.finish()
		rng := rand.New(rand.NewPCG(7, 7))
		codes := map[int]int{}
		var mu sync.Mutex
		var requests sync.WaitGroup
		for i := range 400 {
			at := time.Duration(rng.IntN(300e6))
			rows, patience := 1+rng.IntN(3), time.Duration(rng.IntN(60e6))
			timeout := 1 + rng.IntN(60e3)
			bad := rng.IntN(50) == 0
			requests.Go(func() {
				time.Sleep(at)
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				request, answer := rowsOf(i, rows)
				if bad {
					request, answer = jsonBody("[1,3]", "[1,-1,1]"), "never"
				}
				o := <-b.do(ctx, "POST", "/v2/models/m/infer", fmt.Sprintf(`{"parameters":{"timeout":%d},`, timeout)+request[1:])
				mu.Lock()
				defer mu.Unlock()
				if o.err != nil {
					o.code = 0
				}
				if codes[o.code]++; o.code == 200 && !strings.Contains(o.body, answer) {
					t.Errorf("request %d got %s", i, o.body)
				}
			})
		}
		requests.Wait()
		for _, code := range []int{0, 200, 503, 504} {
			if codes[code] == 0 {
				t.Errorf("no request ended with %d: %v", code, codes)
			}
		}
		if !slices.ContainsFunc(m.log, func(run string) bool { return strings.HasSuffix(run, "+8") }) {
			t.Errorf("no full batch among %v", m.log)
		}
	})
}

func TestBatchingOfUnlikeRequests(t *testing.T) {
	var mu sync.Mutex
	var runs []string
	gate := make(chan struct{})
	text := serve.TensorInfo{Name: "text", Type: serve.Bytes, Shape: []int64{-1, 2}}
	wide := serve.TensorInfo{Name: "x", Type: serve.FP32, Shape: []int64{-1, -1}}
	m := echoModel("m", wide, text)
	m.info.Options.Batching.Max = 10
	m.run = func(ctx context.Context, in, out []serve.Tensor) error {
		mu.Lock()
		var wanted []string
		for _, o := range out {
			wanted = append(wanted, o.Name)
		}
		runs = append(runs, fmt.Sprint(in[0].Shape, in[1].Shape, wanted))
		mu.Unlock()
		<-gate
		return echo(ctx, in, out)
	}
	synctest.Test(t, func(t *testing.T) {
		gate = make(chan struct{})
		b := newBubble(t, serve.Options{Cores: 1}, m)
		defer b.finish()
		type pair struct {
			c    <-chan outcome
			want []string
		}
		var all []pair
		ask := func(width int, x, words, output string, want ...string) {
			body := fmt.Sprintf(`{"inputs":[{"name":"x","shape":[1,%d],"datatype":"FP32","data":%s},{"name":"text","shape":[1,2],"datatype":"BYTES","data":%s}]%s}`,
				width, x, words, output)
			all = append(all, pair{b.do(t.Context(), "POST", "/v2/models/m/infer", body), want})
			synctest.Wait()
		}
		ask(1, "[0]", `["first","one"]`, "", `"data":[0]`, `"data":["first","one"]`)
		ask(2, "[1,2]", `["","long enough"]`, "", `"data":[1,2]`, `"data":["","long enough"]`)
		ask(3, "[3,4,5]", `["another","width"]`, "", `"data":[3,4,5]`, `"data":["another","width"]`)
		ask(2, "[6,7]", `["a","b"]`, `,"outputs":[{"name":"out_text"}]`, `"outputs":[{"name":"out_text","datatype":"BYTES","shape":[1,2],"data":["a","b"]}]`)
		ask(3, "[8,9,10]", `["c",""]`, `,"outputs":[{"name":"out_x"}]`, `"outputs":[{"name":"out_x","datatype":"FP32","shape":[1,3],"data":[8,9,10]}]`)
		close(gate)
		for i, p := range all {
			o := <-p.c
			for _, want := range p.want {
				if o.code != 200 || !strings.Contains(o.body, want) {
					t.Errorf("request %d got %+v, want %s", i, o, want)
				}
			}
		}
	})
	want := []string{"[1 1] [1 2] [out_x out_text]", "[2 2] [2 2] [out_x out_text]", "[2 3] [2 2] [out_x out_text]"}
	if !slices.Equal(runs, want) {
		t.Errorf("runs %q, want %q", runs, want)
	}
}

// TestBatchingOfInconstantModels has models that break their word about batches only when there is one.
func TestBatchingOfInconstantModels(t *testing.T) {
	for name, spoil := range map[string]func(out []serve.Tensor){
		"items":  func(out []serve.Tensor) { out[0].Shape, out[0].Data = []int64{1, 3}, out[0].Data[:12] },
		"bytes":  func(out []serve.Tensor) { out[0].Data = out[0].Data[:4] },
		"panics": func([]serve.Tensor) { panic("a bug") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newGated()
				m.info.Options.Batching.Max = 4
				inner := m.run
				m.run = func(ctx context.Context, in, out []serve.Tensor) error {
					err := inner(ctx, in, out)
					if in[0].Shape[0] > 1 {
						spoil(out)
					}
					return err
				}
				b := newBubble(t, serve.Options{Cores: 1}, m)
				defer b.finish()
				var all []<-chan outcome
				for range 4 {
					all = append(all, b.infer(t.Context(), ""))
					synctest.Wait()
				}
				close(m.gate)
				for i, c := range all {
					want := 200
					if name == "panics" && i > 0 {
						want = 500
					}
					if o := <-c; o.code != want {
						t.Errorf("request %d got %+v, want %d", i, o, want)
					}
				}
				if o := <-b.infer(t.Context(), ""); o.code != 200 {
					t.Errorf("afterwards: %+v", o)
				}
			})
		})
	}
}

func TestBatchingNeedsABatchDimension(t *testing.T) {
	m := echoModel("m", serve.TensorInfo{Name: "x", Type: serve.FP32, Shape: []int64{1, 3}})
	m.info.Options.Batching.Max = 4
	if _, err := serve.New(serve.Options{HTTP: "127.0.0.1:0", Logger: quiet()}, m); err == nil || !strings.Contains(err.Error(), "batching") {
		t.Errorf("New: %v", err)
	}
}

func TestBatchingOfPictures(t *testing.T) {
	m := serve.Classifier()
	url := start(t, serve.Options{}, serve.WithBatching(m, serve.Batching{Max: 4, Delay: time.Hour, Preferred: []int{2}}))
	var answers sync.WaitGroup
	picture := serve.SeedImages(t)["image/png"]
	var got [2]reply
	for i := range got {
		answers.Go(func() { got[i] = send(t, "POST", url+"/v2/models/c/classify", nil, picture) })
	}
	answers.Wait()
	if got[0].code != http.StatusOK || string(got[0].body) != string(got[1].body) {
		t.Errorf("got %+v", got)
	}
}
