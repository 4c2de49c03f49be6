package serve_test

import (
	"fmt"
	"strings"
	"testing"
)

var (
	status400 = []int{400}
	status200 = []int{200}
)

// hostileJSON is the documents: numbers 1 to 8.
func hostileJSON() []hostile {
	whole := jsonBody("[1,3]", "[1,2,3]")
	x := whole[len(`{"inputs":[`) : len(whole)-2]
	deep := strings.Repeat("[", 250_000)
	unknown := func(more string) string {
		var b strings.Builder
		b.WriteByte('{')
		for i := 0; b.Len() < 10<<20; i++ {
			fmt.Fprintf(&b, `"key%d":0,`, i)
		}
		return b.String() + more + "}"
	}
	rows := []hostile{
		{n: 1, name: "empty body", send: infer("m", ""), codes: status400, part: "the document ends"},
		{n: 3, name: "truncated", send: infer("m", whole[:60]), codes: status400},
		{n: 3, name: "trailing garbage", send: infer("m", whole+"}"), codes: status400, part: "follows"},
		{n: 3, name: "a second document", send: infer("m", whole+whole), codes: status400, part: "follows"},
		{n: 4, name: "name", send: infer("m", strings.Replace(whole, `"x"`, "\"\xff\"", 1)), codes: status400, part: "UTF-8"},
		{n: 4, name: "key", send: infer("m", "{\"\xc3\":1}"), codes: status400, part: "UTF-8"},
		{n: 4, name: "lone surrogate", send: infer("m", `{"id":"\udc00"}`), codes: status400, part: `\u escape`},
		{n: 5, name: "index", send: request("POST", "/v2/repository/index", `{"ready":`+deep), codes: status400, part: "true or false"},
		{n: 5, name: "index, unknown key", send: request("POST", "/v2/repository/index", `{"x":`+deep), codes: status400, part: "deep"},
		{n: 5, name: "objects", send: infer("m", strings.Repeat(`{"a":`, 250_000)), codes: status400, part: "deep"},
		{n: 6, name: "120", send: infer("m", jsonBody("[1,3]", strings.Repeat("[", 120)+"1,2,3"+strings.Repeat("]", 120))), codes: status400, part: "deep"},
		{n: 6, name: "50", send: infer("m", jsonBody("[1,3]", strings.Repeat("[", 50)+"1,2,3"+strings.Repeat("]", 50))), codes: status200},
		{n: 7, name: "shape", send: infer("m", strings.Replace(whole, `"shape":[1,3]`, `"shape":[1,3],"shape":[1,3]`, 1)), codes: status400, part: "twice"},
		{n: 7, name: "SHAPE", send: infer("m", strings.Replace(whole, `"shape":[1,3]`, `"SHAPE":[2,3],"shape":[1,3]`, 1)), codes: status400, part: "SHAPE"},
		{n: 7, name: "inputs", send: infer("m", `{"inputs":[`+x+`],"inputs":[`+x+`]}`), codes: status400, part: "twice"},
		// Unknown keys are ignored, as the protocol has it; what bounds them is the limit on bodies.
		{n: 8, name: "alone", send: bytesOf(infer("m", unknown(`"z":0`)), 16*groundBody), codes: status400, part: "missing inputs"},
		{n: 8, name: "around a request", send: bytesOf(infer("m", unknown(whole[1:len(whole)-1])), 16*groundBody), codes: status200},
		{n: 8, name: "beyond the limit", send: infer("m", unknown(`"z":"`+strings.Repeat("x", 7<<20)+`"`)), codes: []int{413}, part: "larger"},
	}
	for _, body := range []string{"null", "[]", `"x"`, "1", "{", "\ufeff{}"} {
		rows = append(rows, hostile{n: 2, name: body, send: infer("m", body), codes: status400})
	}
	// The deadline of a request is its own or the server's, whichever is sooner.
	for value, want := range map[string][]int{"1": {200, 503, 504}, "9223372036854775808": status200, "1e30": status400, "-1": status400, `"5"`: status400, "1.5": status400} {
		rows = append(rows, hostile{n: 52, name: value, send: infer("m", `{"parameters":{"timeout":`+value+`},`+whole[1:]), codes: want})
	}
	return append(rows, hostile{n: 52, name: "1 µs and the cap, to the microsecond", test: TestDeadlines})
}

