package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"spos/internal/fleet"
)

// hole is a way to a broker that can swallow everything without closing
// anything, as a network does that is cut.
type hole struct {
	url string
	cut atomic.Bool
}

func newHole(t *testing.T, url string) *hole {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &hole{url: "nats://" + l.Addr().String()}
	var group sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	group.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", strings.TrimPrefix(url, "nats://"))
			if err != nil {
				_ = in.Close()
				continue
			}
			mu.Lock()
			open = append(open, in, out)
			mu.Unlock()
			group.Go(func() { h.pour(out, in) })
			group.Go(func() { h.pour(in, out) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		group.Wait()
	})
	return h
}

// pour copies; what comes while the hole is cut is gone, and with it the rest
// of the stream, for TCP does not go on behind a gap.
func (h *hole) pour(to, from net.Conn) {
	buffer := make([]byte, 64<<10)
	lost := false
	for {
		n, err := from.Read(buffer)
		if err != nil {
			_ = to.Close()
			return
		}
		lost = lost || h.cut.Load()
		if lost {
			continue
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

// TestSplitLateAnswer cuts a worker off in the middle of a job. Another takes
// the name, and its answer counts; what the first brings later does not.
func TestSplitLateAnswer(t *testing.T) {
	t.Parallel()
	b := broker(t, fleet.BrokerOptions{Listen: "127.0.0.1:0"})
	way := newHole(t, b.URL())
	client := connect(t, fleet.Options{Broker: b, Name: "asker"})
	begun, goOn := make(chan struct{}), make(chan struct{})
	first := connect(t, fleet.Options{URL: way.url, Name: "pi5"})
	ended := make(chan error, 1)
	go func() {
		ended <- first.Work(t.Context(), fleet.Worker{Device: "pi5", Do: func(context.Context, fleet.Job) ([]byte, error) {
			close(begun)
			<-goOn // deaf to its context, as a measurement may be
			return []byte("late"), nil
		}})
	}()
	answer := make(chan string, 1)
	go func() {
		got, err := client.Do(t.Context(), fleet.Job{ID: "1", Device: "pi5"})
		answer <- fmt.Sprint(string(got), err)
	}()
	<-begun
	way.cut.Store(true)
	second := connect(t, fleet.Options{URL: b.URL(), Name: "pi5"})
	work(t, second, fleet.Worker{Device: "pi5", Do: func(context.Context, fleet.Job) ([]byte, error) { return []byte("second"), nil }})
	if got := <-answer; got != "second<nil>" {
		t.Errorf("got %s", got)
	}
	way.cut.Store(false)
	close(goOn)
	if err := <-ended; !errors.Is(err, fleet.ErrDeviceTaken) {
		t.Errorf("the first worker ends with %v", err)
	}
	if got, err := client.Do(t.Context(), fleet.Job{ID: "1", Device: "pi5"}); err != nil || string(got) != "second" {
		t.Errorf("then %q, %v", got, err)
	}
}

// TestSplitHeals cuts a worker off for longer than its lease on the job, with
// nobody to take its place: the job is done once and everything goes on.
func TestSplitHeals(t *testing.T) {
	t.Parallel()
	b := broker(t, fleet.BrokerOptions{Listen: "127.0.0.1:0"})
	way := newHole(t, b.URL())
	client := connect(t, fleet.Options{Broker: b, Name: "asker"})
	var done atomic.Int64
	work(t, connect(t, fleet.Options{URL: way.url, Name: "pi5"}), fleet.Worker{Device: "pi5", Do: func(_ context.Context, j fleet.Job) ([]byte, error) {
		if done.Add(1) == 1 {
			way.cut.Store(true)
			for { // the broker gives up on the connection
				list, err := client.Devices(t.Context())
				if err != nil {
					return nil, err
				}
				if list[0].State == fleet.Away {
					break
				}
			}
			way.cut.Store(false)
		}
		return []byte(j.ID), nil
	}})
	for _, id := range []string{"1", "2"} {
		if got, err := client.Do(t.Context(), fleet.Job{ID: id, Device: "pi5"}); err != nil || string(got) != id {
			t.Errorf("job %s: got %q, %v", id, got, err)
		}
	}
	if n := done.Load(); n != 2 {
		t.Errorf("two jobs took %d executions", n)
	}
}

// TestSplitNamespace runs the worker in a network namespace of its own and
// takes its link down, twice, for longer than its leases last.
func TestSplitNamespace(t *testing.T) {
	if chaosKills(t) == 0 {
		t.Skip("part of make fleet-chaos")
	}
	if os.Geteuid() != 0 {
		t.Skip("network namespaces take root")
	}
	ip := func(args ...string) error {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, out)
		}
		return nil
	}
	id := fmt.Sprint(os.Getpid() % 10000)
	space, here, there := "fleet"+id, "fla"+id, "flb"+id
	if err := ip("netns", "add", space); err != nil {
		t.Skipf("no network namespace: %v", err)
	}
	t.Cleanup(func() { _ = ip("netns", "del", space) })
	for _, args := range [][]string{
		{"link", "add", here, "type", "veth", "peer", "name", there},
		{"link", "set", there, "netns", space},
		{"addr", "add", "10.213.7.1/30", "dev", here},
		{"link", "set", here, "up"},
		{"netns", "exec", space, "ip", "addr", "add", "10.213.7.2/30", "dev", there},
		{"netns", "exec", space, "ip", "link", "set", there, "up"},
	} {
		if err := ip(args...); err != nil {
			t.Skipf("no pair of links: %v", err)
		}
	}
	s := newStage(t, 60)
	s.url = strings.Replace(s.url, "127.0.0.1", "10.213.7.1", 1)
	s.wrap = map[string][]string{"worker": {"ip", "netns", "exec", space}}
	for role := range roles {
		s.start(role)
	}
	for i, n := range []int{s.jobs / 4, s.jobs / 2} {
		s.until(n)
		if err := ip("link", "set", here, "down"); err != nil {
			t.Fatal(err)
		}
		stuck := s.answers()
		<-time.After(20 * time.Second) // what a split of that length does is the test
		if now := s.answers(); now > stuck+4 {
			t.Errorf("split %d: %d answers came through a link that is down", i, now-stuck)
		}
		if i == 1 { // and the worker dies while it is cut off
			s.kill("worker")
			s.start("worker")
		}
		if err := ip("link", "set", here, "up"); err != nil {
			t.Fatal(err)
		}
	}
	s.until(s.jobs)
	s.check()
}
