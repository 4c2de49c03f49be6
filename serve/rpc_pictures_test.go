package serve_test

import (
	"encoding/base64"
	"image/color"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"spos/serve"
	"spos/serve/oippb"
)

// TestRPCPictures sends pictures in the forms that gRPC has, and asks for their classes.
func TestRPCPictures(t *testing.T) {
	conn, _ := startRPC(t, serve.Options{}, serve.Classifier())
	red, blue := plain(t, 9, 5, color.RGBA{255, 0, 0, 255}), plain(t, 4, 8, color.RGBA{0, 0, 255, 255})
	text := func(p []byte) []byte { return []byte(base64.StdEncoding.EncodeToString(p)) }
	parameter := func(s string) map[string]*oippb.InferParameter {
		return map[string]*oippb.InferParameter{"content_type": {ParameterChoice: &oippb.InferParameter_StringParam{StringParam: s}}}
	}
	one := map[string]*oippb.InferParameter{"classification": {ParameterChoice: &oippb.InferParameter_Int64Param{Int64Param: 1}}}
	for name, tt := range map[string]struct {
		parameters map[string]*oippb.InferParameter
		raw        []byte
		contents   [][]byte
		code       codes.Code
	}{
		"raw":                    {nil, elementsOf(red, blue), nil, codes.OK},
		"raw, base64":            {parameter("base64"), elementsOf(text(red), text(blue)), nil, codes.OK},
		"contents":               {parameter("image/png"), nil, [][]byte{red, blue}, codes.OK},
		"contents, base64":       {parameter("base64"), nil, [][]byte{text(red), text(blue)}, codes.OK},
		"base64 that is not":     {parameter("base64"), nil, [][]byte{red, blue}, codes.InvalidArgument},
		"base64 without a word":  {nil, nil, [][]byte{text(red), text(blue)}, codes.InvalidArgument},
		"one that is no picture": {nil, elementsOf(red, []byte("hello")), nil, codes.InvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			in := rpcInput("input", "BYTES", 2)
			in.Parameters = tt.parameters
			q := &oippb.ModelInferRequest{
				ModelName: "c", Inputs: []*oippb.ModelInferRequest_InferInputTensor{in},
				Outputs: []*oippb.ModelInferRequest_InferRequestedOutputTensor{{Name: "logits", Parameters: one}},
			}
			if tt.raw != nil {
				q.RawInputContents = [][]byte{tt.raw}
			} else {
				in.Contents = &oippb.InferTensorContents{BytesContents: tt.contents}
			}
			r, err := client(conn).ModelInfer(t.Context(), q)
			if status.Code(err) != tt.code {
				t.Fatalf("%v, want %v", err, tt.code)
			}
			if want := string(elementsOf([]byte("1.000000:0:red"), []byte("1.000000:2:blue"))); err == nil && string(r.RawOutputContents[0]) != want {
				t.Errorf("%q, want %q", r.RawOutputContents[0], want)
			}
		})
	}
}
