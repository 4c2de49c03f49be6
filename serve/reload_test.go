package serve_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"spos/serve"
)

// dense is an ONNX model of y = x·W with x of [N, n] and every weight of W, [n, n], the same.
func dense(n int, weight float32) []byte {
	type fields = []byte
	text := func(b fields, num protowire.Number, s string) fields {
		return protowire.AppendString(protowire.AppendTag(b, num, protowire.BytesType), s)
	}
	number := func(b fields, num protowire.Number, v uint64) fields {
		return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), v)
	}
	const float, batch = 1, "N"
	value := func(name string) string {
		free, fixed := text(nil, 2, batch), number(nil, 1, uint64(n))
		shape := text(text(nil, 1, string(free)), 1, string(fixed))
		tensor := text(number(nil, 1, float), 2, string(shape))
		return string(text(text(nil, 1, name), 2, string(text(nil, 1, string(tensor)))))
	}
	weights := make([]byte, 4*n*n)
	for i := 0; i < len(weights); i += 4 {
		binary.LittleEndian.PutUint32(weights[i:], math.Float32bits(weight))
	}
	w := number(number(number(nil, 1, uint64(n)), 1, uint64(n)), 2, float)
	w = text(text(w, 8, "w"), 9, string(weights))
	node := text(text(text(text(nil, 1, "x"), 1, "w"), 2, "y"), 4, "MatMul")
	graph := text(text(text(nil, 1, string(node)), 2, "g"), 5, string(w))
	graph = text(text(graph, 11, value("x")), 12, value("y"))
	return text(text(number(nil, 1, 8), 7, string(graph)), 8, string(number(nil, 2, 17)))
}

