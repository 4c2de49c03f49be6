package serve_test

import (
	"context"
	"net/http"
	"sync/atomic"
	"syscall"
	"testing"

	"spos/serve"
)

// TestNiceRuns: runs are behind everything else, and a bug in one is still an answer.
func TestNiceRuns(t *testing.T) {
	here, err := syscall.Getpriority(syscall.PRIO_PROCESS, 0)
	if err != nil {
		t.Fatal(err)
	}
	m := echoModel("m", fp32x3)
	var seen atomic.Int64
	var broken atomic.Bool
	m.run = func(ctx context.Context, in, out []serve.Tensor) error {
		if broken.Load() {
			panic("a bug")
		}
		n, err := syscall.Getpriority(syscall.PRIO_PROCESS, 0)
		seen.Store(int64(n))
		if err != nil {
			return err
		}
		return echo(ctx, in, out)
	}
	url := start(t, serve.Options{Nice: 3, Cores: 2}, m)
	post := func() reply {
		return send(t, "POST", url+"/v2/models/m/infer", map[string]string{"Inference-Header-Content-Length": "0"}, floats(1, 2, 3))
	}
	if r := post(); r.code != http.StatusOK {
		t.Fatalf("%d %s", r.code, r.body)
	}
	if want := int64(max(here-3, 1)); seen.Load() != want { // both as the system call has them, 20 less the priority
		t.Errorf("a run's priority is %d, want %d", seen.Load(), want)
	}
	broken.Store(true)
	if r := post(); r.code != http.StatusInternalServerError {
		t.Errorf("%d %s", r.code, r.body)
	}
	broken.Store(false)
	if r := post(); r.code != http.StatusOK {
		t.Errorf("after a bug: %d %s", r.code, r.body)
	}
}
