package serve_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"spos/serve"
)

// hostileClients is who asks, how, and how often: numbers 43 to 47, 53 and 54.
func hostileClients(t *testing.T) []hostile {
	t.Helper()
	whole := jsonBody("[1,3]", "[1,2,3]")
	const path = "/v2/models/m/infer"
	allow := func(want string) func(*testing.T, *ground, reply) {
		return func(t *testing.T, _ *ground, r reply) {
			if got := r.header.Get("Allow"); got != want {
				t.Errorf("Allow: %q, want %q", got, want)
			}
		}
	}
	raw := func(text string) func(*ground) reply { return func(g *ground) reply { return g.wire(text) } }
	host := func(name string) func(*ground) reply {
		return raw("GET /v2 HTTP/1.1\r\nHost: " + name + "\r\nConnection: close\r\n\r\n")
	}
	guarded := start(t, serve.Options{Tokens: tokensFile(t)}, echoModel("m", fp32x3))
	// token asks a server that wants one.
	token := func(lines ...string) func(*ground) reply {
		return func(g *ground) reply {
			_ = good(g) // is what is counted
			return exchange(g.t, strings.TrimPrefix(guarded, "http://"), written("POST", path, whole, lines...))
		}
	}
	challenged := func(t *testing.T, _ *ground, r reply) {
		if c := r.header.Get("WWW-Authenticate"); !strings.HasPrefix(c, "Bearer ") {
			t.Errorf("WWW-Authenticate: %q", c)
		}
	}
	made := func(part string) func(*testing.T, *ground, reply) {
		return func(t *testing.T, g *ground, _ reply) {
			families, err := g.registry.Gather()
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range families {
				if strings.Contains(f.String(), part) {
					t.Errorf("%s has the label %s", f.GetName(), part)
				}
			}
		}
	}
	rows := []hostile{
		{n: 43, name: "OPTIONS", send: request("OPTIONS", path, ""), codes: []int{204}, also: allow("POST, OPTIONS")},
		{n: 43, name: "OPTIONS *", send: request("OPTIONS", "*", ""), codes: []int{200, 404}, early: true},
		{n: 43, name: "CONNECT elsewhere", send: raw("CONNECT evil.example:443 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"), codes: []int{403}},
		{n: 43, name: "an address of elsewhere", send: raw("GET http://evil.example/v2 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"), codes: []int{403}, part: "evil.example"},
		{n: 44, name: "none", send: raw("GET /v2 HTTP/1.1\r\n\r\n"), codes: status400, early: true},
		{n: 44, name: "two", send: raw("GET /v2 HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n"), codes: status400, early: true},
		{n: 44, name: "malformed", send: host("a/b"), codes: status400, early: true},
		{n: 44, name: "rebound", send: host("evil.example"), codes: []int{403}, part: "allowed-hosts"},
		{n: 44, name: "looks local", send: host("localhost.evil.example"), codes: []int{403}},
		{n: 44, name: "another address", send: host("10.0.0.1"), codes: []int{403}},
		{n: 44, name: "local", send: host("localhost:8000"), codes: status200},
		{n: 45, name: "missing", send: token(), codes: []int{401}, part: "token", also: challenged},
		// Tokens do not expire: one that is taken out of its file is wrong from then on.
		{n: 45, name: "wrong", send: token("Authorization: Bearer the-secret-of-nobody"), codes: []int{401}, also: challenged},
		{n: 45, name: "the beginning of one", send: token("Authorization: Bearer " + inferSecret[:len(inferSecret)-1]), codes: []int{401}, also: challenged},
		{n: 45, name: "empty", send: token("Authorization: Bearer "), codes: []int{401}, also: challenged},
		{n: 45, name: "no scheme", send: token("Authorization: " + inferSecret), codes: []int{401}, also: challenged},
		{n: 45, name: "two", send: token("Authorization: Bearer "+inferSecret, "Authorization: Bearer x"), codes: []int{401}, also: challenged},
		{n: 45, name: "15 KB", send: token("Authorization: Bearer " + strings.Repeat("x", 15<<10)), codes: []int{401}, also: challenged},
		{n: 45, name: "1 MB", send: token("Authorization: Bearer " + strings.Repeat("x", 1<<20)), codes: []int{431}, early: true},
		{n: 45, name: "another scope", send: token("Authorization: Bearer " + adminSecret), codes: []int{403}, part: "scope"},
		{n: 45, name: "right", send: token("Authorization: Bearer " + inferSecret), codes: status200},
		{n: 46, name: "ten times what it can", test: testOverload},
		{n: 47, name: "in the upload", send: func(g *ground) reply { return g.leave(written("POST", path, whole)[:150]) }, codes: []int{0}},
		{n: 47, name: "in the queue and the run", test: TestClientThatLeavesFreesItsPlace},
		{n: 47, name: "in the answer", test: TestClientThatDoesNotRead},
		{n: 53, name: "newlines, ANSI, direction marks", test: TestLogInjection},
		{n: 53, name: "an id of 1 MB", send: infer("m", `{"id":"`+strings.Repeat("x", 1<<20)+`",`+whole[1:]), codes: status400, part: "id has more"},
		{n: 53, name: "an id of control characters", send: infer("m", `{"id":"\u001b[2J\n",`+whole[1:]), codes: status200, also: wantBody(`"id":"\u001b[2J\u000a"`)},
		{n: 53, name: "a request's id of ANSI", send: infer("m", whole, "X-Request-Id: \x1b[2J"), codes: []int{200, 400}, early: true},
		{n: 54, name: "models", send: func(g *ground) (r reply) {
			for range 200 {
				r = infer("made-up-"+strings.Repeat("z", int(g.counted())%40), whole)(g)
			}
			return r
		}, codes: []int{404}, also: made("made-up")},
		{n: 54, name: "versions", send: request("GET", "/v2/models/m/versions/made-up", ""), codes: []int{404}, also: made("made-up")},
		{n: 54, name: "paths", send: request("GET", "/made-up/path", ""), codes: []int{404}, also: made("made-up")},
		{n: 54, name: "methods", send: request("MADE-UP", "/v2", ""), codes: []int{405}, also: made("MADE-UP")},
	}
	for _, method := range []string{"TRACE", "CONNECT", "PATCH", "PUT", "DELETE", "FOO", "post", strings.Repeat("M", 2000)} {
		rows = append(rows, hostile{n: 43, name: method[:min(len(method), 10)], send: request(method, path, ""), codes: []int{405}, part: "POST", also: allow("POST, OPTIONS")})
	}
	for _, r := range serve.Routes() {
		method, path, _ := strings.Cut(r, " ")
		path = strings.NewReplacer("{m}", "m", "{v}", "1", "{r}", "r").Replace(path)
		if method != "GET" {
			rows = append(rows, hostile{n: 43, name: "HEAD " + path, send: request("HEAD", path, ""), codes: []int{405}, also: allow("POST, OPTIONS")})
			continue
		}
		rows = append(rows, hostile{n: 43, name: "HEAD " + path, send: request("HEAD", path, ""), codes: status200, also: func(t *testing.T, _ *ground, r reply) {
			if len(r.body) != 0 {
				t.Errorf("a body of %d bytes", len(r.body))
			}
		}})
	}
	return rows
}

