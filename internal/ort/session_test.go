package ort_test

import (
	"bytes"
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"spos/internal/ort"
)

func TestDescribe(t *testing.T) {
	s := load(t, "conv.onnx", ort.Options{})
	wantIn := []ort.Info{{Name: "x", Type: ort.Float32, Shape: []int64{-1, 3, 8, 8}, Symbols: []string{"batch", "", "", ""}}}
	wantOut := []ort.Info{{Name: "y", Type: ort.Float32, Shape: []int64{-1, 5}, Symbols: []string{"batch", ""}}}
	if d := cmp.Diff(wantIn, s.Inputs()); d != "" {
		t.Errorf("Inputs (-want +got):\n%s", d)
	}
	if d := cmp.Diff(wantOut, s.Outputs()); d != "" {
		t.Errorf("Outputs (-want +got):\n%s", d)
	}
	if d := cmp.Diff(map[string]string{"labels": "a b c d e", "arch": "0123"}, s.Metadata()); d != "" {
		t.Errorf("Metadata (-want +got):\n%s", d)
	}
	if s.Opset() != 17 {
		t.Errorf("Opset() = %d, want 17", s.Opset())
	}
}

func TestShapeless(t *testing.T) {
	s := load(t, "shapeless.onnx", ort.Options{})
	want := []ort.Info{
		{Name: "at", Type: ort.Int64, Shape: []int64{1, -1}, Symbols: []string{"", ""}},
		{Name: "abs", Type: ort.Float32, Shape: []int64{4}, Symbols: []string{""}}, // as the library infers
	}
	if d := cmp.Diff(want, s.Outputs()); d != "" {
		t.Errorf("Outputs (-want +got):\n%s", d)
	}
	out := make([]ort.Tensor, 2)
	if err := s.Run(t.Context(), []ort.Tensor{ort.Of([]float32{0, -7, 0, 2}, 4)}, out); err != nil {
		t.Fatal(err)
	}
	if got := ort.View[int64](out[0]); !slices.Equal(got, []int64{1, 3}) || !slices.Equal(out[0].Shape, []int64{1, 2}) {
		t.Errorf("NonZero = %v %v, want [1 3] of shape [1 2]", got, out[0].Shape)
	}
	// An output may also be empty.
	clear(out)
	if err := s.Run(t.Context(), []ort.Tensor{ort.Of(make([]float32, 4), 4)}, out); err != nil {
		t.Fatal(err)
	}
	if len(out[0].Data) != 0 || !slices.Equal(out[0].Shape, []int64{1, 0}) {
		t.Errorf("NonZero of zeros = %v %v, want nothing of shape [1 0]", out[0].Data, out[0].Shape)
	}
}

func TestListedInitializer(t *testing.T) {
	s := load(t, "listed.onnx", ort.Options{})
	if n := len(s.Inputs()); n != 1 {
		t.Fatalf("%d inputs, want 1: the initializer is not ours to give", n)
	}
	out := make([]ort.Tensor, 1)
	if err := s.Run(t.Context(), []ort.Tensor{ort.Of([]float32{10, 20}, 2)}, out); err != nil {
		t.Fatal(err)
	}
	if got := ort.View[float32](out[0]); !slices.Equal(got, []float32{11, 22}) {
		t.Errorf("got %v, want [11 22]", got)
	}
}

