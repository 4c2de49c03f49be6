package serve_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"spos/serve"
	"spos/serve/oippb"
)

// startRPC runs a server until the test ends and returns a connection to it, and its address for HTTP as a URL.
func startRPC(t testing.TB, o serve.Options, models ...serve.Model) (*grpc.ClientConn, string) {
	t.Helper()
	if o.Logger == nil {
		o.Logger = quiet()
	}
	o.HTTP, o.GRPC = "127.0.0.1:0", "127.0.0.1:0"
	s, err := serve.New(o, models...)
	if err != nil {
		t.Fatal(err)
	}
	conn := dial(t, s.GRPCAddr().String())
	runUntilEnd(t, s)
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return conn, "http://" + s.Addr().String()
}

// runUntilEnd runs a server until the test ends. It must end well and hold nothing.
func runUntilEnd(t testing.TB, s *serve.Server) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if n := serve.Held(s); n != 0 {
			t.Errorf("%d bytes are held after the last request", n)
		}
	})
}

// dial is a connection over which messages may be of any size.
func dial(t testing.TB, addr string, o ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	o = append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)),
	}, o...)
	conn, err := grpc.NewClient(addr, o...)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func client(conn *grpc.ClientConn) oippb.GRPCInferenceServiceClient {
	return oippb.NewGRPCInferenceServiceClient(conn)
}

// rpcInput is an input without its tensor.
func rpcInput(name, datatype string, shape ...int64) *oippb.ModelInferRequest_InferInputTensor {
	return &oippb.ModelInferRequest_InferInputTensor{Name: name, Datatype: datatype, Shape: shape}
}

// rpcRequest is a request to a model with inputs that carry their contents, or with raw ones.
func rpcRequest(model string, raw [][]byte, inputs ...*oippb.ModelInferRequest_InferInputTensor) *oippb.ModelInferRequest {
	return &oippb.ModelInferRequest{ModelName: model, Inputs: inputs, RawInputContents: raw}
}

// rawRequest is a request of one raw input to the model m.
func rawRequest(data []byte, shape ...int64) *oippb.ModelInferRequest {
	return rpcRequest("m", [][]byte{data}, rpcInput("x", "FP32", shape...))
}

func parameter(v any) *oippb.InferParameter {
	switch v := v.(type) {
	case bool:
		return &oippb.InferParameter{ParameterChoice: &oippb.InferParameter_BoolParam{BoolParam: v}}
	case int:
		return &oippb.InferParameter{ParameterChoice: &oippb.InferParameter_Int64Param{Int64Param: int64(v)}}
	case uint64:
		return &oippb.InferParameter{ParameterChoice: &oippb.InferParameter_Uint64Param{Uint64Param: v}}
	case float64:
		return &oippb.InferParameter{ParameterChoice: &oippb.InferParameter_DoubleParam{DoubleParam: v}}
	}
	return &oippb.InferParameter{ParameterChoice: &oippb.InferParameter_StringParam{StringParam: v.(string)}}
}

// wantCode holds the failure of a call to its code and a part of its text.
func wantCode(t *testing.T, err error, code codes.Code, part string) {
	t.Helper()
	if got := status.Convert(err); got.Code() != code || !strings.Contains(got.Message(), part) {
		t.Errorf("got %v %q, want %v with %q", got.Code(), got.Message(), code, part)
	}
}

