package fleet_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"spos/internal/fleet"
)

// guarded is a broker with a client and the devices a and b.
func guarded(t *testing.T) (url string, tokens map[string]string) {
	t.Helper()
	var a fleet.Access
	tokens = map[string]string{}
	for name, role := range map[string]fleet.Role{"search": fleet.Client, "a": fleet.Device, "b": fleet.Device} {
		secret, grant, err := fleet.NewToken(role, name)
		if err != nil {
			t.Fatal(err)
		}
		tokens[name] = secret
		a.Grants = append(a.Grants, grant)
	}
	return broker(t, fleet.BrokerOptions{Listen: "127.0.0.1:0", Access: a}).URL(), tokens
}

// plain is a bare NATS connection; what the broker denies comes out of denied.
func plain(t *testing.T, url, token, inbox string) (nc *nats.Conn, denied chan error) {
	t.Helper()
	denied = make(chan error, 64)
	nc, err := nats.Connect(url, nats.Token(token), nats.CustomInboxPrefix(inbox),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { denied <- err }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc, denied
}

func queueOf(t *testing.T, c *fleet.Conn, device string) int {
	t.Helper()
	list, err := c.Devices(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(list, func(p fleet.Presence) bool { return p.Name == device })
	if i < 0 {
		t.Fatalf("%s is not listed: %+v", device, list)
	}
	return list[i].Queue
}

// submit puts a job into a queue and does not wait for it.
func submit(t *testing.T, c *fleet.Conn, j fleet.Job) {
	t.Helper()
	before := 0
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := c.Do(ctx, j)
		ended <- err
	}()
	for before == 0 {
		list, err := c.Devices(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range list {
			if p.Name == j.Device {
				before = p.Queue
			}
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

// TestDeviceIsConfined has one device's token, in the hands of a program of
// another's, try everything that is not the device's own.
func TestDeviceIsConfined(t *testing.T) {
	url, tokens := guarded(t)
	client := connect(t, fleet.Options{URL: url, Token: tokens["search"], Name: "search"})
	submit(t, client, fleet.Job{ID: "secret", Device: "b", Body: []byte("x"), Blob: []byte("model")})
	for _, inbox := range []string{"_INBOX_a", "_INBOX_b", "_INBOX", "_INBOX_search"} {
		nc, denied := plain(t, url, tokens["a"], inbox)
		var tried []string
		for _, subject := range []string{
			"spos.job.a.x", "spos.job.b.x", "spos.answer.b.x", "spos.presence.b", "spos.ask.a", "spos.ask.b", "spos.alive.b",
			"spos.blob.a.h.0", "spos.blob.b.h.0", "spos.want.b.h", "spos.told.a.x", "spos.told.b.x", "_INBOX_search.x",
			"$JS.API.INFO", "$JS.API.STREAM.LIST", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.INFO.spos-jobs-b", "$JS.API.STREAM.INFO.spos-jobs-a",
			"$JS.API.STREAM.CREATE.mine", "$JS.API.STREAM.DELETE.spos-jobs-b", "$JS.API.STREAM.PURGE.spos-jobs-b", "$JS.API.STREAM.MSG.GET.spos-jobs-b",
			"$JS.API.CONSUMER.CREATE.spos-jobs-a.mine", "$JS.API.CONSUMER.MSG.NEXT.spos-jobs-b.worker", "$JS.API.CONSUMER.INFO.spos-jobs-b.worker",
			"$JS.API.DIRECT.GET.spos-kept-b.spos.presence.b", "$JS.API.DIRECT.GET.spos-jobs-b", "$JS.API.DIRECT.GET.spos-blobs-b.spos.blob.b.h.0",
			"$JS.API.DIRECT.GET.spos-jobs-a", "$JS.ACK.spos-jobs-b.worker.1.1.1.1.1", "$SYS.REQ.SERVER.PING",
		} {
			if err := nc.Publish(subject, []byte("1")); err != nil {
				t.Fatal(err)
			}
			tried = append(tried, `Publish to "`+subject+`"`)
		}
		for _, subject := range []string{">", "spos.>", "spos.job.b.*", "spos.answer.b.*", "spos.told.a.*", "spos.ask.b", "spos.alive.b", "spos.want.a.*", "_INBOX.>", "_INBOX_search.>", "_INBOX_b.>", "$JS.>"} {
			if _, err := nc.SubscribeSync(subject); err != nil {
				t.Fatal(err)
			}
			tried = append(tried, `Subscription to "`+subject+`"`)
		}
		if err := nc.Publish("last", nil); err != nil {
			t.Fatal(err)
		}
		var text strings.Builder
		for last := ""; !strings.Contains(last, `"last"`); text.WriteString(last + "\n") {
			last = (<-denied).Error()
		}
		for _, what := range tried {
			if !strings.Contains(text.String(), what) {
				t.Errorf("not denied: %s", what)
			}
		}
	}
	device := connect(t, fleet.Options{URL: url, Token: tokens["a"], Name: "a"})
	if _, err := device.Do(t.Context(), fleet.Job{ID: "1", Device: "b"}); !errors.Is(err, fleet.ErrDenied) {
		t.Errorf("a device submits: %v", err)
	}
	if _, err := device.Devices(t.Context()); !errors.Is(err, fleet.ErrDenied) {
		t.Errorf("a device lists devices: %v", err)
	}
	if n := queueOf(t, client, "b"); n != 1 {
		t.Errorf("the queue of b holds %d jobs", n)
	}
}

// TestReflection has the broker send its own answers where a device may not
// publish. The same by a client goes through, and comes after.
func TestReflection(t *testing.T) {
	url, tokens := guarded(t)
	client := connect(t, fleet.Options{URL: url, Token: tokens["search"], Name: "search"})
	stop := work(t, connect(t, fleet.Options{URL: url, Token: tokens["a"], Name: "a"}), fleet.Worker{Device: "a", Do: echo})
	if _, err := client.Do(t.Context(), fleet.Job{ID: "1", Device: "a", Body: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	stop()
	submit(t, client, fleet.Job{ID: "2", Device: "a", Body: []byte("y")})
	attack := func(who string) {
		nc, _ := plain(t, url, tokens[who], "_INBOX_a")
		for _, m := range []nats.Msg{
			{Subject: "$JS.API.DIRECT.GET.spos-kept-a.spos.presence.a", Reply: "spos.presence.b"},
			{Subject: "spos.answer.a.stolen", Reply: "spos.answer.b.stolen"},
			{Subject: "$JS.API.DIRECT.GET.spos-kept-a.spos.presence.a", Reply: "spos.job.b." + who + "1"},
			{Subject: "$JS.API.CONSUMER.INFO.spos-jobs-a.worker", Reply: "spos.job.b." + who + "2"},
			{Subject: "$JS.API.CONSUMER.MSG.NEXT.spos-jobs-a.worker", Reply: "spos.job.b." + who + "3", Data: []byte(`{"batch":1,"no_wait":true}`)},
			{Subject: "spos.answer.a." + who, Reply: "spos.job.b." + who + "4"},
		} {
			if err := nc.PublishMsg(&m); err != nil {
				t.Fatal(err)
			}
		}
		if err := nc.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	attack("a")
	if n := queueOf(t, client, "b"); n != 0 {
		t.Errorf("a device put %d jobs into another's queue", n)
	}
	if list, err := client.Devices(t.Context()); err != nil || list[1].State != fleet.Unseen {
		t.Errorf("a device spoke for another: %+v, %v", list, err)
	}
	attack("search")
	for queueOf(t, client, "b") < 3 {
	}
	nc, _ := plain(t, url, tokens["search"], "_INBOX_x")
	m, err := nc.Request("$JS.API.STREAM.INFO.spos-jobs-b", []byte(`{"subjects_filter":">"}`), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if text := string(m.Data); !strings.Contains(text, "spos.job.b.search4") || strings.Contains(text, "spos.job.b.a") {
		t.Errorf("the queue of b: %s", text)
	}
}

func TestRefused(t *testing.T) {
	dir := t.TempDir()
	seed, grant, err := fleet.NewNKey(fleet.Device, "pi5")
	if err != nil {
		t.Fatal(err)
	}
	other, _, err := fleet.NewNKey(fleet.Device, "pi5")
	if err != nil {
		t.Fatal(err)
	}
	token, client, err := fleet.NewToken(fleet.Client, "search")
	if err != nil {
		t.Fatal(err)
	}
	file := func(name string, text []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	b := broker(t, fleet.BrokerOptions{Listen: "127.0.0.1:0", Access: fleet.Access{Grants: []fleet.Grant{grant, client}}})
	for name, test := range map[string]struct {
		o    fleet.Options
		want error
	}{
		"token":       {fleet.Options{Token: token, Name: "search"}, nil},
		"nkey":        {fleet.Options{NKey: file("right", seed), Name: "pi5"}, nil},
		"no token":    {fleet.Options{}, fleet.ErrRefused},
		"wrong token": {fleet.Options{Token: token + "x"}, fleet.ErrRefused},
		"wrong nkey":  {fleet.Options{NKey: file("wrong", other)}, fleet.ErrRefused},
		"hash":        {fleet.Options{Token: client.Key}, fleet.ErrRefused},
		"nobody":      {fleet.Options{URL: "nats://127.0.0.1:1", Token: token}, fleet.ErrNoBroker},
	} {
		t.Run(name, func(t *testing.T) {
			if test.o.URL == "" {
				test.o.URL = b.URL()
			}
			c, err := fleet.Connect(t.Context(), test.o)
			if !errors.Is(err, test.want) {
				t.Fatalf("got %v, want %v", err, test.want)
			}
			if err == nil {
				_ = c.Close()
			}
		})
	}
	work(t, connect(t, fleet.Options{URL: b.URL(), NKey: filepath.Join(dir, "right"), Name: "pi5"}), fleet.Worker{
		Device: "pi5", Do: echo,
		Answer: func(context.Context, []byte) ([]byte, error) { return []byte("here"), nil },
	})
	c := connect(t, fleet.Options{URL: b.URL(), Token: token, Name: "search"})
	if got, err := c.Do(t.Context(), fleet.Job{ID: "1", Device: "pi5", Body: []byte("x"), Blob: []byte("m")}); err != nil || string(got) != "Xm" {
		t.Errorf("got %q, %v", got, err)
	}
	if got, err := c.Ask(t.Context(), "pi5", nil); err != nil || string(got) != "here" {
		t.Errorf("got %q, %v", got, err)
	}
}

// refusals is a log that keeps the errors of its error level.
type refusals chan error

func (r refusals) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelError }
func (r refusals) WithAttrs([]slog.Attr) slog.Handler           { return r }
func (r refusals) WithGroup(string) slog.Handler                { return r }
func (r refusals) Handle(_ context.Context, rec slog.Record) error {
	rec.Attrs(func(a slog.Attr) bool {
		if err, ok := a.Value.Any().(error); ok {
			select {
			case r <- err:
			default:
			}
		}
		return true
	})
	return nil
}

// TestAccessChanges gives a device access while the broker runs, and breaks
// the file.
func TestAccessChanges(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access")
	token, client, err := fleet.NewToken(fleet.Client, "search")
	if err != nil {
		t.Fatal(err)
	}
	stamp := time.Now()
	write := func(lines ...string) {
		if err := os.WriteFile(path, []byte("# who\n"+strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		stamp = stamp.Add(time.Second)
		if err := os.Chtimes(path, stamp, stamp); err != nil {
			t.Fatal(err)
		}
	}
	write(client.String())
	a, err := fleet.ReadAccess(path)
	if err != nil {
		t.Fatal(err)
	}
	b := broker(t, fleet.BrokerOptions{Listen: "127.0.0.1:0", Access: a})
	secret, device, err := fleet.NewToken(fleet.Device, "late")
	if err != nil {
		t.Fatal(err)
	}
	o := fleet.Options{URL: b.URL(), Token: secret, Name: "late"}
	if _, err := fleet.Connect(t.Context(), o); !errors.Is(err, fleet.ErrRefused) {
		t.Fatalf("got %v", err)
	}
	c := connect(t, fleet.Options{URL: b.URL(), Token: token, Name: "search"})
	seed, other, err := fleet.NewNKey(fleet.Device, "other")
	if err != nil {
		t.Fatal(err)
	}
	write(client.String(), device.String(), other.String())
	// The queue of a device that may not make it is there before anybody asks.
	for list := []fleet.Presence(nil); len(list) < 2; {
		if list, err = c.Devices(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	said := make(refusals, 1)
	told := o
	told.Log = slog.New(said)
	late, err := fleet.Connect(t.Context(), told)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = late.Close() })
	work(t, late, fleet.Worker{Device: "late", Do: echo})
	file := filepath.Join(t.TempDir(), "other.nkey")
	if err := os.WriteFile(file, seed, 0o600); err != nil {
		t.Fatal(err)
	}
	byKey, err := nats.NkeyOptionFromSeed(file)
	if err != nil {
		t.Fatal(err)
	}
	cut := make(chan string, 2)
	for name, opt := range map[string]nats.Option{"late": nats.Token(secret), "other": byKey} {
		nc, err := nats.Connect(b.URL(), opt, nats.NoReconnect(), nats.ClosedHandler(func(*nats.Conn) { cut <- name }))
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
	}
	write("nonsense")
	if got, err := c.Do(t.Context(), fleet.Job{ID: "1", Device: "late", Body: []byte("x")}); err != nil || string(got) != "X" {
		t.Errorf("got %q, %v", got, err)
	}
	write(client.String(), device.String())
	if name := <-cut; name != "other" {
		t.Errorf("%s is cut off, whose line is there", name)
	}
	write(client.String())
	if name := <-cut; name != "late" {
		t.Errorf("%s is cut off a second time", name)
	}
	if err := <-said; !errors.Is(err, fleet.ErrRefused) {
		t.Errorf("the device says %v of being cut off", err)
	}
	if _, err := c.Devices(t.Context()); err != nil {
		t.Errorf("who is still let in: %v", err)
	}
	if _, err := fleet.Connect(t.Context(), o); !errors.Is(err, fleet.ErrRefused) {
		t.Errorf("a device whose line is gone: %v", err)
	}
}

func TestParseAccess(t *testing.T) {
	for text, want := range map[string]string{
		"":                           "no line",
		"client x":                   "line 1: want three words",
		"\nadmin x sha256:00":        `line 2: "admin" is no role`,
		"device a.b sha256:00":       "cannot name a device",
		"device a sha256:00":         "64 hexadecimal digits",
		"device a hunter2":           "public user nkey",
		"device a SUAM" + "A secret": "want three words",
	} {
		if _, err := fleet.ParseAccess([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
	}
}

func FuzzParseAccess(f *testing.F) {
	_, g, err := fleet.NewToken(fleet.Client, "x")
	if err != nil {
		f.Fatal(err)
	}
	_, n, err := fleet.NewNKey(fleet.Device, "y")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(g.String() + "\n# comment\n" + n.String())
	f.Add("client x sha256:zz")
	f.Fuzz(func(t *testing.T, text string) {
		a, err := fleet.ParseAccess([]byte(text))
		if err != nil {
			return
		}
		var again strings.Builder
		for _, g := range a.Grants {
			again.WriteString(g.String() + "\n")
		}
		b, err := fleet.ParseAccess([]byte(again.String()))
		if err != nil || !slices.Equal(a.Grants, b.Grants) {
			t.Errorf("%q reads back as %v, %v", text, b.Grants, err)
		}
	})
}
