package serve_test

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/base64"
	"fmt"
	"io"
	"mime/multipart"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"spos/serve"
)

// httpRequest is a POST as it goes over the wire, its body in one piece or in chunks.
func httpRequest(path string, header string, body []byte, chunked bool) string {
	head := "POST " + path + " HTTP/1.1\r\nHost: localhost\r\n" + header
	if !chunked {
		return fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", head, len(body), body)
	}
	half := len(body) / 2
	return fmt.Sprintf("%sTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n", head, half, body[:half], len(body)-half, body[half:])
}

func squeezed(t *testing.T, w func(io.Writer) io.WriteCloser, body []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := w(&b)
	if _, err := z.Write(body); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// forms are requests in every form that a body can have, by a name: for the model m, and pictures for the model c.
func forms(t *testing.T) map[string]string {
	t.Helper()
	document := []byte(jsonBody("[1,3]", "[1,2,3]"))
	announced := []byte(`{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","parameters":{"binary_data_size":12}}]}`)
	picture := serve.SeedImages(t)["image/jpeg"]
	var form bytes.Buffer
	parts := multipart.NewWriter(&form)
	part, err := parts.CreateFormFile("image", "a.jpg")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := part.Write(picture); err != nil {
		t.Fatal(err)
	}
	if err := parts.Close(); err != nil {
		t.Fatal(err)
	}
	gz := func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }
	zl := func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) }
	all := map[string]string{}
	for name, f := range map[string]struct {
		path, header string
		body         []byte
	}{
		"JSON":      {"/v2/models/m/infer", "", document},
		"raw":       {"/v2/models/m/infer", lengthHeader + ": 0\r\n", floats(1, 2, 3)},
		"binary":    {"/v2/models/m/infer", fmt.Sprintf("%s: %d\r\n", lengthHeader, len(announced)), append(announced, floats(1, 2, 3)...)},
		"gzip":      {"/v2/models/m/infer", "Content-Encoding: gzip\r\n", squeezed(t, gz, document)},
		"deflate":   {"/v2/models/m/infer", "Content-Encoding: deflate\r\n", squeezed(t, zl, document)},
		"gzip raw":  {"/v2/models/m/infer", "Content-Encoding: gzip\r\n" + lengthHeader + ": 0\r\n", squeezed(t, gz, floats(1, 2, 3))},
		"expecting": {"/v2/models/m/infer", "Expect: 100-continue\r\n", document},
		"picture":   {"/v2/models/c/classify", "", picture},
		"base64": {"/v2/models/c/classify", "Content-Type: application/json\r\n",
			[]byte(`{"image":"` + base64.StdEncoding.EncodeToString(picture) + `"}`)},
		"form": {"/v2/models/c/classify", "Content-Type: " + parts.FormDataContentType() + "\r\n", append(form.Bytes(), "\r\nan epilogue"...)},
	} {
		all[name] = httpRequest(f.path, f.header, f.body, false)
		all[name+" in chunks"] = httpRequest(f.path, f.header, f.body, true)
	}
	all["HTTP/1.0"] = fmt.Sprintf("POST /v2/models/m/infer HTTP/1.0\r\nContent-Length: %d\r\n\r\n%s", len(document), document)
	return all
}

// dialing opens a connection and takes what comes on it.
func (b *bubble) dialing() io.WriteCloser {
	b.t.Helper()
	conn, err := b.pipes.dial(b.t.Context(), "", "")
	if err != nil {
		b.t.Fatal(err)
	}
	go func() {
		_, _ = io.Copy(io.Discard, conn) // until it is closed
	}()
	return conn
}

func vanishing(m *gated) []serve.Model {
	c := newGated()
	c.gate, c.info = m.gate, serve.Classifier().Info()
	c.running, c.runs = m.running, m.runs
	return []serve.Model{m, c}
}

// TestVanishingClients has clients go away in the middle of a run, and of their upload, with requests of every form.
func TestVanishingClients(t *testing.T) {
	for name, request := range forms(t) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newGated()
				b := newBubble(t, serve.Options{Cores: 1}, vanishing(m)...)
				defer b.finish()
				for _, sent := range []int{len(request) - 20, len(request)} {
					conn := b.dialing()
					if _, err := io.WriteString(conn, request[:sent]); err != nil {
						t.Fatal(err)
					}
					synctest.Wait()
					if want := int32(0); sent == len(request) {
						if want = 1; m.running.Load() != want {
							t.Fatalf("%d at work on a whole request", m.running.Load())
						}
					}
					before := time.Now()
					if err := conn.Close(); err != nil {
						t.Fatal(err)
					}
					synctest.Wait()
					if n := m.running.Load(); n != 0 || time.Since(before) != 0 {
						t.Errorf("%d at work for a client that left, %v later", n, time.Since(before))
					}
				}
				close(m.gate)
				if o := <-b.infer(t.Context(), ""); o.code != 200 {
					t.Errorf("afterwards: %+v", o)
				}
			})
		})
	}
}

// TestVanishingInAPipeline: what comes after a request hides the end of its connection, so that the run goes on. It is
// bounded by its time, and what came after it is never run.
func TestVanishingInAPipeline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newGated()
		b := newBubble(t, serve.Options{Cores: 1, Timeout: time.Second}, m)
		defer b.finish()
		conn := b.dialing()
		one := httpRequest("/v2/models/m/infer", "", []byte(jsonBody("[1,3]", "[1,2,3]")), false)
		go func() {
			_, _ = io.WriteString(conn, strings.Repeat(one, 3)) // a pipe takes no more than is read
		}()
		synctest.Wait()
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if running, runs := m.running.Load(), m.runs.Load(); running != 0 || runs != 1 {
			t.Errorf("%d at work, after %d runs", running, runs)
		}
		close(m.gate)
	})
}

// TestVanishingInTheAnswer leaves after the first bytes of an answer that no buffer holds.
func TestVanishingInTheAnswer(t *testing.T) {
	m := echoModel("m", serve.TensorInfo{Name: "x", Type: serve.Uint8, Shape: []int64{-1}})
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(t, serve.Options{Cores: 1}, m)
		defer b.finish()
		conn, err := b.pipes.dial(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, httpRequest("/v2/models/m/infer", lengthHeader+": 0\r\n", make([]byte, 1<<20), false)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if held := serve.Held(b.server); held != 0 {
			t.Errorf("%d bytes are held for a client that left", held)
		}
	})
}
