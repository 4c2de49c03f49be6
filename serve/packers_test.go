package serve

import (
	"bytes"
	"net/http/httptest"
	"strconv"
	"testing"
)

// TestPackersAreBounded: when all compressors are out, an answer goes as it is.
func TestPackersAreBounded(t *testing.T) {
	p := newPackers()
	for range maxPacking - 1 {
		p.take("deflate", nil)
	}
	body := bytes.Repeat([]byte("0"), minPacked)
	answer := func() (*recorder, *httptest.ResponseRecorder) {
		w := httptest.NewRecorder()
		r := &recorder{ResponseWriter: w, packers: p, accept: []string{"gzip"}}
		r.Header().Set("Content-Length", strconv.Itoa(len(body)))
		r.WriteHeader(200)
		if _, err := r.Write(body); err != nil {
			t.Fatal(err)
		}
		return r, w
	}
	first, w := answer()
	if got := w.Header().Get("Content-Encoding"); got != "gzip" {
		t.Errorf("with a place left: %q", got)
	}
	_, w = answer()
	if got := w.Header().Get("Content-Encoding"); got != "" || w.Body.Len() != minPacked || w.Header().Get("Content-Length") == "" {
		t.Errorf("with none left: %q, %d bytes", got, w.Body.Len())
	}
	first.finish()
	if third, w := answer(); w.Header().Get("Content-Encoding") != "gzip" {
		t.Error("a place that was given back is not taken")
	} else if third.finish(); third.written != int64(w.Body.Len()) || third.written == 0 {
		t.Errorf("%d bytes are counted, %d were sent", third.written, w.Body.Len())
	}
}

func BenchmarkPack(b *testing.B) {
	p := newPackers()
	var body []byte
	for i := range 1000 {
		body = append(appendFloat(body, float64(float32(i*i%977)/977), 32), ',')
	}
	var out bytes.Buffer
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		out.Reset()
		w := p.take("gzip", &out)
		_, _ = w.Write(body)
		_ = w.Close()
		p.give("gzip", w)
	}
}
