package serve_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"

	"spos/serve"
)

// negate is a Model in plain Go.
type negate struct{}

func (negate) Info() serve.ModelInfo {
	numbers := func(name string) []serve.TensorInfo {
		return []serve.TensorInfo{{Name: name, Type: serve.Int8, Shape: []int64{-1}}}
	}
	return serve.ModelInfo{Name: "negate", Version: "1", Inputs: numbers("x"), Outputs: numbers("y")}
}

func (negate) Run(_ context.Context, in, out []serve.Tensor) error {
	out[0].Shape = in[0].Shape
	for _, v := range in[0].Data {
		out[0].Data = append(out[0].Data, -v)
	}
	return nil
}

func ExampleServer() {
	s, err := serve.New(serve.Options{HTTP: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler)}, negate{})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()

	resp, err := http.Post("http://"+s.Addr().String()+"/v2/models/negate/infer", "application/json",
		strings.NewReader(`{"inputs": [{"name": "x", "datatype": "INT8", "shape": [3], "data": [1, -2, 3]}]}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	fmt.Println(string(answer), err)

	stop()
	fmt.Println(<-done)
	// Output:
	// {"model_name":"negate","model_version":"1","outputs":[{"name":"y","datatype":"INT8","shape":[3],"data":[-1,2,-3]}]} <nil>
	// <nil>
}
