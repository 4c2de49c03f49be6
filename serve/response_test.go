package serve

import (
	"context"
	"encoding/binary"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestTextSize holds the room for a value to be what the longest one takes.
func TestTextSize(t *testing.T) {
	le := binary.LittleEndian
	for typ, longest := range map[Datatype][]byte{
		Bool: {0}, Uint8: {255}, Int8: {0x80},
		Uint16: le.AppendUint16(nil, math.MaxUint16), Int16: le.AppendUint16(nil, 1<<15),
		Uint32: le.AppendUint32(nil, math.MaxUint32), Int32: le.AppendUint32(nil, 1<<31),
		Uint64: le.AppendUint64(nil, math.MaxUint64), Int64: le.AppendUint64(nil, 1<<63),
		FP32: le.AppendUint32(nil, math.Float32bits(-1.1754944e-38)), FP64: le.AppendUint64(nil, math.Float64bits(-2.2250738585072014e-308)),
		Bytes: append(le.AppendUint32(nil, 96), strings.Repeat("\x01", 96)...),
	} {
		out := Tensor{Name: "y", Type: typ, Data: append(longest, longest...)}
		text, err := appendData(nil, out)
		if err != nil {
			t.Fatal(err)
		}
		req := &inferRequest{outputs: []wantedOutput{{}}}
		room := textSize(req, []Tensor{out})
		if spare := room - len(text); spare < 0 || spare > 3 && typ != Bytes {
			t.Errorf("%s: room for %d bytes, %d are needed: %s", typ, room, len(text), text)
		}
		if req.outputs[0].binary = true; textSize(req, []Tensor{out}) != 0 {
			t.Errorf("%s: room for values that are binary", typ)
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 100_000 {
		bits := r.Uint64()
		single := appendFloat(nil, float64(math.Float32frombits(uint32(bits))), 32)
		double := appendFloat(nil, math.Float64frombits(bits), 64)
		if len(single) >= widest[FP32] || len(double) >= widest[FP64] {
			t.Fatalf("%s or %s is longer than its room", single, double)
		}
	}
}

// scale looks at the server's memory whenever it is written to.
type scale struct {
	*httptest.ResponseRecorder
	s    *Server
	held int64
}

func (w *scale) Write(b []byte) (int, error) {
	w.held = max(w.held, w.s.memory.used.Load())
	return w.ResponseRecorder.Write(b)
}

// TestTextIsCounted: answers in JSON are memory of requests, too.
func TestTextIsCounted(t *testing.T) {
	const n = 60_000
	m := &function{info: ModelInfo{
		Name: "m", Version: "1",
		Inputs: []TensorInfo{{"x", FP32, []int64{1}}}, Outputs: []TensorInfo{{"y", FP32, []int64{-1}}},
	}}
	m.run = func(_ context.Context, _, out []Tensor) error {
		out[0].Shape, out[0].Data = []int64{n}, make([]byte, 4*n)
		return nil
	}
	for _, tt := range []struct {
		memory int64
		binary bool
		code   int
	}{
		{512 << 10, false, http.StatusRequestEntityTooLarge}, {512 << 10, true, http.StatusOK}, {2 << 20, false, http.StatusOK},
	} {
		s, err := New(Options{HTTP: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler), Memory: tt.memory}, m)
		if err != nil {
			t.Fatal(err)
		}
		body := `{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}]}`
		if tt.binary {
			body = `{"parameters":{"binary_data_output":true},` + body[1:]
		}
		w := &scale{ResponseRecorder: httptest.NewRecorder(), s: s}
		s.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "POST", "http://127.0.0.1/v2/models/m/infer", strings.NewReader(body)))
		if w.Code != tt.code {
			t.Errorf("%d bytes for all, binary %v: %d %.200s", tt.memory, tt.binary, w.Code, w.Body)
		}
		if text := int64(w.Body.Len()); w.Code == http.StatusOK && !tt.binary && w.held < text {
			t.Errorf("%d bytes were held while %d were written", w.held, text)
		}
		if held := s.memory.used.Load(); held != 0 {
			t.Errorf("%d bytes are held afterwards", held)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
