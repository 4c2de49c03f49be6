package serve

import (
	"bytes"
	"context"
	"encoding/binary"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"math"
	"testing"
	"unsafe"

	"spos/internal/imaging"
)

// function is a Model of a function, for tests inside the package.
type function struct {
	info ModelInfo
	run  func(ctx context.Context, in, out []Tensor) error
}

func (f *function) Info() ModelInfo { return f.info }

func (f *function) Run(ctx context.Context, in, out []Tensor) error { return f.run(ctx, in, out) }

// classifier is a network that answers the mean of each of its three planes, of a 4×4 picture in 0..1.
func classifier() *function {
	return &function{
		info: ModelInfo{
			Name: "c", Version: "1", Labels: []string{"red", "green", "blue"},
			Recipe:  &imaging.Recipe{Height: 4, Width: 4},
			Inputs:  []TensorInfo{{"input", FP32, []int64{-1, 3, 4, 4}}},
			Outputs: []TensorInfo{{"logits", FP32, []int64{-1, 3}}},
		},
		run: func(_ context.Context, in, out []Tensor) error {
			out[0].Shape, out[0].Data = []int64{in[0].Shape[0], 3}, nil
			for plane := range 3 * int(in[0].Shape[0]) {
				sum := float32(0)
				for i := range 16 {
					sum += math.Float32frombits(binary.LittleEndian.Uint32(in[0].Data[4*(16*plane+i):]))
				}
				out[0].Data = binary.LittleEndian.AppendUint32(out[0].Data, math.Float32bits(sum/16))
			}
			return nil
		},
	}
}

// seedImages are small pictures in both formats, by their media type.
func seedImages(t testing.TB) map[string][]byte {
	t.Helper()
	img := image.NewRGBA(image.Rect(0, 0, 9, 7))
	for i := range img.Pix {
		img.Pix[i] = byte(i * 7)
	}
	img.Set(3, 3, color.Black)
	var j, p bytes.Buffer
	if err := jpeg.Encode(&j, img, nil); err != nil {
		t.Fatal(err)
	}
	if err := png.Encode(&p, img); err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{"image/jpeg": j.Bytes(), "image/png": p.Bytes()}
}

func addr(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }

// Classifier and SeedImages are the fixtures for tests outside the package.
func Classifier() Model { return classifier() }

func SeedImages(t testing.TB) map[string][]byte { return seedImages(t) }

// WithBatching is a model of this file with other options.
func WithBatching(m Model, b Batching) Model {
	f := *m.(*function)
	f.info.Options.Batching = b
	return &f
}

// Held is the memory of the requests in flight.
func Held(s *Server) int64 { return s.memory.used.Load() }

// Routes are those of the main listener, such as "GET /v2".
func Routes() []string {
	var all []string
	for _, r := range routes {
		all = append(all, r.method+" /"+r.path)
	}
	return all
}