// replace puts a file into its place at once, as a careful program does.
func replace(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".new", data, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// indexed is the index of a server, "m/1 READY reason; …".
func indexed(t testing.TB, url string) string {
	t.Helper()
	r := send(t, "POST", url+"/v2/repository/index", nil, nil)
	var all []serve.IndexEntry
	if err := json.Unmarshal(r.body, &all); err != nil {
		t.Fatalf("%d %s", r.code, r.body)
	}
	var lines []string
	for _, e := range all {
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s/%s %s %s", e.Name, e.Version, e.State, e.Reason)))
	}
	return strings.Join(lines, "; ")
}

// load asks for a load and returns the status.
func load(t testing.TB, url, name string) int {
	t.Helper()
	return send(t, "POST", url+"/v2/repository/models/"+name+"/load", nil, nil).code
}

func TestConfigFile(t *testing.T) {
	library(t)
	dir := repository(t, map[string]string{
		"m/1": "testdata/picture.onnx", "m/2": "testdata/no_metadata.onnx", "m/3": "testdata/picture.onnx",
		"typo/1": "testdata/picture.onnx", "plain/1": "testdata/picture.onnx",
	})
	write := func(name, text string) {
		t.Helper()
		replace(t, filepath.Join(dir, name, "config.yaml"), []byte(text))
	}
	write("m", "version_policy:\n  latest: 2\nlabels:\n  stable: 1\n  new: \"3\"\nmode: latency\nqueue: 7\ntimeout: 2s\nmax_batch: 2\nwarmup: 3\n")
	write("typo", "labls:\n  stable: 1\n")
	url := startONNX(t, dir, serve.Options{ModelControl: true, Cores: 2}, quiet())
	typo := "config.yaml:1:1: labls: no such key (labels?)"
	if got := indexed(t, url); !strings.HasPrefix(got, "m/1 READY; m/2 READY; m/3 READY; plain/1 READY; typo/1 UNAVAILABLE config.yaml:1:1: labls: no such key") {
		t.Errorf("index %s, want %s", got, typo)
	}
	config := string(send(t, "GET", url+"/v2/models/m/versions/new/config", nil, nil).body)
	for _, want := range []string{`"version_policy":{"latest":{"num_versions":2}}`, `"max_batch_size":2`, `"count":1}`, `"format":"FORMAT_NCHW"`} {
		if !strings.Contains(config, want) {
			t.Errorf("no %s in %s", want, config)
		}
	}
	wantError(t, send(t, "POST", url+"/v2/models/m/infer", map[string]string{lengthHeader: "0"}, make([]byte, 3*4*3*224*224)), 400, "a batch of 3")
	for bad, want := range map[string]string{
		"version_policy: {latest: 1, all: true}": "use one of",
		"version_policy: {specific: [0]}":        "is no version",
		"labels: {7: 1}":                         "is no name",
		"labels: {stable: x}":                    "is no version",
		"mode: fast":                             "neither",
		"queue: -1":                              "negative",
		"timeout: -1s":                           "negative",
		"warmup: 1000":                           "more than",
		"threads: many":                          "threads",
	} {
		write("plain", bad)
		r := send(t, "POST", url+"/v2/repository/models/plain/load", nil, nil)
		wantError(t, r, 400, want)
		if got := indexed(t, url); !strings.Contains(got, "plain/1 READY the version before") {
			t.Errorf("%s: %s", bad, got)
		}
	}
	write("plain", "labels: {stable: 1}")
	if code := load(t, url, "plain"); code != 200 {
		t.Errorf("mended: %d", code)
	}
	if r := send(t, "GET", url+"/v2/models/plain/versions/stable/ready", nil, nil); r.code != 200 || !strings.Contains(indexed(t, url), "plain/1 READY; typo") {
		t.Errorf("mended: %d %s, %s", r.code, r.body, indexed(t, url))
	}
}

// TestHostileRepository puts into a repository what does not belong there while it is served.
func TestHostileRepository(t *testing.T) {
	library(t)
	dir := repository(t, map[string]string{
		"good/1": "testdata/picture.onnx", "empty/1": ortModels + "/bad/empty.onnx", "torn/1": ortModels + "/bad/truncated.onnx",
		"outside/1": ortModels + "/bad/external.onnx", "deep/1": ortModels + "/bad/external_inner.onnx",
	})
	secret := filepath.Join(t.TempDir(), "model.onnx")
	replace(t, secret, dense(2, 1))
	for path, make := range map[string]func(path string) error{
		"link/1/model.onnx": func(p string) error { return os.Symlink(secret, p) },
		"up/1/model.onnx": func(p string) error {
			return os.Symlink("../../../"+filepath.Base(filepath.Dir(secret))+"/model.onnx", p)
		},
		"loop/1/model.onnx":  func(p string) error { return os.Symlink("model.onnx", p) },
		"pipe/1/model.onnx":  fifo,
		"dir/1/model.onnx":   func(p string) error { return os.Mkdir(p, 0o755) },
		"large/1/model.onnx": func(p string) error { return sparse(p, 3<<30) },
		"options/config.yaml": func(p string) error {
			replace(t, filepath.Join(filepath.Dir(p), "1", "model.onnx"), dense(2, 1))
			return fifo(p)
		},
		"inside/1/model.onnx": func(p string) error { return os.Symlink("../../good/1/model.onnx", p) },
		"a\nb/1/model.onnx":   func(p string) error { return os.WriteFile(p, dense(2, 1), 0o644) },
		"a\\b/1/model.onnx":   func(p string) error { return os.WriteFile(p, dense(2, 1), 0o644) },
		"\xff/1/model.onnx":   func(p string) error { return os.WriteFile(p, dense(2, 1), 0o644) },
	} {
		full := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := make(full); err != nil {
			t.Fatal(err)
		}
	}
	url := startONNX(t, dir, serve.Options{ModelControl: true}, quiet())
	index := indexed(t, url)
	for _, want := range []string{
		"good/1 READY", "inside/1 READY", "empty/1 UNAVAILABLE model.onnx has 0 bytes", "torn/1 UNAVAILABLE ",
		"outside/1 UNAVAILABLE ort: load outside version 1: ort: the model keeps weights in other files", "deep/1 UNAVAILABLE ",
		"link/1 UNAVAILABLE ", "up/1 UNAVAILABLE ", "loop/1 UNAVAILABLE ", "pipe/1 UNAVAILABLE model.onnx is not a regular file",
		"dir/1 UNAVAILABLE model.onnx is not a regular file", "large/1 UNAVAILABLE model.onnx has 3221225472 bytes",
		"options/1 UNAVAILABLE config.yaml is not a regular file",
	} {
		if !strings.Contains(index, want) {
			t.Errorf("the index does not say %q", want)
		}
	}
	if strings.Contains(index, dir) || strings.Contains(index, secret) || strings.Contains(index, "b/1") || strings.Contains(index, "\xff") {
		t.Errorf("the index says too much: %s", index)
	}
	for name, code := range map[string]int{"good": 200, "inside": 200, "link": 400, "pipe": 400, "large": 400, "options": 400} {
		if got := load(t, url, name); got != code {
			t.Errorf("load %s: %d, want %d", name, got, code)
		}
	}
	if r := send(t, "GET", url+"/v2/models/good/ready", nil, nil); r.code != 200 {
		t.Errorf("good: %d %s", r.code, r.body)
	}
}

// TestHalfWrittenModel copies a model as slowly as a bad network does.
func TestHalfWrittenModel(t *testing.T) {
	library(t)
	dir := repository(t, map[string]string{"m/1": "testdata/picture.onnx"})
	url := startONNX(t, dir, serve.Options{Poll: 5 * time.Millisecond}, quiet())
	path := filepath.Join(dir, "m", "2", "model.onnx")
	if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	until := func(what string) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); !strings.Contains(indexed(t, url), what); {
			if time.Now().After(deadline) {
				t.Fatalf("%s, want %s", indexed(t, url), what)
			}
			if v := version(t, url); v != "1" && what != "m/2 READY" {
				t.Fatalf("version %s answered", v)
			}
		}
	}
	data := dense(16, 1)
	for _, part := range [][]byte{data[:10], data[10:500], data[500 : len(data)-1]} {
		if _, err := f.Write(part); err != nil {
			t.Fatal(err)
		}
		until("m/2 UNAVAILABLE") // the writer pauses for longer than a look at the repository takes
	}
	if _, err := f.Write(data[len(data)-1:]); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	until("m/2 READY")
	if v := version(t, url); v != "2" {
		t.Errorf("version %s answers", v)
	}
	if err := os.RemoveAll(filepath.Dir(path)); err != nil {
		t.Fatal(err)
	}
	for version(t, url) != "1" {
		runtime.Gosched()
	}
}