// TestTypes sends every element type through Identity, with memory given and
// not, and empty.
func TestTypes(t *testing.T) {
	cases := map[string]ort.Tensor{
		"bool":   ort.Of([]bool{true, false, true}, 3),
		"uint8":  ort.Of([]uint8{0, 1, 255}, 3),
		"uint16": ort.Of([]uint16{0, 1, math.MaxUint16}, 3),
		"uint32": ort.Of([]uint32{0, 1, math.MaxUint32}, 3),
		"uint64": ort.Of([]uint64{0, 1, math.MaxUint64}, 3),
		"int8":   ort.Of([]int8{math.MinInt8, 0, math.MaxInt8}, 3),
		"int16":  ort.Of([]int16{math.MinInt16, 0, math.MaxInt16}, 3),
		"int32":  ort.Of([]int32{math.MinInt32, 0, math.MaxInt32}, 3),
		"int64":  ort.Of([]int64{math.MinInt64, 0, math.MaxInt64}, 3),
		"fp16":   {Type: ort.Float16, Shape: []int64{3}, Data: []byte{0, 0x3c, 0, 0xbc, 0, 0}},
		"bf16":   {Type: ort.BFloat16, Shape: []int64{3}, Data: []byte{0x80, 0x3f, 0x80, 0xbf, 0, 0}},
		"fp32":   ort.Of([]float32{-1, 0, math.MaxFloat32}, 3),
		"fp64":   ort.Of([]float64{-1, 0, math.MaxFloat64}, 3),
		"string": {Type: ort.String, Shape: []int64{3}, Strings: []string{"", "größe", "b"}},
	}
	for name, in := range cases {
		t.Run(name, func(t *testing.T) {
			s := load(t, "identity_"+name+".onnx", ort.Options{})
			given, err := ort.New(in.Type, 3)
			if err != nil {
				t.Fatal(err)
			}
			for memory, out := range map[string][]ort.Tensor{"given": {given}, "made": {{}}} {
				if err := s.Run(t.Context(), []ort.Tensor{in}, out); err != nil {
					t.Fatalf("memory %s: %v", memory, err)
				}
				if d := cmp.Diff(in, out[0]); d != "" {
					t.Errorf("memory %s (-want +got):\n%s", memory, d)
				}
			}
			empty, _ := ort.New(in.Type, 0)
			err = s.Run(t.Context(), []ort.Tensor{empty}, make([]ort.Tensor, 1))
			if half := in.Type == ort.Float16 || in.Type == ort.BFloat16; half != errors.Is(err, ort.ErrTensor) {
				t.Errorf("empty: %v (a half type alone cannot be empty)", err)
			}
		})
	}
}

func TestScalar(t *testing.T) {
	s := load(t, "scalar.onnx", ort.Options{})
	out := make([]ort.Tensor, 1)
	if err := s.Run(t.Context(), []ort.Tensor{ort.Of([]float32{2}), ort.Of([]float32{0.5})}, out); err != nil {
		t.Fatal(err)
	}
	if got := ort.View[float32](out[0]); !slices.Equal(got, []float32{2.5}) || len(out[0].Shape) != 0 {
		t.Errorf("got %v of shape %v, want a scalar 2.5", got, out[0].Shape)
	}
}

func TestFixedScalar(t *testing.T) {
	s := load(t, "scalar.onnx", ort.Options{})
	f, err := s.Fix([]ort.Tensor{ort.Of([]float32{2}), ort.Of([]float32{0.5})}, []ort.Tensor{ort.Of([]float32{0})})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if allocs := testing.AllocsPerRun(10, func() { err = f.Run() }); allocs != 0 || err != nil {
		t.Errorf("Fixed.Run: %v allocations, error %v, want none", allocs, err)
	}
	if got := ort.View[float32](f.Outputs()[0]); got[0] != 2.5 {
		t.Errorf("got %v, want 2.5", got)
	}
}

// TestUnaligned cuts an input out of a buffer at an odd place, as a request's
// body does.
func TestUnaligned(t *testing.T) {
	s := load(t, "identity_fp32.onnx", ort.Options{})
	in := ort.Of([]float32{1, 2, 3}, 3)
	want := in.Data
	in.Data = append([]byte{9}, in.Data...)[1:]
	out := make([]ort.Tensor, 1)
	if err := s.Run(t.Context(), []ort.Tensor{in}, out); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out[0].Data, want) {
		t.Errorf("got % x, want % x", out[0].Data, want)
	}
}

