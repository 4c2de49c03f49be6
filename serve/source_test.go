package serve_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"spos/serve"
)

// shelf is a Source whose content a test changes. Its models are gated, and named after their revision.
type shelf struct {
	mu     sync.Mutex
	found  map[string]serve.Listing
	err    error             // of Scan
	broken map[string]string // revisions that cannot be loaded, and why
	loads  []string          // revisions, in order
	all    []*gated
	hold   chan struct{} // when not nil, Load waits for it
}

func newShelf() *shelf {
	return &shelf{found: map[string]serve.Listing{}, broken: map[string]string{}}
}

// put sets what Scan says of a model: versions and revisions by turns.
func (s *shelf) put(name string, o serve.ModelOptions, pairs ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := serve.Listing{Versions: map[string]string{}, Options: o}
	for i := 0; i < len(pairs); i += 2 {
		l.Versions[pairs[i]] = pairs[i+1]
	}
	s.found[name] = l
}

func (s *shelf) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *shelf) Scan(context.Context) (map[string]serve.Listing, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.found), s.err
}

func (s *shelf) Load(_ context.Context, name, version string) (serve.Model, error) {
	s.mu.Lock()
	hold := s.hold
	s.mu.Unlock()
	if hold != nil {
		<-hold
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.found[name]
	revision := l.Versions[version]
	s.loads = append(s.loads, revision)
	if why := s.broken[revision]; why != "" {
		return nil, errors.New(why)
	}
	m := newGated()
	m.info.Name, m.info.Version, m.info.Revision, m.info.Options = name, version, revision, l.Options
	m.info.Platform = revision
	s.all = append(s.all, m)
	return m, nil
}

// model is the model that was made of a revision; the last if there were more.
func (s *shelf) model(revision string) *gated {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range slices.Backward(s.all) {
		if m.info.Revision == revision {
			return m
		}
	}
	return nil
}

// open lets all present and later runs through.
func (s *shelf) open() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.all {
		select {
		case <-m.gate:
		default:
			close(m.gate)
		}
	}
}

const second = time.Second

// shelved is a server that has polled its shelf twice.
func shelved(t *testing.T, s *shelf, o serve.Options) *bubble {
	t.Helper()
	o.Source, o.Poll, o.ModelControl = s, second, true
	b := newBubble(t, o)
	time.Sleep(second / 2) // between two looks
	polls(2)
	return b
}

// polls lets n looks at the source pass.
func polls(n int) {
	time.Sleep(time.Duration(n) * second)
	synctest.Wait()
}

// finishOpen opens the gates and stops.
func finishOpen(b *bubble, s *shelf) {
	s.open()
	b.finish()
	for _, m := range s.all {
		if !m.closed.Load() || m.late.Load() {
			b.t.Errorf("%s: closed %v, ran after it %v", m.info.Revision, m.closed.Load(), m.late.Load())
		}
	}
}

// who is the revision that answers a path, such as "/v2/models/m", or the status code.
func (b *bubble) who(path string) string {
	b.t.Helper()
	o := <-b.do(b.t.Context(), "GET", path, "")
	var meta struct{ Platform string }
	if o.code != 200 || json.Unmarshal([]byte(o.body), &meta) != nil {
		return fmt.Sprint(o.code)
	}
	return meta.Platform
}

// index is the state of every version, "m/1 READY reason".
func (b *bubble) index() string {
	b.t.Helper()
	o := <-b.do(b.t.Context(), "POST", "/v2/repository/index", "")
	var all []serve.IndexEntry
	if err := json.Unmarshal([]byte(o.body), &all); err != nil || o.code != 200 {
		b.t.Fatalf("index: %d %s", o.code, o.body)
	}
	var lines []string
	for _, e := range all {
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s/%s %s %s", e.Name, e.Version, e.State, e.Reason)))
	}
	return strings.Join(lines, "; ")
}

func (b *bubble) posted(path, body string) outcome {
	b.t.Helper()
	return <-b.do(b.t.Context(), "POST", path, body)
}

func (b *bubble) want(what, got, want string) {
	b.t.Helper()
	if got != want {
		b.t.Errorf("%s: %s\nwant %s", what, got, want)
	}
}

const lazily = "it is loaded when first asked for"

func TestNewVersionTakesOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf()
		s.put("m", serve.ModelOptions{}, "1", "one")
		b := shelved(t, s, serve.Options{})
		defer finishOpen(b, s)
		b.want("at first", b.who("/v2/models/m"), "one")
		running := b.infer(t.Context(), "")
		synctest.Wait()
		s.put("m", serve.ModelOptions{}, "1", "one", "2", "two")
		polls(1)
		b.want("seen once", b.who("/v2/models/m"), "one")
		polls(1)
		b.want("seen twice", b.who("/v2/models/m"), "two")
		b.want("while a request has the old one", b.index(), "m/1 UNLOADING "+lazily+"; m/2 READY")
		if s.model("one").closed.Load() {
			t.Error("closed under a request")
		}
		close(s.model("one").gate)
		if o := <-running; o.code != 200 || !strings.Contains(o.body, `"model_version":"1"`) {
			t.Errorf("the request that had it: %+v", o)
		}
		synctest.Wait()
		if !s.model("one").closed.Load() {
			t.Error("not closed after the last request")
		}
		b.want("afterwards", b.index(), "m/1 UNKNOWN "+lazily+"; m/2 READY")
		b.want("asked for", b.who("/v2/models/m/versions/1"), "one")
		b.want("asked for", b.index(), "m/1 READY; m/2 READY")
	})
}

func TestBrokenVersionDisturbsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf()
		s.put("m", serve.ModelOptions{}, "1", "one")
		b := shelved(t, s, serve.Options{})
		defer finishOpen(b, s)
		s.broken["bad"], s.broken["worse"] = "no graph in /srv/models/m/2/model.onnx", "still none"
		s.put("m", serve.ModelOptions{}, "1", "one", "2", "bad")
		polls(3)
		b.want("a new one is broken", b.who("/v2/models/m"), "one")
		b.want("a new one is broken", b.who("/v2/models/m/versions/2"), "503")
		b.want("a new one is broken", b.index(), "m/1 READY; m/2 UNAVAILABLE no graph in")
		s.put("m", serve.ModelOptions{}, "1", "worse", "2", "bad")
		polls(3)
		b.want("its replacement is broken", b.who("/v2/models/m/versions/1"), "one")
		b.want("its replacement is broken", b.index(), "m/1 READY the version before its last change is served: still none; m/2 UNAVAILABLE no graph in")
		s.put("m", serve.ModelOptions{}, "2", "bad")
		polls(3)
		b.want("what works has gone", b.who("/v2/models/m"), "one")
		if n := len(s.loads); n != 3 {
			t.Errorf("loads %v: what is broken was tried again unchanged", s.loads)
		}
		s.put("m", serve.ModelOptions{}, "2", "good")
		polls(3)
		b.want("mended", b.who("/v2/models/m"), "good")
		b.want("mended", b.index(), "m/2 READY")
		b.want("mended", b.who("/v2/models/m/versions/1"), "404")
		if !s.model("one").closed.Load() {
			t.Error("the old one is still there")
		}
	})
}

func TestBrokenVersionIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf()
		s.broken["one"] = "out of memory"
		s.put("m", serve.ModelOptions{}, "1", "one")
		b := shelved(t, s, serve.Options{})
		defer finishOpen(b, s)
		b.want("at first", b.index(), "m/1 UNAVAILABLE out of memory")
		b.want("at first", b.who("/v2/models/m"), "503")
		s.change(func() { delete(s.broken, "one") })
		polls(57)
		b.want("within a minute", b.index(), "m/1 UNAVAILABLE out of memory")
		polls(4)
		b.want("after a minute", b.index(), "m/1 READY")
		s.change(func() { s.broken["two"] = "out of memory" })
		s.put("m", serve.ModelOptions{}, "1", "one", "2", "two")
		polls(2)
		b.want("asked for", b.who("/v2/models/m/versions/2"), "503")
		s.change(func() { delete(s.broken, "two") })
		b.want("asked for at once", b.who("/v2/models/m/versions/2"), "503")
		polls(10)
		b.want("asked for later", b.who("/v2/models/m/versions/2"), "two")
	})
}

func TestWhatChangesIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf()
		s.put("m", serve.ModelOptions{}, "1", "one")
		b := shelved(t, s, serve.Options{})
		defer finishOpen(b, s)
		for i := range 10 {
			s.put("m", serve.ModelOptions{}, "1", fmt.Sprint("growing", i))
			polls(1)
		}
		if len(s.loads) != 1 {
			t.Errorf("loaded %v while it was written", s.loads)
		}
		s.change(func() { delete(s.found, "m") })
		polls(1)
		s.put("m", serve.ModelOptions{}, "1", "grown")
		polls(1)
		b.want("away for a moment", b.who("/v2/models/m"), "one")
		polls(1)
		b.want("grown", b.who("/v2/models/m"), "grown")
		s.change(func() { s.err = errors.New("stale file handle"); s.found = nil })
		polls(5)
		b.want("unreadable", b.who("/v2/models/m"), "grown")
		s.change(func() { s.err = nil; s.found = map[string]serve.Listing{} })
		polls(3)
		b.want("gone", b.who("/v2/models/m"), "404")
		b.want("gone", b.index(), "")
		if !s.model("grown").closed.Load() {
			t.Error("gone and not closed")
		}
	})
}

func TestBrokenOptionsChangeNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf()
		s.put("m", serve.ModelOptions{Labels: map[string]string{"stable": "1"}}, "1", "one")
		b := shelved(t, s, serve.Options{})
		defer finishOpen(b, s)
		bad := serve.Listing{Versions: map[string]string{"1": "one'"}, Err: errors.New("config.yaml:2:1: labls: no such key")}
		s.change(func() { s.found["m"], s.found["n"] = bad, bad })
		polls(3)
		b.want("the label", b.who("/v2/models/m/versions/stable"), "one")
		b.want("a new model", b.who("/v2/models/n"), "503")
		reason := "config.yaml:2:1: labls: no such key"
		b.want("state", b.index(), "m/1 READY the version before its last change is served: "+reason+"; n/1 UNAVAILABLE "+reason)
		s.put("m", serve.ModelOptions{}, "1", `one"`)
		polls(3)
		b.want("mended", b.who("/v2/models/m"), `one"`)
		b.want("the label", b.who("/v2/models/m/versions/stable"), "404")
	})
}

func TestPolicies(t *testing.T) {
	out := "UNAVAILABLE the model's version_policy leaves it out"
	for name, tt := range map[string]struct {
		o     serve.ModelOptions
		index string // of versions 1, 2, 9, 10, of which 10 is broken
		who   string
	}{
		"none":       {serve.ModelOptions{}, "m/1 UNKNOWN " + lazily + "; m/2 UNKNOWN " + lazily + "; m/9 READY; m/10 UNAVAILABLE broken", "v9"},
		"latest 1":   {serve.ModelOptions{Policy: serve.VersionPolicy{Latest: 1}}, "m/1 " + out + "; m/2 " + out + "; m/9 READY; m/10 UNAVAILABLE broken", "v9"},
		"latest 2":   {serve.ModelOptions{Policy: serve.VersionPolicy{Latest: 2}}, "m/1 " + out + "; m/2 READY; m/9 READY; m/10 UNAVAILABLE broken", "v9"},
		"all":        {serve.ModelOptions{Policy: serve.VersionPolicy{All: true}}, "m/1 READY; m/2 READY; m/9 READY; m/10 UNAVAILABLE broken", "v9"},
		"specific":   {serve.ModelOptions{Policy: serve.VersionPolicy{Specific: []string{"1", "2", "7"}}}, "m/1 READY; m/2 READY; m/9 " + out + "; m/10 " + out, "v2"},
		"labels too": {serve.ModelOptions{Labels: map[string]string{"old": "1"}}, "m/1 READY; m/2 UNKNOWN " + lazily + "; m/9 READY; m/10 UNAVAILABLE broken", "v9"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newShelf()
				s.broken["v10"] = "broken"
				s.put("m", tt.o, "1", "v1", "2", "v2", "9", "v9", "10", "v10")
				b := shelved(t, s, serve.Options{})
				defer finishOpen(b, s)
				b.want("index", b.index(), tt.index)
				b.want("default", b.who("/v2/models/m"), tt.who)
				if strings.Contains(tt.index, "m/1 "+out) {
					b.want("left out", b.who("/v2/models/m/versions/1"), "404")
				}
			})
		})
	}
}

func TestLabels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf()
		s.put("m", serve.ModelOptions{Labels: map[string]string{"stable": "1", "canary": "2", "lost": "7"}}, "1", "one", "2", "two")
		b := shelved(t, s, serve.Options{})
		defer finishOpen(b, s)
		s.open()
		for path, want := range map[string]string{"": "two", "/versions/stable": "one", "/versions/canary": "two", "/versions/lost": "404", "/versions/other": "404"} {
			b.want(path, b.who("/v2/models/m"+path), want)
		}
		if o := b.posted("/v2/models/m/versions/stable/infer", jsonBody("[1,3]", "[1,2,3]")); !strings.Contains(o.body, `"model_version":"1"`) {
			t.Errorf("by a label: %+v", o)
		}
		o := <-b.do(t.Context(), "GET", "/v2/models/m", "")
		if !strings.Contains(o.body, `"label.stable":"1"`) {
			t.Errorf("metadata: %s", o.body)
		}
		s.put("m", serve.ModelOptions{Labels: map[string]string{"stable": "2"}}, "1", "one", "2", "two")
		polls(3)
		b.want("moved", b.who("/v2/models/m/versions/stable"), "two")
	})
}

