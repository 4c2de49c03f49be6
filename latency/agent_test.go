package latency_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"spos/internal/fleet"
	"spos/latency"
)

// board is a fake device that takes the time it says, knows the sentinel, and
// can be changed while it is used.
type board struct {
	mu    sync.Mutex
	fake  fake
	speed float64 // 0: 1
	err   error
	busy  atomic.Int32
	both  atomic.Bool // it was asked for two things at once
}

func (b *board) Fingerprint(ctx context.Context, model []byte, p latency.Protocol) (latency.Fingerprint, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.fake.Fingerprint(ctx, model, p)
}

func (b *board) Time(ctx context.Context, t latency.Task) (latency.Sample, error) {
	if b.busy.Add(1) > 1 {
		b.both.Store(true)
	}
	defer b.busy.Add(-1)
	time.Sleep(100 * time.Millisecond)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return latency.Sample{}, b.err
	}
	if len(t.Model) > 1000 {
		t.Model = []byte("400")
	}
	speed := max(b.speed, 1)
	b.fake.speed = func(int) float64 { return speed }
	return b.fake.Time(ctx, t)
}

func (b *board) set(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
}

// wire is a courier to agents in this process. It keeps answers, as the fleet
// does.
type wire struct {
	mu     sync.Mutex
	agents map[string]*latency.Agent
	kept   map[string][]byte
	done   int // tasks that reached an agent
	away   map[string]bool
}

func (w *wire) wait(ctx context.Context, device string) (*latency.Agent, error) {
	for {
		w.mu.Lock()
		a, away := w.agents[device], w.away[device]
		w.mu.Unlock()
		if a != nil && !away {
			return a, nil
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (w *wire) Do(ctx context.Context, j fleet.Job) ([]byte, error) {
	a, err := w.wait(ctx, j.Device)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	if answer, ok := w.kept[j.ID]; ok {
		w.mu.Unlock()
		return answer, nil
	}
	w.done++
	w.mu.Unlock()
	answer, err := a.Do(ctx, j.Body, j.Blob)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil && !(j.Passing != nil && j.Passing(answer)) {
		w.kept[j.ID] = answer
	}
	return answer, err
}

func (w *wire) Ask(ctx context.Context, device string, body []byte) ([]byte, error) {
	a, err := w.wait(ctx, device)
	if err != nil {
		return nil, err
	}
	return a.Answer(ctx, body)
}

func (w *wire) Devices(context.Context) ([]fleet.Presence, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []fleet.Presence
	for _, name := range slices.Sorted(maps.Keys(w.agents)) {
		p := fleet.Presence{Name: name, State: fleet.Idle}
		if w.away[name] {
			p.State = fleet.Away
		}
		list = append(list, p)
	}
	return list, nil
}

func (w *wire) setAway(device string, away bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.away[device] = away
}

type fleetOf struct {
	*wire
	boards map[string]*board
	logged *strings.Builder
	stop   func()
}

// newFleet runs an agent for each name until the test's bubble ends.
func newFleet(t *testing.T, names ...string) *fleetOf {
	t.Helper()
	f := &fleetOf{
		wire:   &wire{agents: map[string]*latency.Agent{}, kept: map[string][]byte{}, away: map[string]bool{}},
		boards: map[string]*board{}, logged: &strings.Builder{},
	}
	ctx, cancel := context.WithCancel(t.Context())
	var runs sync.WaitGroup
	f.stop = func() { cancel(); runs.Wait() }
	for _, name := range names {
		b := &board{}
		a := &latency.Agent{Device: b, Version: "v1", Every: 4, Root: fstest.MapFS{}, Log: slog.New(slog.DiscardHandler)}
		f.boards[name], f.agents[name] = b, a
		runs.Go(func() {
			if err := a.Run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	return f
}

func (f *fleetOf) remote(name, campaign string) *latency.Remote {
	return &latency.Remote{Courier: f.wire, Name: name, Version: "v1", Campaign: campaign, Log: slog.New(slog.NewTextHandler(f.logged, nil))}
}

func TestRemoteIsTheDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, "pi5")
		defer f.stop()
		here, err := latency.MeasureAll(t.Context(), &board{}, models("10", "20"), latency.Confirmation())
		if err != nil {
			t.Fatal(err)
		}
		r := f.remote("pi5", "")
		there, err := latency.MeasureAll(t.Context(), r, models("10", "20"), latency.Confirmation())
		if err != nil {
			t.Fatal(err)
		}
		for i := range here {
			a, _ := json.Marshal(here[i])
			b, _ := json.Marshal(there[i])
			if string(a) != string(b) {
				t.Errorf("here %s\nthere %s", a, b)
			}
		}
		want, _ := f.boards["pi5"].Fingerprint(t.Context(), []byte("10"), brief())
		got, err := r.Fingerprint(t.Context(), []byte("10"), brief())
		want.Model, got.Model = latency.ModelID{}, latency.ModelID{}
		if err != nil || want.Repeats(got) != nil {
			t.Errorf("%v, %v", err, want.Repeats(got))
		}
		if f.boards["pi5"].both.Load() {
			t.Error("the device did two things at once")
		}
	})
}

func TestRemoteFindsWhatACampaignMeasured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, "pi5")
		defer f.stop()
		measure := func(campaign string, p latency.Protocol) int {
			before := f.done
			if _, err := latency.MeasureAll(t.Context(), f.remote("pi5", campaign), models("10", "20"), p); err != nil {
				t.Fatal(err)
			}
			return f.done - before
		}
		p := brief()
		p.Sessions = 3
		more := p
		more.Sessions, more.Spread = 5, 0.01
		other := p
		other.Mode = latency.Paced
		for _, tt := range []struct {
			what, campaign string
			p              latency.Protocol
			want           int
		}{
			{"first", "search-1", p, 6},
			{"the same again", "search-1", p, 0},
			{"two sessions more", "search-1", more, 4},
			{"another mode", "search-1", other, 6},
			{"another campaign", "search-2", p, 6},
			{"no campaign", "", p, 6},
			{"no campaign, again", "", p, 6},
		} {
			if got := measure(tt.campaign, tt.p); got != tt.want {
				t.Errorf("%s: %d tasks reached the device, want %d", tt.what, got, tt.want)
			}
		}
		// The device is another now: what it had measured answers nothing.
		f.boards["pi5"].set(func() { f.boards["pi5"].fake.host.Kernel = "7.0" })
		if got := measure("search-1", p); got != 6 {
			t.Errorf("under another kernel: %d tasks, want 6", got)
		}
	})
}

func TestRemoteNamesWhatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, "pi5")
		defer f.stop()
		r := f.remote("pi5", "c")
		time1 := func(r *latency.Remote, model, key string) error {
			_, err := r.Time(t.Context(), latency.Task{Model: []byte(model), Protocol: brief(), Key: key})
			return err
		}
		if err := time1(r, "10", "a"); err != nil {
			t.Fatal(err)
		}
		b := f.boards["pi5"]
		b.set(func() { b.err = &latency.ModelError{Reason: latency.Crash, Err: errors.New("SIGSEGV")} })
		if err := time1(r, "10", "b"); reasonOf(err) != latency.Crash || !strings.Contains(err.Error(), "device pi5") {
			t.Errorf("crash: %v", err)
		}
		b.set(func() { b.err = nil })
		old := f.remote("pi5", "c")
		old.Version = "v2"
		if err := time1(old, "10", "c"); err == nil || !strings.Contains(err.Error(), "v1") || !strings.Contains(err.Error(), "v2") {
			t.Errorf("another version: %v, want both named", err)
		}
		b.set(func() { b.fake.host.Governor = "powersave" })
		if err := time1(r, "10", "d"); !errors.Is(err, latency.ErrIncomparable) || !strings.Contains(err.Error(), "powersave") {
			t.Errorf("another governor: %v, want ErrIncomparable", err)
		}
		if err := time1(r, "10", "d"); err != nil {
			t.Errorf("and then: %v, want the device as it is now", err)
		}
	})
}

func TestRemoteWaitsForItsDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, "pi5", "pi4")
		defer f.stop()
		r := f.remote("pi5", "c")
		r.Timeout = time.Hour
		f.setAway("pi5", true)
		time.AfterFunc(40*time.Minute, func() { f.setAway("pi5", false) })
		if _, err := latency.MeasureAll(t.Context(), r, models("10", "20"), brief()); err != nil {
			t.Fatal(err)
		}
		log := f.logged.String()
		if strings.Count(log, "is away") != 1 || strings.Count(log, "a device is back") != 1 || strings.Count(log, "device=pi5") != 2 {
			t.Errorf("logged:\n%s", log)
		}
		f.setAway("pi5", true)
		start := time.Now()
		_, err := r.Time(t.Context(), latency.Task{Model: []byte("10"), Protocol: brief(), Key: "x"})
		if err == nil || !strings.Contains(err.Error(), "device pi5: it was away for 1h0m0s (its agent is silent)") || time.Since(start) > time.Hour+time.Minute {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		wrong := f.remote("pi6", "c")
		wrong.Timeout = time.Minute
		if _, err := wrong.Fingerprint(t.Context(), nil, brief()); err == nil || !strings.Contains(err.Error(), "there are pi4") {
			t.Errorf("a wrong name: %v", err)
		}
	})
}

func TestAgentWatchesItsDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, "pi5")
		defer f.stop()
		b, a, r := f.boards["pi5"], f.agents["pi5"], f.remote("pi5", "")
		task := latency.Task{Model: []byte("10"), Protocol: brief()}
		notes := func() string {
			t.Helper()
			s, err := r.Time(t.Context(), task)
			if err != nil {
				t.Fatal(err)
			}
			return strings.Join(s.Notes, "; ")
		}
		if n := notes(); n != "" || a.Status().Drift != 1 || a.Status().Tasks != 1 {
			t.Errorf("notes %q, status %+v", n, a.Status())
		}
		time.Sleep(5 * time.Minute)
		if ago := a.Status().LookedAgo; ago > 61*time.Second {
			t.Errorf("idle, and looked at the sentinel %v ago", ago)
		}
		b.set(func() { b.speed = 1.2 })
		start := time.Now()
		for i := range 6 {
			if n := notes(); i >= 4 && !strings.Contains(n, "drifted by +20 %") {
				t.Errorf("task %d: notes %q, want the drift in them", i, n)
			}
		}
		if rested := time.Since(start); rested < 30*time.Second || rested > 40*time.Second {
			t.Errorf("six tasks took %v, want three rests of ten seconds", rested)
		}
		b.set(func() { b.speed = 1 })
		for range 6 {
			notes()
		}
		if n := notes(); n != "" || a.Status().State != latency.AgentIdle {
			t.Errorf("after it came back: notes %q, %s", n, a.Status().State)
		}
	})
}

func TestAgentCoolsAndPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, "pi5")
		defer f.stop()
		a, r := f.agents["pi5"], f.remote("pi5", "")
		task := latency.Task{Model: []byte("10"), Protocol: brief()}
		a.CoolBelow, a.Rest = 60, time.Second
		a.Root = fstest.MapFS{
			"sys/class/thermal/thermal_zone0/temp": {Data: []byte("41000\n")},
			"sys/class/thermal/thermal_zone1/temp": {Data: []byte("71500\n")},
			"sys/class/thermal/thermal_zone2/temp": {Data: []byte("none\n")},
		}
		start := time.Now()
		s, err := r.Time(t.Context(), task)
		if err != nil || len(s.Notes) != 1 || !strings.Contains(s.Notes[0], "did not cool below 60 °C within 2m0s") || time.Since(start) < 2*time.Minute {
			t.Errorf("%v after %v: %v", err, time.Since(start), s.Notes)
		}
		if got := a.Status().Celsius; got != 71.5 {
			t.Errorf("%v °C, want 71.5", got)
		}
		a.CoolBelow = 0
		if err := r.SetPause(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		if got := a.Status().State; got != latency.AgentPaused {
			t.Errorf("state %s, want paused", got)
		}
		start = time.Now()
		time.AfterFunc(time.Hour, func() {
			if err := r.SetPause(t.Context(), false); err != nil {
				t.Error(err)
			}
		})
		if _, err := r.Time(t.Context(), task); err != nil || time.Since(start) < time.Hour {
			t.Errorf("%v after %v, want the end of the pause", err, time.Since(start))
		}
	})
}

func TestPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, "a", "b")
		defer f.stop()
		var names []string
		for i := range 40 {
			names = append(names, fmt.Sprint(100+i))
		}
		rng := rand.New(rand.NewPCG(1, 2))
		rng.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
		p := brief()
		p.Sessions = 2
		took := func(d latency.Device) (time.Duration, []latency.Result) {
			t.Helper()
			synctest.Wait()
			start := time.Now()
			results, err := latency.MeasureAll(t.Context(), d, models(names...), p)
			if err != nil {
				t.Fatal(err)
			}
			return time.Since(start), results
		}
		time.Sleep(time.Second)
		one, alone := took(f.remote("a", ""))
		two, together := took(latency.NewPool(latency.Member{Device: f.remote("a", ""), Name: "a"}, latency.Member{Device: f.remote("b", ""), Name: "b"}))
		if ratio := float64(two) / float64(one); ratio > 0.55 {
			t.Errorf("two devices took %.2f of the time of one", ratio)
		}
		for i := range alone {
			if alone[i].Model != together[i].Model || alone[i].P50 != together[i].P50 || len(together[i].Samples) != 2 {
				t.Errorf("%d: %v, want %v", i, together[i], alone[i])
			}
		}
		if f.boards["a"].both.Load() || f.boards["b"].both.Load() {
			t.Error("a device did two things at once")
		}
	})
}

func TestPoolRefusesOtherDevices(t *testing.T) {
	member := func(name string, f *fake) latency.Member { return latency.Member{Device: f, Name: name} }
	pool := latency.NewPool(member("a", &fake{}), member("b", &fake{host: latency.Host{CPU: "other"}}))
	_, err := pool.Time(t.Context(), latency.Task{Model: []byte("1"), Protocol: brief()})
	if !errors.Is(err, latency.ErrIncomparable) || !strings.Contains(err.Error(), "a and b") || !strings.Contains(err.Error(), "other") {
		t.Errorf("%v, want ErrIncomparable with names and difference", err)
	}
}
