package serve_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"spos/serve"
)

func TestModelControlRefusals(t *testing.T) {
	s := newShelf()
	s.put("m", serve.ModelOptions{}, "1", "one")
	s.put("model..1", serve.ModelOptions{}, "1", "dotted")
	free := start(t, serve.Options{Source: s, ModelControl: true}, echoModel("m", fp32x3))
	deep := strings.Repeat("[", 250_000)
	for name, tt := range map[string]struct {
		path, body string
		code       int
		part       string
	}{
		"index":                    {"index", "", 200, ""},
		"index, ready":             {"index", `{"ready":true}`, 200, ""},
		"index, deep":              {"index", `{"ready":` + deep, 400, ""},
		"index, deep unknown":      {"index", `{"x":` + deep, 400, ""},
		"index, no object":         {"index", `[]`, 400, ""},
		"index, twice":             {"index", `{"ready":true,"ready":true}`, 400, "twice"},
		"index, other type":        {"index", `{"ready":1}`, 400, "ready"},
		"index, another":           {"named/index", "", 501, "one repository"},
		"load, another":            {"named/models/m/load", "", 501, "one repository"},
		"unload, another":          {"named/models/m/unload", "", 501, ""},
		"load":                     {"models/model..1/load", "", 200, ""},
		"load, no such":            {"models/nope/load", "", 404, "nope"},
		"load, three dots":         {"models/.../load", "", 404, ""},
		"load, blank":              {"models/%20%09/load", "", 400, "no name"},
		"load, up":                 {"models/%2e%2e/load", "", 400, "no name"},
		"load, path":               {"models/..%2f..%2fetc/load", "", 400, "no name"},
		"load, inner path":         {"models/m%2f1/load", "", 400, "no name"},
		"load, backslash":          {`models/a%5c..%5cb/load`, "", 400, "no name"},
		"load, nul":                {"models/a%00b/load", "", 400, "no name"},
		"load, not UTF-8":          {"models/%ff%fe/load", "", 400, "no name"},
		"load, look-alike":         {"models/%D0%BC/load", "", 404, ""},
		"load, long":               {"models/" + strings.Repeat("x", 10<<10) + "/load", "", 400, "…"},
		"load, version":            {"models/m/versions/1/load", "", 404, "no such path"},
		"load, configuration":      {"models/m/load", `{"parameters":{"config":"{}"}}`, 501, "config.yaml"},
		"load, file":               {"models/m/load", `{"parameters":{"file:../x":"AAAA"}}`, 403, "not taken from requests"},
		"load, file of long name":  {"models/m/load", `{"parameters":{"file:` + strings.Repeat("x", 256) + `":"AAAA"}}`, 403, ""},
		"load, file of great size": {"models/m/load", `{"parameters":{"file:1/model.onnx":"` + strings.Repeat("A", 2<<20) + `"}}`, 413, ""},
		"load, unknown parameter":  {"models/m/load", `{"parameters":{"x":1}}`, 400, "unknown parameter"},
		"load, parameter twice":    {"models/m/unload", `{"parameters":{"unload_dependents":true,"unload_dependents":true}}`, 400, "twice"},
		"load, torn":               {"models/m/load", `{"parameters":`, 400, ""},
		"unload, no such":          {"models/nope/unload", "", 404, "unknown model"},
		"unload, wrong type":       {"models/m/unload", `{"parameters":{"unload_dependents":1}}`, 400, "unload_dependents"},
	} {
		t.Run(name, func(t *testing.T) {
			r := send(t, "POST", free+"/v2/repository/"+tt.path, nil, []byte(tt.body))
			if tt.code == 200 {
				if r.code != 200 || !json.Valid(r.body) {
					t.Errorf("%d %s", r.code, r.body)
				}
				return
			}
			wantError(t, r, tt.code, tt.part)
		})
	}
	for path, want := range map[string]string{"index": "POST, OPTIONS", "models/m/load": "POST, OPTIONS"} {
		if r := send(t, "GET", free+"/v2/repository/"+path, nil, nil); r.code != 405 || r.header.Get("Allow") != want {
			t.Errorf("GET %s: %d %q", path, r.code, r.header.Get("Allow"))
		}
	}
	for name, o := range map[string]serve.Options{"--model-control explicit": {Source: newShelf()}, "no repository": {ModelControl: true}} {
		fixed := start(t, o, echoModel("m", fp32x3))
		for _, verb := range []string{"load", "unload"} {
			wantError(t, send(t, "POST", fixed+"/v2/repository/models/m/"+verb, nil, nil), 503, name)
		}
		if r := send(t, "GET", fixed+"/v2/models/m/ready", nil, nil); r.code != 200 {
			t.Errorf("%s: the model answers %d", name, r.code)
		}
	}
}

