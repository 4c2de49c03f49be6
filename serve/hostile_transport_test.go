package serve_test

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"spos/serve"
)

// packed is data in a coding, as small as that makes it.
func packed(t *testing.T, coding string, data []byte) string {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser = gzip.NewWriter(&b)
	if coding == "deflate" {
		w = zlib.NewWriter(&b)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// hostileTransport is how bytes arrive: numbers 23 to 28 and 42.
func hostileTransport(t *testing.T) []hostile {
	t.Helper()
	whole := jsonBody("[1,3]", "[1,2,3]")
	const path = "/v2/models/m/infer"
	chunked := func(version, chunks string, lines ...string) func(*ground) reply {
		var head strings.Builder
		head.WriteString("POST " + path + " HTTP/" + version + "\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n")
		for _, line := range lines {
			head.WriteString(line + "\r\n")
		}
		return func(g *ground) reply { return g.wire(head.String() + "\r\n" + chunks) }
	}
	one := "55\r\n" + whole + strings.Repeat(" ", 0x55-len(whole)) + "\r\n0\r\n\r\n"
	bare := strings.ReplaceAll(written("POST", path, whole), "\r\n", "\n")
	bomb := append([]byte(whole), bytes.Repeat([]byte(" "), groundBody+1<<20)...)
	zipped := packed(t, "gzip", bomb)
	twice := packed(t, "gzip", []byte(zipped))
	const most = 8 * groundBody // a body has one buffer that doubles; the rest is the compressor's and the test's
	return []hostile{
		{n: 23, name: "stalls, half and whole", test: TestSlowClients},
		{n: 23, name: "goes away", send: func(g *ground) reply {
			return g.leave("POST " + path + " HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{")
		}, codes: []int{0}},
		{n: 24, name: "a million of a byte", send: chunked("1.1", strings.Repeat("1\r\n \r\n", 1e6-1)+one), codes: status200},
		{n: 24, name: "with long extensions", send: chunked("1.1", strings.Repeat("1;"+strings.Repeat("x", 200)+"\r\n \r\n", 1000)+one), codes: status400},
		{n: 24, name: "without end", send: chunked("1.1", strings.Repeat("1000\r\n"+strings.Repeat(" ", 0x1000)+"\r\n", groundBody/0x1000+1)), codes: []int{413}},
		{n: 24, name: "of no number", send: chunked("1.1", "zz\r\n{}\r\n0\r\n\r\n"), codes: status400},
		{n: 24, name: "of too large a number", send: chunked("1.1", "fffffffffffffffff\r\n{}\r\n0\r\n\r\n"), codes: status400},
		{n: 24, name: "longer than said", send: chunked("1.1", "1\r\n{}\r\n0\r\n\r\n"), codes: status400},
		// The length counts for nothing beside chunks, and the connection ends with the answer (RFC 9112, 6.1): what would
		// be a second request to a proxy that reads it the other way is never read.
		{n: 25, name: "length and chunks", send: chunked("1.1", one+written("GET", "/v2", ""), "Content-Length: 3"), codes: status200, also: closed},
		{n: 25, name: "chunks, length first", send: func(g *ground) reply {
			return g.wire("POST " + path + " HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n" + one)
		}, codes: status200, also: closed},
		{n: 25, name: "two lengths", send: infer("m", whole, "Content-Length: 3"), codes: status400, early: true},
		{n: 25, name: "a signed length", send: early("POST "+path, "Content-Length: +3"), codes: status400, early: true},
		{n: 25, name: "a list of lengths", send: early("POST "+path, "Content-Length: 3, 3"), codes: status400, early: true},
		{n: 25, name: "gzip as a transfer", send: early("POST "+path, "Transfer-Encoding: gzip"), codes: []int{501}, early: true},
		{n: 25, name: "gzip, then chunks", send: early("POST "+path, "Transfer-Encoding: gzip, chunked"), codes: []int{501}, early: true},
		{n: 25, name: "chunks twice", send: early("POST "+path, "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), codes: []int{400, 501}, early: true},
		{n: 25, name: "chunks in HTTP/1.0", send: chunked("1.0", one), codes: status400, also: closed},
		{n: 25, name: "space before the colon", send: early("POST "+path, "Content-Length : 3"), codes: status400, early: true},
		{n: 25, name: "a header of NUL", send: early("POST "+path, "X-A: \x00"), codes: status400, early: true},
		// RFC 9112 lets a server take a lone LF for a line's end (2.2) and a folded line for spaces (5.2); net/http does.
		{n: 25, name: "bare LF", send: func(g *ground) reply { return g.wire(bare) }, codes: status200},
		{n: 25, name: "a folded line", send: infer("m", whole, "X-A: b\r\n c"), codes: status200},
		{n: 26, name: "50 of each kind", test: testSlowloris},
		{n: 26, name: "a reader of nothing", test: TestClientThatDoesNotRead},
		{n: 27, name: "gzip", send: bytesOf(infer("m", zipped, "Content-Encoding: gzip"), most), codes: []int{413}, part: "larger"},
		{n: 27, name: "zlib", send: bytesOf(infer("m", packed(t, "deflate", bomb), "Content-Encoding: deflate"), most), codes: []int{413}, part: "larger"},
		{n: 27, name: "a picture", send: request("POST", "/v2/models/c/classify", zipped, "Content-Encoding: gzip"), codes: []int{413}},
		{n: 27, name: "the index", send: request("POST", "/v2/repository/index", zipped, "Content-Encoding: gzip"), codes: []int{413}},
		{n: 27, name: "gzip in gzip", send: infer("m", twice, "Content-Encoding: gzip"), codes: status400},
		{n: 27, name: "gzip in gzip, said so", send: infer("m", twice, "Content-Encoding: gzip, gzip"), codes: []int{415}, part: "Content-Encoding"},
		{n: 27, name: "said so on two lines", send: infer("m", twice, "Content-Encoding: gzip", "Content-Encoding: gzip"), codes: []int{415}},
		{n: 27, name: "truncated", send: infer("m", packed(t, "gzip", []byte(whole))[:50], "Content-Encoding: gzip"), codes: status400, part: "corrupt"},
		{n: 27, name: "corrupt", send: infer("m", packed(t, "gzip", []byte(whole))[:30]+strings.Repeat("\xff", 40), "Content-Encoding: gzip"), codes: status400},
		{n: 27, name: "brotli", send: infer("m", whole, "Content-Encoding: br"), codes: []int{415}},
		{n: 28, name: "a path of 2 MiB", send: request("GET", "/v2/"+strings.Repeat("x", 2<<20), ""), codes: []int{431}, early: true},
		// net/http allows 4 KiB more than it is told.
		{n: 28, name: "a line of 17 KiB", send: infer("m", whole, "X-A: "+strings.Repeat("x", 17<<10)), codes: status200},
		{n: 28, name: "a line of 21 KiB", send: infer("m", whole, "X-A: "+strings.Repeat("x", 21<<10)), codes: []int{431}, early: true},
		{n: 28, name: "1,000 short lines", send: infer("m", whole, strings.Split(strings.Repeat("X-A: b,", 1000), ",")[:1000]...), codes: status200},
		{n: 28, name: "10,000 short lines", send: infer("m", whole, strings.Split(strings.Repeat("X-A: b,", 10_000), ",")[:10_000]...), codes: []int{431}, early: true},
		{n: 42, name: "q=nan", send: wide("Accept-Encoding: gzip;q=nan, *;q=0"), codes: status200, also: identity},
		{n: 42, name: "no quality", send: wide("Accept-Encoding: gzip;q=, deflate;=1, gzip;q=1.0001, gzip;q=-1, gzip;q=0x1"), codes: status200, also: identity},
		{n: 42, name: "nothing at all", send: wide("Accept-Encoding: identity;q=0, *;q=0"), codes: status200, also: identity},
		{n: 42, name: "15 KB of commas", send: wide("Accept-Encoding: " + strings.Repeat(",;", 7<<10)), codes: status200, also: identity},
		{n: 42, name: "64 KB", send: wide("Accept-Encoding: " + strings.Repeat("gzip,", 13<<10)), codes: []int{431}, early: true},
	}
}

// early is a request that ends with its header.
func early(start string, lines ...string) func(*ground) reply {
	return func(g *ground) reply {
		return g.wire(start + " HTTP/1.1\r\nHost: localhost\r\n" + strings.Join(lines, "\r\n") + "\r\n\r\n")
	}
}

// wide asks for an answer that is long enough to be compressed.
func wide(lines ...string) func(*ground) reply {
	return infer("u8", strings.Repeat("\x07", 10_000), append(lines, lengthHeader+": 0")...)
}

func identity(t *testing.T, _ *ground, r reply) {
	t.Helper()
	if coding := r.header.Get("Content-Encoding"); coding != "" || !bytes.HasSuffix(r.body, bytes.Repeat([]byte{7}, 10_000)) {
		t.Errorf("%d bytes in the coding %q", len(r.body), coding)
	}
}

func closed(t *testing.T, _ *ground, r reply) {
	t.Helper()
	if r.header.Get("Connection") != "close" {
		t.Error("the connection stays open")
	}
}

// leave sends a part of a request, goes away, and waits until the server has noticed.
func (g *ground) leave(text string) reply {
	g.t.Helper()
	counted := g.counted()
	conn, err := net.Dial("tcp", g.addr)
	if err != nil {
		g.t.Fatal(err)
	}
	if _, err := io.WriteString(conn, text); err != nil {
		g.t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		g.t.Fatal(err)
	}
	for range 10_000 {
		if g.counted() > counted {
			return reply{}
		}
		time.Sleep(time.Millisecond)
	}
	g.t.Error("the server does not notice")
	return reply{}
}

// testSlowloris holds 200 connections open with as little as there can be; slowhttptest with 500 is for a long run.
// Others must not notice, and the server must get rid of them.
func testSlowloris(t *testing.T) {
	const each, patience = 50, 20 * time.Second
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, serve.Options{
			HeaderTimeout: patience, BodyIdleTimeout: patience, BodyTimeout: patience, WriteIdleTimeout: patience, IdleTimeout: patience,
		}, echoModel("m", fp32x3))
		defer b.finish()
		begun := time.Now()
		var slow sync.WaitGroup
		post := "POST /v2/models/m/infer HTTP/1.1\r\nHost: s\r\nContent-Length: 1000\r\n\r\n"
		for _, kind := range []struct{ first, drip string }{{"GET /v2 HTTP/1.1\r\n", "X-A: b\r\n"}, {post, " "}, {"", ""}, {"GET /v2 HTTP/1.1\r\nHost: s\r\n\r\n", ""}} {
			for range each {
				conn, err := b.pipes.dial(t.Context(), "", "")
				if err != nil {
					t.Fatal(err)
				}
				slow.Go(func() {
					defer conn.Close()
					_, err := io.WriteString(conn, kind.first)
					for err == nil && kind.drip != "" {
						time.Sleep(3 * time.Second)
						_, err = io.WriteString(conn, kind.drip)
					}
					if kind.first == "" {
						_, _ = io.Copy(io.Discard, conn) // until it is closed
					}
					time.Sleep(2 * patience) // others read nothing
				})
			}
		}
		synctest.Wait()
		for range 5 {
			asked := time.Now()
			if o := <-b.infer(t.Context(), ""); o.code != 200 || time.Since(asked) != 0 {
				t.Errorf("another client got %+v after %v", o, time.Since(asked))
			}
			time.Sleep(patience / 5)
		}
		time.Sleep(2 * patience)
		b.client.CloseIdleConnections()
		b.stop()
		if err := <-b.done; err != nil {
			t.Errorf("Run: %v", err)
		}
		b.done <- nil // for finish
		if took := time.Since(begun); took > 3*patience+time.Second {
			t.Errorf("the last connection was held for %v", took)
		}
		slow.Wait()
	})
}
