package serve_test

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"

	"spos/serve"
)

const lengthHeader = "Inference-Header-Content-Length"

// body is a request for model "m" of one input x, FP32 [-1,3], with the named member replaced.
func jsonBody(shape, data string) string {
	return `{"inputs":[{"name":"x","shape":` + shape + `,"datatype":"FP32","data":` + data + `}]}`
}

func TestInferRefusesJSON(t *testing.T) {
	url := start(t, serve.Options{},
		echoModel("m", fp32x3),
		echoModel("u8", serve.TensorInfo{Name: "x", Type: serve.Uint8, Shape: []int64{-1}}),
		echoModel("i64", serve.TensorInfo{Name: "x", Type: serve.Int64, Shape: []int64{-1}}),
		echoModel("u64", serve.TensorInfo{Name: "x", Type: serve.Uint64, Shape: []int64{-1}}),
		echoModel("bool", serve.TensorInfo{Name: "x", Type: serve.Bool, Shape: []int64{-1}}),
		echoModel("half", serve.TensorInfo{Name: "x", Type: serve.FP16, Shape: []int64{-1}}),
		echoModel("text", serve.TensorInfo{Name: "x", Type: serve.Bytes, Shape: []int64{-1}}),
		echoModel("any", serve.TensorInfo{Name: "x", Type: serve.FP32, Shape: []int64{-1, -1}}),
		echoModel("two", fp32x3, serve.TensorInfo{Name: "y", Type: serve.FP32, Shape: []int64{-1, 3}}),
	)
	x := `{"name":"x","shape":[1,3],"datatype":"FP32","data":[1,2,3]}`
	one := func(datatype, data string) string {
		return `{"inputs":[{"name":"x","shape":[1],"datatype":"` + datatype + `","data":` + data + `}]}`
	}
	tests := map[string]struct {
		model, body, part string
	}{
		"empty":                     {"m", "", "ends where"},
		"null":                      {"m", "null", "an object"},
		"array":                     {"m", "[]", "an object"},
		"string":                    {"m", `"x"`, "an object"},
		"number":                    {"m", "1", "an object"},
		"cut":                       {"m", jsonBody("[1,3]", "[1,2,3]")[:60], ""},
		"something follows":         {"m", jsonBody("[1,3]", "[1,2,3]") + "x", "follows"},
		"a second document":         {"m", jsonBody("[1,3]", "[1,2,3]") + "{}", "follows"},
		"invalid UTF-8":             {"m", `{"inputs":[{"name":"` + "\xff" + `"}]}`, "UTF-8"},
		"lone surrogate":            {"m", `{"id":"\ud800","inputs":[` + x + `]}`, `\u escape`},
		"unknown escape":            {"m", `{"id":"\q","inputs":[` + x + `]}`, "escape"},
		"control in a string":       {"m", "{\"id\":\"a\nb\",\"inputs\":[" + x + "]}", "control"},
		"no inputs":                 {"m", `{}`, "missing inputs: x"},
		"inputs no array":           {"m", `{"inputs":{}}`, "an array"},
		"input no object":           {"m", `{"inputs":[1]}`, "an object"},
		"nested data 120 deep":      {"m", jsonBody("[1,3]", strings.Repeat("[", 120)+"1,2,3"+strings.Repeat("]", 120)), "deep"},
		"nested 250000 deep":        {"m", `{"y":` + strings.Repeat("[", 250_000), "deep"},
		"nested objects":            {"m", strings.Repeat(`{"a":`, 250_000), "deep"},
		"duplicate shape":           {"m", `{"inputs":[{"name":"x","shape":[1,3],"shape":[1,3],"datatype":"FP32","data":[1,2,3]}]}`, "twice"},
		"shape in capitals":         {"m", `{"inputs":[{"name":"x","SHAPE":[2,3],"shape":[1,3],"datatype":"FP32","data":[1,2,3]}]}`, "SHAPE"},
		"duplicate inputs":          {"m", `{"inputs":[` + x + `],"inputs":[` + x + `]}`, "twice"},
		"duplicate parameter":       {"m", `{"parameters":{"timeout":1,"timeout":2},"inputs":[` + x + `]}`, "twice"},
		"parameter of an object":    {"m", `{"parameters":{"a":{}},"inputs":[` + x + `]}`, "neither"},
		"reserved parameter":        {"m", `{"parameters":{"triton_x":1},"inputs":[` + x + `]}`, "reserved"},
		"the reserved headers":      {"m", `{"parameters":{"headers":1},"inputs":[` + x + `]}`, "reserved"},
		"priority text":             {"m", `{"parameters":{"priority":"1"},"inputs":[` + x + `]}`, "priority, a number"},
		"priority negative":         {"m", `{"parameters":{"priority":-1},"inputs":[` + x + `]}`, "range"},
		"timeout fraction":          {"m", `{"parameters":{"timeout":1.5},"inputs":[` + x + `]}`, "whole"},
		"timeout text":              {"m", `{"parameters":{"timeout":"5"},"inputs":[` + x + `]}`, "microseconds"},
		"timeout negative":          {"m", `{"parameters":{"timeout":-5},"inputs":[` + x + `]}`, "non-negative"},
		"long id":                   {"m", `{"id":"` + strings.Repeat("x", 257) + `","inputs":[` + x + `]}`, "id has more"},
		"negative extent":           {"m", jsonBody("[-1,3]", "[1,2,3]"), "range"},
		"empty batch":               {"m", jsonBody("[0,3]", "[]"), "is 0"},
		"fractional extent":         {"m", jsonBody("[1.5,3]", "[1,2,3]"), "whole"},
		"text extent":               {"m", jsonBody(`["1",3]`, "[1,2,3]"), "a number"},
		"scalar shape":              {"m", jsonBody("[]", "[1]"), "0 dimensions"},
		"product wraps to 32":       {"any", jsonBody("[16,1152921504606846978]", "[1,2,3]"), "fewer"},
		"extent beyond int64":       {"any", jsonBody("[99999999999999999999,3]", "[1,2,3]"), "range"},
		"ten thousand dimensions":   {"m", jsonBody("["+strings.Repeat("1,", 9_999)+"1]", "[1]"), "dimensions"},
		"two billion of four bytes": {"m", jsonBody("[2147483648,3]", "[1]"), "fewer"},
		"wrong rank":                {"m", jsonBody("[3]", "[1,2,3]"), "dimensions"},
		"wrong fixed extent":        {"m", jsonBody("[1,4]", "[1,2,3,4]"), "the model takes"},
		"too few":                   {"m", jsonBody("[2,3]", "[1,2,3]"), "3 values"},
		"too many":                  {"m", jsonBody("[1,3]", "[1,2,3,4]"), "more values"},
		"comma at the end":          {"m", jsonBody("[1,3]", "[1,2,3,]"), ""},
		"comma at the start":        {"m", jsonBody("[1,3]", "[,1,2,3]"), "a number"},
		"no comma":                  {"m", jsonBody("[1,3]", "[1 2 3]"), "comma"},
		"data no array":             {"m", jsonBody("[1,3]", "1"), "an array"},
		"text in data":              {"m", jsonBody("[1,3]", `[1,"2",3]`), "a number"},
		"null in data":              {"m", jsonBody("[1,3]", `[1,null,3]`), "a number"},
		"leading zero":              {"m", jsonBody("[1,3]", "[01,2,3]"), "needless"},
		"plus":                      {"m", jsonBody("[1,3]", "[+1,2,3]"), "a number"},
		"point without digits":      {"m", jsonBody("[1,3]", "[1.,2,3]"), "digit"},
		"exponent without digits":   {"m", jsonBody("[1,3]", "[1e,2,3]"), "exponent"},
		"hex":                       {"m", jsonBody("[1,3]", "[0x1,2,3]"), ""},
		"nan in lower case":         {"m", jsonBody("[1,3]", "[nan,2,3]"), "a number"},
		"NaNa":                      {"m", jsonBody("[1,3]", "[NaNa,2,3]"), "a number"},
		"beyond FP32":               {"m", jsonBody("[1,3]", "[1e400,2,3]"), "range of FP32"},
		"just beyond FP32":          {"m", jsonBody("[1,3]", "[3.5e38,2,3]"), "range of FP32"},
		"a number of 2000 digits":   {"m", jsonBody("[1,3]", "["+strings.Repeat("1", 2000)+",2,3]"), "characters"},
		"300 as UINT8":              {"u8", one("UINT8", "[300]"), "range of UINT8"},
		"-1 as UINT8":               {"u8", one("UINT8", "[-1]"), "range of UINT8"},
		"1e2 as INT64":              {"i64", one("INT64", "[1e2]"), "not an integer"},
		"1.0 as INT64":              {"i64", one("INT64", "[1.0]"), "not an integer"},
		"2^63 as INT64":             {"i64", one("INT64", "[9223372036854775808]"), "range of INT64"},
		"2^64 as UINT64":            {"u64", one("UINT64", "[18446744073709551616]"), "range of UINT64"},
		"NaN as INT64":              {"i64", one("INT64", "[NaN]"), "a number"},
		"1 as BOOL":                 {"bool", one("BOOL", "[1]"), "true or false"},
		"FP16":                      {"half", one("FP16", "[1]"), "no JSON form"},
		"1 as BYTES":                {"text", one("BYTES", "[1]"), "a string"},
		"broken string":             {"text", one("BYTES", `["\u12"]`), "escape"},
		"datatype in lower case":    {"m", strings.Replace(jsonBody("[1,3]", "[1,2,3]"), "FP32", "fp32", 1), "unknown datatype"},
		"datatype FLOAT":            {"m", strings.Replace(jsonBody("[1,3]", "[1,2,3]"), "FP32", "FLOAT", 1), "unknown datatype"},
		"another datatype":          {"m", strings.Replace(jsonBody("[1,3]", "[1,2,3]"), "FP32", "INT32", 1), "the model takes FP32"},
		"without shape":             {"m", `{"inputs":[{"name":"x","datatype":"FP32","data":[1,2,3]}]}`, "needs shape"},
		"without datatype":          {"m", `{"inputs":[{"name":"x","shape":[1,3],"data":[1,2,3]}]}`, "datatype"},
		"without name":              {"m", `{"inputs":[{"shape":[1,3],"datatype":"FP32","data":[1,2,3]}]}`, "without name"},
		"without data":              {"m", `{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32"}]}`, "neither data"},
		"unknown input":             {"m", strings.Replace(jsonBody("[1,3]", "[1,2,3]"), `"x"`, `"z"`, 1), `no input "z"`},
		"an input too many":         {"m", `{"inputs":[` + x + `,` + x + `]}`, "more inputs"},
		"missing input":             {"two", `{"inputs":[` + x + `]}`, "missing inputs: y"},
		"input twice":               {"two", `{"inputs":[` + x + `,` + x + `]}`, "x"},
		"unknown output":            {"m", `{"inputs":[` + x + `],"outputs":[{"name":"z"}]}`, "no output"},
		"output twice":              {"m", `{"inputs":[` + x + `],"outputs":[{"name":"out_x"},{"name":"out_x"}]}`, "twice"},
		"binary_data no bool":       {"m", `{"inputs":[` + x + `],"outputs":[{"name":"out_x","parameters":{"binary_data":1}}]}`, "true or false"},
		"binary without a tail":     {"m", `{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","parameters":{"binary_data_size":12}}]}`, lengthHeader},
		"data and binary":           {"m", `{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","parameters":{"binary_data_size":12},"data":[1,2,3]}]}`, "use one"},
		"binary_data_size text":     {"m", `{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","parameters":{"binary_data_size":"12"}}]}`, "a number"},
		"binary_data_size negative": {"m", `{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","parameters":{"binary_data_size":-12}}]}`, "range"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			wantError(t, send(t, "POST", url+"/v2/models/"+tt.model+"/infer", nil, []byte(tt.body)), 400, tt.part)
		})
	}
	for name, body := range map[string]string{
		"shared memory": `{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","parameters":{"shared_memory_region":"r"}}]}`,
		"sequences":     `{"parameters":{"sequence_id":7},"inputs":[` + x + `]}`,
		"named ones":    `{"parameters":{"sequence_id":"a"},"inputs":[` + x + `]}`,
		"their start":   `{"parameters":{"sequence_start":true},"inputs":[` + x + `]}`,
	} {
		t.Run(name, func(t *testing.T) {
			wantError(t, send(t, "POST", url+"/v2/models/m/infer", nil, []byte(body)), 501, "not supported")
		})
	}
}

