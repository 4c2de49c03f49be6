package fleet_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"spos/internal/fleet"
)

func logger(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func broker(t *testing.T, o fleet.BrokerOptions) *fleet.Broker {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	o.Log = logger(t)
	b, err := fleet.StartBroker(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func connect(t *testing.T, o fleet.Options) *fleet.Conn {
	t.Helper()
	o.Log = logger(t)
	c, err := fleet.Connect(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// work runs a worker until the test, or the function that it returns, ends it.
func work(t *testing.T, c *fleet.Conn, w fleet.Worker) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() {
		if err := c.Work(ctx, w); err != nil {
			t.Errorf("work: %v", err)
		}
	})
	stop = sync.OnceFunc(func() { cancel(); group.Wait() })
	t.Cleanup(stop)
	return stop
}

func echo(_ context.Context, j fleet.Job) ([]byte, error) {
	if strings.HasPrefix(string(j.Body), "fail") {
		return nil, errors.New("cannot " + string(j.Body))
	}
	return append([]byte(strings.ToUpper(string(j.Body))), j.Blob...), nil
}

func TestDo(t *testing.T) {
	b := broker(t, fleet.BrokerOptions{Listen: "127.0.0.1:0"})
	client := connect(t, fleet.Options{Broker: b, Name: "searcher"})
	device := connect(t, fleet.Options{URL: b.URL(), Name: "pi5"})
	var done atomic.Int64
	work(t, device, fleet.Worker{
		Device: "pi5",
		Info:   func() json.RawMessage { return json.RawMessage(`{"cpu":"A76"}`) },
		Do: func(ctx context.Context, j fleet.Job) ([]byte, error) {
			done.Add(1)
			return echo(ctx, j)
		},
		Answer: func(_ context.Context, body []byte) ([]byte, error) { return append(body, '!'), nil },
	})
	for range 2 {
		got, err := client.Do(t.Context(), fleet.Job{ID: "a b.c*\n", Device: "pi5", Body: []byte("x")})
		if err != nil || string(got) != "X" {
			t.Fatalf("got %q, %v", got, err)
		}
	}
	if n := done.Load(); n != 1 {
		t.Errorf("done %d times", n)
	}
	blob := []byte(strings.Repeat("0123456789abcdef", 200_000))
	got, err := client.Do(t.Context(), fleet.Job{ID: "b", Device: "pi5", Body: []byte("y"), Blob: blob})
	if err != nil || string(got) != "Y"+string(blob) {
		t.Fatalf("got %d bytes, %v", len(got), err)
	}
	for range 2 {
		_, err = client.Do(t.Context(), fleet.Job{ID: "c", Device: "pi5", Body: []byte("fail")})
		if e, ok := errors.AsType[*fleet.RemoteError](err); !ok || e.Text != "cannot fail" {
			t.Fatalf("got %v", err)
		}
	}
	if got, err := client.Ask(t.Context(), "pi5", []byte("who")); err != nil || string(got) != "who!" {
		t.Fatalf("got %q, %v", got, err)
	}
	for queueOf(t, client, "pi5") > 0 { // the last job leaves after its answer
	}
	list, err := client.Devices(t.Context())
	if err != nil || len(list) != 1 || list[0].State == fleet.Away || string(list[0].Info) != `{"cpu":"A76"}` {
		t.Fatalf("devices: %+v, %v", list, err)
	}
}

// BenchmarkDo is what a job costs beside its work, over loopback and with
// everything synced to disk.
func BenchmarkDo(b *testing.B) {
	log := slog.New(slog.DiscardHandler)
	broker, err := fleet.StartBroker(fleet.BrokerOptions{Listen: "127.0.0.1:0", Dir: b.TempDir(), Log: log})
	if err != nil {
		b.Fatal(err)
	}
	defer broker.Close()
	dial := func(name string) *fleet.Conn {
		c, err := fleet.Connect(b.Context(), fleet.Options{URL: broker.URL(), Name: name, Log: log})
		if err != nil {
			b.Fatal(err)
		}
		return c
	}
	client, device := dial("asker"), dial("pi5")
	defer client.Close()
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- device.Work(ctx, fleet.Worker{Device: "pi5", Do: func(context.Context, fleet.Job) ([]byte, error) { return nil, nil }})
	}()
	defer func() { cancel(); <-ended; _ = device.Close() }()
	for _, size := range []int{0, 14 << 20} {
		b.Run(fmt.Sprintf("blob=%dMiB", size>>20), func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				j := fleet.Job{ID: fmt.Sprint(size, " ", i), Device: "pi5"}
				if size > 0 {
					j.Blob = make([]byte, size)
					copy(j.Blob, j.ID)
				}
				if _, err := client.Do(b.Context(), j); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
