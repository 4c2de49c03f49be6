package serve_test

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"io"
	"strconv"
	"strings"
	"testing"

	"spos/serve"
)

func unpack(t *testing.T, coding string, b []byte) []byte {
	t.Helper()
	var r io.Reader
	var err error
	switch coding {
	case "":
		return b
	case "gzip":
		r, err = gzip.NewReader(bytes.NewReader(b))
	case "deflate":
		r, err = zlib.NewReader(bytes.NewReader(b))
	}
	if err != nil {
		t.Fatal(err)
	}
	if b, err = io.ReadAll(r); err != nil {
		t.Fatal(err)
	}
	return b
}

// TestAnswersCompressed sends a tensor that is worth it, and one that is not.
func TestAnswersCompressed(t *testing.T) {
	url := start(t, serve.Options{}, echoModel("m", serve.TensorInfo{Name: "x", Type: serve.FP32, Shape: []int64{-1}})) + "/v2/models/m/infer"
	body := func(n int, binary bool) string {
		return `{"inputs":[{"name":"x","shape":[` + strconv.Itoa(n) + `],"datatype":"FP32","data":[` + strings.Repeat("0.25,", n-1) + `1]}],` +
			`"parameters":{"binary_data_output":` + strconv.FormatBool(binary) + `}}`
	}
	const large = 20_000
	for name, tt := range map[string]struct {
		accept, coding string
		n              int
	}{
		"nothing said":                   {"", "", large},
		"gzip":                           {"gzip", "gzip", large},
		"deflate":                        {"deflate", "deflate", large},
		"a browser's":                    {"gzip, deflate, br, zstd", "gzip", large},
		"anything":                       {"*", "gzip", large},
		"deflate preferred":              {"gzip;q=0.5, deflate;q=0.8", "deflate", large},
		"identity preferred":             {"gzip;q=0.5, identity", "", large},
		"gzip forbidden":                 {"gzip;q=0, deflate", "deflate", large},
		"all forbidden":                  {"gzip;q=nan, *;q=0", "", large},
		"malformed":                      {"gzip;q=2, deflate;level=9, ;;, x=y", "", large},
		"the old name, in other letters": {" X-GZip ; Q=1.000", "gzip", large},
		"short":                          {"gzip", "", 100},
		"15 KB of it":                    {strings.Repeat("br;q=0.1,", 1700) + "gzip", "gzip", large},
	} {
		for _, binary := range []bool{false, true} {
			t.Run(name+", binary "+strconv.FormatBool(binary), func(t *testing.T) {
				plain := send(t, "POST", url, map[string]string{"Accept-Encoding": "identity"}, []byte(body(tt.n, binary)))
				r := send(t, "POST", url, map[string]string{"Accept-Encoding": tt.accept}, []byte(body(tt.n, binary)))
				if got := r.header.Get("Content-Encoding"); r.code != 200 || got != tt.coding {
					t.Fatalf("%d, Content-Encoding %q, want %q", r.code, got, tt.coding)
				}
				if tt.coding != "" && len(r.body) > len(plain.body)/10 {
					t.Errorf("%d bytes became %d", len(plain.body), len(r.body))
				}
				if !bytes.Equal(unpack(t, tt.coding, r.body), plain.body) {
					t.Error("the answer is another one")
				}
				if got := r.header.Get(lengthHeader); got != plain.header.Get(lengthHeader) {
					t.Errorf("%s %q, want %q", lengthHeader, got, plain.header.Get(lengthHeader))
				}
				if vary := r.header.Get("Vary"); (vary == "Accept-Encoding") != (tt.n == large) {
					t.Errorf("Vary %q", vary)
				}
			})
		}
	}
}

// TestHeadIsNotCompressed: its header is that of the plain answer, and there is no body.
func TestHeadIsNotCompressed(t *testing.T) {
	info := echoModel("m", fp32x3)
	info.info.Properties = map[string]string{"long": strings.Repeat("x", 20<<10)}
	url := start(t, serve.Options{}, info) + "/v2/models/m"
	r := send(t, "HEAD", url, map[string]string{"Accept-Encoding": "gzip"}, nil)
	if r.code != 200 || len(r.body) != 0 || r.header.Get("Content-Encoding") != "" || r.header.Get("Content-Length") == "" {
		t.Errorf("%d, %d bytes, %v", r.code, len(r.body), r.header)
	}
	if r := send(t, "GET", url, map[string]string{"Accept-Encoding": "gzip"}, nil); r.header.Get("Content-Encoding") != "gzip" || len(r.body) > 1<<10 {
		t.Errorf("%d bytes, %v", len(r.body), r.header)
	}
}