// TestHalvesHaveNoJSON asks for an output of FP16 in both forms.
func TestHalvesHaveNoJSON(t *testing.T) {
	url := start(t, serve.Options{}, echoModel("half", serve.TensorInfo{Name: "x", Type: serve.FP16, Shape: []int64{-1}})) + "/v2/models/half/infer"
	for binary, code := range map[string]int{"true": 200, "false": 400} {
		head := `{"inputs":[{"name":"x","shape":[2],"datatype":"FP16","parameters":{"binary_data_size":4}}],` +
			`"outputs":[{"name":"out_x","parameters":{"binary_data":` + binary + `}}]}`
		r := send(t, "POST", url, map[string]string{lengthHeader: strconv.Itoa(len(head))}, []byte(head+"abcd"))
		if code == 400 {
			wantError(t, r, 400, "FP16, which has no JSON form")
		} else if r.code != 200 || !strings.HasSuffix(string(r.body), "abcd") {
			t.Errorf("binary: %d %s", r.code, r.body)
		}
	}
}

// element pairs a JSON element with its bytes.
type element struct{ json, bytes string }

var elements = map[serve.Datatype][]element{
	serve.Bool:   {{"true", "\x01"}, {"false", "\x00"}},
	serve.Uint8:  {{"0", "\x00"}, {"255", "\xff"}},
	serve.Uint16: {{"0", "\x00\x00"}, {"65535", "\xff\xff"}},
	serve.Uint32: {{"1", "\x01\x00\x00\x00"}, {"4294967295", "\xff\xff\xff\xff"}},
	serve.Uint64: {{"1", "\x01\x00\x00\x00\x00\x00\x00\x00"}, {"18446744073709551615", "\xff\xff\xff\xff\xff\xff\xff\xff"}},
	serve.Int8:   {{"-128", "\x80"}, {"127", "\x7f"}},
	serve.Int16:  {{"-32768", "\x00\x80"}, {"32767", "\xff\x7f"}},
	serve.Int32:  {{"-2147483648", "\x00\x00\x00\x80"}, {"2147483647", "\xff\xff\xff\x7f"}},
	serve.Int64: {
		{"-9223372036854775808", "\x00\x00\x00\x00\x00\x00\x00\x80"},
		{"9223372036854775807", "\xff\xff\xff\xff\xff\xff\xff\x7f"},
	},
	serve.FP32: {
		{"1.5", "\x00\x00\xc0\x3f"}, {"-0", "\x00\x00\x00\x80"}, {"1e-45", "\x01\x00\x00\x00"},
		{"3.4028235e+38", "\xff\xff\x7f\x7f"}, {"0.1", "\xcd\xcc\xcc\x3d"}, {"16777217", "\x00\x00\x80\x4b"},
		{"Infinity", "\x00\x00\x80\x7f"}, {"-Infinity", "\x00\x00\x80\xff"},
	},
	serve.FP64:  {{"0.1", "\x9a\x99\x99\x99\x99\x99\xb9\x3f"}, {"5e-324", "\x01\x00\x00\x00\x00\x00\x00\x00"}},
	serve.Bytes: {{`"a\"b"`, "\x03\x00\x00\x00a\"b"}, {`""`, "\x00\x00\x00\x00"}, {`"\ud83d\ude00"`, "\x04\x00\x00\x00😀"}},
}

