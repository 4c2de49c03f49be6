package serve_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"image/color"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"

	"spos/serve"
)

// b64 is pictures as strings of a JSON list.
func b64(pictures ...[]byte) string {
	var all []string
	for _, p := range pictures {
		all = append(all, strconv.Quote(base64.StdEncoding.EncodeToString(p)))
	}
	return strings.Join(all, ",")
}

// elementsOf is a BYTES tensor.
func elementsOf(elements ...[]byte) []byte {
	var b []byte
	for _, e := range elements {
		b = append(binary.LittleEndian.AppendUint32(b, uint32(len(e))), e...)
	}
	return b
}

// TestPicturesInEveryForm sends two pictures as a list, and as BYTES in JSON and binary: all must be answered alike.
func TestPicturesInEveryForm(t *testing.T) {
	url := start(t, serve.Options{}, serve.Classifier()) + "/v2/models/c"
	red, blue := plain(t, 9, 5, color.RGBA{255, 0, 0, 255}), plain(t, 4, 8, color.RGBA{0, 0, 255, 255})
	const want = `[1,0,0,0,0,1]`
	for name, tt := range map[string]struct{ shape, parameters, data string }{
		"JSON":                       {"[2]", ``, b64(red, blue)},
		"JSON, a column":             {"[2,1]", ``, "[" + strings.Replace(b64(red, blue), ",", "],[", 1) + "]"},
		"JSON, said to be base64":    {"[2]", `"content_type":"base64"`, b64(red, blue)},
		"JSON, another content_type": {"[2]", `"content_type":"pillow_image"`, b64(red, blue)},
		"JSON, slashes escaped":      {"[2]", `"content_type":1`, strings.ReplaceAll(b64(red, blue), "/", `\/`)},
		"JSON, data URLs":            {"[2]", ``, strings.ReplaceAll(b64(red, blue), `"iVBO`, `"data:image/png;base64,iVBO`)},
	} {
		t.Run(name, func(t *testing.T) {
			body := `{"inputs":[{"name":"input","datatype":"BYTES","shape":` + tt.shape + `,"parameters":{` + tt.parameters + `},"data":[` + tt.data + `]}]}`
			r := send(t, "POST", url+"/infer", nil, []byte(body))
			if r.code != 200 || !strings.Contains(string(r.body), `"datatype":"FP32","shape":[2,3],"data":`+want) {
				t.Errorf("%d %s", r.code, r.body)
			}
		})
	}
	for name, tt := range map[string]struct {
		parameters string
		data       []byte
	}{
		"binary": {``, elementsOf(red, blue)},
		"binary, base64": {
			`"content_type":"base64",`,
			elementsOf([]byte(base64.StdEncoding.EncodeToString(red)), []byte(base64.StdEncoding.EncodeToString(blue))),
		},
	} {
		t.Run(name, func(t *testing.T) {
			head := fmt.Sprintf(`{"inputs":[{"name":"input","datatype":"BYTES","shape":[2],"parameters":{%s"binary_data_size":%d}}]}`, tt.parameters, len(tt.data))
			r := send(t, "POST", url+"/infer", map[string]string{lengthHeader: strconv.Itoa(len(head))}, append([]byte(head), tt.data...))
			if r.code != 200 || !strings.Contains(string(r.body), `"shape":[2,3],"data":`+want) {
				t.Errorf("%d %s", r.code, r.body)
			}
		})
	}
	t.Run("with classification", func(t *testing.T) {
		body := `{"inputs":[{"name":"input","datatype":"BYTES","shape":[2],"data":[` + b64(red, blue) + `]}],` +
			`"outputs":[{"name":"logits","parameters":{"classification":1}}]}`
		r := send(t, "POST", url+"/infer", nil, []byte(body))
		if r.code != 200 || !strings.Contains(string(r.body), `"shape":[2,1],"data":["1.000000:0:red","1.000000:2:blue"]`) {
			t.Errorf("%d %s", r.code, r.body)
		}
	})
	t.Run("a list to classify", func(t *testing.T) {
		r := send(t, "POST", url+"/classify?k=1", map[string]string{"Content-Type": "application/json"}, []byte(`{"images":[`+b64(red, blue)+`]}`))
		var a struct{ Results []answer }
		if err := json.Unmarshal(r.body, &a); err != nil || len(a.Results) != 2 {
			t.Fatalf("%d %s", r.code, r.body)
		}
		for i, label := range []string{"red", "blue"} {
			if p := a.Results[i].Predictions; len(p) != 1 || p[0].Label != label {
				t.Errorf("picture %d: %+v", i, p)
			}
		}
	})
	if r := send(t, "GET", url, nil, nil); !strings.Contains(string(r.body), `"images":"jpeg, png"`) {
		t.Errorf("the metadata is silent: %s", r.body)
	}
}

