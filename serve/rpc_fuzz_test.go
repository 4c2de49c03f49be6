package serve

import (
	"bytes"
	"errors"
	"net/http"
	"testing"

	"google.golang.org/protobuf/proto"

	"spos/serve/oippb"
)

// fuzzRequests are messages of every form, for fuzzInfo.
func fuzzRequests() []*oippb.ModelInferRequest {
	type input = oippb.ModelInferRequest_InferInputTensor
	number := func(n int64) *oippb.InferParameter {
		return &oippb.InferParameter{ParameterChoice: &oippb.InferParameter_Int64Param{Int64Param: n}}
	}
	inputs := []*input{
		{Name: "x", Datatype: "FP32", Shape: []int64{1, 3}},
		{Name: "n", Datatype: "INT64", Shape: []int64{1}, Parameters: map[string]*oippb.InferParameter{"mine": number(1)}},
		{Name: "s", Datatype: "BYTES", Shape: []int64{2}},
	}
	typed := []*input{
		{Name: "s", Datatype: "BYTES", Shape: []int64{1}, Contents: &oippb.InferTensorContents{BytesContents: [][]byte{[]byte("ab")}}},
		{Name: "x", Datatype: "FP32", Shape: []int64{1, 3}, Contents: &oippb.InferTensorContents{Fp32Contents: []float32{1, -2, 3}}},
		{Name: "n", Datatype: "INT64", Shape: []int64{2}, Contents: &oippb.InferTensorContents{Int64Contents: []int64{-1, 1 << 60}}},
	}
	return []*oippb.ModelInferRequest{
		{
			ModelName: "m", ModelVersion: "1", Id: "7", Inputs: inputs,
			Parameters:       map[string]*oippb.InferParameter{"timeout": number(5), "priority": number(0)},
			RawInputContents: [][]byte{bytes.Repeat([]byte("x"), 12), bytes.Repeat([]byte("y"), 8), []byte("\x01\x00\x00\x00a\x00\x00\x00\x00")},
			Outputs:          []*oippb.ModelInferRequest_InferRequestedOutputTensor{{Name: "n", Parameters: map[string]*oippb.InferParameter{"classification": number(1)}}},
		},
		{ModelName: "m", Inputs: typed},
		{ModelName: "m", Inputs: typed[:1], Id: "\u00e4"},
		{ModelName: "nope"},
		{},
	}
}

// FuzzInferRPC reads messages without building them. What it accepts, protobuf must read as the same request.
func FuzzInferRPC(f *testing.F) {
	for _, q := range fuzzRequests() {
		b, err := proto.Marshal(q)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Add([]byte("\x0a\x01m\x3a\xff\xff\xff\xff\x07"))
	m := &memory{limit: 64 << 20}
	f.Fuzz(func(t *testing.T, b []byte) {
		mem := &arena{m: m}
		r := rpcReader{src: bytes.NewReader(b), requestParts: requestParts{mem: mem}, find: func(model, _ string) (*ModelInfo, error) {
			if model != "m" {
				return nil, failf(http.StatusNotFound, "unknown model")
			}
			return &fuzzInfo, nil
		}}
		err := r.read()
		if e := answer(err, "id"); err != nil && (e.code >= 500 && e.code != 501 || !errors.Is(err, e) && e.code != 400) {
			t.Fatalf("%v became %d", err, e.code)
		}
		if err == nil {
			checkInputs(t, &fuzzInfo, &r.req)
			sameRequest(t, b, &r)
		}
		mem.free()
		if used := m.used.Load(); used != 0 {
			t.Fatalf("%d bytes are held", used)
		}
	})
}

func sameRequest(t *testing.T, b []byte, r *rpcReader) {
	t.Helper()
	var q oippb.ModelInferRequest
	if err := proto.Unmarshal(b, &q); err != nil {
		t.Fatalf("accepted what protobuf refuses: %v", err)
	}
	if q.GetModelName() != r.model || q.GetModelVersion() != r.version || q.GetId() != r.req.id || len(q.GetInputs()) != len(r.in) {
		t.Fatalf("read %q %q %q for %v", r.model, r.version, r.req.id, &q)
	}
	for i, in := range q.GetInputs() {
		data := r.in[i].Data
		if raw := q.GetRawInputContents(); len(raw) > 0 && !bytes.Equal(raw[i], data) {
			t.Fatalf("read %q for %q", data, raw[i])
		}
		if in.GetName() != r.in[i].Name || in.GetDatatype() != r.in[i].Type.String() || len(in.GetShape()) != len(r.in[i].Shape) {
			t.Fatalf("read %+v for %v", r.in[i], in)
		}
		if c := in.GetContents(); c != nil {
			var want []byte
			for _, s := range c.GetBytesContents() {
				want = append(append(want, byte(len(s)), byte(len(s)>>8), byte(len(s)>>16), 0), s...)
			}
			for _, x := range c.GetInt64Contents() {
				want, _ = appendScalar(want, Int64, uint64(x))
			}
			if r.in[i].Type != FP32 && !bytes.Equal(want, data) {
				t.Fatalf("read %q for %v", data, c)
			}
		}
	}
}
