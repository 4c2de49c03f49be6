package fleet_test

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"spos/internal/fleet"
)

func TestDeviceTaken(t *testing.T) {
	t.Parallel()
	b := broker(t, fleet.BrokerOptions{Listen: "127.0.0.1:0"})
	client := connect(t, fleet.Options{Broker: b, Name: "asker"})
	first := work(t, connect(t, fleet.Options{URL: b.URL(), Name: "pi5"}), fleet.Worker{Device: "pi5", Do: echo})
	if _, err := client.Do(t.Context(), fleet.Job{ID: "1", Device: "pi5"}); err != nil {
		t.Fatal(err)
	}
	second := connect(t, fleet.Options{URL: b.URL(), Name: "pi5"})
	w := fleet.Worker{Device: "pi5", Do: func(context.Context, fleet.Job) ([]byte, error) { return []byte("second"), nil }}
	if err := second.Work(t.Context(), w); !errors.Is(err, fleet.ErrDeviceTaken) {
		t.Fatalf("got %v", err)
	}
	first()
	work(t, second, w)
	if got, err := client.Do(t.Context(), fleet.Job{ID: "2", Device: "pi5"}); err != nil || string(got) != "second" {
		t.Errorf("got %q, %v", got, err)
	}
	if err := second.Work(t.Context(), fleet.Worker{Device: "jetson"}); err == nil || !strings.Contains(err.Error(), "connect with the device's name") {
		t.Errorf("got %v", err)
	}
}

