package serve_test

import (
	"context"
	"fmt"
	"image"
	"image/jpeg"
	"io"
	"slices"
	"testing"
	"time"

	"spos/internal/ort"
	"spos/serve"
	"spos/serve/oippb"
)

// timed reports the median and the 99th percentile beside the mean.
func timed(b *testing.B, f func() error) {
	b.Helper()
	b.ReportAllocs()
	var all []time.Duration
	for b.Loop() {
		start := time.Now()
		if err := f(); err != nil {
			b.Fatal(err)
		}
		all = append(all, time.Since(start))
	}
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2].Microseconds())/1e3, "p50-ms")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds())/1e3, "p99-ms")
}

func encodeJPEG(w io.Writer, img image.Image) error { return jpeg.Encode(w, img, nil) }

// BenchmarkTransport compares what a request of 602 112 bytes costs before and after a model that does nothing.
func BenchmarkTransport(b *testing.B) {
	m := echoModel("m", serve.TensorInfo{Name: "x", Type: serve.FP32, Shape: []int64{-1, 3, 224, 224}})
	m.info.Outputs = []serve.TensorInfo{{Name: "y", Type: serve.FP32, Shape: []int64{-1, 1000}}}
	m.run = func(_ context.Context, _, out []serve.Tensor) error {
		out[0].Shape, out[0].Data = []int64{1, 1000}, out[0].Data[:4000]
		return nil
	}
	conn, url := startRPC(b, serve.Options{}, m)
	data := make([]byte, 4*3*224*224)
	b.Run("HTTP", func(b *testing.B) {
		timed(b, func() error {
			if r := send(b, "POST", url+"/v2/models/m/infer", map[string]string{lengthHeader: "0"}, data); r.code != 200 {
				return fmt.Errorf("%d %s", r.code, r.body)
			}
			return nil
		})
	})
	b.Run("GRPC", func(b *testing.B) {
		req := rawRequest(data, 1, 3, 224, 224)
		c := client(conn)
		timed(b, func() error { _, err := c.ModelInfer(b.Context(), req); return err })
	})
}

// BenchmarkGRPC compares a network over gRPC with the same network in this process.
func BenchmarkGRPC(b *testing.B) {
	rt := library(b)
	conn, _ := startRepositoryRPC(b, repository(b, map[string]string{"m/1": benchmarkModel()}), serve.Options{})
	input := make([]float32, 3*224*224)
	for i := range input {
		input[i] = float32(i%251)/251 - 0.5
	}
	b.Run("run", func(b *testing.B) {
		session, err := rt.OpenSession(benchmarkModel(), ort.Options{})
		if err != nil {
			b.Fatal(err)
		}
		defer session.Close()
		in, out := []ort.Tensor{ort.Of(input, 1, 3, 224, 224)}, make([]ort.Tensor, 1)
		timed(b, func() error { out[0] = ort.Tensor{}; return session.Run(b.Context(), in, out) })
	})
	raw := rpcRequest("m", [][]byte{floats(input...)}, rpcInput("input", "FP32", 1, 3, 224, 224))
	typed := rpcRequest("m", nil, rpcInput("input", "FP32", 1, 3, 224, 224))
	typed.Inputs[0].Contents = &oippb.InferTensorContents{Fp32Contents: input}
	c := client(conn)
	b.Run("raw", func(b *testing.B) {
		timed(b, func() error { _, err := c.ModelInfer(b.Context(), raw); return err })
	})
	b.Run("typed", func(b *testing.B) {
		timed(b, func() error { _, err := c.ModelInfer(b.Context(), typed); return err })
	})
	b.Run("stream", func(b *testing.B) {
		stream, err := c.ModelStreamInfer(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		timed(b, func() error {
			if err := stream.Send(raw); err != nil {
				return err
			}
			_, err := stream.Recv()
			return err
		})
	})
}