func TestWrongTensors(t *testing.T) {
	s := load(t, "conv.onnx", ort.Options{})
	good := ort.Of(make([]float32, 192), 1, 3, 8, 8)
	cases := map[string]struct {
		in, out []ort.Tensor
		want    string
	}{
		"no input":        {nil, make([]ort.Tensor, 1), "0 inputs"},
		"type":            {[]ort.Tensor{ort.Of(make([]float64, 192), 1, 3, 8, 8)}, make([]ort.Tensor, 1), "float64"},
		"rank":            {[]ort.Tensor{ort.Of(make([]float32, 192), 3, 8, 8)}, make([]ort.Tensor, 1), "[3 8 8]"},
		"extent":          {[]ort.Tensor{ort.Of(make([]float32, 216), 1, 3, 8, 9)}, make([]ort.Tensor, 1), "[1 3 8 9]"},
		"short":           {[]ort.Tensor{ort.Of(make([]float32, 191), 1, 3, 8, 8)}, make([]ort.Tensor, 1), "764"},
		"negative":        {[]ort.Tensor{ort.Of(make([]float32, 192), -1, 3, 8, 8)}, make([]ort.Tensor, 1), "negative"},
		"overflow":        {[]ort.Tensor{ort.Of(make([]float32, 192), 1<<60+1, 3, 8, 8)}, make([]ort.Tensor, 1), "more than"},
		"overflow by 0":   {[]ort.Tensor{ort.Of([]float32{}, 0, 1<<62, 1<<62, 8)}, make([]ort.Tensor, 1), "more than"},
		"output's extent": {[]ort.Tensor{good}, []ort.Tensor{ort.Of(make([]float32, 4), 1, 4)}, "[1 4]"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			err := s.Run(t.Context(), c.in, c.out)
			if !errors.Is(err, ort.ErrTensor) {
				t.Fatalf("Run = %v, want ErrTensor", err)
			}
			for _, want := range []string{"conv.onnx", c.want} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not mention %q", err, want)
				}
			}
		})
	}
	// Only the library can see that an output of an open extent is too small.
	err := s.Run(t.Context(), []ort.Tensor{good}, []ort.Tensor{ort.Of(make([]float32, 10), 2, 5)})
	if err == nil || !strings.Contains(err.Error(), "conv.onnx") {
		t.Errorf("output for two images of one: %v, want the library's error naming the model", err)
	}
	nul := load(t, "identity_string.onnx", ort.Options{})
	err = nul.Run(t.Context(), []ort.Tensor{{Type: ort.String, Shape: []int64{1}, Strings: []string{"a\x00b"}}}, make([]ort.Tensor, 1))
	if !errors.Is(err, ort.ErrTensor) {
		t.Errorf("string with a zero byte: %v, want ErrTensor", err)
	}
}

func TestBadModels(t *testing.T) {
	r := open(t)
	for name, want := range map[string]string{
		"empty.onnx":          "",
		"truncated.onnx":      "",
		"not_onnx.onnx":       "",
		"unknown_op.onnx":     "NoSuchOp",
		"missing_weight.onnx": "w",
		"future_opset.onnx":   "900",
		"wrong_type.onnx":     "Relu",
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join("testdata", "bad", name)
			for how, load := range map[string]func() (*ort.Session, error){
				"bytes": func() (*ort.Session, error) { return r.NewSession(model(t, "bad/"+name), ort.Options{Name: path}) },
				"file":  func() (*ort.Session, error) { return r.OpenSession(path, ort.Options{}) },
			} {
				s, err := load()
				if err == nil {
					t.Fatalf("%s: no error, session %v", how, s.Inputs())
				}
				if !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), want) {
					t.Errorf("%s: %q does not mention %s and %q", how, err, path, want)
				}
			}
		})
	}
	for _, name := range []string{"external.onnx", "external_inner.onnx"} {
		if _, err := r.NewSession(model(t, "bad/"+name), ort.Options{}); !errors.Is(err, ort.ErrExternal) {
			t.Errorf("%s: %v, want ErrExternal", name, err)
		}
		if s, err := r.OpenSession("testdata/bad/"+name, ort.Options{}); err == nil {
			t.Errorf("%s: opened with inputs %v", name, s.Inputs())
		}
	}
	if _, err := r.OpenSession("testdata/none.onnx", ort.Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v, want ErrNotExist", err)
	}
}