func TestPicturesRefused(t *testing.T) {
	one := serve.Classifier().Info()
	one.Name = "one"
	one.Inputs = []serve.TensorInfo{{Name: "input", Type: serve.FP32, Shape: []int64{1, 3, 4, 4}}}
	free := serve.Classifier().Info()
	recipe := *free.Recipe
	recipe.Height, recipe.Width = 0, 0
	free.Name, free.Recipe, free.Inputs = "free", &recipe, []serve.TensorInfo{{Name: "input", Type: serve.FP32, Shape: []int64{-1, 3, -1, -1}}}
	url := start(t, serve.Options{MaxImage: 4 << 10}, serve.Classifier(), &fake{one, echo}, &fake{free, echo}, echoModel("m", fp32x3)) + "/v2/models/"
	good := serve.SeedImages(t)["image/png"]
	other := plain(t, 2, 3, color.White)
	many := strings.Repeat(b64(good)+",", 1025)
	for name, tt := range map[string]struct {
		model, shape, data string
		code               int
		part               string
	}{
		"one of two is broken":    {"c", "[2]", b64(good, good[:60]), 400, "picture 1"},
		"one of two is no format": {"c", "[2]", b64([]byte("hello"), good), 415, "picture 0"},
		"one of two is a bomb":    {"c", "[2]", b64(good, pngHeader(60_000, 60_000)[:100]), 413, "picture 1"},
		"too many bytes":          {"c", "[1]", b64(append(bytes.Clone(good), make([]byte, 4<<10)...)), 413, "too large"},
		"an empty one":            {"c", "[1]", `""`, 400, "no picture"},
		"no base64":               {"c", "[1]", `"!!!!"`, 400, "not base64"},
		"an address":              {"c", "[1]", `"http://169.254.169.254/"`, 400, "not followed"},
		"a row":                   {"c", "[1,2]", b64(good, good), 400, "[N]"},
		"a cube":                  {"c", "[1,1,1]", b64(good), 400, "[N]"},
		"a scalar":                {"c", "[]", b64(good), 400, "[N]"},
		"none":                    {"c", "[0]", "", 400, "[N]"},
		"fewer than said":         {"c", "[2]", b64(good), 400, "1 values"},
		"too many":                {"c", "[1025]", many[:len(many)-1], 400, "1025 pictures"},
		"two for a model of one":  {"one", "[2]", b64(good, good), 400, "1 pictures at a time"},
		"two sizes, none fixed":   {"free", "[2]", b64(good, other), 400, "one size"},
		"a model of tensors":      {"m", "[1]", b64(good), 400, "no input"},
	} {
		t.Run(name, func(t *testing.T) {
			body := `{"inputs":[{"name":"input","datatype":"BYTES","shape":` + tt.shape + `,"data":[` + tt.data + `]}]}`
			wantError(t, send(t, "POST", url+tt.model+"/infer", nil, []byte(body)), tt.code, tt.part)
		})
	}
}

// TestOrientationIsIgnored pins a decision: the usual training stacks read pixels as they are stored, and a network
// must see in production what it saw in training. So must a picture with thumbnails and profiles of any size.
func TestOrientationIsIgnored(t *testing.T) {
	url := start(t, serve.Options{}, serve.Classifier()) + "/v2/models/c/classify"
	jpeg := serve.SeedImages(t)["image/jpeg"]
	upright := send(t, "POST", url, nil, jpeg)
	if upright.code != 200 {
		t.Fatalf("%d %s", upright.code, upright.body)
	}
	segment := func(marker byte, data string) []byte {
		return append([]byte{0xff, marker, byte((len(data) + 2) >> 8), byte(len(data) + 2)}, data...)
	}
	exif := func(orientation byte, junk int) []byte {
		return segment(0xe1, "Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00"+string(orientation)+"\x00\x00\x00\x00\x00\x00"+
			strings.Repeat("j", junk))
	}
	profile := bytes.Repeat(segment(0xe2, "ICC_PROFILE\x00\x01\x01"+strings.Repeat("p", 60_000)), 20)
	heads := map[string][]byte{"orientation 6, 60 KB of junk": exif(6, 60_000), "a profile of a megabyte": profile, "broken EXIF": segment(0xe1, "Exif\x00\x00MM")}
	for o := range byte(9) {
		heads["orientation "+strconv.Itoa(int(o))] = exif(o, 0)
	}
	for name, head := range heads {
		t.Run(name, func(t *testing.T) {
			r := send(t, "POST", url, nil, slices.Concat(jpeg[:2], head, jpeg[2:]))
			if r.code != 200 || !bytes.Equal(r.body, upright.body) {
				t.Errorf("%d %s\nwant %s", r.code, r.body, upright.body)
			}
		})
	}
}

