package load_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"spos/internal/imaging"
	"spos/internal/native"
	"spos/internal/ort"
	"spos/serve/internal/load"
)

// recipe is how published networks of this class see a picture.
var recipe = imaging.Recipe{Height: 224, Width: 224, ShortSide: 256, Mean: []float32{.485, .456, .406}, Std: []float32{.229, .224, .225}}

// built is where spos-edge is, once a test has asked for it.
var built struct {
	sync.Once
	dir string
	err error
}

func TestMain(m *testing.M) {
	if file := os.Getenv(bareModel); file != "" {
		fmt.Fprintln(os.Stderr, serveBare(file))
		os.Exit(1)
	}
	code := m.Run()
	if built.dir != "" {
		if err := os.RemoveAll(built.dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	os.Exit(code)
}

// program is spos-edge, built from this source unless a flag names another.
func program(t testing.TB) string {
	t.Helper()
	if *server != "" {
		return *server
	}
	built.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "spos"); built.err != nil { //nolint:usetesting // outlives the test
			return
		}
		if out, err := exec.Command("go", "build", "-o", built.dir, "spos/cmd/spos-edge").CombinedOutput(); err != nil {
			built.err = fmt.Errorf("build spos-edge: %w: %s", err, out)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return filepath.Join(built.dir, "spos-edge")
}

// serving is a server of a repository on free ports, with more arguments.
func serving(t testing.TB, repository string, args ...string) *load.Process {
	t.Helper()
	args = append([]string{"serve", "--repository", repository, "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"}, args...)
	p, err := load.Start(context.WithoutCancel(t.Context()), program(t), args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Errorf("the server: %v: %s", err, p.Log())
		}
	})
	return p
}

// repositoryOf holds one file as the model shuffle.
func repositoryOf(t testing.TB, file string) string {
	t.Helper()
	dir := t.TempDir()
	data, err := os.ReadFile(file)
	if err == nil {
		err = os.MkdirAll(filepath.Join(dir, "shuffle", "1"), 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "shuffle", "1", "model.onnx"), data, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// library is ONNX Runtime, without which there is nothing to serve.
func library(t testing.TB) *ort.Runtime {
	t.Helper()
	path, err := native.ONNXRuntime()
	if err != nil {
		t.Skip(err)
	}
	rt, err := ort.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return rt
}

// shuffle is a repository of a ShuffleNetV2 of random weights that knows how to look at pictures.
func shuffle(t testing.TB) (repository, model string) {
	t.Helper()
	file := *network
	if file == "" {
		file = filepath.Join(t.TempDir(), "net.onnx")
		if out, err := exec.CommandContext(t.Context(), program(t), "export", "--space", "shufflenetv2-mmrazor", "--arch", "spos-mmrazor", "-o", file).CombinedOutput(); err != nil {
			t.Fatalf("export: %v: %s", err, out)
		}
		text, err := json.Marshal(recipe)
		if err != nil {
			t.Fatal(err)
		}
		annotate(t, file, "spos.preprocess", string(text))
	}
	repository = repositoryOf(t, file)
	return repository, filepath.Join(repository, "shuffle", "1", "model.onnx")
}

// annotate adds to a model's metadata: parts of a repeated field may stand anywhere in a message.
func annotate(t testing.TB, model, key, value string) {
	t.Helper()
	const metadataProps = 14 // of ModelProto
	var entry []byte
	for i, s := range []string{key, value} {
		entry = protowire.AppendString(protowire.AppendTag(entry, protowire.Number(i+1), protowire.BytesType), s)
	}
	f, err := os.OpenFile(model, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(protowire.AppendBytes(protowire.AppendTag(nil, metadataProps, protowire.BytesType), entry)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// picture is a photograph's worth of detail, 640×480.
func picture(t testing.TB) []byte {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, 2))
	img := image.NewRGBA(image.Rect(0, 0, 640, 480))
	for y := range 480 {
		for x := range 640 {
			wave := func(a, b float64) uint8 {
				return uint8(110 + 70*math.Sin(float64(x)/a)*math.Cos(float64(y)/b) + 30*rng.Float64())
			}
			img.SetRGBA(x, y, color.RGBA{wave(31, 47), wave(19, 83), wave(57, 23), 255})
		}
	}
	var b bytes.Buffer
	if err := jpeg.Encode(&b, img, &jpeg.Options{Quality: 85}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// pixels is a network's input in [0, 1).
func pixels() []byte {
	rng := rand.New(rand.NewPCG(3, 4))
	b := make([]byte, 0, 4*3*224*224)
	for range 3 * 224 * 224 {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(rng.Float32()))
	}
	return b
}

// Clients of the model called shuffle.

func raw(addr string, input []byte) load.Dial {
	return load.HTTP(addr, "/v2/models/shuffle/infer", bareTensor, input)
}

var bareTensor = http.Header{"Inference-Header-Content-Length": {"0"}}

func rawFromFile(t testing.TB, addr string, input []byte) load.Dial {
	t.Helper()
	dial, err := load.HTTPFile(filepath.Join(t.TempDir(), "request"), addr, "/v2/models/shuffle/infer", bareTensor, input)
	if err != nil {
		t.Fatal(err)
	}
	return dial
}

func inJSON(addr string, input []byte) load.Dial {
	b := []byte(`{"inputs":[{"name":"input","datatype":"FP32","shape":[1,3,224,224],"data":[`)
	for i := 0; i < len(input); i += 4 {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendFloat(b, float64(math.Float32frombits(binary.LittleEndian.Uint32(input[i:]))), 'g', -1, 32)
	}
	b = append(b, "]}]}"...)
	return load.HTTP(addr, "/v2/models/shuffle/infer", http.Header{"Content-Type": {"application/json"}}, b)
}

func classify(addr string, jpeg []byte) load.Dial {
	return load.HTTP(addr, "/v2/models/shuffle/classify", http.Header{"Content-Type": {"image/jpeg"}}, jpeg)
}

func viaGRPC(addr string, input []byte) load.Dial {
	shape := protowire.AppendVarint(protowire.AppendVarint(protowire.AppendVarint(protowire.AppendVarint(nil, 1), 3), 224), 224)
	tensor := slices.Concat(load.Bytes(1, "input"), load.Bytes(2, "FP32"), load.Bytes(3, shape))
	return load.GRPC(addr, slices.Concat(load.Bytes(1, "shuffle"), load.Bytes(5, tensor), load.Bytes(7, input)))
}

// decoded is a picture's way to a network's input.
func decoded(t testing.TB, data []byte, into []float32) {
	t.Helper()
	img, err := imaging.Decode(data, imaging.Limits{Bytes: 16 << 20, Pixels: 40e6})
	if err == nil {
		err = recipe.Apply(img, into)
	}
	if err != nil {
		t.Fatal(fmt.Errorf("decode: %w", err))
	}
}