// TestFormsAgree sends every datatype as JSON, flat and nested, as a binary tail and raw, and reads it as JSON and
// binary: the model must see the same bytes, and so must the client.
func TestFormsAgree(t *testing.T) {
	var models []serve.Model
	for d := range elements {
		models = append(models, echoModel(d.String(), serve.TensorInfo{Name: "x", Type: d, Shape: []int64{-1}}))
	}
	url := start(t, serve.Options{}, models...)
	for d, es := range elements {
		t.Run(d.String(), func(t *testing.T) {
			var text []string
			var data strings.Builder
			for _, e := range es {
				text = append(text, e.json)
				data.WriteString(e.bytes)
			}
			url := url + "/v2/models/" + d.String() + "/infer"
			shape := fmt.Sprintf(`"shape":[%d]`, len(es))
			outputs := `,"outputs":[{"name":"out_x","parameters":{"binary_data":true}}]`
			list := strings.Join(text, " , ")
			check := func(form string, r reply) {
				t.Helper()
				if r.code != 200 {
					t.Fatalf("%s: %d %s", form, r.code, r.body)
				}
				n, err := strconv.Atoi(r.header.Get(lengthHeader))
				if err != nil || string(r.body[n:]) != data.String() {
					t.Errorf("%s: got %q, want %q (%v)", form, r.body[min(n, len(r.body)):], data.String(), err)
				}
			}
			head := func(data string) string {
				return `{"inputs":[{"name":"x",` + shape + `,"datatype":"` + d.String() + `",` + data + `}]` + outputs + `}`
			}
			check("flat", send(t, "POST", url, nil, []byte(head(`"data":[`+list+`]`))))
			check("nested", send(t, "POST", url, nil, []byte(head(`"data":[[[`+strings.Join(text, "]\n,\t[")+`]]]`))))
			check("data first", send(t, "POST", url, nil,
				[]byte(`{"inputs":[{"data":[`+list+`],"name":"x","datatype":"`+d.String()+`",`+shape+`}]`+outputs+`}`)))
			tail := head(fmt.Sprintf(`"parameters":{"binary_data_size":%d}`, len(data.String())))
			check("tail", send(t, "POST", url, map[string]string{lengthHeader: strconv.Itoa(len(tail))}, []byte(tail+data.String())))
			if d != serve.Bytes {
				check("raw", send(t, "POST", url, map[string]string{lengthHeader: "0"}, []byte(data.String())))
			}

			back := send(t, "POST", url, nil, []byte(strings.Replace(head(`"data":[`+list+`]`), "true}}]", "false}}]", 1)))
			again := regexpData(t, back.body)
			check("its own JSON", send(t, "POST", url, nil, []byte(head(`"data":`+again))))
		})
	}
}

