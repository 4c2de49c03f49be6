package ort_test

import (
	"errors"
	"os"
	"runtime"
	"runtime/metrics"
	"strings"
	"testing"
	"time"

	"spos/internal/ort"
)

// TestTimeStaysBelow: a loop of a thousand runs is one call out of Go, so that
// neither its scheduler nor its collector has anything to do with a run.
func TestTimeStaysBelow(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the loop below Go needs Linux")
	}
	s := load(t, "conv.onnx", ort.Options{})
	f, err := s.Fix([]ort.Tensor{ort.Of(ramp(3*8*8), 1, 3, 8, 8)}, make([]ort.Tensor, 1))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	times := make([]time.Duration, 1000)
	if err := f.Time(times[:10], 0, nil); err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	measured := []metrics.Sample{
		{Name: "/gc/cycles/total:gc-cycles"}, {Name: "/gc/heap/allocs:objects"}, {Name: "/cgo/go-to-c-calls:calls"},
	}
	metrics.Read(measured)
	before := [3]uint64{measured[0].Value.Uint64(), measured[1].Value.Uint64(), measured[2].Value.Uint64()}
	if err := f.Time(times, 0, nil); err != nil {
		t.Fatal(err)
	}
	metrics.Read(measured)
	for i, most := range []uint64{0, 50, 10} { // the metrics themselves allocate, the library is asked whether it is there
		if n := measured[i].Value.Uint64() - before[i]; n > most {
			t.Errorf("%s: %d during a thousand runs, want at most %d", measured[i].Name, n, most)
		}
	}
	for i, d := range times {
		if d <= 0 {
			t.Fatalf("run %d took %v", i, d)
		}
	}
}

func TestTimeModes(t *testing.T) {
	s := load(t, "conv.onnx", ort.Options{})
	f, err := s.Fix([]ort.Tensor{ort.Of(ramp(3*8*8), 1, 3, 8, 8)}, make([]ort.Tensor, 1))
	if err != nil {
		t.Fatal(err)
	}
	const idle = 2 * time.Millisecond
	evict := make([]byte, 130)
	start := time.Now()
	if err := f.Time(make([]time.Duration, 3), idle, evict); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took < 3*idle {
		t.Errorf("three runs took %v in all, with %v before each", took, idle)
	}
	if evict[0] != 3 || evict[64] != 3 || evict[128] != 3 || evict[1] != 0 {
		t.Errorf("lines written %d, %d, %d times, want 3", evict[0], evict[64], evict[128])
	}
	if err := f.Time(nil, 0, nil); err != nil {
		t.Errorf("no runs: %v", err)
	}
	f.Close()
	if err := f.Time(make([]time.Duration, 1), 0, nil); !errors.Is(err, ort.ErrClosed) {
		t.Errorf("after Close: %v, want ErrClosed", err)
	}
}

// TestTimeFails: an index outside of its table is found in a run, by the
// library.
func TestTimeFails(t *testing.T) {
	model, err := os.ReadFile("../../latency/testdata/tokens.onnx")
	if err != nil {
		t.Fatal(err)
	}
	s, err := open(t).NewSession(model, ort.Options{Name: "tokens"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ids := []int64{0, 1}
	mask := ort.Tensor{Type: ort.Bool, Shape: []int64{1, 2}, Data: []byte{1, 1}}
	f, err := s.Fix([]ort.Tensor{ort.Of(ids, 1, 2), mask}, []ort.Tensor{ort.Of([]float32{0})})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	times := make([]time.Duration, 3)
	if err := f.Time(times, 0, nil); err != nil {
		t.Fatal(err)
	}
	ids[1] = 99
	if err := f.Time(times, 0, nil); err == nil || !strings.Contains(err.Error(), "tokens") || !strings.Contains(err.Error(), "99") {
		t.Errorf("an index out of range: %v, want an error that names model and index", err)
	}
}
