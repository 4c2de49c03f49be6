package serve_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"spos/serve"
)

// hostile is an input of someone who means harm, or of a client that is broken. The numbers are those of a list of 54
// such inputs; one number may have several rows.
type hostile struct {
	n    int
	name string
	// send is how the input gets to the server.
	send func(*ground) reply
	// codes are the answers that are right. 0: the connection is closed without one.
	codes []int
	// part is in the error's text.
	part string
	// early: net/http answers by itself, in plain text, before there is a request.
	early bool
	also  func(*testing.T, *ground, reply)

	// test stands instead of all others for what needs servers of its own.
	test func(*testing.T)
}

// numbers is how many there are.
const numbers = 54

// TestHostile sends all of them to one server. After each number it must answer a good request as ever, hold no memory
// of requests, have counted what it was asked and met no bug.
func TestHostile(t *testing.T) {
	rows := slices.Concat(hostileJSON(), hostileTensors(), hostileTransport(t), hostileClients(t), hostileNames(), hostileRepositories(), hostilePictures(t))
	slices.SortStableFunc(rows, func(a, b hostile) int { return a.n - b.n })
	g := newGround(t)
	before := g.rest()
	for n := range numbers {
		n++
		some := slices.DeleteFunc(slices.Clone(rows), func(h hostile) bool { return h.n != n })
		if len(some) == 0 {
			t.Errorf("number %d has no row", n)
		}
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			for _, h := range some {
				t.Run(h.name, func(t *testing.T) { h.run(t, g) })
			}
			g.check(t, before)
		})
	}
}

func (h hostile) run(t *testing.T, g *ground) {
	if h.test != nil {
		h.test(t)
		return
	}
	g.t = t
	counted := g.counted()
	r := h.send(g)
	if !slices.Contains(h.codes, r.code) {
		t.Fatalf("%d %.300s, want %v", r.code, r.body, h.codes)
	}
	head := r.header.Get("Content-Length") != "" && len(r.body) == 0 // HEAD, of which the form of errors is not seen
	switch {
	case h.early:
		if len(r.body) > 100 || r.code != 0 && r.header.Get("Connection") != "close" {
			t.Errorf("net/http answered %q and leaves the connection %q", r.body, r.header.Get("Connection"))
		}
	case r.code >= 400 && !head:
		wantError(t, r, r.code, h.part)
		if strings.Contains(string(r.body), "goroutine") {
			t.Errorf("the error shows a stack: %s", r.body)
		}
	}
	if now := g.counted(); r.code != 0 && !h.early && now <= counted {
		t.Errorf("%v requests were counted, and %v before", now, counted)
	}
	if h.also != nil {
		h.also(t, g, r)
	}
}

// ground is the server under attack.
type ground struct {
	t        *testing.T // of the row
	server   *serve.Server
	addr     string
	registry *prometheus.Registry
	shelf    *shelf
}

// Limits of the ground's server.
const (
	groundBody  = 16 << 20
	groundImage = 2 << 20
)

func newGround(t *testing.T) *ground {
	t.Helper()
	nan := &fake{info: echoModel("nan", fp32x3).info}
	nan.run = func(_ context.Context, _, out []serve.Tensor) error {
		out[0].Shape, out[0].Data = []int64{1, 3}, []byte("\x00\x00\xc0\x7f\x00\x00\x80\x7f\x00\x00\x80\xff")
		return nil
	}
	g := &ground{t: t, registry: prometheus.NewRegistry(), shelf: newShelf()}
	o := serve.Options{
		HTTP: "127.0.0.1:0", Logger: quiet(), Registry: g.registry, Source: g.shelf, ModelControl: true,
		MaxBody: groundBody, MaxImage: groundImage, Memory: 128 << 20,
	}
	s, err := serve.New(o, echoModel("m", fp32x3), nan, serve.Classifier(),
		echoModel("two", fp32x3, serve.TensorInfo{Name: "y", Type: serve.FP32, Shape: []int64{-1, 3}}),
		echoModel("any", serve.TensorInfo{Name: "x", Type: serve.FP32, Shape: []int64{-1, -1}}),
		echoModel("u8", serve.TensorInfo{Name: "x", Type: serve.Uint8, Shape: []int64{-1}}),
		echoModel("text", serve.TensorInfo{Name: "x", Type: serve.Bytes, Shape: []int64{-1}}))
	if err != nil {
		t.Fatal(err)
	}
	g.server, g.addr = s, s.Addr().String()
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return g
}