// regexpData cuts the data out of a response that encoding/json may not read, for its infinities.
func regexpData(t *testing.T, body []byte) string {
	t.Helper()
	_, rest, ok := strings.Cut(string(body), `"data":`)
	if !ok {
		t.Fatalf("no data in %s", body)
	}
	return rest[:strings.LastIndex(rest, "]}]}")+1]
}

func TestInferAnswers(t *testing.T) {
	nan := &fake{info: echoModel("nan", fp32x3).info}
	nan.run = func(_ context.Context, in, out []serve.Tensor) error {
		out[0].Shape, out[0].Data = []int64{1, 3}, floats(float32(math.NaN()), 1, float32(math.Inf(-1)))
		return nil
	}
	two := echoModel("two", fp32x3, serve.TensorInfo{Name: "y", Type: serve.Int32, Shape: []int64{-1}})
	scalar := echoModel("scalar", serve.TensorInfo{Name: "x", Type: serve.FP32, Shape: []int64{}})
	url := start(t, serve.Options{}, echoModel("m", fp32x3), nan, two, scalar)
	y := `{"name":"y","shape":[2],"datatype":"INT32","data":[7,8]}`
	x := `{"name":"x","shape":[1,3],"datatype":"FP32","data":[1,2.5,-3]}`
	tests := map[string]struct{ model, body, want string }{
		"plain": {"m", `{"inputs":[` + x + `]}`,
			`{"model_name":"m","model_version":"1","outputs":[{"name":"out_x","datatype":"FP32","shape":[1,3],"data":[1,2.5,-3]}]}`},
		"id, unknown keys": {"m", `{"id":"a\u0001\"","what":{"ever":[1,2,{}]},"inputs":[` + x + `]}`,
			`{"model_name":"m","model_version":"1","id":"a\u0001\"","outputs":[{"name":"out_x","datatype":"FP32","shape":[1,3],"data":[1,2.5,-3]}]}`},
		"no id, parameters that say nothing": {"m", `{"id":"","parameters":{"priority":0,"timeout":0,"sequence_id":0,"sequence_start":false,"my_own":"x","sequence_end":false,"triton_enable_empty_final_response":true},"inputs":[` + x + `]}`,
			`{"model_name":"m","model_version":"1","outputs":[{"name":"out_x","datatype":"FP32","shape":[1,3],"data":[1,2.5,-3]}]}`},
		"the caller's own parameters of tensors": {"m", `{"inputs":[{"parameters":{"what":true},` + x[1:] + `],"outputs":[{"name":"out_x","parameters":{"ever":1}}]}`,
			`{"model_name":"m","model_version":"1","outputs":[{"name":"out_x","datatype":"FP32","shape":[1,3],"data":[1,2.5,-3]}]}`},
		"a nesting that is not the shape's": {"m", `{"inputs":[` + strings.Replace(x, "[1,2.5,-3]", "[[1],[2.5,[-3]],[]]", 1) + `]}`,
			`{"model_name":"m","model_version":"1","outputs":[{"name":"out_x","datatype":"FP32","shape":[1,3],"data":[1,2.5,-3]}]}`},
		"not numbers": {"nan", `{"inputs":[` + x + `]}`,
			`{"model_name":"nan","model_version":"1","outputs":[{"name":"out_x","datatype":"FP32","shape":[1,3],"data":[NaN,1,-Infinity]}]}`},
		"inputs in any order": {"two", `{"inputs":[` + y + `,` + x + `]}`,
			`{"model_name":"two","model_version":"1","outputs":[{"name":"out_x","datatype":"FP32","shape":[1,3],"data":[1,2.5,-3]},` +
				`{"name":"out_y","datatype":"INT32","shape":[2],"data":[7,8]}]}`},
		"outputs as asked": {"two", `{"inputs":[` + y + `,` + x + `],"outputs":[{"name":"out_y"},{"name":"out_x"}]}`,
			`{"model_name":"two","model_version":"1","outputs":[{"name":"out_y","datatype":"INT32","shape":[2],"data":[7,8]},` +
				`{"name":"out_x","datatype":"FP32","shape":[1,3],"data":[1,2.5,-3]}]}`},
		"scalar": {"scalar", `{"inputs":[{"name":"x","shape":[],"datatype":"FP32","data":[4]}]}`,
			`{"model_name":"scalar","model_version":"1","outputs":[{"name":"out_x","datatype":"FP32","shape":[],"data":[4]}]}`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := send(t, "POST", url+"/v2/models/"+tt.model+"/infer", nil, []byte(tt.body))
			if r.code != 200 || string(r.body) != tt.want {
				t.Errorf("got %d %s\nwant %s", r.code, r.body, tt.want)
			}
		})
	}
	t.Run("one binary, one JSON, mixed inputs", func(t *testing.T) {
		head := `{"inputs":[` + y + `,{"name":"x","shape":[1,3],"datatype":"FP32","parameters":{"binary_data_size":12}}],` +
			`"parameters":{"binary_data_output":true},"outputs":[{"name":"out_y","parameters":{"binary_data":false}},{"name":"out_x"}]}`
		r := send(t, "POST", url+"/v2/models/two/infer", map[string]string{lengthHeader: strconv.Itoa(len(head))},
			append([]byte(head), floats(1, 2, 3)...))
		n, _ := strconv.Atoi(r.header.Get(lengthHeader))
		want := `{"model_name":"two","model_version":"1","outputs":[{"name":"out_y","datatype":"INT32","shape":[2],"data":[7,8]},` +
			`{"name":"out_x","datatype":"FP32","shape":[1,3],"parameters":{"binary_data_size":12}}]}`
		if string(r.body[:n]) != want || !bytes.Equal(r.body[n:], floats(1, 2, 3)) {
			t.Errorf("got %q, want %s", r.body, want)
		}
		if ct := r.header.Get("Content-Type"); ct != "application/octet-stream" {
			t.Errorf("Content-Type %q", ct)
		}
	})
}

