package serve

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"

	"bytes"
	"log/slog"
)

// fuzzInfo is a model with inputs of three kinds.
var fuzzInfo = ModelInfo{
	Name: "m", Version: "1",
	Inputs: []TensorInfo{
		{"x", FP32, []int64{-1, 3}}, {"n", Int64, []int64{-1}}, {"s", Bytes, []int64{-1}},
	},
	Outputs: []TensorInfo{{"x", FP32, []int64{-1, 3}}, {"n", Int64, []int64{-1}}, {"s", Bytes, []int64{-1}}},
}

// checkInputs holds what was accepted to what a Model may rely on.
func checkInputs(t *testing.T, info *ModelInfo, req *inferRequest) {
	t.Helper()
	for i, in := range req.inputs {
		n, ok := elements(in.Shape)
		want := info.Inputs[i]
		switch {
		case !ok || in.Name != want.Name || in.Type != want.Type || len(in.Shape) != len(want.Shape):
			t.Fatalf("accepted %+v for %+v", in, want)
		case in.Type == Bytes:
			if err := checkStrings(in.Data, n); err != nil {
				t.Fatalf("accepted strings: %v", err)
			}
		case n*int64(in.Type.Size()) != int64(len(in.Data)):
			t.Fatalf("accepted %d bytes for %v of %s", len(in.Data), in.Shape, in.Type)
		}
	}
}

func FuzzInferJSON(f *testing.F) {
	for _, s := range []string{
		`{"id":"1","inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":[[1,-2.5e-3,NaN]]},` +
			`{"data":[9223372036854775807],"name":"n","shape":[1],"datatype":"INT64"},` +
			`{"name":"s","shape":[2],"datatype":"BYTES","data":["a","\u00e4\ud83d\ude00"]}],` +
			`"outputs":[{"name":"s","parameters":{"binary_data":false}}],"parameters":{"timeout":5,"binary_data_output":true}}`,
		`{"inputs":[]}`, `{`, `{"a":[[[[{}]]]],"b":"\\"}`, `[1e400]`, `{"inputs":[{"shape":[16,1152921504606846978]}]}`,
	} {
		f.Add([]byte(s))
	}
	m := &memory{limit: 64 << 20}
	f.Fuzz(func(t *testing.T, text []byte) {
		mem := &arena{m: m}
		defer mem.free()
		r := &requestReader{jsonReader{b: text}, requestParts{info: &fuzzInfo, mem: mem}}
		if r.read() != nil || r.bind() != nil || r.readTails(&body{Reader: bytes.NewReader(nil)}, false) != nil {
			return
		}
		checkInputs(t, &fuzzInfo, &r.req)
	})
}

// FuzzPictures reads requests to a model that takes pictures or numbers.
func FuzzPictures(f *testing.F) {
	for _, s := range []string{
		`{"inputs":[{"name":"input","shape":[2],"datatype":"BYTES","data":["/9j/","data:image/png;base64,iVBO"]}]}`,
		`{"inputs":[{"name":"input","shape":[1,1],"datatype":"BYTES","parameters":{"content_type":"base64"},"data":[["AAAA"]]}]}`,
		`{"inputs":[{"data":[],"name":"input","shape":[1,3,4,4],"datatype":"FP32"}]}`,
	} {
		f.Add([]byte(s))
	}
	m := &memory{limit: 64 << 20}
	info := classifier().info
	f.Fuzz(func(t *testing.T, text []byte) {
		mem := &arena{m: m}
		defer mem.free()
		r := &requestReader{jsonReader{b: text}, requestParts{info: &info, mem: mem}}
		if r.read() != nil || r.bind() != nil || r.readTails(&body{Reader: bytes.NewReader(nil)}, false) != nil {
			return
		}
		if in := r.req.inputs[0]; in.Type != Bytes {
			checkInputs(t, &info, &r.req)
		} else if n, _ := elements(in.Shape); int64(len(r.req.pictures)) != n || n != in.Shape[0] {
			t.Fatalf("%d pictures of %v", len(r.req.pictures), in.Shape)
		}
	})
}

// FuzzInferBody splits a body as the length header says.
func FuzzInferBody(f *testing.F) {
	head := `{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","parameters":{"binary_data_size":12}},` +
		`{"name":"n","shape":[1],"datatype":"INT64","parameters":{"binary_data_size":8}},` +
		`{"name":"s","shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":5}}]}`
	f.Add(strconv.Itoa(len(head)), "", []byte(head+"123456789012"+"12345678"+"\x01\x00\x00\x00a"))
	f.Add("0", "", []byte("123456789012"))
	f.Add("-1", "", []byte(head))
	f.Add("99999999999", "gzip", []byte("\x1f\x8b\x08\x00"))
	f.Add("", "deflate", []byte("\x78\x9c"))
	s := &Server{opt: Options{MaxBody: 1 << 20}.withDefaults()}
	s.memory.limit = 64 << 20
	f.Fuzz(func(t *testing.T, length, encoding string, data []byte) {
		r := httptest.NewRequest("POST", "/", bytes.NewReader(data))
		if length != "" {
			r.Header[headerLength] = []string{length}
		}
		if encoding != "" {
			r.Header["Content-Encoding"] = []string{encoding}
		}
		mem := &arena{m: &s.memory}
		defer mem.free()
		if req, err := s.readInfer(httptest.NewRecorder(), r, &fuzzInfo, mem); err == nil {
			checkInputs(t, &fuzzInfo, req)
		}
	})
}

// FuzzClassify sends anything as a picture. Whatever it is, the answer is JSON and no fault of the server.
func FuzzClassify(f *testing.F) {
	for kind, data := range seedImages(f) {
		f.Add(kind, data)
	}
	f.Add("multipart/form-data; boundary=b", []byte("--b\r\nContent-Disposition: form-data; name=image\r\n\r\nx\r\n--b--\r\n"))
	f.Add("application/json", []byte(`{"image":"/9j/"}`))
	f.Add("application/json", []byte(`{"images":["/9j/","iVBO"]}`))
	s, err := New(Options{Logger: slog.New(slog.DiscardHandler), HTTP: "127.0.0.1:0", MaxPixels: 1 << 20}, classifier())
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		if err := s.Close(); err != nil {
			f.Error(err)
		}
	})
	f.Fuzz(func(t *testing.T, kind string, data []byte) {
		r := httptest.NewRequest("POST", "/v2/models/c/classify", bytes.NewReader(data))
		r.Host = "localhost" // others are refused before a picture is read
		r.Header["Content-Type"] = []string{kind}
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if b, _ := io.ReadAll(w.Result().Body); w.Code >= 500 || w.Code != http.StatusOK && !bytes.HasPrefix(b, []byte(`{"error":`)) {
			t.Errorf("%d %s", w.Code, b)
		}
		if used := s.memory.used.Load(); used != 0 {
			t.Errorf("%d bytes are held after the answer", used)
		}
	})
}
