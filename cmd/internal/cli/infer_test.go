package cli

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"image"
	"image/color"
	"image/png"
	"log/slog"
	"math"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"spos/internal/imaging"
	"spos/internal/npy"
	"spos/serve"
	"spos/serve/keys"
)

// function is a model.
type function struct {
	info serve.ModelInfo
	run  func(in, out []serve.Tensor) error
}

func (f *function) Info() serve.ModelInfo { return f.info }

func (f *function) Run(_ context.Context, in, out []serve.Tensor) error { return f.run(in, out) }

// colors answers the three values of a picture of one pixel.
func colors() *function {
	return &function{serve.ModelInfo{
		Name: "colors", Version: "2", Labels: []string{"red", "green", "blue"},
		Recipe:  &imaging.Recipe{Height: 1, Width: 1},
		Inputs:  []serve.TensorInfo{{Name: "input", Type: serve.FP32, Shape: []int64{-1, 3, 1, 1}}},
		Outputs: []serve.TensorInfo{{Name: "logits", Type: serve.FP32, Shape: []int64{-1, 3}}},
	}, func(in, out []serve.Tensor) error {
		out[0].Shape = []int64{in[0].Shape[0], 3}
		out[0].Data = append([]byte{}, in[0].Data...)
		return nil
	}}
}

// swap answers its second input and its first.
func swap() *function {
	two := func(a, b string) []serve.TensorInfo {
		return []serve.TensorInfo{{Name: a, Type: serve.Int16, Shape: []int64{-1, 2}}, {Name: b, Type: serve.Int16, Shape: []int64{-1, 2}}}
	}
	return &function{serve.ModelInfo{Name: "swap", Version: "1", Inputs: two("a", "b"), Outputs: two("x", "y")}, func(in, out []serve.Tensor) error {
		for i, from := range []int{1, 0} {
			out[i].Shape, out[i].Data = in[from].Shape, append([]byte{}, in[from].Data...)
		}
		return nil
	}}
}

// startServer returns its addresses for HTTP and gRPC.
func startServer(t *testing.T, o serve.Options, models ...serve.Model) (url, rpc string) {
	t.Helper()
	o.HTTP, o.GRPC, o.Logger = "127.0.0.1:0", "127.0.0.1:0", slog.New(slog.DiscardHandler)
	s, err := serve.New(o, append(models, colors(), swap(), serve.Unavailable("broken", "1", errors.New("it is a text")))...)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return "http://" + s.Addr().String(), s.GRPCAddr().String()
}

// inferVerb runs `infer` and returns its output and its error as a person reads it.
func inferVerb(t *testing.T, stdin []byte, args ...string) (out, failure string) {
	t.Helper()
	root := NewRoot("spos", "test")
	AddVerbs(root)
	var stdout, stderr bytes.Buffer
	root.SetArgs(append([]string{"infer"}, args...))
	root.SetIn(bytes.NewReader(stdin))
	root.SetOut(&stdout)
	root.SetErr(&stderr)
	if err := root.ExecuteContext(t.Context()); err != nil {
		PrintError(&stderr, "spos", err)
	}
	return stdout.String(), stderr.String()
}