// good is a request that works, and its answer.
var (
	good       = infer("m", jsonBody("[1,3]", "[1,2.5,-3]"))
	goodAnswer = `{"model_name":"m","model_version":"1","outputs":[{"name":"out_x","datatype":"FP32","shape":[1,3],"data":[1,2.5,-3]}]}`
)

// footprint is what a process that has nothing to do holds.
type footprint struct {
	heap       uint64
	goroutines int
}

// rest is the footprint after a good request.
func (g *ground) rest() footprint {
	if r := good(g); r.code != 200 || string(r.body) != goodAnswer {
		g.t.Errorf("a good request got %d %s", r.code, r.body)
	}
	runtime.GC()
	runtime.GC() // what is pooled outlives one
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return footprint{m.HeapAlloc, runtime.NumGoroutine()}
}

func (g *ground) check(t *testing.T, before footprint) {
	t.Helper()
	g.t = t
	now := g.rest()
	for range 1000 { // goroutines of connections that are over end when they are scheduled
		if now.goroutines <= before.goroutines+2 { // t.Run's
			break
		}
		time.Sleep(time.Millisecond)
		now.goroutines = runtime.NumGoroutine()
	}
	if now.goroutines > before.goroutines+2 {
		t.Errorf("%d goroutines, there were %d", now.goroutines, before.goroutines)
	}
	if now.heap > before.heap+before.heap/4+4<<20 {
		t.Errorf("%d bytes are on the heap, there were %d", now.heap, before.heap)
	}
	if held := serve.Held(g.server); held != 0 {
		t.Errorf("%d bytes of requests are held", held)
	}
	if n := g.sum("spos_serve_panics_total"); n != 0 {
		t.Errorf("the server met %v bugs", n)
	}
}

// counted is how many requests the server has answered.
func (g *ground) counted() float64 { return g.sum("spos_serve_requests_total") }

func (g *ground) sum(metric string) (sum float64) {
	g.t.Helper()
	families, err := g.registry.Gather()
	if err != nil {
		g.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == metric {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

// wire sends bytes as they are over a connection of their own, and reads until the server closes it: a request that has
// been answered is over in the server, too.
func (g *ground) wire(text string) reply { return exchange(g.t, g.addr, text) }

func exchange(t testing.TB, addr, text string) (r reply) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	var writer sync.WaitGroup
	writer.Go(func() { _, _ = io.WriteString(conn, text) }) // the server may stop reading
	defer writer.Wait()
	defer conn.Close()
	method, _, _ := strings.Cut(text, " ")
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		return reply{}
	}
	r = reply{code: resp.StatusCode, header: resp.Header}
	if resp.Close {
		r.header.Set("Connection", "close") // ReadResponse takes it out
	}
	r.body, _ = io.ReadAll(resp.Body)
	if resp.Close {
		_, _ = io.Copy(io.Discard, conn)
	}
	return r
}

// written is a request's text. Lines of the header come as they are.
func written(method, path, body string, lines ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n", method, path, len(body))
	for _, line := range lines {
		b.WriteString(line + "\r\n")
	}
	return b.String() + "\r\n" + body
}

func request(method, path, body string, lines ...string) func(*ground) reply {
	return func(g *ground) reply { return g.wire(written(method, path, body, lines...)) }
}

func infer(model, body string, lines ...string) func(*ground) reply {
	return request("POST", "/v2/models/"+model+"/infer", body, lines...)
}

// bytesOf is a send that measures what the process allocates for it, the test's own side included.
func bytesOf(send func(*ground) reply, most uint64) func(*ground) reply {
	return func(g *ground) reply {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		r := send(g)
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > most {
			g.t.Errorf("%d bytes were allocated, want no more than %d", n, most)
		}
		return r
	}
}
