package latency_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"spos/internal/arch"
	"spos/latency"
)

func small(t testing.TB) *machine {
	return &machine{space: space(t, "nasbench-macro"), seed: 7, place: 0.05, session: 0.01, host: latency.Host{CPU: "one"}}
}

func marshal(t testing.TB, tab *latency.Table) []byte {
	t.Helper()
	b, err := tab.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func reopen(t testing.TB, path string) *latency.Cache {
	t.Helper()
	c, err := latency.OpenCache(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestTableSurvivesDeath ends a campaign at each of its sessions, lets another
// process go on, and wants the table that one which never ended makes.
func TestTableSurvivesDeath(t *testing.T) {
	whole := small(t)
	want := marshal(t, table(t, whole.campaign(t, 4, 3, 2)))
	killed := errors.New("killed")
	for k := 1; k <= whole.calls; k++ {
		m := small(t)
		m.die = func(call int) error {
			if call == k || call == k+7 { // the second process dies too
				return killed
			}
			return nil
		}
		path := filepath.Join(t.TempDir(), "journal.jsonl")
		for range 3 {
			c := m.campaign(t, 4, 3, 2)
			c.Cache = reopen(t, path)
			tab, err := c.Run(t.Context())
			if errors.Is(err, killed) {
				c.Cache.Close()
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(marshal(t, tab), want) {
				t.Fatalf("killed at session %d of %d: another table", k, whole.calls)
			}
			break
		}
	}
}

// TestTableSurvivesTornJournal cuts the journal where a power cut may.
func TestTableSurvivesTornJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.jsonl")
	c := small(t).campaign(t, 4, 3, 2)
	c.Cache = reopen(t, path)
	want := marshal(t, table(t, c))
	c.Cache.Close()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for cut := 0; cut < len(text); cut += 1 + len(text)/23 {
		torn := filepath.Join(t.TempDir(), "torn.jsonl")
		if err := os.WriteFile(torn, text[:cut], 0o644); err != nil {
			t.Fatal(err)
		}
		c := small(t).campaign(t, 4, 3, 2)
		c.Cache = reopen(t, torn)
		if !bytes.Equal(marshal(t, table(t, c)), want) {
			t.Errorf("cut at byte %d of %d: another table", cut, len(text))
		}
	}
}

func TestTableGrows(t *testing.T) {
	m := small(t)
	m.seen = map[string]int{}
	c := m.campaign(t, 5, 4, 2)
	first := table(t, c)
	calls := m.calls
	c.Known = first
	if again := table(t, c); !bytes.Equal(marshal(t, again), marshal(t, first)) || m.calls != calls {
		t.Errorf("asked again, it measured %d sessions and made another table or not: %v", m.calls-calls, !bytes.Equal(marshal(t, again), marshal(t, first)))
	}
	c.Nets, c.Holdout = 9, 2 // fewer than it has is what it has
	more := table(t, c)
	if n := len(more.Measurements) - len(first.Measurements); n != 4 {
		t.Errorf("it grew by %d nets, want 4", n)
	}
	now := map[arch.Arch]latency.Measurement{}
	for _, x := range more.Measurements {
		now[x.Arch] = x
	}
	for _, x := range first.Measurements {
		if y := now[x.Arch]; y.P50 != x.P50 || y.Role != x.Role {
			t.Errorf("net %s was %v as %s and is %v as %s", x.Arch, x.P50, x.Role, y.P50, y.Role)
		}
	}
	for key, n := range m.seen {
		if n > 1 {
			t.Errorf("session %s was timed %d times", key, n)
		}
	}
}

func TestTableWithinBudget(t *testing.T) {
	m := small(t)
	c := m.campaign(t, 5, 4, 2)
	c.Budget = time.Nanosecond
	if _, err := c.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "run it again to go on") {
		t.Errorf("no time at all: %v, want an error that says how to go on", err)
	}
	c.Budget = 0
	if tab := table(t, c); len(tab.Measurements) == 0 || tab.Measurements[len(tab.Measurements)-1].Role != latency.Holdout {
		t.Error("the nets of the audit were not measured")
	}
}

func TestTableRefuses(t *testing.T) {
	m := small(t)
	c := m.campaign(t, 5, 0, 1)
	tab := table(t, c)
	other := tab.Fingerprint
	other.Host.CPU = "another"
	if err := tab.For(other); !errors.Is(err, latency.ErrIncomparable) || !strings.Contains(err.Error(), "another") {
		t.Errorf("another processor: %v", err)
	}
	if err := tab.For(tab.Fingerprint); err != nil {
		t.Error(err)
	}
	c.Known, m.host.CPU = tab, "another"
	if _, err := c.Run(t.Context()); !errors.Is(err, latency.ErrIncomparable) {
		t.Errorf("to be added to on another processor: %v", err)
	}
	m.host.CPU = "one"
	c.Seed = 2
	if _, err := c.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "seed") {
		t.Errorf("another seed: %v", err)
	}
	c.Seed, c.Space = 1, space(t, "shufflenetv2-spos")
	if _, err := c.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "another space") {
		t.Errorf("another space: %v", err)
	}

	larger, err := m.space.With(arch.Shape{C: 3, H: 64, W: 64}, 10)
	if err != nil {
		t.Fatal(err)
	}
	spec := m.space.Spec()
	spec.Candidates = append([]arch.CandidateSpec{}, spec.Candidates...)
	spec.Candidates[1].Name, spec.Candidates[1].Kernel = "mb_k7e3", 7
	wider, err := arch.NewSpace(spec)
	if err != nil {
		t.Fatal(err)
	}
	for want, s := range map[string]*arch.Space{"stem": larger, "block 3: mb_k7e3": wider} {
		n, err := s.Net("00010000")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tab.Predict(n); !errors.Is(err, latency.ErrUnmeasured) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want an error of what is not in the table that says %q", err, want)
		}
	}
}