// TestIndexNamesWhatIsNotLoaded is the index of a repository in which a model waits for its load.
func TestIndexNamesWhatIsNotLoaded(t *testing.T) {
	s := newShelf()
	s.put("a", serve.ModelOptions{}, "1", "one")
	s.put("z", serve.ModelOptions{}, "1", "one")
	url := start(t, serve.Options{Source: s, ModelControl: true}, echoModel("m", fp32x3), serve.Unavailable("n", "2", fmt.Errorf("torn")))
	for body, want := range map[string]string{
		"":                `[{"name":"a"},{"name":"m","version":"1","state":"READY"},{"name":"n","version":"2","state":"UNAVAILABLE","reason":"model is not available: torn"},{"name":"z"}]`,
		`{"ready":true}`:  `[{"name":"m","version":"1","state":"READY"}]`,
		`{"ready":false}`: `[{"name":"a"},{"name":"m","version":"1","state":"READY"},{"name":"n","version":"2","state":"UNAVAILABLE","reason":"model is not available: torn"},{"name":"z"}]`,
	} {
		if got := strings.TrimSpace(string(send(t, "POST", url+"/v2/repository/index", nil, []byte(body)).body)); got != want {
			t.Errorf("%s: %s\nwant %s", body, got, want)
		}
	}
}

func TestModelConfig(t *testing.T) {
	m := echoModel("m", fp32x3, serve.TensorInfo{Name: "s", Type: serve.Bytes, Shape: []int64{-1}})
	fixed := echoModel("fixed", serve.TensorInfo{Name: "x", Type: serve.Uint8, Shape: []int64{1, 3}}, serve.TensorInfo{Name: "any", Type: serve.BF16})
	fixed.info.Options.Policy.Specific = []string{"1", "99999999999999999999"}
	limited := echoModel("limited", fp32x3)
	limited.info.Options = serve.ModelOptions{Batch: 2, Policy: serve.VersionPolicy{All: true}}
	url := start(t, serve.Options{Cores: 2, MaxBody: 1200}, m, fixed, limited, serve.Classifier())
	input := func(name, typ, format, dims string) string {
		return fmt.Sprintf(`{"name":%q,"data_type":%q,"format":%q,"dims":%s,"is_shape_tensor":false,"allow_ragged_batch":false,"optional":false}`, name, typ, format, dims)
	}
	output := func(name, typ, dims, labels string) string {
		return fmt.Sprintf(`{"name":%q,"data_type":%q,"dims":%s,"label_filename":%q,"is_shape_tensor":false}`, name, typ, dims, labels)
	}
	for path, want := range map[string]string{
		"m": `{"name":"m","platform":"test","backend":"onnxruntime","version_policy":{"latest":{"num_versions":1}},"max_batch_size":92,"input":[` +
			input("x", "TYPE_FP32", "FORMAT_NONE", "[3]") + "," + input("s", "TYPE_STRING", "FORMAT_NONE", "[]") + `],"output":[` +
			output("out_x", "TYPE_FP32", "[3]", "") + "," + output("out_s", "TYPE_STRING", "[]", "") +
			`],"instance_group":[{"name":"m","kind":"KIND_CPU","count":2}],"model_transaction_policy":{"decoupled":false}}`,
		"fixed/versions/1": `{"name":"fixed","platform":"test","backend":"onnxruntime","version_policy":{"specific":{"versions":[1]}},"max_batch_size":0,"input":[` +
			input("x", "TYPE_UINT8", "FORMAT_NONE", "[1,3]") + "," + input("any", "TYPE_BF16", "FORMAT_NONE", "[-1]") + `],"output":[` +
			output("out_x", "TYPE_UINT8", "[1,3]", "") + "," + output("out_any", "TYPE_BF16", "[-1]", "") +
			`],"instance_group":[{"name":"fixed","kind":"KIND_CPU","count":2}],"model_transaction_policy":{"decoupled":false}}`,
		"limited": `{"name":"limited","platform":"test","backend":"onnxruntime","version_policy":{"all":{}},"max_batch_size":2,"input":[` +
			input("x", "TYPE_FP32", "FORMAT_NONE", "[3]") + `],"output":[` + output("out_x", "TYPE_FP32", "[3]", "") +
			`],"instance_group":[{"name":"limited","kind":"KIND_CPU","count":2}],"model_transaction_policy":{"decoupled":false}}`,
		"c": `{"name":"c","platform":"","backend":"onnxruntime","version_policy":{"latest":{"num_versions":1}},"max_batch_size":6,"input":[` +
			input("input", "TYPE_FP32", "FORMAT_NCHW", "[3,4,4]") + `],"output":[` + output("logits", "TYPE_FP32", "[3]", "labels.txt") +
			`],"instance_group":[{"name":"c","kind":"KIND_CPU","count":2}],"model_transaction_policy":{"decoupled":false}}`,
	} {
		r := send(t, "GET", url+"/v2/models/"+path+"/config", nil, nil)
		if got := strings.TrimSpace(string(r.body)); r.code != 200 || got != want {
			t.Errorf("%s: %d %s", path, r.code, cmp.Diff(want, got))
		}
	}
	wantError(t, send(t, "GET", url+"/v2/models/nope/config", nil, nil), 404, "unknown model")
	wantError(t, send(t, "GET", url+"/v2/models/m/versions/7/config", nil, nil), 404, "no version")
	wantError(t, send(t, "POST", url+"/v2/models/limited/infer", nil, []byte(jsonBody("[3,3]", "[1,2,3,4,5,6,7,8,9]"))), 400, "a batch of 3")
}

