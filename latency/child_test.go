package latency_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"spos/internal/native"
	"spos/internal/ort"
	"spos/latency"
)

// The test's own binary is the child process where this names its device.
const childDevice = "SPOS_TEST_CHILD"

func TestMain(m *testing.M) {
	switch os.Getenv(childDevice) {
	case "":
		os.Exit(m.Run())
	case "real":
		serveChild(func() (latency.Device, error) {
			path, err := native.ONNXRuntime()
			if err != nil {
				return nil, err
			}
			r, err := ort.Open(path)
			return &latency.Local{Runtime: r}, err
		})
	case "fake":
		serveChild(func() (latency.Device, error) { return &misbehaving{}, nil })
	case "broker", "agent", "searcher":
		play(os.Getenv(childDevice))
	case "none":
		serveChild(func() (latency.Device, error) { return nil, errors.New("no runtime here") })
	}
}

func serveChild(open func() (latency.Device, error)) {
	if err := latency.ServeChild(context.Background(), open, os.Stdin, latency.ChildAnswers()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// misbehaving is a fake that does what a model's bytes say.
type misbehaving struct{ fake }

func (m *misbehaving) Time(ctx context.Context, t latency.Task) (latency.Sample, error) {
	do, arg, _ := strings.Cut(string(t.Model), " ")
	switch do {
	case "crash":
		fmt.Fprint(os.Stderr, "\x1b[31mMlas: panel of \x00nothing\x1b[0m\n")
		_ = syscall.Kill(os.Getpid(), syscall.SIGSEGV)
		select {}
	case "once": // dies unless a file says that it has died before
		if os.WriteFile(arg, nil, 0o600) == nil && os.Link(arg, arg+".died") == nil {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
		t.Model = []byte("7")
	case "hang":
		select {}
	case "eat":
		b := make([]byte, 1<<40)
		return latency.Sample{Runs: make([]time.Duration, len(b))}, nil
	case "print":
		fmt.Println(strings.Repeat("a library greets ", 1000)) //nolint:forbidigo // that is the point
		t.Model = []byte("7")
	}
	return m.fake.Time(ctx, t)
}

func child(t testing.TB, device string) *latency.Child {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := &latency.Child{Command: []string{self}, Env: []string{childDevice + "=" + device}}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func reasonOf(err error) latency.Reason {
	if e, ok := errors.AsType[*latency.ModelError](err); ok {
		return e.Reason
	}
	return ""
}

func TestChildSurvivesItsModels(t *testing.T) {
	c := child(t, "fake")
	c.Memory = 1 << 30
	good := func() {
		t.Helper()
		s, err := c.Time(t.Context(), latency.Task{Model: []byte("12"), Protocol: brief()})
		if err != nil || len(s.Runs) != brief().Runs || s.Runs[0] != 12*time.Microsecond {
			t.Errorf("a good model: %v, %v", s.Runs, err)
		}
	}
	good()
	for model, tt := range map[string]struct {
		reason latency.Reason
		want   []string // parts of the error
	}{
		"crash":                          {latency.Crash, []string{"crashes ONNX Runtime", "SIGSEGV", "Mlas: panel of nothing"}},
		"eat":                            {latency.NoMemory, []string{"1024 MiB"}},
		"print":                          {},
		"once " + t.TempDir() + "/death": {},
		"nonsense":                       {"", []string{"not a model"}},
	} {
		_, err := c.Time(t.Context(), latency.Task{Model: []byte(model), Protocol: brief()})
		if got := reasonOf(err); got != tt.reason || (err == nil) != (tt.want == nil) {
			t.Errorf("%s: %v (%s), want reason %q", model, err, got, tt.reason)
		}
		for _, part := range tt.want {
			if err == nil || !strings.Contains(err.Error(), part) || strings.ContainsAny(err.Error(), "\x1b\x00\n") {
				t.Errorf("%s: %v, want %q in it, on one line", model, err, part)
			}
		}
		good()
	}
	c.Limit = 300 * time.Millisecond
	_, err := c.Time(t.Context(), latency.Task{Model: []byte("hang"), Protocol: brief()})
	if reasonOf(err) != latency.Hang || !strings.Contains(err.Error(), "300ms") {
		t.Errorf("hang: %v", err)
	}
	c.Limit = 0
	good()
	stopped := errors.New("stopped")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, stopped)
	defer cancel()
	if _, err := c.Time(ctx, latency.Task{Model: []byte("hang"), Protocol: brief()}); !errors.Is(err, stopped) {
		t.Errorf("cancelled: %v, want the context's cause", err)
	}
	good()
}

func TestChildThatDoesNotStart(t *testing.T) {
	task := latency.Task{Model: []byte("1"), Protocol: brief()}
	c := child(t, "none")
	if _, err := c.Time(t.Context(), task); err == nil || !strings.Contains(err.Error(), "no runtime here") || !errors.Is(err, latency.ErrChild) {
		t.Errorf("no runtime: %v", err)
	}
	c = &latency.Child{Command: []string{"/bin/false"}}
	if _, err := c.Time(t.Context(), task); err == nil || !strings.Contains(err.Error(), "ends at once: exit status 1") || !errors.Is(err, latency.ErrChild) {
		t.Errorf("ends at once: %v", err)
	}
	c = &latency.Child{Command: []string{"/nowhere/at/all"}}
	if _, err := c.Time(t.Context(), task); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no program: %v", err)
	}
}

// The child is this machine: the fingerprint is the one that a Local has, and
// what ONNX Runtime refuses has its reason.
func TestChildMeasures(t *testing.T) {
	l := local(t)
	c := child(t, "real")
	model := read(t, "convs2.onnx")
	want, err := l.Time(t.Context(), latency.Task{Model: model, Protocol: brief()})
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.Time(t.Context(), latency.Task{Model: model, Protocol: brief()})
	if err != nil {
		t.Fatal(err)
	}
	if err := want.Fingerprint.Repeats(got.Fingerprint); err != nil || got.Pinned != want.Pinned || len(got.Runs) != len(want.Runs) {
		t.Errorf("%v; pinned %v, %d runs, want %v, %d", err, got.Pinned, len(got.Runs), want.Pinned, len(want.Runs))
	}
	described, err := c.Fingerprint(t.Context(), model, brief())
	if err != nil {
		t.Fatal(err)
	}
	if here, err := l.Fingerprint(t.Context(), model, brief()); err != nil || here.Repeats(described) != nil {
		t.Errorf("%v, %v", err, here.Repeats(described))
	}
	for name, tt := range map[string]struct {
		model []byte
		want  latency.Reason
	}{
		"strings": {read(t, "strings.onnx"), latency.NoInput},
		"greedy":  {read(t, "greedy.onnx"), latency.NoMemory},
		"text":    {read(t, "models.py"), latency.NoLoad},
		"cut":     {model[:len(model)-9], latency.NoLoad},
	} {
		_, err := c.Time(t.Context(), latency.Task{Model: tt.model, Protocol: brief()})
		t.Log(err)
		if reasonOf(err) != tt.want {
			t.Errorf("%s: %v, want reason %q", name, err, tt.want)
		}
	}
}