func write(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func pixel(t *testing.T, c color.Color) []byte {
	t.Helper()
	img := image.NewRGBA(image.Rect(0, 0, 1, 1))
	img.Set(0, 0, c)
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func array(t *testing.T, a npy.Array) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := npy.Write(&b, a); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestInfer has the verb ask one server over both protocols: the answers are the same.
func TestInfer(t *testing.T) {
	url, rpc := startServer(t, serve.Options{})
	red, blue := pixel(t, color.RGBA{R: 255, A: 255}), pixel(t, color.RGBA{B: 255, A: 255})
	redFile, blueFile := write(t, "red.png", red), write(t, "blue.png", blue)
	a := write(t, "a.npy", array(t, npy.Array{Type: "i2", Shape: []int64{1, 2}, Data: []byte{1, 0, 255, 255}}))
	raw := write(t, "b.raw", []byte{3, 0, 4, 0})
	floats := binary.LittleEndian.AppendUint32(nil, math.Float32bits(1.5))
	tensor := write(t, "c.npy", array(t, npy.Array{Type: "f4", Shape: []int64{1, 3, 1, 1}, Data: bytes.Repeat(floats, 3)}))

	for protocol, at := range map[string][]string{"http": {"--server", url}, "grpc": {"--grpc", rpc}} {
		for name, tt := range map[string]struct {
			args  []string
			stdin []byte
			want  []string // parts of standard output, in order
			fails string   // part of standard error; empty: it succeeds
		}{
			"list": {nil, nil, []string{
				"MODEL", "broken", "UNAVAILABLE", "it is a text", "colors  2", "READY", "input FP32[-1 3 1 1]", "logits FP32[-1 3]", "swap"}, ""},
			"list as JSON":    {[]string{"--json"}, nil, []string{`"state": "UNAVAILABLE"`, `"datatype": "FP32"`}, ""},
			"picture":         {[]string{"colors", redFile}, nil, []string{"FILE", redFile, "red", "57.61 %", "ms", "green", "21.19 %"}, ""},
			"two pictures":    {[]string{"colors", redFile, blueFile, "--top", "1", "--concurrency", "2"}, nil, []string{redFile, "red", blueFile, "blue"}, ""},
			"standard input":  {[]string{"colors", "-"}, blue, []string{"-  ", "blue"}, ""},
			"pictures, JSON":  {[]string{"colors", blueFile, "--json"}, nil, []string{`"label": "blue"`, `"index": 2`, `"probability": 0.576`, `"time_ms"`}, ""},
			"version":         {[]string{"colors", blueFile, "--version", "2"}, nil, []string{"blue"}, ""},
			"no version":      {[]string{"colors", blueFile, "--version", "3"}, nil, nil, "no version"},
			"one bad picture": {[]string{"colors", raw, redFile}, nil, []string{redFile, "red"}, raw},
			"tensors":         {[]string{"swap", "--tensor", "a=" + a, "--tensor", "b=" + raw}, nil, []string{"OUTPUT", "x", "INT16", "[1 2]", "3 4", "y", "1 -1"}, ""},
			"tensor":          {[]string{"colors", "--tensor", tensor}, nil, []string{"logits", "FP32", "1.5 1.5 1.5"}, ""},
			"tensor, JSON":    {[]string{"colors", "--tensor", tensor, "--json"}, nil, []string{`"shape"`, `"data"`, `1.5`}, ""},
			"wrong type":      {[]string{"colors", "--tensor", a}, nil, nil, "takes FP32, which NumPy calls f4, and the file holds i2"},
			"wrong bytes":     {[]string{"colors", "--tensor", raw}, nil, nil, "4 bytes do not fill input \"input\""},
			"which input":     {[]string{"swap", "--tensor", a}, nil, nil, "write NAME=FILE"},
			"no such input":   {[]string{"swap", "--tensor", "c=" + a}, nil, nil, `no input "c"`},
			"missing input":   {[]string{"swap", "--tensor", "a=" + a}, nil, nil, "b"},
			"no such model":   {[]string{"colours", redFile}, nil, nil, "lists the models"},
			"no such file":    {[]string{"colors", redFile + "x"}, nil, nil, "no such file"},
			"twice stdin":     {[]string{"colors", "-", "-"}, red, nil, "is there once"},
			"repeat":          {[]string{"colors", redFile, blueFile, "--repeat", "20", "--concurrency", "3"}, nil, []string{"REQUESTS", "P50", "P90", "P99", "20", "3", "0", "ms"}, ""},
			"repeat tensor":   {[]string{"colors", "--tensor", tensor, "--repeat", "5", "--json"}, nil, []string{`"requests": 5`, `"failed": 0`, `"p99_ms"`}, ""},
			"nothing to send": {[]string{"colors"}, nil, nil, "nothing to send"},
			"only a tensor":   {[]string{"--tensor", a}, nil, nil, "a MODEL is needed"},
		} {
			t.Run(protocol+"/"+name, func(t *testing.T) {
				out, failure := inferVerb(t, tt.stdin, append(at, tt.args...)...)
				if (failure == "") != (tt.fails == "") || !strings.Contains(failure, tt.fails) {
					t.Fatalf("failed with %q, want %q", failure, tt.fails)
				}
				rest := out
				for _, part := range tt.want {
					_, after, found := strings.Cut(rest, part)
					if !found {
						t.Fatalf("%q is missing, or in another order, in\n%s", part, out)
					}
					rest = after
				}
			})
		}
	}
}

// TestInferSaves: what is saved is what was sent, through a model that swaps.
func TestInferSaves(t *testing.T) {
	url, _ := startServer(t, serve.Options{})
	content := array(t, npy.Array{Type: "i2", Shape: []int64{1, 2}, Data: []byte{1, 0, 255, 255}})
	a, dir := write(t, "a.npy", content), filepath.Join(t.TempDir(), "out")
	if _, failure := inferVerb(t, []byte{9, 0, 9, 0}, "--server", url, "swap", "--tensor", "a="+a, "--tensor", "b=-", "-o", dir); failure != "" {
		t.Fatal(failure)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "y.npy")); err != nil || !bytes.Equal(got, content) {
		t.Errorf("saved %q, %v; sent %q", got, err, content)
	}
}

// TestInferWithToken: the token of a file opens the server over both protocols, and its lack is explained.
func TestInferWithToken(t *testing.T) {
	secret, line, err := keys.NewToken("person", keys.Infer)
	if err != nil {
		t.Fatal(err)
	}
	url, rpc := startServer(t, serve.Options{Tokens: write(t, "tokens", []byte(line+"\n"))})
	token, wrong := write(t, "token", []byte(secret+"\n")), write(t, "wrong", []byte("abc\n"))
	for _, at := range [][]string{{"--server", url}, {"--grpc", rpc}} {
		if out, failure := inferVerb(t, nil, append(at, "--token-file", token)...); failure != "" || !strings.Contains(out, "colors") {
			t.Errorf("%v: %s %s", at, out, failure)
		}
		for _, args := range [][]string{at, append(at, "--token-file", wrong)} {
			if _, failure := inferVerb(t, nil, args...); !strings.Contains(failure, "hint: give a token with --token-file") {
				t.Errorf("%v: %q", args, failure)
			}
		}
	}
	for _, bad := range []string{"", "two words\n"} {
		if _, failure := inferVerb(t, nil, "--token-file", write(t, "bad", []byte(bad))); !strings.Contains(failure, "one token") {
			t.Errorf("a file of %q: %q", bad, failure)
		}
	}
}

// TestInferSilence: an address where no server answers is named, with a way out.
func TestInferSilence(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := ln.Addr().String()
	ln.Close()
	_, rpc := startServer(t, serve.Options{})
	for want, args := range map[string][]string{
		"http://" + nobody + " does not answer": {"--server", "http://" + nobody},
		"grpc://" + nobody + " does not answer": {"--grpc", nobody},
		"is the address that of its HTTP port":  {"--server", "http://" + rpc},
		"is no address of a server":             {"--server", "127.0.0.1"},
	} {
		if _, failure := inferVerb(t, nil, args...); !strings.Contains(failure, want) {
			t.Errorf("%v: %q, want %q", args, failure, want)
		}
	}
}

func TestElements(t *testing.T) {
	for _, tt := range []struct {
		kind serve.Datatype
		data []byte
		want string
	}{
		{serve.Bool, []byte{1, 0}, "[true,false]"},
		{serve.Int8, []byte{255, 128, 127}, "[-1,-128,127]"},
		{serve.Int64, binary.LittleEndian.AppendUint64(nil, 1<<63), "[-9223372036854775808]"},
		{serve.Uint64, bytes.Repeat([]byte{255}, 8), "[18446744073709551615]"},
		{serve.FP16, []byte{0, 0x3c, 0, 0xc0, 1, 0, 0xff, 0x7b, 0, 0x7c, 1, 0x7c}, "[1,-2,5.9604645e-08,65504,null,null]"},
		{serve.BF16, []byte{0x80, 0x3f, 0x80, 0xff}, "[1,null]"},
		{serve.FP64, binary.LittleEndian.AppendUint64(nil, math.Float64bits(0.1)), "[0.1]"},
		{serve.Bytes, []byte("\x02\x00\x00\x00hi\x00\x00\x00\x00"), `["hi",""]`},
	} {
		got, err := json.Marshal(outputTensor{Name: "t", Type: tt.kind, Data: tt.data})
		if err != nil || !strings.HasSuffix(string(got), `"data":`+tt.want+"}") {
			t.Errorf("%v: %s, %v; want %s", tt.kind, got, err, tt.want)
		}
	}
	if text := (outputTensor{Type: serve.Uint8, Data: make([]byte, 20)}).brief(); text != "0 0 0 0 0 0 0 0 …" {
		t.Errorf("in brief %q", text)
	}
	if _, err := json.Marshal(outputTensor{Type: serve.Bytes, Data: []byte{9, 0, 0, 0}}); err == nil {
		t.Error("a string longer than its tensor was shown")
	}
}
