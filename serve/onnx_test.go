package serve_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"image"
	"log/slog"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"spos/internal/imaging"
	"spos/internal/native"
	"spos/internal/ort"
	"spos/serve"
)

const ortModels = "../internal/ort/testdata"

// library is ONNX Runtime for a test, which is skipped where there is none.
func library(t testing.TB) *ort.Runtime {
	t.Helper()
	path, err := native.ONNXRuntime()
	if err != nil {
		t.Skip(err)
	}
	rt, err := ort.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return rt
}

// repository makes a directory of models: files by "<model>/<version>".
func repository(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for place, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(dir, place), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, place, "model.onnx"), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// startONNX serves a directory.
func startONNX(t testing.TB, dir string, o serve.Options, log *slog.Logger) string {
	t.Helper()
	repo, err := serve.OpenRepository(t.Context(), dir, serve.RepositoryOptions{Runtime: library(t), Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := repo.Close(); err != nil {
			t.Error(err)
		}
	})
	o.Source = repo
	return start(t, o, repo.Models()...)
}

func TestRepository(t *testing.T) {
	library(t)
	dir := repository(t, map[string]string{
		"picture/1": "testdata/no_metadata.onnx", "picture/9": "testdata/picture.onnx", "picture/10": "testdata/picture.onnx",
		"picture/2": ortModels + "/bad/truncated.onnx", "picture/011": "testdata/picture.onnx", "picture/x": "testdata/picture.onnx",
		"truncated/1": ortModels + "/bad/truncated.onnx", "empty/1": ortModels + "/bad/empty.onnx", "page/1": ortModels + "/bad/not_onnx.onnx",
		"bad_recipe/1": "testdata/bad_recipe.onnx", "bad_labels/1": "testdata/bad_labels.onnx", "newer/1": "testdata/newer_format.onnx",
		".hidden/1": "testdata/picture.onnx",
	})
	outside := repository(t, map[string]string{"m/1": "testdata/picture.onnx"})
	for _, link := range []struct{ from, to string }{{filepath.Join(outside, "m"), "link"}, {filepath.Join(outside, "m", "1"), "inner/1"}} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, link.to)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(link.from, filepath.Join(dir, link.to)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "pipe", "1"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe", "1", "model.onnx"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "no_version"), 0o755); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	url := startONNX(t, dir, serve.Options{}, slog.New(slog.NewTextHandler(&log, nil)))
	for path, code := range map[string]int{
		"picture": 200, "picture/versions/10": 200, "picture/versions/9": 200, "picture/versions/1": 200, "picture/versions/2": 503,
		"picture/versions/011": 404, "picture/versions/x": 404, "picture/versions/3": 404,
		"truncated": 503, "empty": 503, "page": 503, "bad_recipe": 503, "bad_labels": 503, "newer": 503, "inner": 503, "pipe": 503,
		".hidden": 404, "link": 404, "no_version": 404,
	} {
		r := send(t, "GET", url+"/v2/models/"+path, nil, nil)
		if r.code != code {
			t.Errorf("%s: %d %s, want %d", path, r.code, r.body, code)
		}
		if strings.Contains(string(r.body), dir) {
			t.Errorf("%s: the client sees the directory: %s", path, r.body)
		}
	}
	for _, reason := range []string{"heigth", "spos.labels", "format 2", "not a regular file", "0 bytes"} {
		if !strings.Contains(log.String(), reason) {
			t.Errorf("the log does not say %q", reason)
		}
	}
	var meta struct {
		Versions   []string
		Properties map[string]string
	}
	if err := json.Unmarshal(send(t, "GET", url+"/v2/models/picture", nil, nil).body, &meta); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(meta.Versions, []string{"1", "9", "10"}) || meta.Properties["arch"] != "0123" || meta.Properties["lineage.run"] != "r1" {
		t.Errorf("metadata %+v", meta)
	}
}

