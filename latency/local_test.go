package latency_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"spos/internal/native"
	"spos/internal/ort"
	"spos/latency"
)

func local(t testing.TB) *latency.Local {
	t.Helper()
	path, err := native.ONNXRuntime()
	if err != nil {
		t.Skip(err)
	}
	r, err := ort.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return &latency.Local{Runtime: r}
}

func read(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// brief is a protocol that takes milliseconds.
func brief() latency.Protocol {
	p := latency.Screening()
	p.MinTime = 0
	return p
}

func TestTime(t *testing.T) {
	l := local(t)
	p := brief()
	s, err := l.Time(t.Context(), latency.Task{Model: read(t, "convs2.onnx"), Protocol: p})
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Runs) != p.Runs || slices.Min(s.Runs) <= 0 {
		t.Errorf("runs = %v, want %d positive ones", s.Runs, p.Runs)
	}
	if n := len(s.Warmup); n < p.WarmupMin || n > p.WarmupMax || n < p.WarmupMax && !s.Settled {
		t.Errorf("%d warm-up runs, settled %v, want %d to %d", n, s.Settled, p.WarmupMin, p.WarmupMax)
	}
	if s.Create <= 0 {
		t.Errorf("session creation took %v", s.Create)
	}
	fp := s.Fingerprint
	if fp.Session.Runtime != l.Runtime.Version() || fp.Session.GraphLevel != ort.LevelAll || fp.Session.Provider != "cpu" || fp.Session.Threads != 1 {
		t.Errorf("session fingerprint %+v", fp.Session)
	}
	if fp.Model.Opset != 17 || fp.Model.Inputs != "x0 float32 1x16x32x32" || len(fp.Model.SHA256) != 64 {
		t.Errorf("model fingerprint %+v", fp.Model)
	}
	if fp.Session.Build != l.Runtime.Build() || fp.Session.Build == "" || fp.Model.DType != "float32" {
		t.Errorf("build %q, weights %q", fp.Session.Build, fp.Model.DType)
	}
	if d := s.Disturbance; d.Window < time.Millisecond || d.Before <= 0 || d.After <= 0 || runtime.GOOS == "linux" && d.Others != runtime.NumCPU()-1 {
		t.Errorf("disturbance %+v", d)
	}
	if fp.Host.Cores != runtime.NumCPU() || fp.Host.Arch == "" {
		t.Errorf("host fingerprint %+v", fp.Host)
	}
	described, err := l.Fingerprint(t.Context(), read(t, "convs2.onnx"), p)
	if err != nil || described.Key() != fp.Key() || described.Model.SHA256 != fp.Model.SHA256 {
		t.Errorf("described as %+v, %v, measured as %+v", described, err, fp)
	}
}

// TestTimeGivesBack: the thread's affinity and priority and the collector's
// setting are as before.
func TestTimeGivesBack(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("binding needs Linux")
	}
	l := local(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	state := func() (set unix.CPUSet, policy, gc int) {
		if err := unix.SchedGetaffinity(0, &set); err != nil {
			t.Fatal(err)
		}
		attr, err := unix.SchedGetAttr(0, 0)
		if err != nil {
			t.Fatal(err)
		}
		gc = debug.SetGCPercent(123)
		return set, int(attr.Policy), gc
	}
	state()
	set, policy, gc := state()
	for _, name := range []string{"convs2.onnx", "strings.onnx"} {
		if _, err := l.Time(t.Context(), latency.Task{Model: read(t, name), Protocol: brief()}); (err != nil) != (name == "strings.onnx") {
			t.Fatal(err)
		}
		if set2, policy2, gc2 := state(); set2 != set || policy2 != policy || gc2 != gc {
			t.Errorf("after %s: affinity %v, policy %d, collector %d, before: %v, %d, %d", name, set2, policy2, gc2, set, policy, gc)
		}
	}
}