// version is the version that a request without one reaches.
func version(t testing.TB, url string) string {
	t.Helper()
	r := send(t, "GET", url+"/v2/models/m", nil, nil)
	var meta struct{ Versions []string }
	if err := json.Unmarshal(r.body, &meta); err != nil || r.code != 200 {
		t.Fatalf("%d %s", r.code, r.body)
	}
	r = send(t, "GET", url+"/v2/models/m/config", nil, nil)
	if strings.Contains(string(r.body), "FORMAT_NCHW") {
		return "1"
	}
	return "2"
}

// traffic asks for y = x·W from several clients until it is stopped, and holds every answer to be of a whole model.
type traffic struct {
	asked, bad atomic.Int64
	first      sync.Once
	why        string
	stop       context.CancelFunc
	clients    sync.WaitGroup
}

func newTraffic(t testing.TB, url string, n, clients int, right func(y float32) bool) *traffic {
	tr := &traffic{}
	ctx, stop := context.WithCancel(t.Context())
	tr.stop = stop
	body := make([]byte, 4*n)
	for i := range n {
		binary.LittleEndian.PutUint32(body[4*i:], math.Float32bits(1))
	}
	for range clients {
		tr.clients.Go(func() {
			for ctx.Err() == nil {
				if err := ask(url, body, n, right); err != nil {
					tr.bad.Add(1)
					tr.first.Do(func() { tr.why = err.Error() })
				}
				tr.asked.Add(1)
			}
		})
	}
	return tr
}

