package serve_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"

	"spos/serve"
)

// constant answers the same whatever it is asked.
func constant(info serve.ModelInfo, shape []int64, data []byte) *fake {
	return &fake{info, func(_ context.Context, _, out []serve.Tensor) error {
		out[0].Shape, out[0].Data = shape, append(out[0].Data[:0], data...)
		return nil
	}}
}

// encoded is the little-endian form of numbers.
func encoded(t testing.TB, numbers any) []byte {
	t.Helper()
	b, err := binary.Append(nil, binary.LittleEndian, numbers)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestClassification(t *testing.T) {
	nan := math.NaN()
	batch := []int64{-1, 4}
	tests := map[string]struct {
		kind        serve.Datatype
		declared    []int64
		shape       []int64
		data        []byte
		labels      []string
		top         int
		wantShape   string
		wantStrings string
	}{
		"FP32, six decimals": {serve.FP32, batch, []int64{1, 4}, floats(1.5, 0.25, 100, -3), nil, 2, "1,2", "100.000000:2 1.500000:0"},
		"labels":             {serve.FP32, batch, []int64{1, 4}, floats(1, 2, 3, 4), []string{"a", "b b", "c:c", "ü"}, 3, "1,3", "4.000000:3:ü 3.000000:2:c:c 2.000000:1:b b"},
		"more than there are": {serve.FP32, batch, []int64{1, 4}, floats(1, 2, 3, 4), nil, 100, "1,4",
			"4.000000:3 3.000000:2 2.000000:1 1.000000:0"},
		"ties go by index, few":  {serve.FP32, batch, []int64{1, 4}, floats(7, 9, 9, 7), nil, 3, "1,3", "9.000000:1 9.000000:2 7.000000:0"},
		"ties go by index, many": {serve.FP32, batch, []int64{1, 4}, floats(7, 9, 9, 7), nil, 40, "1,4", "9.000000:1 9.000000:2 7.000000:0 7.000000:3"},
		"the two zeros are equal": {serve.FP32, batch, []int64{1, 4}, floats(-1, float32(math.Copysign(0, -1)), 0, -1), nil, 2, "1,2",
			"-0.000000:1 0.000000:2"},
		"NaN is last": {serve.FP64, batch, []int64{1, 4}, encoded(t, []float64{nan, math.Inf(-1), math.Inf(1), 1e-7}), nil, 4, "1,4",
			"inf:2 0.000000:3 -inf:1 nan:0"},
		"a row for each item": {serve.FP32, batch, []int64{2, 4}, floats(1, 2, 3, 4, 8, 7, 6, 5), []string{"a", "b", "c", "d"}, 1, "2,1",
			"4.000000:3:d 8.000000:0:a"},
		"rows of more dimensions": {serve.Int8, []int64{-1, 2, 2}, []int64{2, 2, 2}, encoded(t, []int8{1, 2, -3, 4, 8, 7, 6, -5}), nil, 2, "2,2",
			"4:3 2:1 8:0 7:1"},
		"no batch, one row": {serve.FP32, []int64{1, 4}, []int64{1, 4}, floats(1, 2, 3, 4), nil, 2, "2", "4.000000:3 3.000000:2"},
		"labels of another length are none": {serve.FP32, []int64{-1, -1}, []int64{1, 2}, floats(1, 2), []string{"a", "b", "c"}, 1, "1,1",
			"2.000000:1"},
		"none asked for is the tensor": {serve.Int32, batch, []int64{1, 4}, encoded(t, []int32{1, 2, 3, 4}), nil, 0, "1,4", ""},
		"UINT8":                        {serve.Uint8, batch, []int64{1, 4}, []byte{255, 0, 128, 3}, nil, 2, "1,2", "255:0 128:2"},
		"UINT16":                       {serve.Uint16, batch, []int64{1, 4}, encoded(t, []uint16{1, 65535, 2, 3}), nil, 1, "1,1", "65535:1"},
		"UINT32":                       {serve.Uint32, batch, []int64{1, 4}, encoded(t, []uint32{1, 1 << 31, 2, 3}), nil, 1, "1,1", "2147483648:1"},
		"UINT64 beyond float64": {serve.Uint64, batch, []int64{1, 4}, encoded(t, []uint64{math.MaxUint64 - 1, math.MaxUint64, 0, 0}), nil, 2, "1,2",
			"18446744073709551615:1 18446744073709551614:0"},
		"INT16": {serve.Int16, batch, []int64{1, 4}, encoded(t, []int16{-1, -32768, 2, 3}), nil, 4, "1,4", "3:3 2:2 -1:0 -32768:1"},
		"INT64": {serve.Int64, batch, []int64{1, 4}, encoded(t, []int64{math.MaxInt64 - 1, math.MaxInt64, 0, 0}), nil, 1, "1,1",
			"9223372036854775807:1"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m := constant(serve.ModelInfo{
				Name: "m", Version: "1", Labels: tt.labels,
				Inputs:  []serve.TensorInfo{{Name: "x", Type: serve.Bool, Shape: []int64{-1}}},
				Outputs: []serve.TensorInfo{{Name: "y", Type: tt.kind, Shape: tt.declared}},
			}, tt.shape, tt.data)
			url := start(t, serve.Options{}, m) + "/v2/models/m/infer"
			ask := func(binary bool) reply {
				return send(t, "POST", url, nil, fmt.Appendf(nil, `{"inputs":[{"name":"x","shape":[1],"datatype":"BOOL","data":[true]}],`+
					`"outputs":[{"name":"y","parameters":{"classification":%d,"binary_data":%v}}]}`, tt.top, binary))
			}
			if tt.top == 0 {
				if r := ask(false); !strings.Contains(string(r.body), `"datatype":"INT32","shape":[1,4],"data":[1,2,3,4]`) {
					t.Errorf("%d %s", r.code, r.body)
				}
				return
			}
			var quoted []string
			var want []byte
			for s := range strings.SplitSeq(strings.ReplaceAll(tt.wantStrings, "b b", "b_b"), " ") {
				s = strings.ReplaceAll(s, "b_b", "b b")
				quoted = append(quoted, strconv.Quote(s))
				want = append(binary.LittleEndian.AppendUint32(want, uint32(len(s))), s...)
			}
			text := `"outputs":[{"name":"y","datatype":"BYTES","shape":[` + tt.wantShape + `],"data":[` + strings.Join(quoted, ",") + `]}]`
			if r := ask(false); r.code != 200 || !strings.Contains(string(r.body), text) {
				t.Errorf("JSON: %d %s\nwant %s", r.code, r.body, text)
			}
			r := ask(true)
			n, err := strconv.Atoi(r.header.Get(lengthHeader))
			if err != nil || !bytes.Equal(r.body[n:], want) {
				t.Errorf("binary: %d %q, want %q (%v)", r.code, r.body, want, err)
			}
		})
	}
}