func TestOptions(t *testing.T) {
	in := []ort.Tensor{ort.Of(ramp(2*192), 2, 3, 8, 8)}
	var want []float32
	for name, o := range map[string]ort.Options{
		"zero":     {},
		"disable":  {GraphLevel: ort.LevelDisable},
		"basic":    {GraphLevel: ort.LevelBasic},
		"extended": {GraphLevel: ort.LevelExtended},
		"threads":  {IntraOp: 2, InterOp: 2, Spinning: new(false)},
		"entries":  {DenormalAsZero: true, NoArena: true, NoMemPattern: true, Config: map[string]string{"session.disable_prepacking": "1"}},
	} {
		s := load(t, "conv.onnx", o)
		out := make([]ort.Tensor, 1)
		if err := s.Run(t.Context(), in, out); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got := ort.View[float32](out[0])
		if want == nil {
			want = got
		}
		// Another order of summation: a few units in the last place of sums near 1.
		near := cmp.Comparer(func(a, b float32) bool { return math.Abs(float64(a-b)) <= 1e-5 })
		if d := cmp.Diff(want, got, near); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
}

func TestBadOptions(t *testing.T) {
	r := open(t)
	for name, c := range map[string]struct {
		o    ort.Options
		want string
	}{
		"level":       {ort.Options{GraphLevel: "most"}, "most"},
		"threads":     {ort.Options{IntraOp: -1}, "-1"},
		"cpu options": {ort.Options{ProviderConfig: map[string]string{"device_id": "0"}}, "device_id"},
		"provider":    {ort.Options{Provider: "abacus"}, "abacus"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := r.NewSession(model(t, "conv.onnx"), c.o)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("NewSession = %v, want an error with %q", err, c.want)
			}
		})
	}
}

// TestCancel stops a run of about a second in the middle.
func TestCancel(t *testing.T) {
	s := load(t, "slow.onnx", ort.Options{GraphLevel: ort.LevelDisable})
	in := []ort.Tensor{ort.Of(make([]float32, 384*384), 384, 384)}
	why := errors.New("the client went away")
	// Far less than the run takes and far more than its start.
	ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Millisecond, why)
	defer cancel()
	if err := s.Run(ctx, in, make([]ort.Tensor, 1)); !errors.Is(err, why) || !strings.Contains(err.Error(), "slow.onnx") {
		t.Errorf("Run = %v, want the cause of the context", err)
	}
	if err := s.Run(ctx, in, make([]ort.Tensor, 1)); !errors.Is(err, why) {
		t.Errorf("Run after the end of its context = %v, want its cause", err)
	}
}