func TestStatistics(t *testing.T) {
	two := echoModel("m", fp32x3)
	two.info.Version, two.info.Bytes = "2", 1234
	url := start(t, serve.Options{}, echoModel("m", fp32x3), two, serve.Classifier())
	began := time.Now()
	for _, body := range []string{jsonBody("[2,3]", "[1,2,3,4,5,6]"), jsonBody("[1,3]", "[1,2,3]"), jsonBody("[2,3]", "[1,2,3,4,5,6]"), "{}"} {
		send(t, "POST", url+"/v2/models/m/infer", nil, []byte(body))
	}
	send(t, "POST", url+"/v2/models/c/classify", nil, serve.SeedImages(t)["image/png"])
	read := func(path string) []serve.ModelStats {
		r := send(t, "GET", url+"/v2/models/"+path, nil, nil)
		var a struct {
			Stats []serve.ModelStats `json:"model_stats"`
		}
		if err := json.Unmarshal(r.body, &a); r.code != 200 || err != nil {
			t.Fatalf("%s: %d %s", path, r.code, r.body)
		}
		return a.Stats
	}
	var names []string
	for _, s := range read("stats") {
		names = append(names, s.Name+s.Version)
	}
	if diff := cmp.Diff([]string{"c1", "m1", "m2"}, names); diff != "" {
		t.Error(diff)
	}
	if all := read("m/stats"); len(all) != 2 || all[0].Executions != 0 || all[0].LastInference != 0 || len(all[0].Memory) != 0 {
		t.Errorf("an idle version: %+v", all)
	}
	m := read("m/versions/2/stats")[0]
	if m.Inferences != 5 || m.Executions != 3 || m.Requests.Success.Count != 3 || m.Requests.Fail.Count != 1 || m.Requests.Queue.Count != 3 {
		t.Errorf("counts: %+v", m)
	}
	parts := m.Requests.Queue.NS + m.Requests.Input.NS + m.Requests.Infer.NS + m.Requests.Output.NS
	if m.Requests.Infer.NS == 0 || parts > m.Requests.Success.NS {
		t.Errorf("the parts take %d ns of %d", parts, m.Requests.Success.NS)
	}
	if len(m.Batches) != 2 || m.Batches[0].Size != 1 || m.Batches[0].Infer.Count != 1 || m.Batches[1].Size != 2 || m.Batches[1].Infer.Count != 2 {
		t.Errorf("batches: %+v", m.Batches)
	}
	if at := time.UnixMilli(int64(m.LastInference)); at.Before(began.Truncate(time.Millisecond)) || at.After(time.Now()) {
		t.Errorf("last inference at %v", at)
	}
	if diff := cmp.Diff([]serve.MemoryUsage{{Type: "CPU", Bytes: 1234}}, m.Memory); diff != "" {
		t.Error(diff)
	}
	if c := read("c/stats")[0]; c.Executions != 1 || c.Requests.Input.NS == 0 || c.Requests.Success.NS == 0 {
		t.Errorf("of a picture: %+v", c)
	}
	wantError(t, send(t, "GET", url+"/v2/models/nope/stats", nil, nil), 404, "unknown model")
	wantError(t, send(t, "GET", url+"/v2/models/m/versions/01/stats", nil, nil), 404, "no version")
}

// TestManyBatchSizes keeps clients from filling the memory with statistics.
func TestManyBatchSizes(t *testing.T) {
	url := start(t, serve.Options{}, echoModel("m", serve.TensorInfo{Name: "x", Type: serve.Uint8, Shape: []int64{-1}}))
	for n := 1; n <= 300; n++ {
		if r := send(t, "POST", url+"/v2/models/m/infer", map[string]string{lengthHeader: "0"}, make([]byte, n)); r.code != 200 {
			t.Fatalf("%d %s", r.code, r.body)
		}
	}
	body := string(send(t, "GET", url+"/v2/models/m/stats", nil, nil).body)
	if n := strings.Count(body, "batch_size"); n != 256 || !strings.Contains(body, `"execution_count":300`) {
		t.Errorf("%d sizes in %.200s", n, body)
	}
}