// testOverload offers ten times what a model can do for a minute, one in ten of them broken: what is refused is refused
// at once, what is accepted is answered within its queue, and a second after it all is as before.
func testOverload(t *testing.T) {
	const takes, length = time.Second / 2, time.Minute
	const cores, queue, most = 2, 4, 2 * int(length/takes)
	synctest.Test(t, func(t *testing.T) {
		m := echoModel("m", fp32x3)
		m.run = func(ctx context.Context, in, out []serve.Tensor) error {
			time.Sleep(takes)
			return echo(ctx, in, out)
		}
		b := newBubble(t, serve.Options{Cores: cores, Queue: queue}, m)
		defer b.finish()
		type timed struct {
			outcome
			took time.Duration
		}
		var all []chan timed
		for i := range 10 * most {
			c, asked := make(chan timed, 1), time.Now()
			all = append(all, c)
			body := jsonBody("[1,3]", "[1,2,3]")
			if i%10 == 0 {
				body = "{"
			}
			o := b.do(t.Context(), "POST", "/v2/models/m/infer", body)
			go func() { r := <-o; c <- timed{r, time.Since(asked)} }()
			time.Sleep(length / time.Duration(10*most))
		}
		time.Sleep(time.Second)
		asked := time.Now()
		if o := <-b.infer(t.Context(), ""); o.code != 200 || time.Since(asked) > takes+takes {
			t.Errorf("a second later: %+v after %v", o, time.Since(asked))
		}
		codes := map[int]int{}
		for _, c := range all {
			o := <-c
			codes[o.code]++
			switch {
			case o.err != nil:
				t.Error(o.err)
			case o.code == 503 && (o.took > 50*time.Millisecond || o.retry == ""):
				t.Errorf("refused after %v, to be tried again after %q", o.took, o.retry)
			case o.code == 200 && o.took > takes*(queue/cores+2):
				t.Errorf("answered after %v", o.took)
			}
		}
		if codes[200] < most*9/10 || codes[200]+codes[400]+codes[503] != 10*most {
			t.Errorf("answers by code: %v, the model can do %d", codes, most)
		}
	})
}