// TestTableOfAliases: blocks that do nothing may stand anywhere.
func TestTableOfAliases(t *testing.T) {
	m := small(t)
	tab := table(t, m.campaign(t, 10, 0, 1))
	var said []latency.Prediction
	for _, a := range []arch.Arch{"22212220", "22212202"} {
		n, err := m.space.Net(a)
		if err != nil {
			t.Fatal(err)
		}
		p, err := tab.Predict(n)
		if err != nil {
			t.Fatal(err)
		}
		said = append(said, p)
	}
	if said[0] != said[1] {
		t.Errorf("one net under two names: %+v and %+v", said[0], said[1])
	}
}

func seconds(n int) time.Time { return time.Unix(int64(n), 0) }

// TestLevelIsTakenOut has a machine that is up to 8 % slower or faster for some
// sessions on end: with a clock that tells when each was, most of that is found.
func TestLevelIsTakenOut(t *testing.T) {
	mean := func(clock func(int) time.Time) (off, repeat float64) {
		const seeds = 4
		for seed := range uint64(seeds) {
			m := small(t)
			m.drift, m.session, m.place, m.clock = 0.08, 0.004, 0, clock
			c := m.campaign(t, 30, 40, 4)
			c.Seed = 1 + seed
			a := table(t, c).Audit()
			off, repeat = off+a.MAPE/seeds, repeat+a.Ruler.Repeat/seeds
		}
		return off, repeat
	}
	off, repeat := mean(seconds)
	blind, apart := mean(nil)
	t.Logf("errors of %.4f and repeats of %.4f; without a clock %.4f and %.4f", off, repeat, blind, apart)
	if off > 0.4*blind || repeat > 0.4*apart {
		t.Error("less than 60 % of what the machine did is taken out")
	}
}

// TestLevelByAClockSetBack has a clock that does not tell the order of the
// sessions: no level is taken out of them by it.
func TestLevelByAClockSetBack(t *testing.T) {
	m := small(t)
	m.drift, m.session = 0.08, 0.004
	none := table(t, m.campaign(t, 30, 40, 4))
	measured := func(clock func(int) time.Time) (levelled, warned bool) {
		m.calls, m.clock = 0, clock
		tab := table(t, m.campaign(t, 30, 40, 4))
		for i, is := range tab.Measurements {
			levelled = levelled || !slices.Equal(is.Sessions, none.Measurements[i].Sessions)
		}
		return levelled, strings.Contains(strings.Join(tab.Warnings, "\n"), "clock was set back")
	}
	if levelled, warned := measured(seconds); !levelled || warned {
		t.Errorf("by a clock that tells the order: levels taken out: %v, a warning: %v", levelled, warned)
	}
	if levelled, warned := measured(func(call int) time.Time {
		if call > 120 {
			call -= 100
		}
		return seconds(call)
	}); levelled || !warned {
		t.Errorf("by one that was set back: levels taken out: %v, a warning: %v", levelled, warned)
	}
}

func TestVerdict(t *testing.T) {
	m := small(t)
	m.place = 0
	sound := table(t, m.campaign(t, 40, 60, 2)).Audit()
	if sound.To == 0 || !strings.Contains(strings.Join(sound.Verdict, "\n"), "use it for nets between") {
		t.Errorf("a sound table: %q", sound.Verdict)
	}
	m.kink = sound.From + 0.2*(sound.To-sound.From)
	kinked := table(t, m.campaign(t, 40, 100, 2)).Audit()
	if kinked.From <= sound.From || !strings.Contains(strings.Join(kinked.Verdict, "\n"), "do not use it between") {
		t.Errorf("small nets take a quarter longer: from %.3f, was %.3f: %q", kinked.From, sound.From, kinked.Verdict)
	}
	t.Log(kinked.Verdict)
}

