package serve_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"hash/crc32"
	"image"
	"image/color"
	"image/png"
	"io"
	"mime/multipart"
	"runtime"
	"strings"
	"testing"

	"spos/serve"
)

type answer struct {
	ModelName    string `json:"model_name"`
	ModelVersion string `json:"model_version"`
	Predictions  []struct {
		Label       string
		Index       int
		Probability float64
	}
}

// plain is a PNG of one colour.
func plain(t *testing.T, w, h int, c color.Color) []byte {
	t.Helper()
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	for i := range w * h {
		img.Set(i%w, i/w, c)
	}
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// pngHeader is a PNG of that size that ends after its header.
func pngHeader(w, h uint32) []byte {
	chunk := []byte("IHDR")
	chunk = binary.BigEndian.AppendUint32(chunk, w)
	chunk = binary.BigEndian.AppendUint32(chunk, h)
	chunk = append(chunk, 8, 6, 0, 0, 0)
	b := append([]byte("\x89PNG\r\n\x1a\n"), 0, 0, 0, 13)
	b = append(b, chunk...)
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(chunk))
	return append(b, make([]byte, 1<<20)...)
}

// form is a multipart body with these parts; a name that starts with a slash is a field's, others are files'.
func form(t *testing.T, names []string, data []byte) (kind string, body []byte) {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for _, name := range names {
		create := func() (io.Writer, error) { return w.CreateFormFile("upload", name) }
		if field, ok := strings.CutPrefix(name, "/"); ok {
			create = func() (io.Writer, error) { return w.CreateFormField(field) }
		}
		part, err := create()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := part.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return w.FormDataContentType(), b.Bytes()
}

func TestClassify(t *testing.T) {
	url := start(t, serve.Options{}, serve.Classifier())
	green := plain(t, 10, 6, color.RGBA{0, 255, 51, 255})
	encoded := base64.StdEncoding.EncodeToString(green)
	fileKind, file := form(t, []string{"/note", "a.jpg"}, green)
	fieldKind, field := form(t, []string{"/note", "/image"}, green)
	for name, tt := range map[string]struct {
		query, kind string
		body        []byte
		n           int
	}{
		"bytes":                  {"", "", green, 3},
		"bytes under a lie":      {"", "image/jpeg", green, 3},
		"top 2":                  {"?k=2", "image/png", green, 2},
		"more than there are":    {"?k=1000", "image/png", green, 3},
		"file of a form":         {"", fileKind, file, 3},
		"field of a form":        {"", fieldKind, field, 3},
		"base64":                 {"", "application/json", []byte(`{"image":"` + encoded + `"}`), 3},
		"base64, slash escaped":  {"", "application/json; charset=utf-8", []byte(`{"x":1,"image":"` + strings.ReplaceAll(encoded, "/", `\/`) + `"}`), 3},
		"data URL":               {"", "application/json", []byte(`{"image":"data:image/png;base64,` + encoded + `"}`), 3},
		"bytes after the image":  {"", "image/png", append(bytes.Clone(green), "tail"...), 3},
		"version in the path":    {"", "image/png", green, 3},
		"content type malformed": {"", ";;;", green, 3},
	} {
		t.Run(name, func(t *testing.T) {
			path := "/v2/models/c/classify"
			if strings.HasPrefix(name, "version") {
				path = "/v2/models/c/versions/1/classify"
			}
			r := send(t, "POST", url+path+tt.query, map[string]string{"Content-Type": tt.kind}, tt.body)
			var a answer
			if err := json.Unmarshal(r.body, &a); err != nil || r.code != 200 || a.ModelName != "c" || a.ModelVersion != "1" {
				t.Fatalf("%d %s", r.code, r.body)
			}
			// The logits are 0, 1 and 0.2.
			if len(a.Predictions) != tt.n || a.Predictions[0].Label != "green" || a.Predictions[0].Index != 1 {
				t.Fatalf("predictions %+v", a.Predictions)
			}
			if p := a.Predictions[0].Probability; p < 0.550 || p > 0.551 { // e / (e + 1 + e^0.2)
				t.Errorf("probability %v", p)
			}
			if a.Predictions[1].Label != "blue" {
				t.Errorf("second is %+v", a.Predictions[1])
			}
		})
	}
	t.Run("ties go by index", func(t *testing.T) {
		r := send(t, "POST", url+"/v2/models/c/classify", nil, plain(t, 3, 3, color.White))
		var a answer
		if err := json.Unmarshal(r.body, &a); err != nil {
			t.Fatal(err)
		}
		for i, p := range a.Predictions {
			if p.Index != i {
				t.Errorf("place %d: %+v", i, p)
			}
		}
	})
}

// reframed is a JPEG whose frame header says another kind and depth.
func reframed(t *testing.T, jpeg []byte, kind, bits byte) []byte {
	t.Helper()
	at := bytes.Index(jpeg, []byte{0xff, 0xc0})
	if at < 0 {
		t.Fatal("no frame header")
	}
	b := bytes.Clone(jpeg)
	b[at+1], b[at+4] = kind, bits
	return b
}

func TestClassifyRefuses(t *testing.T) {
	const maxImage, memory = 2 << 20, 8 << 20
	url := start(t, serve.Options{MaxImage: maxImage, MaxPixels: 4e6, Memory: memory}, serve.Classifier(), echoModel("m", fp32x3))
	good := serve.SeedImages(t)
	jpeg := good["image/jpeg"]
	many := make([]string, 100)
	for i := range many {
		many[i] = "/field"
	}
	twoKind, two := form(t, []string{"a.png", "b.png"}, good["image/png"])
	noneKind, none := form(t, []string{"/note"}, good["image/png"])
	manyKind, partMany := form(t, many, nil)
	for name, tt := range map[string]struct {
		path, kind string
		body       []byte
		code       int
		part       string
	}{
		"empty":                   {"", "", nil, 400, "no picture"},
		"text":                    {"", "image/jpeg", []byte("hello, I am a picture"), 415, "neither JPEG nor PNG"},
		"SVG":                     {"", "image/svg+xml", []byte("<svg xmlns='http://www.w3.org/2000/svg'/>"), 415, ""},
		"GIF":                     {"", "image/gif", []byte("GIF89a\x01\x00\x01\x00\x00\x00\x00"), 415, ""},
		"WebP":                    {"", "image/webp", []byte("RIFF\x24\x00\x00\x00WEBPVP8 "), 415, ""},
		"TIFF":                    {"", "image/tiff", []byte("II*\x00\x08\x00\x00\x00"), 415, ""},
		"BMP":                     {"", "image/bmp", []byte("BM\x46\x00\x00\x00\x00\x00"), 415, ""},
		"HEIC":                    {"", "image/heic", []byte("\x00\x00\x00\x18ftypheic"), 415, ""},
		"PDF":                     {"", "image/jpeg", []byte("%PDF-1.7\n"), 415, ""},
		"ZIP with a JPEG inside":  {"", "image/jpeg", append([]byte("PK\x03\x04"), jpeg...), 415, ""},
		"arithmetic-coded JPEG":   {"", "", reframed(t, jpeg, 0xc9, 8), 415, ""},
		"JPEG of 12 bits":         {"", "", reframed(t, jpeg, 0xc1, 12), 415, ""},
		"HTML":                    {"", "image/png", []byte("<html>"), 415, ""},
		"truncated JPEG":          {"", "", jpeg[:len(jpeg)-40], 400, "bad image"},
		"JPEG header only":        {"", "", jpeg[:3], 400, "bad image"},
		"PNG bomb":                {"", "", pngHeader(60_000, 60_000), 413, "too large"},
		"PNG of too many pixels":  {"", "", pngHeader(2_001, 2_000), 413, "too large"},
		"PNG of no pixels":        {"", "", pngHeader(0, 5), 400, ""},
		"PNG beyond the memory":   {"", "", pngHeader(1_500, 1_000), 413, "memory"},
		"body too large":          {"", "", make([]byte, maxImage+1), 413, ""},
		"two files":               {"", twoKind, two, 400, "more than one"},
		"no file":                 {"", noneKind, none, 400, "no file"},
		"many parts":              {"", manyKind, partMany, 400, "parts"},
		"form of a long header":   {"", twoKind, bytes.Replace(two, []byte("a.png"), bytes.Repeat([]byte("a"), 1<<20), 1), 400, "header"},
		"form without boundary":   {"", "multipart/form-data", two, 400, "malformed"},
		"form cut":                {"", twoKind, two[:30], 400, "malformed"},
		"JSON without image":      {"", "application/json", []byte(`{}`), 400, "image is missing"},
		"JSON with both":          {"", "application/json", []byte(`{"image":"AAAA","images":["AAAA"]}`), 400, "use one"},
		"JSON, empty list":        {"", "application/json", []byte(`{"images":[]}`), 400, "image is missing"},
		"JSON, no string":         {"", "application/json", []byte(`{"image":7}`), 400, "a string of base64"},
		"JSON, no picture":        {"", "application/json", []byte(`{"image":""}`), 400, "no picture"},
		"JSON twice":              {"", "application/json", []byte(`{"image":"","image":""}`), 400, "twice"},
		"JSON cut":                {"", "application/json", []byte(`{"image":"`), 400, "end"},
		"base64 with a newline":   {"", "application/json", []byte(`{"image":"/9j/\n"}`), 400, "base64"},
		"base64 badly padded":     {"", "application/json", []byte(`{"image":"/9j/AA="}`), 400, "base64"},
		"an address":              {"", "application/json", []byte(`{"image":"http://169.254.169.254/latest"}`), 400, "not followed"},
		"a file's address":        {"", "application/json", []byte(`{"image":"file:///etc/passwd"}`), 400, "not followed"},
		"k of 0":                  {"/v2/models/c/classify?k=0", "", jpeg, 400, "k is not"},
		"k a word":                {"/v2/models/c/classify?k=all", "", jpeg, 400, "k is not"},
		"k twice":                 {"/v2/models/c/classify?k=1&k=2", "", jpeg, 400, "k is not"},
		"broken query":            {"/v2/models/c/classify?k=%zz", "", jpeg, 400, "query"},
		"model without recipe":    {"/v2/models/m/classify", "", jpeg, 400, "without preprocessing"},
		"model that is not there": {"/v2/models/z/classify", "", jpeg, 404, "unknown model"},
	} {
		t.Run(name, func(t *testing.T) {
			path := tt.path
			if path == "" {
				path = "/v2/models/c/classify"
			}
			r := send(t, "POST", url+path, map[string]string{"Content-Type": tt.kind}, tt.body)
			wantError(t, r, tt.code, tt.part)
			if says := r.header.Get("Accept-Encoding"); says != "" {
				t.Errorf("a picture is refused with Accept-Encoding %q", says)
			}
		})
	}
	if r := send(t, "POST", url+"/v2/models/c/classify", nil, jpeg); r.code != 200 {
		t.Errorf("afterwards: %d %s", r.code, r.body)
	}
}

// TestBombIsNotUnpacked measures what a picture of 3.6 gigapixels makes the process allocate.
func TestBombIsNotUnpacked(t *testing.T) {
	url := start(t, serve.Options{}, serve.Classifier())
	bomb := pngHeader(60_000, 60_000)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	r := send(t, "POST", url+"/v2/models/c/classify", nil, bomb)
	runtime.ReadMemStats(&after)
	wantError(t, r, 413, "too large")
	// Reading the body takes a pooled buffer of twice its size, the client a copy.
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 8*uint64(len(bomb)) {
		t.Errorf("%d bytes were allocated for a body of %d", grown, len(bomb))
	}
}

func TestRecipeMustFitTheModel(t *testing.T) {
	for name, change := range map[string]func(*serve.ModelInfo){
		"size":     func(i *serve.ModelInfo) { i.Inputs[0].Shape = []int64{-1, 3, 5, 5} },
		"channels": func(i *serve.ModelInfo) { i.Recipe.Color = "gray" },
		"datatype": func(i *serve.ModelInfo) { i.Inputs[0].Type = serve.Uint8 },
		"rank":     func(i *serve.ModelInfo) { i.Inputs[0].Shape = []int64{-1, 48} },
		"labels":   func(i *serve.ModelInfo) { i.Labels = i.Labels[:2] },
		"recipe":   func(i *serve.ModelInfo) { i.Recipe.Std = []float32{0} },
		"inputs":   func(i *serve.ModelInfo) { i.Inputs = append(i.Inputs, i.Inputs[0]) },
	} {
		t.Run(name, func(t *testing.T) {
			m := &fake{info: serve.Classifier().Info(), run: echo}
			change(&m.info)
			if s, err := serve.New(serve.Options{Logger: quiet(), HTTP: "127.0.0.1:0"}, m); err == nil {
				t.Errorf("accepted (%v)", s.Close())
			} else if !strings.Contains(err.Error(), `"c"`) {
				t.Errorf("%v does not name the model", err)
			}
		})
	}
}

func crc(chunk []byte) uint32 { return crc32.ChecksumIEEE(chunk) }
