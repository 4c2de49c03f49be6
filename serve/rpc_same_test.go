package serve_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc"

	"spos/internal/ort"
	"spos/serve"
	"spos/serve/oippb"
)

// startRepositoryRPC serves a directory of models over both protocols.
func startRepositoryRPC(t testing.TB, dir string, o serve.Options) (*grpc.ClientConn, string) {
	t.Helper()
	repo, err := serve.OpenRepository(t.Context(), dir, serve.RepositoryOptions{Runtime: library(t), Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := repo.Close(); err != nil {
			t.Error(err)
		}
	})
	o.Source = repo
	return startRPC(t, o, repo.Models()...)
}

// typed is a tensor's bytes as the contents of a message, nil where the datatype has none.
func typed(d serve.Datatype, data []byte) *oippb.InferTensorContents {
	c := &oippb.InferTensorContents{}
	for size := d.Size(); len(data) > 0; data = data[size:] {
		var b [8]byte
		if d == serve.Bytes {
			size = 4 + int(binary.LittleEndian.Uint32(data))
			c.BytesContents = append(c.BytesContents, data[4:size])
			continue
		}
		copy(b[:], data[:size])
		u := binary.LittleEndian.Uint64(b[:])
		switch d {
		case serve.Bool:
			c.BoolContents = append(c.BoolContents, u != 0)
		case serve.Int8:
			c.IntContents = append(c.IntContents, int32(int8(u)))
		case serve.Int16:
			c.IntContents = append(c.IntContents, int32(int16(u)))
		case serve.Int32:
			c.IntContents = append(c.IntContents, int32(u))
		case serve.Int64:
			c.Int64Contents = append(c.Int64Contents, int64(u))
		case serve.Uint8, serve.Uint16, serve.Uint32:
			c.UintContents = append(c.UintContents, uint32(u))
		case serve.Uint64:
			c.Uint64Contents = append(c.Uint64Contents, u)
		case serve.FP32:
			c.Fp32Contents = append(c.Fp32Contents, math.Float32frombits(uint32(u)))
		case serve.FP64:
			c.Fp64Contents = append(c.Fp64Contents, math.Float64frombits(u))
		default:
			return nil
		}
	}
	return c
}

// everyForm sends one input in every form that the protocols have and hands the bytes of the first output to check.
type everyForm struct {
	conn  *grpc.ClientConn
	url   string
	model string
	name  string
	d     serve.Datatype
	shape []int64
	data  []byte
	text  string // the elements in JSON; empty where there is no such form
	raw   bool   // a body of nothing but the tensor
}

func (f *everyForm) each(t *testing.T, check func(form string, output []byte)) {
	t.Helper()
	shape, err := json.Marshal(f.shape)
	if err != nil {
		t.Fatal(err)
	}
	url := f.url + "/v2/models/" + f.model + "/infer"
	binaryAnswer := func(form string, header map[string]string, body string) {
		t.Helper()
		r := send(t, "POST", url, header, []byte(body))
		n, err := strconv.Atoi(r.header.Get(lengthHeader))
		if r.code != 200 || err != nil {
			t.Fatalf("%s: %d %s (%v)", form, r.code, r.body, err)
		}
		check(form, r.body[n:])
	}
	head := func(data string) string {
		return fmt.Sprintf(`{"inputs":[{"name":%q,"shape":%s,"datatype":"%s",%s}],"parameters":{"binary_data_output":true}}`, f.name, shape, f.d, data)
	}
	if f.text != "" {
		binaryAnswer("JSON", nil, head(`"data":[`+f.text+`]`))
	}
	h := head(fmt.Sprintf(`"parameters":{"binary_data_size":%d}`, len(f.data)))
	binaryAnswer("binary", map[string]string{lengthHeader: strconv.Itoa(len(h))}, h+string(f.data))
	if f.raw {
		binaryAnswer("raw", map[string]string{lengthHeader: "0"}, string(f.data))
	}
	requests := map[string]*oippb.ModelInferRequest{"gRPC raw": rpcRequest(f.model, [][]byte{f.data}, rpcInput(f.name, f.d.String(), f.shape...))}
	if c := typed(f.d, f.data); c != nil {
		requests["gRPC typed"] = rpcRequest(f.model, nil, rpcInput(f.name, f.d.String(), f.shape...))
		requests["gRPC typed"].Inputs[0].Contents = c
	}
	stream, err := client(f.conn).ModelStreamInfer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for form, q := range requests {
		r, err := client(f.conn).ModelInfer(t.Context(), q)
		if err != nil {
			t.Fatalf("%s: %v", form, err)
		}
		check(form, r.GetRawOutputContents()[0])
		if err := stream.Send(q); err != nil {
			t.Fatal(err)
		}
		s, err := stream.Recv()
		if err != nil || s.GetErrorMessage() != "" {
			t.Fatalf("%s, stream: %v, %v", form, s, err)
		}
		check(form+", stream", s.GetInferResponse().GetRawOutputContents()[0])
	}
	if err := stream.CloseSend(); err != nil {
		t.Error(err)
	}
}