func TestClose(t *testing.T) {
	r := open(t)
	s, err := r.NewSession(model(t, "conv.onnx"), ort.Options{})
	if err != nil {
		t.Fatal(err)
	}
	in := []ort.Tensor{ort.Of(ramp(192), 1, 3, 8, 8)}
	f, err := s.Fix(in, make([]ort.Tensor, 1))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				err := s.Run(context.Background(), in, make([]ort.Tensor, 1))
				if errors.Is(err, ort.ErrClosed) {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
	if err := f.Run(); !errors.Is(err, ort.ErrClosed) {
		t.Errorf("Fixed.Run after the session's Close = %v, want ErrClosed", err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.Fix(in, []ort.Tensor{ort.Of(make([]float32, 5), 1, 5)}); !errors.Is(err, ort.ErrClosed) {
		t.Errorf("Fix after Close = %v, want ErrClosed", err)
	}
}

// TestConcurrent runs one session from many goroutines while the collector
// works: each must get its own answer.
func TestConcurrent(t *testing.T) {
	s := load(t, "conv.onnx", ort.Options{})
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			shape := []int64{int64(n + 1), 3, 8, 8}
			var want []byte
			for range 50 {
				out := make([]ort.Tensor, 1)
				if err := s.Run(ctx, []ort.Tensor{ort.Of(ramp((n+1)*192), shape...)}, out); err != nil {
					t.Error(err)
					return
				}
				if want == nil {
					want = out[0].Data
				}
				if !bytes.Equal(want, out[0].Data) {
					t.Errorf("batch %d: another answer than before", n+1)
					return
				}
			}
		})
	}
	wg.Go(func() {
		for range 20 {
			runtime.GC()
		}
	})
	wg.Wait()
}

func TestFixed(t *testing.T) {
	s := load(t, "conv.onnx", ort.Options{})
	x := ramp(192)
	in, out := []ort.Tensor{ort.Of(x, 1, 3, 8, 8)}, make([]ort.Tensor, 1)
	f, err := s.Fix(in, out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i := range x {
		x[i] = -x[i]
	}
	want := make([]ort.Tensor, 1)
	if err := s.Run(t.Context(), in, want); err != nil {
		t.Fatal(err)
	}
	if allocs := testing.AllocsPerRun(100, func() { err = f.Run() }); allocs != 0 || err != nil {
		t.Errorf("Fixed.Run: %v allocations, error %v, want none", allocs, err)
	}
	if d := cmp.Diff(want, f.Outputs()); d != "" {
		t.Errorf("Fixed.Run does not see the changed input (-Run +Fixed):\n%s", d)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Run(); !errors.Is(err, ort.ErrClosed) {
		t.Errorf("Run after Close = %v, want ErrClosed", err)
	}
	odd := ort.Tensor{Type: ort.Float32, Shape: []int64{1, 3, 8, 8}, Data: make([]byte, 769)[1:]}
	if _, err := s.Fix([]ort.Tensor{odd}, make([]ort.Tensor, 1)); !errors.Is(err, ort.ErrTensor) {
		t.Errorf("Fix of unaligned memory = %v, want ErrTensor", err)
	}
}

// TestMemory makes and drops sessions, closed and forgotten ones: the process
// must reach a plateau.
func TestMemory(t *testing.T) {
	r := open(t)
	b := model(t, "conv.onnx")
	in := []ort.Tensor{ort.Of(ramp(192), 1, 3, 8, 8)}
	cycle := func() {
		for i := range 100 {
			s, err := r.NewSession(b, ort.Options{})
			if err != nil {
				t.Fatal(err)
			}
			f, err := s.Fix(in, make([]ort.Tensor, 1))
			if err != nil {
				t.Fatal(err)
			}
			if err := f.Run(); err != nil {
				t.Fatal(err)
			}
			if i%10 != 0 {
				s.Close()
			}
		}
		runtime.GC()
	}
	cycle()
	before := resident(t)
	for range 3 {
		cycle()
	}
	// A session of this model holds about 100 KiB: 300 leaked would be 30 MiB.
	if grown := resident(t) - before; grown > 8<<20 {
		t.Errorf("300 sessions grew the process by %d KiB", grown>>10)
	}
}

// resident is the process's memory in bytes.
func resident(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Skip("no /proc here:", err)
	}
	pages := 0
	for _, c := range strings.Fields(string(b))[1] {
		pages = pages*10 + int(c-'0')
	}
	return pages * os.Getpagesize()
}

// ramp is n numbers in [-1, 1), all different.
func ramp(n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = 2*float32(i)/float32(n) - 1
	}
	return x
}