func TestRPCHealthAndMetadata(t *testing.T) {
	one, two := echoModel("m", fp32x3), echoModel("m", fp32x3)
	one.info.Version, two.info.Version = "9", "10"
	two.info.Properties = map[string]string{"arch": "0123"}
	conn, _ := startRPC(t, serve.Options{Version: "v1.2", ModelControl: true}, one, two, serve.Unavailable("broken", "1", errors.New("it is broken")))
	c, ctx := client(conn), t.Context()
	if r, err := c.ServerLive(ctx, &oippb.ServerLiveRequest{}); err != nil || !r.GetLive() {
		t.Errorf("live: %v, %v", r, err)
	}
	if r, err := c.ServerReady(ctx, &oippb.ServerReadyRequest{}); err != nil || !r.GetReady() {
		t.Errorf("ready: %v, %v", r, err)
	}
	server, err := c.ServerMetadata(ctx, &oippb.ServerMetadataRequest{})
	if err != nil || server.GetName() != "spos" || server.GetVersion() != "v1.2" || !slices.Contains(server.GetExtensions(), "binary_tensor_data") {
		t.Errorf("server: %v, %v", server, err)
	}
	for name, want := range map[string]bool{"m": true, "broken": false} {
		if r, err := c.ModelReady(ctx, &oippb.ModelReadyRequest{Name: name}); err != nil || r.GetReady() != want {
			t.Errorf("%s is ready: %v, %v", name, r, err)
		}
	}
	_, err = c.ModelReady(ctx, &oippb.ModelReadyRequest{Name: "nope"})
	wantCode(t, err, codes.NotFound, `unknown model "nope"`)
	for version, want := range map[string]string{
		"": `name:"m" versions:"9" versions:"10" platform:"test" inputs:{name:"x" datatype:"FP32" shape:-1 shape:3} ` +
			`outputs:{name:"out_x" datatype:"FP32" shape:-1 shape:3} properties:{key:"arch" value:"0123"}`,
		"9": `name:"m" versions:"9" versions:"10" platform:"test" inputs:{name:"x" datatype:"FP32" shape:-1 shape:3} ` +
			`outputs:{name:"out_x" datatype:"FP32" shape:-1 shape:3}`,
	} {
		r, err := c.ModelMetadata(ctx, &oippb.ModelMetadataRequest{Name: "m", Version: version})
		if got := strings.Join(strings.Fields(r.String()), " "); err != nil || got != want {
			t.Errorf("metadata: %v, %v\nwant %s", got, err, want)
		}
	}
	_, err = c.ModelMetadata(ctx, &oippb.ModelMetadataRequest{Name: "m", Version: "3"})
	wantCode(t, err, codes.NotFound, `no version "3"`)
	_, err = c.ModelMetadata(ctx, &oippb.ModelMetadataRequest{Name: "broken"})
	wantCode(t, err, codes.Unavailable, "not available")
	config, err := c.ModelConfig(ctx, &oippb.ModelConfigRequest{Name: "m"})
	if in := config.GetConfig().GetInput(); err != nil || config.GetConfig().GetName() != "m" || len(in) != 1 || in[0].GetDataType() != oippb.DataType_TYPE_FP32 ||
		config.GetConfig().GetModelTransactionPolicy().GetDecoupled() {
		t.Errorf("config: %v, %v", config, err)
	}
	if _, err := c.ModelInfer(ctx, rawRequest(floats(1, 2, 3), 1, 3)); err != nil {
		t.Fatal(err)
	}
	stats, err := c.ModelStatistics(ctx, &oippb.ModelStatisticsRequest{Name: "m", Version: "10"})
	if err != nil || len(stats.GetModelStats()) != 1 {
		t.Fatalf("statistics: %v, %v", stats, err)
	}
	if s := stats.GetModelStats()[0]; s.GetInferenceCount() != 1 || s.GetInferenceStats().GetSuccess().GetCount() != 1 || s.GetLastInference() == 0 {
		t.Errorf("statistics: %v", s)
	}
	index, err := c.RepositoryIndex(ctx, &oippb.RepositoryIndexRequest{})
	if err != nil || len(index.GetModels()) != 3 || index.GetModels()[0].GetState() != "UNAVAILABLE" {
		t.Errorf("index: %v, %v", index, err)
	}
	index, err = c.RepositoryIndex(ctx, &oippb.RepositoryIndexRequest{Ready: true})
	if err != nil || len(index.GetModels()) != 2 {
		t.Errorf("index of the ready: %v, %v", index, err)
	}
	_, err = c.RepositoryIndex(ctx, &oippb.RepositoryIndexRequest{RepositoryName: "other"})
	wantCode(t, err, codes.Unimplemented, "one repository")
	_, err = c.SystemSharedMemoryStatus(ctx, &oippb.SystemSharedMemoryStatusRequest{})
	wantCode(t, err, codes.Unimplemented, "not implemented")
	_, err = c.TraceSetting(ctx, &oippb.TraceSettingRequest{})
	wantCode(t, err, codes.Unimplemented, "not implemented")
	wantCode(t, conn.Invoke(ctx, "/what/Ever", &oippb.ServerLiveRequest{}, &oippb.ServerLiveResponse{}), codes.Unimplemented, "no such method")
}