// hostileTensors is shapes, values, sizes and what surrounds them: numbers 9 to 22.
func hostileTensors() []hostile {
	whole := jsonBody("[1,3]", "[1,2,3]")
	x := whole[len(`{"inputs":[`) : len(whole)-2]
	shaped := func(model, shape, data string) func(*ground) reply { return infer(model, jsonBody(shape, data)) }
	typed := func(model, datatype, data string) func(*ground) reply {
		return infer(model, `{"inputs":[{"name":"x","shape":[1],"datatype":"`+datatype+`","data":[`+data+`]}]}`)
	}
	data := string(floats(1, 2, 3))
	head := func(size string) string {
		return `{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","parameters":{"binary_data_size":` + size + `}}]}`
	}
	tailed := func(model, head, data string) func(*ground) reply {
		return infer(model, head+data, fmt.Sprintf("%s: %d", lengthHeader, len(head)))
	}
	text := func(data string) func(*ground) reply {
		return tailed("text", fmt.Sprintf(`{"inputs":[{"name":"x","shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":%d}}]}`, len(data)), data)
	}
	rows := []hostile{
		{n: 10, name: "wraps to 32", send: shaped("any", "[16,1152921504606846978]", "[1,2,3]"), codes: status400},
		{n: 10, name: "wraps to 32, binary", send: tailed("any", strings.Replace(head("128"), "[1,3]", "[16,1152921504606846978]", 1), strings.Repeat("x", 128)), codes: status400},
		{n: 11, name: "JSON", send: shaped("m", "["+strings.Repeat("1,", 9999)+"1]", "[1]"), codes: status400, part: "dimensions"},
		{n: 12, name: "JSON", send: bytesOf(shaped("m", "[2147483648,3]", "[1]"), 1<<20), codes: status400, part: "fewer"},
		{n: 12, name: "binary", send: bytesOf(tailed("m", strings.Replace(head("25769803776"), "[1,", "[2147483648,", 1), "abcd"), 8<<20), codes: []int{400, 413}},
		{n: 14, name: "300 for UINT8", send: typed("u8", "UINT8", "300"), codes: status400, part: "range"},
		{n: 14, name: "-1 for UINT8", send: typed("u8", "UINT8", "-1"), codes: status400, part: "range"},
		{n: 14, name: "1e400", send: shaped("m", "[1,3]", "[1e400,1,1]"), codes: status400, part: "range"},
		{n: 14, name: "1e999999999999", send: shaped("m", "[1,3]", "[1e999999999999,1,1]"), codes: status400, part: "range"},
		// Bare tokens are read and written, as this protocol's clients do.
		{n: 15, name: "floating point", send: shaped("m", "[1,3]", "[NaN,Infinity,-Infinity]"), codes: status200, also: wantBody(`"data":[NaN,Infinity,-Infinity]`)},
		{n: 15, name: "integers", send: typed("u8", "UINT8", "NaN"), codes: status400},
		{n: 16, name: "JSON", send: infer("nan", whole), codes: status200, also: wantBody(`"data":[NaN,Infinity,-Infinity]`)},
		{n: 16, name: "binary", send: infer("nan", `{"parameters":{"binary_data_output":true},`+whole[1:]), codes: status200, also: wantBody("\x00\x00\xc0\x7f\x00\x00\x80\x7f\x00\x00\x80\xff")},
		{n: 17, name: "missing input", send: infer("two", whole), codes: status400, part: "missing inputs: y"},
		{n: 17, name: "extra input", send: infer("m", `{"inputs":[`+x+`,`+strings.Replace(x, `"x"`, `"z"`, 1)+`]}`), codes: status400},
		{n: 17, name: "duplicate input", send: infer("two", `{"inputs":[`+x+`,`+x+`]}`), codes: status400, part: "x"},
		{n: 17, name: "unknown output", send: infer("m", `{"inputs":[`+x+`],"outputs":[{"name":"z"}]}`), codes: status400, part: `"z"`},
		{n: 17, name: "duplicate output", send: infer("m", `{"inputs":[`+x+`],"outputs":[{"name":"out_x"},{"name":"out_x"}]}`), codes: status400, part: `"out_x"`},
		{n: 18, name: "with data, too", send: tailed("m", strings.Replace(head("12"), "}}]", `},"data":[1,2,3]}]`, 1), data), codes: status400, part: "use one"},
		{n: 18, name: "no tail", send: infer("m", head("12")), codes: status400, part: lengthHeader},
		{n: 19, name: "two copies", send: infer("m", head("12")+data, lengthHeader+": 86", lengthHeader+": 86"), codes: status400, part: "one"},
		// Space around a field's value is no part of it (RFC 9110, 5.5): net/http takes it off.
		{n: 19, name: "space before a right one", send: infer("m", head("12")+data, fmt.Sprintf("%s:   %d", lengthHeader, len(head("12")))), codes: status200},
		{n: 19, name: "space inside", send: infer("m", head("12")+data, lengthHeader+": 1 2"), codes: status400, part: "non-negative"},
		{n: 20, name: "inside a rune", send: infer("m", `{"id":"ä`+head("12")[1:]+data, lengthHeader+": 8"), codes: status400},
		{n: 20, name: "splits the JSON", send: infer("m", head("12")+data, lengthHeader+": 40"), codes: status400},
		{n: 21, name: "raw", send: infer("two", data, lengthHeader+": 0"), codes: status400, part: "one input"},
		{n: 22, name: "4 GiB", send: bytesOf(text("\xff\xff\xff\xffab"), 1<<20), codes: status400, part: "announces"},
		{n: 22, name: "runs past the end", send: text("\x05\x00\x00\x00ab"), codes: status400, part: "announces 5"},
		{n: 22, name: "half a length", send: text("\x00\x00\x00"), codes: status400},
	}
	for _, shape := range []string{"[-1,3]", "[0,3]", "[1.5,3]", `["1",3]`, "[]", "[3]", "[1,1,3]", "[null,3]", "3", "[1e3,3]"} {
		rows = append(rows, hostile{n: 9, name: shape, send: shaped("m", shape, "[1,2,3]"), codes: status400})
	}
	for _, name := range []string{"fp32", "FLOAT", "INT128", "", "TYPE_FP32", "FP16", "UINT8"} {
		rows = append(rows, hostile{n: 13, name: name, send: infer("m", strings.Replace(whole, `"FP32"`, `"`+name+`"`, 1)), codes: status400})
	}
	for _, size := range []string{"-12", `"12"`, "99999999999", "99999999999999999999", "11", "13", "0", "12.5"} {
		rows = append(rows, hostile{n: 18, name: size, send: tailed("m", head(size), data), codes: status400})
	}
	for _, length := range []string{"-1", "abs", "99999999999", "99999999999999999999", "12", "0x10", "+86", "1000", ""} {
		rows = append(rows, hostile{n: 19, name: length, send: infer("m", head("12")+data, lengthHeader+": "+length), codes: status400})
	}
	return rows
}

// wantBody looks for a part of an answer.
func wantBody(part string) func(*testing.T, *ground, reply) {
	return func(t *testing.T, _ *ground, r reply) {
		t.Helper()
		if !strings.Contains(string(r.body), part) {
			t.Errorf("no %q in %.300q", part, r.body)
		}
	}
}