// TestPoison gives out a job that no worker survives, and one after it.
func TestPoison(t *testing.T) {
	t.Parallel()
	b := broker(t, fleet.BrokerOptions{Listen: "127.0.0.1:0"})
	client := connect(t, fleet.Options{Broker: b, Name: "asker"})
	var begun atomic.Int64
	var group sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	group.Go(func() {
		for ctx.Err() == nil {
			c, err := fleet.Connect(ctx, fleet.Options{URL: b.URL(), Name: "pi5", Log: logger(t)})
			if err != nil {
				continue
			}
			_ = c.Work(ctx, fleet.Worker{Device: "pi5", Tries: 3, Do: func(ctx context.Context, j fleet.Job) ([]byte, error) {
				if string(j.Body) == "deadly" {
					begun.Add(1)
					_ = c.Close() // all that the broker sees of a process that dies
					<-ctx.Done()
				}
				return echo(ctx, j)
			}})
			_ = c.Close()
		}
	})
	t.Cleanup(func() { cancel(); group.Wait() })
	_, err := client.Do(t.Context(), fleet.Job{ID: "1", Device: "pi5", Body: []byte("deadly")})
	if e, ok := errors.AsType[*fleet.RemoteError](err); !ok || !strings.Contains(e.Text, `job "1" ended the worker of pi5 3 times in a row`) {
		t.Errorf("got %v", err)
	}
	if n := begun.Load(); n != 3 {
		t.Errorf("begun %d times", n)
	}
	if got, err := client.Do(t.Context(), fleet.Job{ID: "2", Device: "pi5", Body: []byte("x")}); err != nil || string(got) != "X" {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestBlobGone has attachments age out before the device comes, with and
// without an account of the device's own.
func TestBlobGone(t *testing.T) {
	t.Parallel()
	open := broker(t, fleet.BrokerOptions{Listen: "127.0.0.1:0"})
	blobGone(t, open.URL(), "", "")
	url, tokens := guarded(t)
	blobGone(t, url, tokens["search"], tokens["a"])
}

func blobGone(t *testing.T, url, token, deviceToken string) {
	t.Helper()
	searcher := fleet.Options{URL: url, Token: token, Name: "search"}
	client := connect(t, searcher)
	big := []byte(strings.Repeat("m", 2_000_000))
	submit(t, client, fleet.Job{ID: "nobody waits", Device: "a", Body: []byte("x"), Blob: []byte("lost")})
	answer := make(chan string, 1)
	go func() {
		got, err := client.Do(t.Context(), fleet.Job{ID: "one waits", Device: "a", Body: []byte("y"), Blob: big})
		if err != nil {
			got = []byte(err.Error())
		}
		answer <- string(got)
	}()
	for queueOf(t, client, "a") < 2 {
	}
	nc, _ := plain(t, url, token, "_INBOX")
	if m, err := nc.Request("$JS.API.STREAM.PURGE.spos-blobs-a", nil, time.Minute); err != nil || strings.Contains(string(m.Data), "error") {
		t.Fatalf("%v, %v", m, err)
	}
	work(t, connect(t, fleet.Options{URL: url, Token: deviceToken, Name: "a"}), fleet.Worker{Device: "a", Do: echo})
	if got := <-answer; got != "Y"+string(big) {
		t.Errorf("got %d bytes: %.80s", len(got), got)
	}
	again := connect(t, searcher) // as the next run of the searcher
	if got, err := again.Do(t.Context(), fleet.Job{ID: "nobody waits", Device: "a", Body: []byte("x"), Blob: []byte("lost")}); err != nil || string(got) != "Xlost" {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestTriesEnd has a job dropped, and one found answered, by a worker that gives
// up what is begun twice: neither counts when the job comes again.
func TestTriesEnd(t *testing.T) {
	t.Parallel()
	b := broker(t, fleet.BrokerOptions{Listen: "127.0.0.1:0"})
	client := connect(t, fleet.Options{Broker: b, Name: "asker"})
	nc, _ := plain(t, b.URL(), "", "_INBOX")
	request := func(m *nats.Msg) {
		t.Helper()
		if m, err := nc.RequestMsg(m, time.Minute); err != nil || strings.Contains(string(m.Data), "error") {
			t.Fatalf("%s: %v, %v", m.Subject, m, err)
		}
	}
	publish := func(subject, envelope, data string) {
		t.Helper()
		m := nats.NewMsg(subject)
		m.Header.Set("Spos-Answer", envelope)
		m.Data = []byte(data)
		request(m)
	}
	empty := func() {
		for queueOf(t, client, "a") > 0 {
		}
	}
	dropped := fleet.Job{ID: "dropped", Device: "a", Body: []byte("x"), Blob: []byte("lost")}
	submit(t, client, dropped)
	request(nats.NewMsg("$JS.API.STREAM.PURGE.spos-blobs-a"))
	device := connect(t, fleet.Options{URL: b.URL(), Name: "a"})
	stop := work(t, device, fleet.Worker{Device: "a", Do: echo, Tries: 1})
	empty()
	again := connect(t, fleet.Options{Broker: b, Name: "asker"}) // has sent no attachment yet
	if got, err := again.Do(t.Context(), dropped); err != nil || string(got) != "Xlost" {
		t.Errorf("dropped, and again: got %q, %v", got, err)
	}
	stop()

	// A worker that died when its answer was kept: the SHA-256 of its job's ID
	// is in subjects.
	const key = "6b86b273ff34fce19d6b804eff5a3f57"
	answered := fleet.Job{ID: "1", Device: "a", Body: []byte("y")}
	submit(t, client, answered)
	publish("spos.presence.a", "", `{"v":1,"worker":"dead","job":"`+key+`","id":"1","tries":1}`)
	publish("spos.answer.a."+key, `{"v":1,"id":"1","worker":"dead"}`, "Y")
	work(t, device, fleet.Worker{Device: "a", Do: echo, Tries: 1})
	empty()
	purge := nats.NewMsg("$JS.API.STREAM.PURGE.spos-kept-a")
	purge.Data = []byte(`{"filter":"spos.answer.a.` + key + `"}`)
	request(purge)
	if got, err := client.Do(t.Context(), answered); err != nil || string(got) != "Y" {
		t.Errorf("answered, and again: got %q, %v", got, err)
	}
}

// TestPassing asks again for what was not to be kept.
func TestPassing(t *testing.T) {
	t.Parallel()
	b := broker(t, fleet.BrokerOptions{Listen: "127.0.0.1:0"})
	client := connect(t, fleet.Options{Broker: b, Name: "asker"})
	var done atomic.Int64
	work(t, connect(t, fleet.Options{URL: b.URL(), Name: "a"}), fleet.Worker{Device: "a", Do: func(context.Context, fleet.Job) ([]byte, error) {
		return strconv.AppendInt(nil, done.Add(1), 10), nil
	}})
	job := fleet.Job{ID: "1", Device: "a", Passing: func(answer []byte) bool { return string(answer) == "1" }}
	for _, want := range []string{"1", "2", "2"} {
		if got, err := client.Do(t.Context(), job); err != nil || string(got) != want {
			t.Errorf("got %q, %v, want %s", got, err, want)
		}
		for queueOf(t, client, "a") > 0 { // the job leaves after its answer
		}
	}
}

func TestAskAway(t *testing.T) {
	t.Parallel()
	url, tokens := guarded(t)
	client := connect(t, fleet.Options{URL: url, Token: tokens["search"], Name: "asker"})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := client.Ask(ctx, "a", nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	answer := make(chan error, 1)
	go func() {
		_, err := client.Ask(t.Context(), "a", []byte("?"))
		answer <- err
	}()
	work(t, connect(t, fleet.Options{URL: url, Token: tokens["a"], Name: "a"}), fleet.Worker{Device: "a", Do: echo, Answer: func(context.Context, []byte) ([]byte, error) {
		return nil, errors.New("no such model")
	}})
	if e, ok := errors.AsType[*fleet.RemoteError](<-answer); !ok || e.Text != "no such model" {
		t.Errorf("got %v", e)
	}
}

// TestBrokerRestarts stops the broker in the middle of a job.
func TestBrokerRestarts(t *testing.T) {
	t.Parallel()
	o := fleet.BrokerOptions{Listen: "127.0.0.1:0", Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler)}
	b, err := fleet.StartBroker(o)
	if err != nil {
		t.Fatal(err)
	}
	url := b.URL()
	o.Listen = strings.TrimPrefix(url, "nats://")
	if _, err := fleet.StartBroker(o); err == nil {
		t.Error("two brokers on one address")
	}
	if _, err := fleet.StartBroker(fleet.BrokerOptions{Dir: o.Dir}); err == nil || !strings.Contains(err.Error(), "belongs to a broker that runs") {
		t.Errorf("two brokers in one directory: %v", err)
	}
	client := connect(t, fleet.Options{URL: url, Name: "asker"})
	var done atomic.Int64
	work(t, connect(t, fleet.Options{URL: url, Name: "pi5"}), fleet.Worker{Device: "pi5", Do: func(ctx context.Context, j fleet.Job) ([]byte, error) {
		if done.Add(1) == 1 {
			if err := b.Close(); err != nil {
				return nil, err
			}
			if b, err = fleet.StartBroker(o); err != nil {
				return nil, err
			}
		}
		return echo(ctx, j)
	}})
	for i := range 3 {
		id := strconv.Itoa(i)
		if got, err := client.Do(t.Context(), fleet.Job{ID: id, Device: "pi5", Body: []byte("x" + id)}); err != nil || string(got) != "X"+id {
			t.Errorf("got %q, %v", got, err)
		}
	}
	t.Cleanup(func() { _ = b.Close() })
	if n := done.Load(); n != 3 {
		t.Errorf("3 jobs took %d executions", n)
	}
}

// TestVersions puts words of another version before both sides.
func TestVersions(t *testing.T) {
	t.Parallel()
	b := broker(t, fleet.BrokerOptions{Listen: "127.0.0.1:0"})
	client := connect(t, fleet.Options{Broker: b, Name: "asker"})
	nc, _ := plain(t, b.URL(), "", "_INBOX")
	device := connect(t, fleet.Options{URL: b.URL(), Name: "pi5"})
	stop := work(t, device, fleet.Worker{Device: "pi5", Do: echo, Answer: func(context.Context, []byte) ([]byte, error) { return nil, nil }})
	if _, err := client.Do(t.Context(), fleet.Job{ID: "0", Device: "pi5"}); err != nil {
		t.Fatal(err)
	}
	publish := func(subject, header, envelope, data string) {
		t.Helper()
		m := nats.NewMsg(subject)
		m.Header.Set(header, envelope)
		m.Data = []byte(data)
		if m, err := nc.RequestMsg(m, time.Minute); err != nil || strings.Contains(string(m.Data), "error") {
			t.Fatalf("%s: %v, %v", subject, m, err)
		}
	}
	// What IDs are called in subjects: the first half of their SHA-256.
	const key = "6b86b273ff34fce19d6b804eff5a3f57"
	publish("spos.job.pi5."+key, "Spos-Job", `{"v":2,"id":"1"}`, "x")
	if _, err := client.Do(t.Context(), fleet.Job{ID: "1", Device: "pi5", Body: []byte("x")}); err != nil {
		if e, ok := errors.AsType[*fleet.VersionError](err); !ok || e.Device != "pi5" {
			t.Errorf("a job of another version: %v", err)
		}
	} else {
		t.Error("a job of another version is done")
	}
	if got, err := client.Do(t.Context(), fleet.Job{ID: "1", Device: "pi5", Body: []byte("x")}); err != nil || string(got) != "X" {
		t.Errorf("the same job of our version: %q, %v", got, err)
	}
	q := nats.NewMsg("spos.ask.pi5")
	q.Header.Set("Spos-Job", `{"v":2}`)
	if m, err := nc.RequestMsg(q, time.Minute); err != nil || !strings.Contains(m.Header.Get("Spos-Answer"), "speaks version 2") {
		t.Errorf("a question of another version: %v, %v", m, err)
	}
	stop()
	publish("spos.presence.pi5", "X", "", `{"v":2,"worker":"new"}`)
	if list, err := client.Devices(t.Context()); err != nil || list[0].State != fleet.Skewed {
		t.Errorf("devices: %+v, %v", list, err)
	}
	publish("spos.answer.pi5.d4735e3a265e16eee03f59718b9b5d03", "Spos-Answer", `{"v":2,"id":"2"}`, "x")
	if _, err := client.Do(t.Context(), fleet.Job{ID: "2", Device: "pi5"}); err == nil || !strings.Contains(err.Error(), "speaks version 2 of the fleet's protocol, this program 1") {
		t.Errorf("an answer of another version: %v", err)
	}
}

// TestCluster uses a NATS server that is none of ours.
func TestCluster(t *testing.T) {
	t.Parallel()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(time.Minute) {
		t.Fatal("not ready")
	}
	device := connect(t, fleet.Options{URL: s.ClientURL(), Name: "pi5"})
	work(t, device, fleet.Worker{Device: "pi5", Do: echo})
	client := connect(t, fleet.Options{URL: s.ClientURL(), Name: "asker"})
	if got, err := client.Do(t.Context(), fleet.Job{ID: "1", Device: "pi5", Body: []byte("x"), Blob: []byte("m")}); err != nil || string(got) != "Xm" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := client.Do(t.Context(), fleet.Job{ID: "2", Device: "pi5", Body: make([]byte, 2<<20)}); err == nil || !strings.Contains(err.Error(), "put it into Blob") {
		t.Errorf("got %v", err)
	}
}

func TestNames(t *testing.T) {
	c := connect(t, fleet.Options{Broker: broker(t, fleet.BrokerOptions{}), Name: "asker"})
	for _, name := range []string{"", "a.b", "a*", "a b", "-a", strings.Repeat("x", 65)} {
		if _, err := c.Do(t.Context(), fleet.Job{Device: name}); err == nil || !strings.Contains(err.Error(), "cannot name a device") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// TestReclaim has a job given to somebody who neither does it nor lives, by a
// broker that will not give it away for an hour: as where its clock was set
// back by one since.
func TestReclaim(t *testing.T) {
	t.Parallel()
	b := broker(t, fleet.BrokerOptions{Listen: "127.0.0.1:0"})
	client := connect(t, fleet.Options{Broker: b, Name: "searcher"})
	job := fleet.Job{ID: "1", Device: "pi5", Body: []byte("x")}
	submit(t, client, job)
	nc, _ := plain(t, b.URL(), "", "_INBOX")
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	queue, err := js.Consumer(t.Context(), "spos-jobs-pi5", "worker")
	if err != nil {
		t.Fatal(err)
	}
	config := queue.CachedInfo().Config
	config.AckWait = time.Hour
	if queue, err = js.UpdateConsumer(t.Context(), "spos-jobs-pi5", config); err != nil {
		t.Fatal(err)
	}
	if _, err := queue.Next(); err != nil {
		t.Fatal(err)
	}
	work(t, connect(t, fleet.Options{URL: b.URL(), Name: "pi5"}), fleet.Worker{Device: "pi5", Do: echo})
	if got, err := client.Do(t.Context(), job); err != nil || string(got) != "X" {
		t.Errorf("got %q, %v", got, err)
	}
}