// TestFewNetsDoNotVouch: a handful of nets may all be right by chance.
func TestFewNetsDoNotVouch(t *testing.T) {
	for name, c := range map[string]struct {
		nets, holdout int
		kind          string
		vouches       bool
		words         string
	}{
		"two held out alone":      {0, 2, "held-out", false, "2 held-out nets are too few"},
		"nine held out alone":     {0, 9, "held-out", false, "9 held-out nets are too few"},
		"two held out, some left": {40, 2, "left-out", true, "fewer than 10 nets were held out"},
		"ten held out, some left": {40, 10, "held-out", true, "use it for nets between"},
	} {
		m := small(t)
		m.place = 0
		tab := table(t, m.campaign(t, c.nets, c.holdout, 2))
		var said bytes.Buffer
		if err := tab.WriteAudit(&said); err != nil {
			t.Fatal(err)
		}
		a := tab.Audit()
		if a.Kind != c.kind || (a.To > 0) != c.vouches || !strings.Contains(said.String(), c.words) {
			t.Errorf("%s: audited by %d %s nets, vouched for up to %.3f ms\n%s", name, a.Nets, a.Kind, a.To, &said)
		}
		if _, row, _ := strings.Cut(said.String(), "held-out  2"); strings.Contains(said.String(), "held-out  2") && strings.Count(strings.SplitN(row, "\n", 2)[0], "  –  ") != 2 {
			t.Errorf("%s: intervals of two nets:\n%s", name, &said)
		}
	}
}

func TestTableFile(t *testing.T) {
	m := small(t)
	tab := table(t, m.campaign(t, 5, 6, 2))
	path := filepath.Join(t.TempDir(), "x.table.json")
	if err := tab.Write(path); err != nil {
		t.Fatal(err)
	}
	read, err := latency.ReadTable(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(marshal(t, read), marshal(t, tab)) {
		t.Error("what was read is another table than what was written")
	}
	text := string(marshal(t, tab))
	for name, c := range map[string]struct{ old, new, want string }{
		"version":    {`"version": 1`, `"version": 2`, "version 2"},
		"field":      {`"seed": 1`, `"seed": 1, "trojan": 1`, "trojan"},
		"space":      {`"out": 64`, `"out": 96`, "digest"},
		"role":       {`"role": "correction"`, `"role": "king"`, "king"},
		"interval":   {`"low_ms": `, `"low_ms": 9`, "interval"},
		"fit":        {`"stretch": 1`, `"stretch": 0`, "fit"},
		"protocol":   {`"warmup_min": 8`, `"warmup_min": -1`, "warmup_min"},
		"trailing":   {"\n}\n", "\n}\n{}", "after top-level value"},
		"not a net":  {`"arch": "11111111"`, `"arch": "99999999"`, "99999999"},
		"not a gap":  {`"arch": "11111111"`, `"arch": "-1111111"`, "cannot be left out"},
		"truncated":  {"\n}\n", "", "unexpected end"},
		"not a file": {text, "hello", "invalid character"},
	} {
		broken := strings.Replace(text, c.old, c.new, 1)
		if i := strings.Index(text, `"measurements"`); name == "interval" {
			broken = text[:i] + strings.Replace(text[i:], c.old, c.new, 1)
		}
		if broken == text {
			t.Errorf("%s: nothing to break", name)
		}
		if _, err := latency.ParseTable([]byte(broken)); !errors.Is(err, latency.ErrTableFile) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error that says %q", name, err, c.want)
		}
	}
}

func FuzzParseTable(f *testing.F) {
	m := small(f)
	f.Add(marshal(f, table(f, m.campaign(f, 3, 2, 1))))
	f.Add([]byte(`{"version":1,"space":{"name":"x"},"measurements":[{"arch":"-"}]}`))
	n, err := m.space.Net("12012012")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		tab, err := latency.ParseTable(text)
		if err != nil {
			return
		}
		if p, err := tab.Predict(n); err == nil && !(0 < p.Low && p.Low <= p.P50 && p.P50 <= p.High) {
			t.Errorf("predicted %+v", p)
		}
		if _, err := latency.ParseTable(marshal(t, tab)); err != nil {
			t.Errorf("what was read cannot be read again: %v", err)
		}
	})
}