func TestRepositoriesThatCannotBeServed(t *testing.T) {
	rt := library(t)
	for name, tt := range map[string]struct{ dir, part string }{
		"absent":          {filepath.Join(t.TempDir(), "nope"), "nope"},
		"empty":           {t.TempDir(), "<model>/<version>/model.onnx"},
		"only broken":     {repository(t, map[string]string{"m/1": ortModels + "/bad/truncated.onnx"}), "no model of"},
		"labels too few":  {repository(t, map[string]string{"m/1": "testdata/few_labels.onnx"}), "1 labels"},
		"without version": {repository(t, map[string]string{"m": "testdata/picture.onnx"}), "<version>"},
	} {
		t.Run(name, func(t *testing.T) {
			repo, err := serve.OpenRepository(t.Context(), tt.dir, serve.RepositoryOptions{Runtime: rt, Logger: quiet()})
			if err == nil {
				t.Fatalf("opened (%v)", repo.Close())
			}
			if !strings.Contains(err.Error(), tt.part) {
				t.Errorf("%v, want %q", err, tt.part)
			}
			repo, err = serve.OpenRepository(t.Context(), tt.dir, serve.RepositoryOptions{Runtime: rt, Logger: quiet(), MayBeEmpty: true})
			if absent := name == "absent"; absent != (err != nil) {
				t.Errorf("where models may come later: %v", err)
			}
			if err == nil {
				if err := repo.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// TestONNXTypes sends every datatype through ONNX Runtime's Identity.
func TestONNXTypes(t *testing.T) {
	library(t)
	files := map[string]string{}
	names := map[serve.Datatype]string{serve.Bytes: "string"}
	for d := serve.Bool; d <= serve.Bytes; d++ {
		if names[d] == "" {
			names[d] = strings.ToLower(d.String())
		}
		files[names[d]+"/1"] = ortModels + "/identity_" + names[d] + ".onnx"
	}
	url := startONNX(t, repository(t, files), serve.Options{}, quiet())
	all := map[serve.Datatype][]element{serve.FP16: {{"", "\x00\x3c"}, {"", "\x00\xfc"}}, serve.BF16: {{"", "\x80\x3f"}}}
	maps.Copy(all, elements)
	for d, es := range all {
		t.Run(d.String(), func(t *testing.T) {
			var data strings.Builder
			for _, e := range es {
				data.WriteString(e.bytes)
			}
			head := fmt.Sprintf(`{"inputs":[{"name":"x","shape":[%d],"datatype":"%s","parameters":{"binary_data_size":%d}}],`+
				`"parameters":{"binary_data_output":true}}`, len(es), d, len(data.String()))
			for range 3 { // pooled memory comes back
				r := send(t, "POST", url+"/v2/models/"+names[d]+"/infer", map[string]string{lengthHeader: strconv.Itoa(len(head))}, []byte(head+data.String()))
				n, err := strconv.Atoi(r.header.Get(lengthHeader))
				if r.code != 200 || err != nil || string(r.body[n:]) != data.String() {
					t.Fatalf("%d %q, want %q", r.code, r.body, data.String())
				}
			}
		})
	}
	r := send(t, "POST", url+"/v2/models/fp16/infer", nil, []byte(`{"inputs":[{"name":"x","shape":[1],"datatype":"FP16","data":[1]}]}`))
	wantError(t, r, 400, "no JSON form")
	head := `{"inputs":[{"name":"x","shape":[1],"datatype":"FP16","parameters":{"binary_data_size":2}}]}`
	r = send(t, "POST", url+"/v2/models/fp16/infer", map[string]string{lengthHeader: strconv.Itoa(len(head))}, []byte(head+"ab"))
	wantError(t, r, 400, "ask for it with binary_data")
}

// TestONNXClassify holds the image endpoint to the same steps taken by hand.
func TestONNXClassify(t *testing.T) {
	rt := library(t)
	url := startONNX(t, repository(t, map[string]string{"picture/1": "testdata/picture.onnx"}), serve.Options{}, quiet())
	session, err := rt.OpenSession("testdata/picture.onnx", ort.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	recipe, err := imaging.ParseRecipe([]byte(session.Metadata()["spos.preprocess"]))
	if err != nil {
		t.Fatal(err)
	}
	for kind, data := range serve.SeedImages(t) {
		img, err := imaging.Decode(data, imaging.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		input := make([]float32, 3*224*224)
		if err := recipe.Apply(img, input); err != nil {
			t.Fatal(err)
		}
		out := make([]ort.Tensor, 1)
		if err := session.Run(t.Context(), []ort.Tensor{ort.Of(input, 1, 3, 224, 224)}, out); err != nil {
			t.Fatal(err)
		}
		logits := ort.View[float32](out[0])
		sum := 0.
		for _, x := range logits {
			sum += math.Exp(float64(x))
		}
		r := send(t, "POST", url+"/v2/models/picture/classify", nil, data)
		var a answer
		if err := json.Unmarshal(r.body, &a); err != nil || len(a.Predictions) != 4 {
			t.Fatalf("%s: %d %s", kind, r.code, r.body)
		}
		for i, p := range a.Predictions {
			const rounding = 1e-12 // of a sum of exponentials taken in another order
			if want := math.Exp(float64(logits[p.Index])) / sum; math.Abs(p.Probability-want) > rounding {
				t.Errorf("%s: class %d has %v, want %v", kind, p.Index, p.Probability, want)
			}
			if p.Label != []string{"ant", "bee", "cat", "dog"}[p.Index] || i > 0 && p.Probability > a.Predictions[i-1].Probability {
				t.Errorf("%s: place %d is %+v", kind, i, p)
			}
		}
	}
}

// TestONNXStops gives a run of a second or so a fifth of one. On a busy machine
// the time may be over before the run begins, which is no test of stopping it.
func TestONNXStops(t *testing.T) {
	library(t)
	if testing.Short() {
		t.Skip("loads a slow model")
	}
	url := startONNX(t, repository(t, map[string]string{"slow/1": ortModels + "/slow.onnx"}), serve.Options{Cores: 1}, quiet())
	head := `{"parameters":{"timeout":200000},"inputs":[{"name":"x","shape":[384,384],"datatype":"FP32","parameters":{"binary_data_size":589824}}]}`
	body := append([]byte(head), make([]byte, 589824)...)
	for stopped, tries := 0, 0; stopped < 2; tries++ {
		r := send(t, "POST", url+"/v2/models/slow/infer", map[string]string{lengthHeader: strconv.Itoa(len(head))}, body)
		if r.code == 503 && tries < 20 {
			continue
		}
		wantError(t, r, 504, "computed")
		stopped++
	}
}

// BenchmarkHTTP is the server's own price: the same model in process, by raw binary, by JSON, and from a picture.
func BenchmarkHTTP(b *testing.B) {
	rt := library(b)
	url := startONNX(b, repository(b, map[string]string{"picture/1": benchmarkModel()}), serve.Options{}, quiet()) + "/v2/models/picture/"
	input := make([]float32, 3*224*224)
	for i := range input {
		input[i] = float32(i%251)/251 - 0.5
	}
	tensor := ort.Of(input, 1, 3, 224, 224)
	text, err := json.Marshal(input)
	if err != nil {
		b.Fatal(err)
	}
	text = fmt.Appendf(nil, `{"inputs":[{"name":"input","shape":[1,3,224,224],"datatype":"FP32","data":%s}]}`, text)
	photo := new(bytes.Buffer)
	img := image.NewRGBA(image.Rect(0, 0, 500, 375))
	for i := range img.Pix {
		img.Pix[i] = byte(i >> 5)
	}
	if err := encodeJPEG(photo, img); err != nil {
		b.Fatal(err)
	}
	b.Run("run", func(b *testing.B) {
		session, err := rt.OpenSession(benchmarkModel(), ort.Options{})
		if err != nil {
			b.Fatal(err)
		}
		defer session.Close()
		out := make([]ort.Tensor, 1)
		timed(b, func() error { out[0] = ort.Tensor{}; return session.Run(b.Context(), []ort.Tensor{tensor}, out) })
	})
	post := func(path string, header map[string]string, body []byte) func(*testing.B) {
		return func(b *testing.B) {
			timed(b, func() error {
				r := send(b, "POST", url+path, header, body)
				if bytes.Contains(r.body, []byte("without preprocessing")) {
					b.Skip("the model came without preprocessing")
				}
				if r.code != 200 {
					return fmt.Errorf("%d %s", r.code, r.body)
				}
				return nil
			})
		}
	}
	b.Run("raw", post("infer", map[string]string{lengthHeader: "0"}, tensor.Data))
	b.Run("json", post("infer", nil, text))
	b.Run("jpeg", post("classify", nil, photo.Bytes()))
}

// benchmarkModel is $SPOS_MODEL, a file of input [N,3,224,224], or a tiny one beside the test.
func benchmarkModel() string {
	if path := os.Getenv("SPOS_MODEL"); path != "" {
		return path
	}
	return "testdata/picture.onnx"
}

// TestBatchingEqualsSingleRuns sends each of several requests to a model by itself, and all of them to the same model as
// one batch. Kernels may add in another order for a batch: a few units in the last place.
func TestBatchingEqualsSingleRuns(t *testing.T) {
	dir := repository(t, map[string]string{"one/1": benchmarkModel(), "many/1": benchmarkModel()})
	if err := os.WriteFile(filepath.Join(dir, "many", "config.yaml"), []byte("batching: {max: 8, delay: 1m, preferred: [5]}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	url := startONNX(t, dir, serve.Options{Timeout: time.Hour}, quiet())
	rng := rand.New(rand.NewPCG(1, 1))
	ask := func(model string, body []byte) []float32 {
		r := send(t, "POST", url+"/v2/models/"+model+"/infer", map[string]string{lengthHeader: "0"}, body)
		n, err := strconv.Atoi(r.header.Get(lengthHeader))
		if r.code != 200 || err != nil {
			t.Errorf("%s: %d %s", model, r.code, r.body)
			return nil
		}
		values := make([]float32, (len(r.body)-n)/4)
		if _, err := binary.Decode(r.body[n:], binary.LittleEndian, values); err != nil {
			t.Error(err)
		}
		return values
	}
	var bodies [4][]byte
	var alone, together [4][]float32
	for i := range bodies {
		for range (1 + i/3) * 3 * 224 * 224 { // the last is of two pictures
			bodies[i] = binary.LittleEndian.AppendUint32(bodies[i], math.Float32bits(rng.Float32()))
		}
		alone[i] = ask("one", bodies[i])
	}
	var group sync.WaitGroup
	for i := range bodies {
		group.Go(func() { together[i] = ask("many", bodies[i]) })
	}
	group.Wait()
	exact := true
	for i := range bodies {
		if len(alone[i]) == 0 || len(alone[i]) != len(together[i]) {
			t.Fatalf("request %d: %d values alone, %d in a batch", i, len(alone[i]), len(together[i]))
		}
		for j, a := range alone[i] {
			b := together[i][j]
			exact = exact && a == b
			if diff := math.Abs(float64(a - b)); diff > 1e-5*max(1, math.Abs(float64(a))) {
				t.Fatalf("request %d, value %d: %v alone, %v in a batch", i, j, a, b)
			}
		}
	}
	t.Logf("equal to the last bit: %v", exact)
	stats := send(t, "GET", url+"/v2/models/many/stats", nil, nil)
	if !strings.Contains(string(stats.body), `"execution_count":1,`) || !strings.Contains(string(stats.body), `"batch_size":5,`) {
		t.Errorf("the batch was not one run: %s", stats.body)
	}
	config := send(t, "GET", url+"/v2/models/many/config", nil, nil)
	if !strings.Contains(string(config.body), `"dynamic_batching":{"preferred_batch_size":[5],"max_queue_delay_microseconds":60000000}`) {
		t.Errorf("its configuration: %s", config.body)
	}
}
