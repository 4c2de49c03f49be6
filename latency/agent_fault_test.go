package latency_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"spos/latency"
)

// What is not the model's fault is no answer for the next who asks.
func TestRemoteAsksAgainAfterPassingFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, "pi5")
		defer f.stop()
		b := f.boards["pi5"]
		r := f.remote("pi5", "c")
		ask := func(key string) error {
			_, err := r.Time(t.Context(), latency.Task{Model: []byte("10"), Protocol: brief(), Key: key})
			return err
		}
		if err := ask("known"); err != nil {
			t.Fatal(err)
		}
		f.agents["pi5"].Version = "v2" // as the other agent that was started meanwhile
		if err := ask("version"); err == nil || !strings.Contains(err.Error(), "v2") {
			t.Errorf("another version: %v", err)
		}
		f.agents["pi5"].Version = "v1"
		if err := ask("version"); err != nil {
			t.Errorf("the version that was before: %v", err)
		}
		b.set(func() { b.err = errors.New("latency: execution provider qnn is not there") })
		if err := ask("provider"); err == nil || !strings.Contains(err.Error(), "qnn is not there") {
			t.Errorf("a fault of the device: %v", err)
		}
		b.set(func() { b.err = &latency.ModelError{Reason: latency.Crash, Err: errors.New("SIGSEGV")} })
		if err := ask("crash"); reasonOf(err) != latency.Crash {
			t.Errorf("a fault of the model: %v", err)
		}
		b.set(func() { b.err = nil })
		if err := ask("provider"); err != nil {
			t.Errorf("a device that was mended: %v", err)
		}
		if err := ask("crash"); reasonOf(err) != latency.Crash {
			t.Errorf("a fault of the model, again: %v", err)
		}
		before := f.done
		other := f.remote("pi5", "c")
		other.Version, f.agents["pi5"].Version = "v3", "v3"
		if _, err := other.Time(t.Context(), latency.Task{Model: []byte("10"), Protocol: brief(), Key: "known"}); err != nil || f.done != before+1 {
			t.Errorf("another version found what v1 had measured: %v", err)
		}
	})
}

// What a job names is no file or library of the device.
func TestAgentRefusesForeignOptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, "pi5")
		defer f.stop()
		p := brief()
		p.Session.Provider, p.Session.ProviderConfig = "qnn", map[string]string{"backend_path": "evil.so"}
		if _, err := f.remote("pi5", "").Fingerprint(t.Context(), nil, p); err == nil || !strings.Contains(err.Error(), "device pi5: latency: option backend_path=evil.so of provider qnn") {
			t.Errorf("a question: %v", err)
		}
		body, err := json.Marshal(map[string]any{"version": "v1", "protocol": p})
		if err != nil {
			t.Fatal(err)
		}
		answer, err := f.agents["pi5"].Do(t.Context(), body, []byte("10"))
		if err != nil || !strings.Contains(string(answer), "backend_path=evil.so") || f.agents["pi5"].Status().Tasks != 0 {
			t.Errorf("a job: %s, %v", answer, err)
		}
		p.Session.ProviderConfig = map[string]string{"backend_type": "htp"}
		if _, err := f.remote("pi5", "").Time(t.Context(), latency.Task{Model: []byte("10"), Protocol: p}); err != nil {
			t.Errorf("an option that names nothing: %v", err)
		}
	})
}

// A device whose own doing it is ends its agent, and answers nobody.
func TestAgentEndsWithItsDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &board{}
		a := &latency.Agent{Device: b, Version: "v1", Root: fstest.MapFS{}, Log: slog.New(slog.DiscardHandler)}
		ctx, cancel := context.WithCancelCause(t.Context())
		go func() { cancel(a.Run(ctx)) }()
		w := &wire{agents: map[string]*latency.Agent{"pi5": a}, kept: map[string][]byte{}, away: map[string]bool{}}
		r := &latency.Remote{Courier: w, Name: "pi5", Version: "v1", Log: slog.New(slog.DiscardHandler)}
		if _, err := r.Time(ctx, latency.Task{Model: []byte("10"), Protocol: brief()}); err != nil {
			t.Fatal(err)
		}
		b.set(func() { b.err = fmt.Errorf("%w: no space", latency.ErrChild) })
		if _, err := r.Time(ctx, latency.Task{Model: []byte("10"), Protocol: brief()}); !errors.Is(context.Cause(ctx), latency.ErrChild) {
			t.Errorf("%v, and the agent ended with %v", err, context.Cause(ctx))
		}
		if len(w.kept) != 1 {
			t.Errorf("%d answers were kept, want that of the first task", len(w.kept))
		}
	})
}

// A device that breaks while its agent waits for it, to look at it for the first
// time or after it was idle.
func TestAgentEndsWhileItWaits(t *testing.T) {
	for _, first := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			b := &board{}
			// Idle is less than a task takes.
			a := &latency.Agent{Device: b, Version: "v1", Idle: time.Millisecond, Root: fstest.MapFS{}, Log: slog.New(slog.DiscardHandler)}
			ctx, cancel := context.WithCancelCause(t.Context())
			body, err := json.Marshal(map[string]any{"version": "v1", "protocol": brief()})
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			task := func() {
				_, err := a.Do(ctx, body, []byte("10"))
				ended <- err
			}
			run := func() { cancel(a.Run(ctx)) }
			if first {
				go task()
				synctest.Wait() // it has the device
				go run()
			} else {
				go run()
				if task(); <-ended != nil {
					t.Fatal("the first task failed")
				}
				synctest.Wait()
			}
			b.set(func() { b.err = fmt.Errorf("%w: no space", latency.ErrChild) })
			if !first {
				go task()
			}
			if err := <-ended; !errors.Is(err, latency.ErrChild) || !errors.Is(context.Cause(ctx), latency.ErrChild) {
				t.Errorf("first %v: the task got %v, and the agent ended with %v", first, err, context.Cause(ctx))
			}
		})
	}
}
