package serve_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"spos/serve"
	"spos/serve/keys"
	"spos/serve/keys/keystest"
)

// secrets writes the files of a server's certificates.
func secrets(t testing.TB, ca *keystest.Authority) keys.Files {
	t.Helper()
	cert, key := ca.Issue(t, "server")
	files := keys.Files{}
	for path, text := range map[*string]string{&files.Cert: cert, &files.Key: key, &files.ClientCA: ca.PEM} {
		f, err := os.CreateTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.WriteString(text)
		if err = errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		*path = filepath.Clean(f.Name())
	}
	return files
}

// secure is a client of one protocol.
func secure(t testing.TB, ca *keystest.Authority, protocol string, certs ...tls.Certificate) *http.Client {
	t.Helper()
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool(), Certificates: certs}, Protocols: new(http.Protocols)}
	if protocol == "HTTP/2.0" {
		tr.Protocols.SetHTTP2(true)
	} else {
		tr.Protocols.SetHTTP1(true)
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: &contract{next: tr}}
}

func post(ctx context.Context, c *http.Client, url string, body []byte) (*http.Response, []byte, error) {
	r, err := http.NewRequestWithContext(ctx, "POST", url, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	resp, err := c.Do(r)
	if err != nil {
		return nil, nil, err
	}
	text, err := io.ReadAll(resp.Body)
	return resp, text, errors.Join(err, resp.Body.Close())
}

// startTLS is start with TLS.
func startTLS(t *testing.T, o serve.Options, models ...serve.Model) string {
	t.Helper()
	return strings.Replace(start(t, o, models...), "http:", "https:", 1)
}

func TestTLS(t *testing.T) {
	ca := keystest.NewAuthority(t, "ca")
	files := secrets(t, ca)
	files.ClientCA = ""
	url := startTLS(t, serve.Options{TLS: files}, echoModel("m", fp32x3))
	body := []byte(jsonBody("[1,3]", "[1,2,3]"))
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2.0"} {
		client := secure(t, ca, protocol)
		resp, text, err := post(t.Context(), client, url+"/v2/models/m/infer", body)
		if err != nil {
			t.Fatalf("%s: %v", protocol, err)
		}
		if resp.StatusCode != 200 || resp.Proto != protocol || !strings.Contains(string(text), "[1,2,3]") {
			t.Errorf("%s: %d over %s: %s", protocol, resp.StatusCode, resp.Proto, text)
		}
		resp, text, err = post(t.Context(), client, url+"/v2/models/m/infer", nil)
		if err != nil {
			t.Fatal(err)
		}
		wantError(t, reply{resp.StatusCode, resp.Header, text}, 400, "")
	}
	plain, _, err := post(t.Context(), http.DefaultClient, strings.Replace(url, "https:", "http:", 1)+"/v2/models/m/infer", body)
	if err != nil || plain.StatusCode != 400 {
		t.Errorf("without TLS: %v %v", plain, err)
	}
}

func TestClientCertificates(t *testing.T) {
	ca, other := keystest.NewAuthority(t, "ca"), keystest.NewAuthority(t, "other")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := startTLS(t, serve.Options{TLS: secrets(t, ca), MetricsListener: ln}, echoModel("m", fp32x3))
	body := []byte(jsonBody("[1,3]", "[1,2,3]"))
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2.0"} {
		if resp, _, err := post(t.Context(), secure(t, ca, protocol, ca.Client(t, "alice")), url+"/v2/models/m/infer", body); err != nil || resp.StatusCode != 200 {
			t.Errorf("alice over %s: %v", protocol, err)
		}
		for name, client := range map[string]*http.Client{
			"nobody": secure(t, ca, protocol), "mallory": secure(t, ca, protocol, other.Client(t, "mallory")),
		} {
			if _, text, err := post(t.Context(), client, url+"/v2/models/m/infer", body); err == nil {
				t.Errorf("%s over %s was answered %s", name, protocol, text)
			}
		}
	}
	resp, err := secure(t, ca, "HTTP/1.1").Get("https://" + ln.Addr().String() + "/v2/health/ready")
	if err != nil {
		t.Fatal(err)
	}
	if resp.Body.Close(); resp.StatusCode != 200 {
		t.Errorf("a probe of the operators' listener: %d", resp.StatusCode)
	}
}

