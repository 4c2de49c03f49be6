package fleet_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"

	"spos/internal/fleet"
)

func names(t *testing.T, c *fleet.Conn) []string {
	t.Helper()
	list, err := c.Devices(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range list {
		names = append(names, p.Name)
	}
	return names
}

// TestForget takes a device off the list of a broker that confines devices:
// not while it is there, and then with all that is kept of it.
func TestForget(t *testing.T) {
	url, tokens := guarded(t)
	c := connect(t, fleet.Options{URL: url, Token: tokens["search"], Name: "search"})
	agent := connect(t, fleet.Options{URL: url, Token: tokens["a"], Name: "a"})
	stop := work(t, agent, fleet.Worker{Device: "a", Do: echo})
	for _, id := range []string{"1", "2"} {
		if _, err := c.Do(t.Context(), fleet.Job{ID: id, Device: "a", Body: []byte("x"), Blob: []byte("m")}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Forget(t.Context(), "a"); !errors.Is(err, fleet.ErrPresent) || !strings.Contains(err.Error(), "spoke") {
		t.Errorf("a device that works: %v", err)
	}
	stop()
	var waiting sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for _, id := range []string{"3", "4", "5"} {
		waiting.Go(func() { _, _ = c.Do(ctx, fleet.Job{ID: id, Device: "a", Body: []byte("y"), Blob: []byte("m")}) })
	}
	for queueOf(t, c, "a") < 3 {
	}
	cancel()
	waiting.Wait()
	got, err := c.Forget(t.Context(), "a")
	if err != nil || got != (fleet.Forgotten{Jobs: 3, Answers: 2}) {
		t.Errorf("forgotten %+v, %v; want 3 jobs and 2 answers", got, err)
	}
	if list := names(t, c); !slices.Equal(list, []string{"b"}) {
		t.Errorf("listed are %v", list)
	}
	nc, _ := plain(t, url, tokens["search"], "_INBOX_x")
	m, err := nc.Request("$JS.API.STREAM.NAMES", nil, nats.DefaultTimeout)
	if err != nil || strings.Contains(string(m.Data), "-a\"") || !strings.Contains(string(m.Data), "spos-jobs-b") {
		t.Errorf("streams: %s, %v", m.Data, err)
	}
	if _, err := c.Forget(t.Context(), "a"); !errors.Is(err, fleet.ErrUnknown) {
		t.Errorf("forgotten twice: %v", err)
	}
	if _, err := c.Forget(t.Context(), "a.b"); err == nil {
		t.Error("a name that is none")
	}
	if _, err := agent.Forget(t.Context(), "b"); !errors.Is(err, fleet.ErrDenied) {
		t.Errorf("a device forgets another: %v", err)
	}
	// Who asks for it has it again, and its answers are new ones.
	work(t, connect(t, fleet.Options{URL: url, Token: tokens["a"], Name: "a"}), fleet.Worker{Device: "a", Do: echo})
	if got, err := c.Do(t.Context(), fleet.Job{ID: "1", Device: "a", Body: []byte("z")}); err != nil || string(got) != "Z" {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestForgetMute meets a device that has a connection and does not speak.
func TestForgetMute(t *testing.T) {
	b := broker(t, fleet.BrokerOptions{Listen: "127.0.0.1:0"})
	c := connect(t, fleet.Options{Broker: b, Name: "search"})
	submit(t, c, fleet.Job{ID: "1", Device: "pi5"})
	nc, _ := plain(t, b.URL(), "", "_INBOX_pi5")
	if _, err := nc.SubscribeSync("spos.ask.pi5"); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Forget(t.Context(), "pi5"); !errors.Is(err, fleet.ErrPresent) || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("a device that is mute: %v", err)
	}
	nc.Close()
	for {
		got, err := c.Forget(t.Context(), "pi5")
		if errors.Is(err, fleet.ErrPresent) {
			continue // the broker has not seen it go
		}
		if err != nil || got.Jobs != 1 {
			t.Errorf("forgotten %+v, %v", got, err)
		}
		break
	}
}

// TestForgottenComesBack loses the streams of a device that works: it makes
// them again, and is listed.
func TestForgottenComesBack(t *testing.T) {
	b := broker(t, fleet.BrokerOptions{Listen: "127.0.0.1:0"})
	c := connect(t, fleet.Options{Broker: b, Name: "search"})
	work(t, connect(t, fleet.Options{URL: b.URL(), Name: "pi5"}), fleet.Worker{Device: "pi5", Do: echo})
	if _, err := c.Do(t.Context(), fleet.Job{ID: "1", Device: "pi5", Body: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	nc, _ := plain(t, b.URL(), "", "_INBOX_x")
	for _, kind := range []string{"jobs", "kept", "blobs"} {
		if m, err := nc.Request("$JS.API.STREAM.DELETE.spos-"+kind+"-pi5", nil, nats.DefaultTimeout); err != nil || !strings.Contains(string(m.Data), `"success":true`) {
			t.Fatalf("%s, %v", m.Data, err)
		}
	}
	for !slices.Contains(names(t, c), "pi5") {
	}
	if got, err := c.Do(t.Context(), fleet.Job{ID: "1", Device: "pi5", Body: []byte("y")}); err != nil || string(got) != "Y" {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestForgetAtOnce: a worker that has returned is gone, for the broker too.
func TestForgetAtOnce(t *testing.T) {
	t.Parallel()
	b := broker(t, fleet.BrokerOptions{Listen: "127.0.0.1:0"})
	c := connect(t, fleet.Options{Broker: b, Name: "search"})
	agent := connect(t, fleet.Options{URL: b.URL(), Name: "pi5"})
	for i := range 20 {
		stop := work(t, agent, fleet.Worker{Device: "pi5", Do: echo})
		if _, err := c.Do(t.Context(), fleet.Job{ID: strconv.Itoa(i), Device: "pi5"}); err != nil {
			t.Fatal(err)
		}
		stop()
		if _, err := c.Forget(t.Context(), "pi5"); err != nil {
			t.Fatal(err)
		}
	}
}