func TestRPCServices(t *testing.T) {
	conn, _ := startRPC(t, serve.Options{}, echoModel("m", fp32x3))
	for _, service := range []string{"", "inference.GRPCInferenceService"} {
		r, err := grpc_health_v1.NewHealthClient(conn).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: service})
		if err != nil || r.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
			t.Errorf("health of %q: %v, %v", service, r, err)
		}
	}
	stream, err := grpc_reflection_v1.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ask := &grpc_reflection_v1.ServerReflectionRequest{MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{}}
	if err := stream.Send(ask); err != nil {
		t.Fatal(err)
	}
	answer, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range answer.GetListServicesResponse().GetService() {
		names = append(names, s.GetName())
	}
	for _, want := range []string{"inference.GRPCInferenceService", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"} {
		if !slices.Contains(names, want) {
			t.Errorf("reflection lists %v, not %s", names, want)
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Error(err)
	}
}

func TestRPCAnswers(t *testing.T) {
	two := echoModel("two", fp32x3, serve.TensorInfo{Name: "y", Type: serve.Int32, Shape: []int64{-1}})
	big := echoModel("big", serve.TensorInfo{Name: "x", Type: serve.FP32, Shape: []int64{-1}})
	conn, _ := startRPC(t, serve.Options{}, echoModel("m", fp32x3), two, big, serve.Classifier())
	c, ctx := client(conn), t.Context()
	x, y := floats(1, 2.5, -3), []byte{7, 0, 0, 0, 8, 0, 0, 0}
	r, err := c.ModelInfer(ctx, &oippb.ModelInferRequest{
		ModelName: "two", Id: "7", ModelVersion: "1", Parameters: map[string]*oippb.InferParameter{"timeout": parameter(10_000_000), "mine": parameter("a")},
		Inputs:           []*oippb.ModelInferRequest_InferInputTensor{rpcInput("y", "INT32", 2), rpcInput("x", "FP32", 1, 3)},
		Outputs:          []*oippb.ModelInferRequest_InferRequestedOutputTensor{{Name: "out_y"}, {Name: "out_x"}},
		RawInputContents: [][]byte{y, x},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := `model_name:"two" model_version:"1" id:"7" outputs:{name:"out_y" datatype:"INT32" shape:2} outputs:{name:"out_x" datatype:"FP32" shape:1 shape:3}`
	raw := r.GetRawOutputContents()
	r.RawOutputContents = nil
	if got := strings.Join(strings.Fields(r.String()), " "); got != want || string(raw[0]) != string(y) || string(raw[1]) != string(x) {
		t.Errorf("got %s %q\nwant %s", got, raw, want)
	}
	// Answers that are copied, that are lent, and those at the borders of pieces.
	for _, n := range []int{1, 4 << 10, 16<<10 + 1, 16 << 10, 16<<10 + 256, 16<<10 + 255, 5<<16 + 3, 1 << 20} {
		data := make([]byte, 4*n)
		for i := range data {
			data[i] = byte(i * 31)
		}
		r, err := c.ModelInfer(ctx, rpcRequest("big", [][]byte{data}, rpcInput("x", "FP32", int64(n))))
		if err != nil || string(r.GetRawOutputContents()[0]) != string(data) {
			t.Errorf("%d elements: %v", n, err)
		}
	}
	r, err = c.ModelInfer(ctx, rawRequest(x, 1, 3), grpc.UseCompressor(gzip.Name))
	if err != nil || string(r.GetRawOutputContents()[0]) != string(x) {
		t.Errorf("gzip: %v, %v", r, err)
	}
	picture := serve.SeedImages(t)["image/png"]
	q := rpcRequest("c", nil, rpcInput("input", "BYTES", 1))
	q.Inputs[0].Contents = &oippb.InferTensorContents{BytesContents: [][]byte{picture}}
	q.Outputs = []*oippb.ModelInferRequest_InferRequestedOutputTensor{{
		Name: "logits", Parameters: map[string]*oippb.InferParameter{"classification": parameter(1)},
	}}
	r, err = c.ModelInfer(ctx, q)
	if err != nil || r.GetOutputs()[0].GetDatatype() != "BYTES" || !strings.Contains(string(r.GetRawOutputContents()[0]), ":") {
		t.Errorf("the class of a picture: %v, %v", r, err)
	}
}

// TestRPCRefusals asks for the same wrong things in both protocols, which must answer the same sentence.
func TestRPCRefusals(t *testing.T) {
	two := echoModel("two", fp32x3, serve.TensorInfo{Name: "y", Type: serve.FP32, Shape: []int64{-1, 3}})
	fails := echoModel("fails", fp32x3)
	fails.run = func(context.Context, []serve.Tensor, []serve.Tensor) error {
		return errors.New("kernel at /home/secret failed")
	}
	panics := echoModel("panics", fp32x3)
	panics.run = func(context.Context, []serve.Tensor, []serve.Tensor) error { panic("secret") }
	conn, url := startRPC(t, serve.Options{MaxBody: 1 << 20}, echoModel("m", fp32x3), two, fails, panics, serve.Unavailable("broken", "1", errors.New("secret")),
		echoModel("any", serve.TensorInfo{Name: "x", Type: serve.FP32, Shape: []int64{-1, -1}}))
	x := func() *oippb.ModelInferRequest_InferInputTensor {
		in := rpcInput("x", "FP32", 1, 3)
		in.Contents = &oippb.InferTensorContents{Fp32Contents: []float32{1, 2, 3}}
		return in
	}
	with := func(change func(in *oippb.ModelInferRequest_InferInputTensor)) *oippb.ModelInferRequest {
		in := x()
		change(in)
		return rpcRequest("m", nil, in)
	}
	params := func(key string, v any) *oippb.ModelInferRequest {
		q := rpcRequest("m", nil, x())
		q.Parameters = map[string]*oippb.InferParameter{key: parameter(v)}
		return q
	}
	outputs := func(names ...string) *oippb.ModelInferRequest {
		q := rpcRequest("m", nil, x())
		for _, n := range names {
			q.Outputs = append(q.Outputs, &oippb.ModelInferRequest_InferRequestedOutputTensor{Name: n})
		}
		return q
	}
	jx := `{"name":"x","shape":[1,3],"datatype":"FP32","data":[1,2,3]}`
	in := func(inputs ...string) string { return `{"inputs":[` + strings.Join(inputs, ",") + `]}` }
	one := func(from, to string) string { return in(strings.Replace(jx, from, to, 1)) }
	tests := map[string]struct {
		model, body string
		req         *oippb.ModelInferRequest
		code        codes.Code
	}{
		"unknown model":     {"nope", in(jx), rpcRequest("nope", nil, x()), codes.NotFound},
		"traversal":         {"..%2f..%2fetc", in(jx), rpcRequest("../../etc", nil, x()), codes.NotFound},
		"a long name":       {strings.Repeat("x", 9<<10), in(jx), rpcRequest(strings.Repeat("x", 9<<10), nil, x()), codes.NotFound},
		"unknown version":   {"m/versions/2", in(jx), &oippb.ModelInferRequest{ModelName: "m", ModelVersion: "2"}, codes.NotFound},
		"broken model":      {"broken", in(jx), rpcRequest("broken", nil, x()), codes.Unavailable},
		"no inputs":         {"m", in(), rpcRequest("m", nil), codes.InvalidArgument},
		"missing input":     {"two", in(jx), rpcRequest("two", nil, x()), codes.InvalidArgument},
		"unknown input":     {"m", one(`"x"`, `"z"`), with(func(in *oippb.ModelInferRequest_InferInputTensor) { in.Name = "z" }), codes.InvalidArgument},
		"an input too many": {"m", in(jx, jx), rpcRequest("m", nil, x(), x()), codes.InvalidArgument},
		"an input twice":    {"two", in(jx, jx), rpcRequest("two", nil, x(), x()), codes.InvalidArgument},
		"without name":      {"m", one(`"name":"x",`, ""), with(func(in *oippb.ModelInferRequest_InferInputTensor) { in.Name = "" }), codes.InvalidArgument},
		"another datatype": {"m", one("FP32", "INT32"), with(func(in *oippb.ModelInferRequest_InferInputTensor) {
			in.Datatype, in.Contents = "INT32", &oippb.InferTensorContents{IntContents: []int32{1, 2, 3}}
		}), codes.InvalidArgument},
		"unknown datatype": {"m", one("FP32", "fp32"), with(func(in *oippb.ModelInferRequest_InferInputTensor) { in.Datatype = "fp32" }), codes.InvalidArgument},
		"wrong rank":       {"m", one("[1,3]", "[3]"), with(func(in *oippb.ModelInferRequest_InferInputTensor) { in.Shape = []int64{3} }), codes.InvalidArgument},
		"scalar shape": {"m", in(`{"name":"x","shape":[],"datatype":"FP32","data":[1]}`), with(func(in *oippb.ModelInferRequest_InferInputTensor) {
			in.Shape, in.Contents.Fp32Contents = nil, []float32{1}
		}), codes.InvalidArgument},
		"wrong extent": {"m", in(`{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}`), with(func(in *oippb.ModelInferRequest_InferInputTensor) {
			in.Shape[1], in.Contents.Fp32Contents = 4, []float32{1, 2, 3, 4}
		}), codes.InvalidArgument},
		"empty batch":      {"m", in(`{"name":"x","shape":[0,3],"datatype":"FP32","data":[]}`), with(func(in *oippb.ModelInferRequest_InferInputTensor) { in.Shape[0], in.Contents.Fp32Contents = 0, nil }), codes.InvalidArgument},
		"too few":          {"m", one("[1,3]", "[2,3]"), with(func(in *oippb.ModelInferRequest_InferInputTensor) { in.Shape[0] = 2 }), codes.InvalidArgument},
		"too many":         {"m", one("[1,2,3]", "[1,2,3,4]"), with(func(in *oippb.ModelInferRequest_InferInputTensor) { in.Contents.Fp32Contents = []float32{1, 2, 3, 4} }), codes.InvalidArgument},
		"far too few":      {"m", one("[1,3]", "[1000,3]"), with(func(in *oippb.ModelInferRequest_InferInputTensor) { in.Shape[0] = 1000 }), codes.InvalidArgument},
		"many dimensions":  {"m", one("[1,3]", "["+strings.Repeat("1,", 99)+"3]"), with(func(in *oippb.ModelInferRequest_InferInputTensor) { in.Shape = slices.Repeat([]int64{1}, 100) }), codes.InvalidArgument},
		"long id":          {"m", `{"id":"` + strings.Repeat("x", 257) + `",` + in(jx)[1:], &oippb.ModelInferRequest{ModelName: "m", Id: strings.Repeat("x", 257)}, codes.InvalidArgument},
		"unknown output":   {"m", in(jx)[:len(in(jx))-1] + `,"outputs":[{"name":"z"}]}`, outputs("z"), codes.InvalidArgument},
		"an output twice":  {"m", in(jx)[:len(in(jx))-1] + `,"outputs":[{"name":"out_x"},{"name":"out_x"}]}`, outputs("out_x", "out_x"), codes.InvalidArgument},
		"timeout negative": {"m", `{"parameters":{"timeout":-5},` + in(jx)[1:], params("timeout", -5), codes.InvalidArgument},
		"reserved":         {"m", `{"parameters":{"triton_x":1},` + in(jx)[1:], params("triton_x", 1), codes.InvalidArgument},
		"sequence":         {"m", `{"parameters":{"sequence_id":7},` + in(jx)[1:], params("sequence_id", 7), codes.Unimplemented},
		"shared memory": {"m", one(`"data":[1,2,3]`, `"parameters":{"shared_memory_region":"r"}`), with(func(in *oippb.ModelInferRequest_InferInputTensor) {
			in.Parameters = map[string]*oippb.InferParameter{"shared_memory_region": parameter("r")}
		}), codes.Unimplemented},
		"a model that fails":  {"fails", in(jx), rpcRequest("fails", nil, x()), codes.Internal},
		"a model that panics": {"panics", in(jx), rpcRequest("panics", nil, x()), codes.Internal},
		"too large":           {"m", strings.Repeat(" ", 1<<20) + in(jx), &oippb.ModelInferRequest{ModelName: strings.Repeat("x", 1<<20)}, codes.ResourceExhausted},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			ctx := metadata.AppendToOutgoingContext(t.Context(), "x-request-id", "my-1")
			_, err := client(conn).ModelInfer(ctx, tt.req)
			got := status.Convert(err)
			r := send(t, "POST", url+"/v2/models/"+tt.model+"/infer", map[string]string{"X-Request-Id": "my-1"}, []byte(tt.body))
			text := errorText(t, r)
			if _, rest, ok := strings.Cut(text, ": "); ok && strings.HasPrefix(text, "JSON, byte ") {
				text = rest
			}
			if got.Code() != tt.code || got.Message() != text {
				t.Errorf("%v %q\nover HTTP %d %q", got.Code(), got.Message(), r.code, text)
			}
			if strings.Contains(got.Message(), "secret") {
				t.Errorf("the client sees the inside: %s", got.Message())
			}
		})
	}
	for name, tt := range map[string]struct {
		req  *oippb.ModelInferRequest
		part string
	}{
		"raw and contents": {rpcRequest("m", [][]byte{floats(1, 2, 3)}, x()), "use one of them"},
		"raw for some":     {rpcRequest("two", [][]byte{floats(1, 2, 3)}, rpcInput("x", "FP32", 1, 3), rpcInput("y", "FP32", 1, 3)), "1 entries for 2 inputs"},
		"raw too many":     {rpcRequest("m", [][]byte{floats(1, 2, 3), nil}, rpcInput("x", "FP32", 1, 3)), "more entries"},
		"raw too short":    {rawRequest(floats(1, 2), 1, 3), "has 8 bytes, its shape and datatype take 12"},
		"raw too long":     {rawRequest(floats(1, 2, 3, 4), 1, 3), "has 16 bytes"},
		"raw empty":        {rawRequest(nil, 1, 3), "has 0 bytes"},
		"neither":          {rpcRequest("m", nil, rpcInput("x", "FP32", 1, 3)), "no contents"},
		"the wrong field": {with(func(in *oippb.ModelInferRequest_InferInputTensor) {
			in.Contents = &oippb.InferTensorContents{Fp64Contents: []float64{1, 2, 3}}
		}), "FP32 takes fp32_contents"},
		"negative extent":     {with(func(in *oippb.ModelInferRequest_InferInputTensor) { in.Shape[0] = -1 }), "is -1"},
		"product wraps to 32": {rpcRequest("any", [][]byte{floats(1)}, rpcInput("x", "FP32", 16, 1152921504606846978)), "too many elements"},
		"timeout text":        {params("timeout", "5"), "whole"},
		"timeout real":        {params("timeout", 5.5), "whole"},
		"classes of a text":   {&oippb.ModelInferRequest{ModelName: "m", Outputs: []*oippb.ModelInferRequest_InferRequestedOutputTensor{{Name: "out_x", Parameters: map[string]*oippb.InferParameter{"classification": parameter("3")}}}}, "no number"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := client(conn).ModelInfer(t.Context(), tt.req)
			wantCode(t, err, codes.InvalidArgument, tt.part)
		})
	}
	for datatype, contents := range map[string]*oippb.InferTensorContents{
		"UINT8": {UintContents: []uint32{1, 300, 2}}, "INT8": {IntContents: []int32{1, -129, 2}}, "INT16": {IntContents: []int32{1, 32768, 2}}, "UINT16": {UintContents: []uint32{1, 65536, 2}},
	} {
		q := with(func(in *oippb.ModelInferRequest_InferInputTensor) { in.Datatype, in.Contents = datatype, contents })
		_, err := client(conn).ModelInfer(t.Context(), q)
		wantCode(t, err, codes.InvalidArgument, "is out of the range of "+datatype)
	}
	if _, err := client(conn).ModelInfer(t.Context(), rawRequest(floats(1, 2, 3), 1, 3)); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func errorText(t *testing.T, r reply) string {
	t.Helper()
	var text string
	if _, err := fmt.Sscanf(string(r.body), `{"error":%q}`, &text); err != nil {
		t.Fatalf("%d %q: %v", r.code, r.body, err)
	}
	return text
}