func TestClassificationRefuses(t *testing.T) {
	url := start(t, serve.Options{}, echoModel("m", fp32x3),
		echoModel("text", serve.TensorInfo{Name: "x", Type: serve.Bytes, Shape: []int64{-1}}),
		echoModel("bool", serve.TensorInfo{Name: "x", Type: serve.Bool, Shape: []int64{-1}}),
		echoModel("half", serve.TensorInfo{Name: "x", Type: serve.FP16, Shape: []int64{-1}}))
	for name, tt := range map[string]struct{ model, value, part string }{
		"text":          {"m", `"1"`, "a number"},
		"negative":      {"m", "-1", "range"},
		"fraction":      {"m", "1.5", "whole"},
		"too many":      {"m", "1000001", "1000000"},
		"beyond int64":  {"m", "99999999999999999999", "range"},
		"BYTES":         {"text", "1", "BYTES has no classes"},
		"BOOL":          {"bool", "1", "BOOL has no classes"},
		"FP16":          {"half", "1", "FP16 has no classes"},
		"null":          {"m", "null", "neither"},
		"given as list": {"m", "[1]", "neither"},
	} {
		t.Run(name, func(t *testing.T) {
			body := `{"outputs":[{"name":"out_x","parameters":{"classification":` + tt.value + `}}],"inputs":[]}`
			wantError(t, send(t, "POST", url+"/v2/models/"+tt.model+"/infer", nil, []byte(body)), 400, tt.part)
		})
	}
}