// TestOneConnectionOfManyStreams asks more of one connection than the queue holds.
func TestOneConnectionOfManyStreams(t *testing.T) {
	ca := keystest.NewAuthority(t, "ca")
	files := secrets(t, ca)
	files.ClientCA = ""
	m := newGated()
	url := startTLS(t, serve.Options{TLS: files, Cores: 1, Queue: 3}, m)
	client := secure(t, ca, "HTTP/2.0")
	if _, _, err := post(t.Context(), client, url+"/v2/repository/index", nil); err != nil { // else each request dials
		t.Fatal(err)
	}
	const sent, accepted = 40, 4
	codes := make(chan int, sent)
	var clients sync.WaitGroup
	for range sent {
		clients.Go(func() {
			resp, _, err := post(t.Context(), client, url+"/v2/models/m/infer", []byte(jsonBody("[1,3]", "[1,2,3]")))
			if err != nil {
				t.Error(err)
				codes <- 0
				return
			}
			codes <- resp.StatusCode
		})
	}
	for range sent - accepted {
		if code := <-codes; code != 503 {
			t.Errorf("more than the queue holds: %d", code)
		}
	}
	close(m.gate)
	for range accepted {
		if code := <-codes; code != 200 {
			t.Errorf("what the queue holds: %d", code)
		}
	}
	clients.Wait()
	if most := m.most.Load(); most != 1 {
		t.Errorf("%d ran at once on one core", most)
	}
}

// TestRapidReset opens streams and takes them back at once, as fast as they can be written.
func TestRapidReset(t *testing.T) {
	ca := keystest.NewAuthority(t, "ca")
	files := secrets(t, ca)
	files.ClientCA = ""
	m := newGated()
	registry := prometheus.NewRegistry()
	url := startTLS(t, serve.Options{TLS: files, Cores: 1, Queue: 5, Registry: registry}, m)
	conn, err := tls.Dial("tcp", strings.TrimPrefix(url, "https://"), &tls.Config{RootCAs: ca.Pool(), NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	var read sync.WaitGroup
	read.Go(func() { _, _ = io.Copy(io.Discard, conn) })
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, f := range [][2]string{{":method", "POST"}, {":scheme", "https"}, {":authority", "localhost"}, {":path", "/v2/models/m/infer"}} {
		if err := enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
			t.Fatal(err)
		}
	}
	header := bytes.Clone(block.Bytes())
	body := []byte(jsonBody("[1,3]", "[1,2,3]"))
	framer := http2.NewFramer(conn, conn)
	err = framer.WriteSettings()
	streams := 0
	for ; err == nil && streams < 10_000; streams++ {
		id := uint32(2*streams + 1)
		err = errors.Join(
			framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: header, EndHeaders: true}),
			framer.WriteData(id, true, body),
			framer.WriteRSTStream(id, http2.ErrCodeCancel),
		)
	}
	if most := m.most.Load(); most > 1 {
		t.Errorf("%d ran at once on one core", most)
	}
	close(m.gate)
	resp, _, err := post(t.Context(), secure(t, ca, "HTTP/2.0"), url+"/v2/models/m/infer", body)
	if err != nil || resp.StatusCode != 200 {
		t.Errorf("another client after %d streams: %v %v", streams, resp, err)
	}
	_ = conn.Close() // the server may have closed it
	read.Wait()
	t.Logf("the server read %d streams and ran %d", streams, m.runs.Load())
}

// TestStopOverHTTP2 stops while a stream is answered.
func TestStopOverHTTP2(t *testing.T) {
	ca := keystest.NewAuthority(t, "ca")
	files := secrets(t, ca)
	files.ClientCA = ""
	m := newGated()
	s, err := serve.New(serve.Options{HTTP: "127.0.0.1:0", TLS: files, Logger: quiet()}, m)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	url, client := "https://"+s.Addr().String()+"/v2/models/m/infer", secure(t, ca, "HTTP/2.0")
	body := []byte(jsonBody("[1,3]", "[1,2,3]"))
	code := make(chan int, 1)
	go func() {
		resp, _, err := post(t.Context(), client, url, body)
		if err != nil {
			t.Error(err)
			code <- 0
			return
		}
		code <- resp.StatusCode
	}()
	for m.running.Load() == 0 {
		if t.Context().Err() != nil {
			t.Fatal("it does not begin")
		}
		runtime.Gosched()
	}
	stop()
	for { // until the listener is closed
		conn, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			break
		}
		_ = conn.Close()
	}
	close(m.gate)
	if c := <-code; c != 200 {
		t.Errorf("a stream in flight got %d", c)
	}
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
}