func TestLoadAndUnload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf()
		s.put("m", serve.ModelOptions{}, "1", "one")
		b := shelved(t, s, serve.Options{})
		defer finishOpen(b, s)
		running := b.infer(t.Context(), "")
		synctest.Wait()
		if o := b.posted("/v2/repository/models/m/unload", `{"parameters":{"unload_dependents":true}}`); o.code != 200 {
			t.Fatalf("unload: %+v", o)
		}
		b.want("unloading", b.index(), "m/1 UNLOADING unloaded")
		b.want("unloading", b.who("/v2/models/m"), "503")
		if o := b.posted("/v2/models/m/versions/1/infer", jsonBody("[1,3]", "[1,2,3]")); o.code != 503 || o.retry == "" {
			t.Errorf("infer: %+v", o)
		}
		s.open()
		if o := <-running; o.code != 200 {
			t.Errorf("the request that had it: %+v", o)
		}
		synctest.Wait()
		b.want("unloaded", b.index(), "m/1 UNAVAILABLE unloaded")
		s.put("m", serve.ModelOptions{}, "1", "one", "2", "two")
		s.put("n", serve.ModelOptions{}, "1", "other")
		polls(3)
		b.want("polling brings nothing back", b.who("/v2/models/m"), "503")
		b.want("a new model is loaded", b.who("/v2/models/n"), "other")
		if o := b.posted("/v2/repository/models/m/load", ""); o.code != 200 {
			t.Fatalf("load: %+v", o)
		}
		b.want("loaded", b.index(), "m/1 UNKNOWN "+lazily+"; m/2 READY; n/1 READY")
		n := len(s.loads)
		if o := b.posted("/v2/repository/models/m/load", "{}"); o.code != 200 || len(s.loads) != n {
			t.Errorf("load of what is there: %+v, loads %v", o, s.loads)
		}
		s.change(func() { s.broken["three"] = "broken\nin /two lines/" })
		s.put("m", serve.ModelOptions{}, "2", "two", "3", "three")
		o := b.posted("/v2/repository/models/m/load", "")
		if o.code != 400 || !strings.Contains(o.body, "broken in lines/") {
			t.Errorf("load of a broken version: %+v", o)
		}
		b.want("after it", b.who("/v2/models/m"), "two")
		s.change(func() { delete(s.found, "m") })
		if o := b.posted("/v2/repository/models/m/load", ""); o.code != 404 {
			t.Errorf("load of what has gone: %+v", o)
		}
	})
}

func TestLoadingIsVisible(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf()
		s.hold = make(chan struct{})
		s.put("m", serve.ModelOptions{}, "1", "one", "2", "two")
		b := shelved(t, s, serve.Options{})
		defer finishOpen(b, s)
		b.want("loading", b.index(), "m/1 UNKNOWN; m/2 LOADING")
		b.want("loading", b.who("/v2/models/m"), "503")
		if code := b.get("/v2/models/m/ready"); code != 503 {
			t.Errorf("ready while loading: %d", code)
		}
		if code := b.get("/v2/health/ready"); code != 200 {
			t.Errorf("the server: %d", code)
		}
		lazy := b.do(t.Context(), "GET", "/v2/models/m/versions/1", "")
		synctest.Wait()
		close(s.hold)
		if o := <-lazy; o.code != 200 && o.code != 503 {
			t.Errorf("asked for while another loads: %+v", o)
		}
		synctest.Wait()
		b.want("loaded", b.who("/v2/models/m"), "two")
	})
}

// TestStopWhileLoading closes what comes too late.
func TestStopWhileLoading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf()
		s.hold = make(chan struct{})
		s.put("m", serve.ModelOptions{}, "1", "one")
		b := shelved(t, s, serve.Options{})
		b.want("loading", b.index(), "m/1 LOADING")
		b.stop()
		synctest.Wait()
		close(s.hold)
		finishOpen(b, s)
		if len(s.loads) != 1 {
			t.Errorf("loads %v", s.loads)
		}
	})
}

// TestSlowClientHoldsUpNoReload lets a client pin a version with a body that does not come to its end.
func TestSlowClientHoldsUpNoReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf()
		s.put("m", serve.ModelOptions{}, "1", "one")
		b := shelved(t, s, serve.Options{Timeout: 5 * second, BodyIdleTimeout: 30 * second})
		defer finishOpen(b, s)
		conn, err := b.pipes.dial(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, "POST /v2/models/m/infer HTTP/1.1\r\nHost: s\r\nContent-Length: 1000\r\n\r\n{"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		s.put("m", serve.ModelOptions{}, "1", "two")
		polls(2)
		b.want("a second", b.who("/v2/models/m"), "two")
		s.put("m", serve.ModelOptions{}, "1", "three")
		polls(3)
		b.want("a third, while the first is held", b.who("/v2/models/m"), "two")
		polls(5)
		b.want("a third, after a request's time", b.who("/v2/models/m"), "three")
		if s.model("one").closed.Load() || !s.model("two").closed.Load() {
			t.Error("the first was closed under its request, or the second was not")
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if !s.model("one").closed.Load() {
			t.Error("the first was not closed when its client had gone")
		}
	})
}