// inProcess runs a model file without a server, on the same bytes.
func inProcess(t *testing.T, rt *ort.Runtime, file string, d serve.Datatype, shape []int64, data []byte) []byte {
	t.Helper()
	session, err := rt.OpenSession(file, ort.Options{})
	if err != nil {
		t.Fatal(err)
	}
	model, err := serve.NewONNX(t.Context(), session, "m", "1")
	if err != nil {
		t.Fatal(err)
	}
	defer model.Close()
	info := model.Info()
	out := []serve.Tensor{{Name: info.Outputs[0].Name, Type: info.Outputs[0].Type}}
	if err := model.Run(t.Context(), []serve.Tensor{{Name: info.Inputs[0].Name, Type: d, Shape: shape, Data: data}}, out); err != nil {
		t.Fatal(err)
	}
	return bytes.Clone(out[0].Data)
}

// TestSameBytes sends the same tensors through every form of both protocols to models that ONNX Runtime computes, and
// to the same models in this process: the answers must be equal to the bit.
func TestSameBytes(t *testing.T) {
	rt := library(t)
	files, names := map[string]string{"picture/1": "testdata/picture.onnx"}, map[serve.Datatype]string{serve.Bytes: "string"}
	for d := serve.Bool; d <= serve.Bytes; d++ {
		if names[d] == "" {
			names[d] = strings.ToLower(d.String())
		}
		files[names[d]+"/1"] = ortModels + "/identity_" + names[d] + ".onnx"
	}
	conn, url := startRepositoryRPC(t, repository(t, files), serve.Options{})
	all := map[serve.Datatype][]element{serve.FP16: {{"", "\x00\x3c"}, {"", "\x00\xfc"}}, serve.BF16: {{"", "\x80\x3f"}, {"", "\x80\xff"}}}
	maps.Copy(all, elements)
	for d, es := range all {
		t.Run(d.String(), func(t *testing.T) {
			var text []string
			var data []byte
			for _, e := range es {
				text = append(text, e.json)
				data = append(data, e.bytes...)
			}
			shape := []int64{int64(len(es))}
			want := inProcess(t, rt, ortModels+"/identity_"+names[d]+".onnx", d, shape, data)
			f := &everyForm{conn, url, names[d], "x", d, shape, data, strings.Trim(strings.Join(text, ","), ","), d != serve.Bytes}
			f.each(t, func(form string, got []byte) {
				if !bytes.Equal(got, want) {
					t.Errorf("%s: got %q, want %q", form, got, want)
				}
			})
		})
	}
	t.Run("network", func(t *testing.T) {
		r := rand.New(rand.NewPCG(1, 2))
		xs := make([]float32, 3*224*224)
		for i := range xs {
			xs[i] = float32(r.NormFloat64())
		}
		text, err := json.Marshal(xs)
		if err != nil {
			t.Fatal(err)
		}
		shape := []int64{1, 3, 224, 224}
		want := inProcess(t, rt, "testdata/picture.onnx", serve.FP32, shape, floats(xs...))
		f := &everyForm{conn, url, "picture", "input", serve.FP32, shape, floats(xs...), strings.Trim(string(text), "[]"), true}
		f.each(t, func(form string, got []byte) {
			if !bytes.Equal(got, want) {
				t.Errorf("%s: got %v, want %v", form, got, want)
			}
		})
	})
}

// TestRPCCompute holds the calls to what the two inputs of a real model make.
func TestRPCCompute(t *testing.T) {
	conn, _ := startRepositoryRPC(t, repository(t, map[string]string{"addsub/1": "testdata/addsub.onnx"}), serve.Options{})
	q := rpcRequest("addsub", nil, rpcInput("INPUT1", "INT32", 1, 16), rpcInput("INPUT0", "INT32", 1, 16))
	for i := range q.Inputs {
		q.Inputs[i].Contents = &oippb.InferTensorContents{}
		for j := range int32(16) {
			q.Inputs[i].Contents.IntContents = append(q.Inputs[i].Contents.IntContents, j*int32(10*i+1))
		}
	}
	r, err := client(conn).ModelInfer(context.Background(), q)
	if err != nil {
		t.Fatal(err)
	}
	for j := range 16 {
		sum := int32(binary.LittleEndian.Uint32(r.GetRawOutputContents()[0][4*j:]))
		difference := int32(binary.LittleEndian.Uint32(r.GetRawOutputContents()[1][4*j:]))
		if sum != int32(12*j) || difference != int32(10*j) {
			t.Errorf("element %d: %d and %d", j, sum, difference)
		}
	}
}
