package serve_test

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"spos/serve"
)

func TestInferRefusesBinary(t *testing.T) {
	const most = 1 << 20
	url := start(t, serve.Options{MaxBody: most},
		echoModel("m", fp32x3),
		echoModel("two", fp32x3, serve.TensorInfo{Name: "y", Type: serve.FP32, Shape: []int64{-1, 3}}),
		echoModel("text", serve.TensorInfo{Name: "x", Type: serve.Bytes, Shape: []int64{-1}}),
		echoModel("bool", serve.TensorInfo{Name: "x", Type: serve.Bool, Shape: []int64{-1}}),
	)
	head := func(size string) string {
		return `{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","parameters":{"binary_data_size":` + size + `}}]}`
	}
	text := func(n, size int) string {
		return fmt.Sprintf(`{"inputs":[{"name":"x","shape":[%d],"datatype":"BYTES","parameters":{"binary_data_size":%d}}]}`, n, size)
	}
	l := func(s string) string { return strconv.Itoa(len(s)) }
	data := string(floats(1, 2, 3))
	tests := map[string]struct {
		model, length, body string
		code                int
		part                string
	}{
		"length negative":      {"m", "-1", head("12") + data, 400, "non-negative"},
		"length a word":        {"m", "abs", head("12") + data, 400, "non-negative"},
		"length hex":           {"m", "0x10", head("12") + data, 400, "non-negative"},
		"length signed":        {"m", "+5", head("12") + data, 400, "non-negative"},
		"length too long":      {"m", strconv.Itoa(len(head("12")) + 13), head("12") + data, 400, "larger"},
		"length huge":          {"m", "99999999999", head("12") + data, 400, "larger"},
		"length beyond int64":  {"m", "99999999999999999999", head("12") + data, 400, "non-negative"},
		"length splits JSON":   {"m", "20", head("12") + data, 400, "does not end"},
		"length takes in data": {"m", strconv.Itoa(len(head("12")) + 4), head("12") + data, 400, "follows"},
		"short data":           {"m", l(head("12")), head("12") + data[:11], 400, "ends inside"},
		"no data":              {"m", l(head("12")), head("12"), 400, "ends inside"},
		"trailing":             {"m", l(head("12")), head("12") + data + "x", 400, "goes on"},
		"size off by one":      {"m", l(head("11")), head("11") + data, 400, "binary_data_size is 11"},
		"size of another type": {"m", l(head("24")), head("24") + data + data, 400, "binary_data_size is 24"},
		"size huge":            {"m", l(head("99999999999")), head("99999999999") + data, 400, "binary_data_size"},
		"raw, not a multiple":  {"m", "0", data[:11], 400, "do not fit"},
		"raw, empty":           {"m", "0", "", 400, "do not fit"},
		"raw to two inputs":    {"two", "0", data, 400, "one input"},
		"string runs out":      {"text", l(text(1, 6)), text(1, 6) + "\x05\x00\x00\x00ab", 400, "announces 5"},
		"string of 4 GiB":      {"text", l(text(1, 6)), text(1, 6) + "\xff\xff\xff\xffab", 400, "announces"},
		"half a length":        {"text", l(text(1, 3)), text(1, 3) + "\x00\x00\x00", 400, "left"},
		"too few strings":      {"text", l(text(2, 4)), text(2, 4) + "\x00\x00\x00\x00", 400, "1 elements"},
		"a BOOL of 2":          {"bool", "0", "\x02", 400, "BOOL"},
		"too large":            {"m", "0", strings.Repeat("x", most+1), 413, "larger"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := send(t, "POST", url+"/v2/models/"+tt.model+"/infer", map[string]string{lengthHeader: tt.length}, []byte(tt.body))
			wantError(t, r, tt.code, tt.part)
		})
	}
	t.Run("two length headers", func(t *testing.T) {
		req, err := http.NewRequestWithContext(t.Context(), "POST", url+"/v2/models/m/infer", strings.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		req.Header[lengthHeader] = []string{"0", "0"}
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		wantError(t, reply{resp.StatusCode, resp.Header, b}, 400, "one")
	})
}

func TestInferCompressed(t *testing.T) {
	const most = 64 << 10
	url := start(t, serve.Options{MaxBody: most}, echoModel("m", fp32x3)) + "/v2/models/m/infer"
	plain := []byte(jsonBody("[1,3]", "[1,2,3]"))
	pack := func(kind string, b []byte) []byte {
		var out bytes.Buffer
		var w io.WriteCloser = gzip.NewWriter(&out)
		if kind == "deflate" {
			w = zlib.NewWriter(&out)
		}
		if _, err := w.Write(b); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	bomb := append([]byte(jsonBody("[1,3]", "[1,2,3")), bytes.Repeat([]byte(" "), 64*most)...)
	tests := map[string]struct {
		encoding string
		body     []byte
		code     int
	}{
		"gzip":            {"gzip", pack("gzip", plain), 200},
		"deflate":         {"deflate", pack("deflate", plain), 200},
		"identity":        {"identity", plain, 200},
		"gzip bomb":       {"gzip", pack("gzip", bomb), 413},
		"zlib bomb":       {"deflate", pack("deflate", bomb), 413},
		"gzip in gzip":    {"gzip, gzip", pack("gzip", pack("gzip", plain)), 415},
		"brotli":          {"br", plain, 415},
		"not gzip":        {"gzip", plain, 400},
		"empty gzip":      {"gzip", nil, 400},
		"truncated gzip":  {"gzip", pack("gzip", plain)[:40], 400},
		"corrupt deflate": {"deflate", append(pack("deflate", plain)[:10], "garbage garbage"...), 400},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := send(t, "POST", url, map[string]string{"Content-Encoding": tt.encoding}, tt.body)
			if says := r.header.Get("Accept-Encoding"); (says == "gzip, deflate") != (tt.code == 415) {
				t.Errorf("%d comes with Accept-Encoding %q", r.code, says)
			}
			if tt.code != 200 {
				wantError(t, r, tt.code, "")
			} else if r.code != 200 {
				t.Errorf("got %d %s", r.code, r.body)
			}
		})
	}
	t.Run("binary tail", func(t *testing.T) {
		head := `{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","parameters":{"binary_data_size":12}}]}`
		body := pack("gzip", append([]byte(head), floats(1, 2, 3)...))
		r := send(t, "POST", url, map[string]string{"Content-Encoding": "gzip", lengthHeader: strconv.Itoa(len(head))}, body)
		if r.code != 200 {
			t.Errorf("got %d %s", r.code, r.body)
		}
	})
}