// TestDamagedPictures cuts and flips: the answer is a label or the sender's fault, and nothing is left behind.
func TestDamagedPictures(t *testing.T) {
	url := start(t, serve.Options{}, serve.Classifier()) + "/v2/models/c/classify"
	flips := 150
	if os.Getenv("SPOS_LONG") != "" {
		flips = 10_000
	}
	images := serve.SeedImages(t)
	random := rand.New(rand.NewPCG(1, 2))
	for _, kind := range slices.Sorted(maps.Keys(images)) {
		data := images[kind]
		for cut := 0; cut < len(data); cut += max(len(data)/50, 1) {
			if r := send(t, "POST", url, nil, data[:cut]); r.code != 400 && r.code != 415 {
				t.Errorf("%s cut at %d: %d %s", kind, cut, r.code, r.body)
			}
		}
		for range flips {
			b := bytes.Clone(data)
			for range 1 + random.IntN(3) {
				b[random.IntN(len(b))] ^= 1 << random.IntN(8)
			}
			if r := send(t, "POST", url, nil, b); !slices.Contains([]int{200, 400, 413, 415}, r.code) {
				t.Errorf("%s: %d %s\n%x", kind, r.code, r.body, b)
			}
		}
	}
}

// TestOddPictures are valid and unusual.
func TestOddPictures(t *testing.T) {
	url := start(t, serve.Options{}, serve.Classifier()) + "/v2/models/c/classify"
	frames := serve.SeedImages(t)["image/png"]
	ihdr := 8 + 25
	acTL := []byte("\x00\x00\x00\x08acTL\x00\x00\x27\x10\x00\x00\x00\x00")
	acTL = binary.BigEndian.AppendUint32(acTL, crc(acTL[4:]))
	cmyk, err := os.ReadFile("../internal/imaging/testdata/golden/cmyk_61x47.jpg")
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"one pixel":            plain(t, 1, 1, color.White),
		"a line":               plain(t, 1, 10_000, color.White),
		"an animation's first": slices.Concat(frames[:ihdr], acTL, frames[ihdr:]),
		"CMYK":                 cmyk,
	} {
		t.Run(name, func(t *testing.T) {
			if r := send(t, "POST", url, nil, data); r.code != 200 {
				t.Errorf("%d %s", r.code, r.body)
			}
		})
	}
}

// TestDecodingWaitsForCores: a picture's pixels cost as much as a run, so that they wait as one does; its header costs
// nothing, and what it rules out is answered at once.
func TestDecodingWaitsForCores(t *testing.T) {
	images := serve.SeedImages(t)
	synctest.Test(t, func(t *testing.T) {
		registry := prometheus.NewRegistry()
		m := newGated()
		b := newBubble(t, serve.Options{Cores: 1, Registry: registry}, m, serve.Classifier())
		defer b.finish()
		classify := func(data []byte) <-chan int {
			c := make(chan int, 1)
			go func() {
				resp, err := b.client.Post("http://s/v2/models/c/classify", "", bytes.NewReader(data))
				if err != nil {
					t.Error(err)
					c <- 0
					return
				}
				defer resp.Body.Close()
				_, _ = io.Copy(io.Discard, resp.Body)
				c <- resp.StatusCode
			}()
			return c
		}
		running := b.infer(t.Context(), "")
		synctest.Wait()
		waiting := classify(images["image/jpeg"])
		synctest.Wait()
		if n := decoded(t, registry); n != 0 {
			t.Errorf("%d pictures were decoded while the only core was taken", n)
		}
		if code := <-classify(pngHeader(60_000, 60_000)[:100]); code != 413 {
			t.Errorf("a bomb was answered with %d", code)
		}
		close(m.gate)
		if code := <-waiting; code != 200 {
			t.Errorf("the picture was answered with %d", code)
		}
		<-running
		if n := decoded(t, registry); n != 1 {
			t.Errorf("%d pictures were decoded, want 1", n)
		}
	})
}

// decoded is how many pictures have been.
func decoded(t *testing.T, registry *prometheus.Registry) (n uint64) {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "spos_serve_decode_seconds" {
			for _, m := range f.GetMetric() {
				n += m.GetHistogram().GetSampleCount()
			}
		}
	}
	return n
}
