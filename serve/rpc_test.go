package serve_test

import (
	"context"
	"encoding/binary"
	"math"
	"net/http"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

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
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	conn := dial(t, s.GRPCAddr().String())
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return conn, "http://" + s.Addr().String()
}

func dial(t testing.TB, addr string, o ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	o = append(o, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)))
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

// rawRequest is a request of one raw input to the model m.
func rawRequest(data []byte, shape ...int64) *oippb.ModelInferRequest {
	return &oippb.ModelInferRequest{
		ModelName: "m", Inputs: []*oippb.ModelInferRequest_InferInputTensor{rpcInput("x", "FP32", shape...)},
		RawInputContents: [][]byte{data},
	}
}

func TestRPCSmoke(t *testing.T) {
	conn, _ := startRPC(t, serve.Options{}, echoModel("m", fp32x3))
	r, err := client(conn).ModelInfer(t.Context(), rawRequest(floats(1, 2, 3), 1, 3))
	if err != nil {
		t.Fatal(err)
	}
	if string(r.RawOutputContents[0]) != string(floats(1, 2, 3)) {
		t.Errorf("%v", r)
	}
	_ = binary.LittleEndian
}