// TestModelFails sees what a client sees of models that do wrong.
func TestModelFails(t *testing.T) {
	secret := fmt.Errorf("kernel of /home/secret failed at conv.cc:17")
	models := map[string]func(context.Context, []serve.Tensor, []serve.Tensor) error{
		"error":  func(context.Context, []serve.Tensor, []serve.Tensor) error { return secret },
		"panics": func(context.Context, []serve.Tensor, []serve.Tensor) error { panic(secret) },
		"lies": func(_ context.Context, _, out []serve.Tensor) error {
			out[0].Shape, out[0].Data = []int64{2, 3}, floats(1, 2, 3)
			return nil
		},
	}
	var all []serve.Model
	for name, run := range models {
		f := echoModel(name, fp32x3)
		f.run = run
		all = append(all, f)
	}
	url := start(t, serve.Options{Cores: 1}, all...)
	for name := range models {
		t.Run(name, func(t *testing.T) {
			for range 3 { // a failure keeps no cores
				r := send(t, "POST", url+"/v2/models/"+name+"/infer", map[string]string{"X-Request-Id": "my-1"}, []byte(jsonBody("[1,3]", "[1,2,3]")))
				wantError(t, r, 500, "my-1")
				if strings.Contains(string(r.body), "secret") {
					t.Errorf("the client saw %s", r.body)
				}
			}
		})
	}
}

func TestRequestIDs(t *testing.T) {
	url := start(t, serve.Options{}, echoModel("m", fp32x3)) + "/v2"
	if got := send(t, "GET", url, map[string]string{"X-Request-Id": "abc-1.2:3"}, nil).header.Get("X-Request-Id"); got != "abc-1.2:3" {
		t.Errorf("kept id: %q", got)
	}
	for _, bad := range []string{"", "a b", strings.Repeat("x", 65), "\u00e4"} {
		if got := send(t, "GET", url, map[string]string{"X-Request-Id": bad}, nil).header.Get("X-Request-Id"); got == bad || len(got) < 16 {
			t.Errorf("id for %q: %q", bad, got)
		}
	}
}