// ask sends one request, which its client sees to the end.
func ask(url string, body []byte, n int, right func(y float32) bool) error {
	r, err := http.NewRequestWithContext(context.Background(), "POST", url+"/v2/models/m/infer", bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set(lengthHeader, "0")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	head, err := strconv.Atoi(resp.Header.Get(lengthHeader))
	if resp.StatusCode != 200 || err != nil || len(answer)-head != 4*n {
		return fmt.Errorf("%d %.200q", resp.StatusCode, answer)
	}
	for i := head; i < len(answer); i += 4 {
		y := math.Float32frombits(binary.LittleEndian.Uint32(answer[i:]))
		if !right(y) || y != math.Float32frombits(binary.LittleEndian.Uint32(answer[head:])) {
			return fmt.Errorf("the answer is of no model that was ever there: %v at %d", y, (i-head)/4)
		}
	}
	return nil
}

func (tr *traffic) end(t testing.TB) {
	t.Helper()
	tr.stop()
	tr.clients.Wait()
	if tr.bad.Load() > 0 || tr.asked.Load() == 0 {
		t.Errorf("%d of %d requests went wrong; the first: %s", tr.bad.Load(), tr.asked.Load(), tr.why)
	}
}

// TestReloadsUnderLoad swaps two models, and now and then a broken one, while clients ask. The long loop is
// make soak-serve.
func TestReloadsUnderLoad(t *testing.T) {
	library(t)
	reloads := 40
	if n, err := strconv.Atoi(os.Getenv("SPOS_SOAK")); err == nil {
		reloads = n
	}
	const n = 512 // a megabyte of weights
	dir := t.TempDir()
	path := filepath.Join(dir, "m", "1", "model.onnx")
	models := [][]byte{dense(n, 1), dense(n, 2), []byte("torn")}
	replace(t, path, models[0])
	url := startONNX(t, dir, serve.Options{ModelControl: true}, quiet())
	clients := newTraffic(t, url, n, 3, func(y float32) bool { return y == n || y == 2*n })
	var early uint64
	for i := range reloads {
		which := i % 2
		if i%5 == 4 {
			which = 2
		}
		replace(t, path, models[which])
		if code := load(t, url, "m"); (code == 200) != (which < 2) {
			t.Fatalf("reload %d of model %d: %d", i, which, code)
		}
		if i == reloads/4 {
			early = resident(t)
		}
		if i%100 == 99 {
			t.Logf("%d reloads, %d requests, %d MiB resident", i+1, clients.asked.Load(), resident(t)>>20)
		}
	}
	clients.end(t)
	// Three quarters of the reloads may cost less than a model for every ten of them.
	late, allowed := resident(t), early+uint64(max(reloads/10, 16))<<20
	t.Logf("%d reloads and %d requests: %d MiB after a quarter, %d MiB after all", reloads, clients.asked.Load(), early>>20, late>>20)
	if late > allowed {
		t.Errorf("memory grew from %d to %d MiB", early>>20, late>>20)
	}
}

// TestNewVersionsUnderLoad publishes one version after another and removes the old ones, as a deployment does.
func TestNewVersionsUnderLoad(t *testing.T) {
	library(t)
	const n, versions = 64, 12
	dir := t.TempDir()
	place := func(v int) string { return filepath.Join(dir, "m", strconv.Itoa(v), "model.onnx") }
	replace(t, place(1), dense(n, 1))
	url := startONNX(t, dir, serve.Options{Poll: 2 * time.Millisecond}, quiet())
	clients := newTraffic(t, url, n, 3, func(y float32) bool { return y >= n && y <= versions*n })
	for v := 2; v <= versions; v++ {
		data := dense(n, float32(v))
		if v%4 == 0 {
			data = data[:len(data)/2]
		}
		replace(t, place(v), data)
		state := "READY"
		if v%4 == 0 {
			state = "UNAVAILABLE"
		}
		for !strings.Contains(indexed(t, url), fmt.Sprintf("m/%d %s", v, state)) {
			runtime.Gosched()
		}
		if old := v - 2; old > 0 {
			if err := os.RemoveAll(filepath.Dir(place(old))); err != nil {
				t.Fatal(err)
			}
		}
	}
	clients.end(t)
}

// TestStopUnderLoad stops a server whose clients do not: every request that it accepted is answered.
func TestStopUnderLoad(t *testing.T) {
	rt := library(t)
	const n = 256
	dir := t.TempDir()
	replace(t, filepath.Join(dir, "m", "1", "model.onnx"), dense(n, 1))
	repo, err := serve.OpenRepository(t.Context(), dir, serve.RepositoryOptions{Runtime: rt, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	defer repo.Close()
	log := &counter{Handler: slog.DiscardHandler}
	srv, err := serve.New(serve.Options{HTTP: "127.0.0.1:0", Logger: slog.New(log), Source: repo}, repo.Models()...)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	url := "http://" + srv.Addr().String()
	var answered, failed atomic.Int64
	var clients sync.WaitGroup
	body := make([]byte, 4*n)
	for range 4 {
		clients.Go(func() {
			for {
				err := ask(url, body, n, func(y float32) bool { return y == 0 })
				if err == nil {
					answered.Add(1)
					if answered.Load() == 50 {
						stop()
					}
					continue
				}
				// A connection that is refused or closed before its request was read is no accepted request.
				if ctx.Err() == nil || strings.HasPrefix(err.Error(), "5") {
					failed.Add(1)
					t.Error(err)
				}
				return
			}
		})
	}
	clients.Wait()
	http.DefaultClient.CloseIdleConnections()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
	if logged := log.requests.Load(); logged != answered.Load() || failed.Load() > 0 {
		t.Errorf("the server dealt with %d requests, the clients have %d answers and %d failures", logged, answered.Load(), failed.Load())
	}
}

// counter counts the requests that a log tells of.
type counter struct {
	slog.Handler
	requests atomic.Int64
}

func (c *counter) Enabled(context.Context, slog.Level) bool { return true }

func (c *counter) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "request" {
		c.requests.Add(1)
	}
	return nil
}

// resident is the memory of this process, after a collection.
func resident(t testing.TB) uint64 {
	t.Helper()
	freeMemory()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Skip(err)
	}
	pages, err := strconv.ParseUint(strings.Fields(string(text))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * uint64(os.Getpagesize())
}
