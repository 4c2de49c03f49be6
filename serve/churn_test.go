package serve_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"spos/serve"
)

// watched is an echo that knows how it is treated.
type watched struct {
	fake
	running atomic.Int64
	closed  atomic.Int64
	wrong   *atomic.Int64
}

func (w *watched) Run(ctx context.Context, in, out []serve.Tensor) error {
	w.running.Add(1)
	defer w.running.Add(-1)
	err := echo(ctx, in, out)
	if w.closed.Load() > 0 {
		w.wrong.Add(1)
	}
	return err
}

func (w *watched) Close() error {
	if w.closed.Add(1) > 1 || w.running.Load() > 0 {
		w.wrong.Add(1)
	}
	return nil
}

// churn is a Source that changes at random, and of which some loads fail.
type churn struct {
	mu    sync.Mutex
	rand  *rand.Rand
	found map[string]serve.Listing
	all   []*watched
	wrong atomic.Int64
}

func (c *churn) Scan(context.Context) (map[string]serve.Listing, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := map[string]serve.Listing{}
	maps.Copy(now, c.found)
	return now, nil
}

// step changes one model: what is listed, in which revision, and under which policy. Version 1 of "m" always works.
func (c *churn) step() {
	c.mu.Lock()
	defer c.mu.Unlock()
	name := [...]string{"m", "n"}[c.rand.IntN(2)]
	policies := [...]serve.VersionPolicy{{}, {}, {Latest: 1}, {Latest: 2}, {All: true}, {Specific: []string{"1", "3"}}}
	l := serve.Listing{Versions: map[string]string{}, Options: serve.ModelOptions{Policy: policies[c.rand.IntN(len(policies))]}}
	for v := 1; v <= 4; v++ {
		if name == "m" && v == 1 || c.rand.IntN(2) == 0 {
			l.Versions[fmt.Sprint(v)] = fmt.Sprint(c.rand.IntN(3))
		}
	}
	if c.found[name] = l; len(l.Versions) == 0 {
		delete(c.found, name)
	}
}

func (c *churn) Load(_ context.Context, name, version string) (serve.Model, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.found[name]
	revision, ok := l.Versions[version]
	if always := name == "m" && version == "1"; !ok || !always && c.rand.IntN(4) == 0 {
		return nil, errors.New("no luck")
	}
	m := &watched{fake: *echoModel(name, fp32x3), wrong: &c.wrong}
	m.info.Version, m.info.Revision, m.info.Options = version, revision, l.Options
	c.all = append(c.all, m)
	return m, nil
}

// TestChurn lets everything happen at once: polls, loads by clients and on demand, unloads, and requests. No model may
// run after it was closed, be closed under a run or twice, or stay open; and m, of which a version always works, may
// not be missed for a moment.
func TestChurn(t *testing.T) {
	c := &churn{rand: rand.New(rand.NewPCG(1, 2)), found: map[string]serve.Listing{"m": {Versions: map[string]string{"1": "0"}}}}
	srv, err := serve.New(serve.Options{HTTP: "127.0.0.1:0", Logger: quiet(), Source: c, Poll: time.Millisecond, ModelControl: true})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	url := "http://" + srv.Addr().String() + "/v2/"
	if code, err := poke("POST", url+"repository/models/m/load"); err != nil || code != 200 {
		t.Fatal(code, err)
	}
	over, finish := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	var served atomic.Int64
	for _, ways := range [][]string{
		{"m"}, {"m"}, {"m/versions/1", "m/versions/2", "m/versions/3", "m/versions/4"}, {"n", "n/versions/1", "n/versions/3"},
	} {
		clients.Go(func() {
			for i := 0; over.Err() == nil; i++ {
				way := ways[i%len(ways)]
				code, err := poke("POST", url+"models/"+way+"/infer")
				switch {
				case err != nil:
					t.Error(err)
					return
				case code == 200:
					served.Add(1)
				case way == "m" || code != 404 && code != 503:
					t.Errorf("%s: %d", way, code)
					return
				}
			}
		})
	}
	for i := range 400 {
		c.step()
		path := [...]string{"repository/models/m/load", "repository/models/n/load", "repository/models/n/unload", "repository/index"}[i%4]
		if code, err := poke("POST", url+path); err != nil || code >= 500 {
			t.Errorf("%s: %d %v", path, code, err)
		}
	}
	finish()
	clients.Wait()
	stop()
	http.DefaultClient.CloseIdleConnections()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
	for _, m := range c.all {
		if m.closed.Load() != 1 {
			t.Errorf("%s version %s was closed %d times", m.info.Name, m.info.Version, m.closed.Load())
		}
	}
	if c.wrong.Load() > 0 || served.Load() == 0 {
		t.Errorf("%d wrongs at %d requests", c.wrong.Load(), served.Load())
	}
	t.Logf("%d loads, %d requests", len(c.all), served.Load())
}

// poke sends an inference, or an empty body to other paths.
func poke(method, url string) (int, error) {
	body := ""
	if strings.HasSuffix(url, "infer") {
		body = jsonBody("[1,3]", "[1,2,3]")
	}
	r, err := http.NewRequestWithContext(context.Background(), method, url, strings.NewReader(body))
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, errors.Join(err, resp.Body.Close())
}