// TestTurns: who holds the lock, in whatever process, is waited for.
func TestTurns(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("taking turns needs Linux")
	}
	l := local(t)
	l.Lock = filepath.Join(t.TempDir(), "lock")
	other, err := os.Create(l.Lock)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := unix.Flock(int(other.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := l.Time(ctx, latency.Task{Model: read(t, "convs2.onnx"), Protocol: brief()}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with the lock held elsewhere: %v, want to wait until the deadline", err)
	}
	other.Close()
	if _, err := l.Time(t.Context(), latency.Task{Model: read(t, "convs2.onnx"), Protocol: brief()}); err != nil {
		t.Errorf("with the lock free: %v", err)
	}
	l.Lock = filepath.Join(t.TempDir(), "no", "such", "directory")
	if _, err := l.Time(t.Context(), latency.Task{Model: read(t, "convs2.onnx"), Protocol: brief()}); err != nil {
		t.Errorf("where no lock can be made: %v", err)
	}
}

// TestTurnsByProcessor: who measures on another processor is not waited for.
func TestTurnsByProcessor(t *testing.T) {
	if runtime.GOOS != "linux" || runtime.NumCPU() < 2 {
		t.Skip("taking turns needs Linux, and this test two processors")
	}
	t.Setenv("TMPDIR", t.TempDir())
	other, err := os.Create(filepath.Join(os.TempDir(), "spos-latency-0.lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := unix.Flock(int(other.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		cpus  []int
		pin   bool
		waits bool
	}{
		"bound to the same": {[]int{0}, true, true},
		"bound to another":  {[]int{1}, true, false},
		"bound to the last": {nil, true, false},
		"bound to none":     {nil, false, true},
	} {
		l := local(t)
		l.CPUs = tt.cpus
		p := brief()
		p.Pin = tt.pin
		ctx, cancel := context.WithCancel(t.Context())
		if tt.waits {
			time.AfterFunc(20*time.Millisecond, cancel)
		}
		if _, err := l.Time(ctx, latency.Task{Model: read(t, "convs2.onnx"), Protocol: p}); errors.Is(err, context.Canceled) != tt.waits {
			t.Errorf("%s: %v, want to wait: %v", name, err, tt.waits)
		}
		cancel()
	}
}

func TestOrder(t *testing.T) {
	models := []latency.Model{{Name: "2", Bytes: read(t, "convs2.onnx")}, {Name: "8", Bytes: read(t, "convs8.onnx")}}
	l := local(t)
	for _, mode := range []latency.Mode{latency.Hot, latency.Paced, latency.Cold} {
		p := brief()
		p.Mode, p.Gap, p.Sessions, p.WarmupMax = mode, time.Millisecond, 2, 8
		r, err := latency.MeasureAll(t.Context(), l, models, p)
		if err != nil {
			t.Fatal(err)
		}
		// The least times are compared: they hold on a machine that others use.
		if ratio := float64(r[1].Min) / float64(r[0].Min); ratio < 1.5 {
			t.Errorf("%s: four times the work takes %.2f times as long (%v and %v)", mode, ratio, r[1].Min, r[0].Min)
		}
		for _, r := range r {
			if !(r.Min <= r.Low || r.Low <= r.P50) || r.P50 > r.High || r.Min > r.P50 || r.P50 > r.P90 {
				t.Errorf("%s: out of order: %+v", mode, r.Estimate)
			}
			if r.Mode != mode || r.Sessions != 2 || len(r.Samples) != 2 {
				t.Errorf("%s: mode %s, %d sessions, %d samples", mode, r.Mode, r.Sessions, len(r.Samples))
			}
		}
	}
}

func TestThreads(t *testing.T) {
	l := local(t)
	p := brief()
	p.Threads, p.Session.Spinning = 2, new(false)
	s, err := l.Time(t.Context(), latency.Task{Model: read(t, "convs2.onnx"), Protocol: p})
	if runtime.NumCPU() < 2 {
		if err == nil || !strings.Contains(err.Error(), "pin: false") {
			t.Errorf("two threads on one processor: %v, want the way out", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if a := s.Fingerprint.Session.Affinity; len(a) != 2 || a[0] == a[1] {
		t.Errorf("affinity %v, want two processors", a)
	}
	p.Threads = 10_000
	if _, err := l.Time(t.Context(), latency.Task{Model: read(t, "convs2.onnx"), Protocol: p}); err == nil || !strings.Contains(err.Error(), "pin: false") {
		t.Errorf("10000 threads: %v, want the way out", err)
	}
}

func TestInputs(t *testing.T) {
	l := local(t)
	p := brief()
	p.Batch = 3
	p.Dims = map[string]int64{"length": 7}
	r, err := latency.Measure(t.Context(), l, latency.Model{Name: "tokens", Bytes: read(t, "tokens.onnx")}, p)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := r.Fingerprint.Model.Inputs, "ids int64 3x7, mask bool 3x7"; got != want {
		t.Errorf("inputs %q, want %q", got, want)
	}
	p.Dims = nil
	r, err = latency.Measure(t.Context(), l, latency.Model{Name: "tokens", Bytes: read(t, "tokens.onnx")}, p)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(r.Warnings, "input ids: free dimension length taken as 1") {
		t.Errorf("warnings %q do not say that length was taken as 1", r.Warnings)
	}
	r, err = latency.Measure(t.Context(), l, latency.Model{Name: "half", Bytes: read(t, "half.onnx")}, p)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(r.Warnings, func(w string) bool { return strings.Contains(w, "a batch of 3") }) {
		t.Errorf("warnings %q do not say that the batch is fixed", r.Warnings)
	}
}

func TestTimeErrors(t *testing.T) {
	l := local(t)
	if _, err := l.Time(t.Context(), latency.Task{Model: []byte("no model"), Protocol: brief()}); err == nil {
		t.Error("garbage was timed")
	}
	if _, err := l.Time(t.Context(), latency.Task{Model: read(t, "strings.onnx"), Protocol: brief()}); !errors.Is(err, ort.ErrTensor) || !strings.Contains(err.Error(), "input x") {
		t.Errorf("strings: %v, want ErrTensor naming the input", err)
	}
	if _, err := l.Time(t.Context(), latency.Task{Model: read(t, "convs2.onnx"), Protocol: latency.Protocol{}}); err == nil {
		t.Error("the zero protocol was accepted")
	}
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	_, err := latency.Measure(ctx, l, latency.Model{Name: "two", Bytes: read(t, "convs2.onnx")}, brief())
	if !errors.Is(err, why) || !strings.Contains(err.Error(), "two") {
		t.Errorf("cancelled: %v, want the cause and the model", err)
	}
}

// TestQuantized: 8-bit models of both forms run, and are told from others by
// their weights.
func TestQuantized(t *testing.T) {
	l := local(t)
	for _, name := range []string{"convs8_qdq.onnx", "convs8_qop.onnx"} {
		r, err := latency.Measure(t.Context(), l, latency.Model{Name: name, Bytes: read(t, name)}, brief())
		if err != nil {
			t.Error(err)
		} else if m := r.Fingerprint.Model; m.DType != "int8" || m.Inputs != "x0 float32 1x16x32x32" {
			t.Errorf("%s: fingerprint %+v, want int8 weights and a float32 input", name, m)
		}
	}
}
