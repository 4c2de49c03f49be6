package latency_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	stdnet "net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"spos/internal/fleet"
	"spos/latency"
)

// Three programs are killed in any order while they measure: a broker, an
// agent and a searcher, each of which is the test's own binary. The agent's
// device is a fake whose samples follow from the model, so that the table can
// be known beforehand; each carries a number that no other has, so that one
// that is counted twice is seen.

const (
	chaosURL     = "SPOS_TEST_URL"
	chaosDir     = "SPOS_TEST_DIR"
	chaosModels  = "SPOS_TEST_MODELS"
	chaosKills   = "SPOS_CHAOS" // kills; make agents-chaos
	chaosSession = 3
)

// play is one of the programs. It ends when its standard input does.
func play(role string) {
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(3)
	}()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("role", role, "pid", os.Getpid())
	dir := os.Getenv(chaosDir)
	var err error
	switch role {
	case "broker":
		_, err = fleet.StartBroker(fleet.BrokerOptions{Listen: strings.TrimPrefix(os.Getenv(chaosURL), "nats://"), Dir: filepath.Join(dir, "broker"), Log: log})
		if err == nil {
			select {}
		}
	case "agent":
		err = playAgent(dir, log)
	case "searcher":
		err = playSearcher(dir, log)
	}
	if err != nil {
		log.Error("ends", "err", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func dial(name string, log *slog.Logger) (*fleet.Conn, error) {
	for {
		c, err := fleet.Connect(context.Background(), fleet.Options{URL: os.Getenv(chaosURL), Name: name, Log: log})
		if !errors.Is(err, fleet.ErrNoBroker) {
			return c, err
		}
		time.Sleep(10 * time.Millisecond) // nothing says when a broker comes
	}
}

// numbered is the agent's fake: Create is the sample's number, in a journal
// before anybody hears of it.
type numbered struct {
	fake
	log *os.File
	rng *rand.Rand
}

func (n *numbered) Time(ctx context.Context, t latency.Task) (latency.Sample, error) {
	if len(t.Model) > 1000 { // the agent's own network
		t.Model = []byte("400")
		return n.fake.Time(ctx, t)
	}
	time.Sleep(2 * time.Millisecond) // what a measurement takes
	s, err := n.fake.Time(ctx, t)
	s.Create = time.Duration(n.rng.Int64())
	_, werr := fmt.Fprintln(n.log, int64(s.Create))
	return s, errors.Join(err, werr)
}

func playAgent(dir string, log *slog.Logger) error {
	f, err := os.OpenFile(filepath.Join(dir, "measured"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	conn, err := dial("dev", log)
	if err != nil {
		return err
	}
	d := &numbered{log: f, rng: rand.New(rand.NewPCG(uint64(os.Getpid()), uint64(time.Now().UnixNano())))}
	a := &latency.Agent{Device: d, Version: "v1", Log: log}
	go func() { _ = a.Run(context.Background()) }()
	return conn.Work(context.Background(), fleet.Worker{
		Device: "dev",
		Info:   func() json.RawMessage { b, _ := json.Marshal(a.Status()); return b },
		Do: func(ctx context.Context, j fleet.Job) ([]byte, error) {
			return a.Do(ctx, j.Body, j.Blob)
		},
		Answer: a.Answer,
		Tries:  1000,
	})
}

func playSearcher(dir string, log *slog.Logger) error {
	n, err := strconv.Atoi(os.Getenv(chaosModels))
	if err != nil {
		return err
	}
	conn, err := dial("", log)
	if err != nil {
		return err
	}
	r := &latency.Remote{Courier: conn, Name: "dev", Version: "v1", Campaign: "chaos", Log: log}
	return chaosTable(r, n, dir)
}

// chaosTable measures n models and writes the table.
func chaosTable(r latency.Runner, n int, dir string) (err error) {
	cache, err := latency.OpenCache(filepath.Join(dir, "latency.jsonl"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cache.Close()) }()
	p := latency.Screening()
	p.Sessions, p.MinTime = chaosSession, 0
	m := latency.Meter{Runner: r, Protocol: p, Cache: cache}
	var table []latency.Result
	for i := range n {
		name := strconv.Itoa(100 + i)
		results, err := m.Measure(context.Background(), latency.Model{Name: name, Bytes: []byte(name)})
		if err != nil {
			return err
		}
		table = append(table, results...)
	}
	numbers := make([]time.Duration, 0, chaosSession*n)
	for i := range table {
		for _, s := range table[i].Samples {
			numbers = append(numbers, s.Create)
		}
		table[i].Samples = nil
	}
	for name, v := range map[string]any{"counted": numbers, "table": table} {
		text, err := json.MarshalIndent(v, "", " ")
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), text, 0o600)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// cast is the running programs.
type cast struct {
	env  []string
	log  *os.File
	cmds map[string]*exec.Cmd
	ends map[string]chan error
}

func (c *cast) start(t *testing.T, role string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), append(c.env, childDevice+"="+role)...)
	cmd.Stderr = c.log
	if _, err = cmd.StdinPipe(); err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	end := make(chan error, 1)
	go func() { end <- cmd.Wait() }()
	c.cmds[role], c.ends[role] = cmd, end
}

// kill is kill -9, and the program started again.
func (c *cast) kill(t *testing.T, role string) {
	t.Helper()
	_ = c.cmds[role].Process.Kill()
	<-c.ends[role]
	c.start(t, role)
}

func TestChaos(t *testing.T) {
	kills, n := 6, 20
	if text := os.Getenv(chaosKills); text != "" {
		var err error
		if kills, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
		n = 100
	}
	want := t.TempDir()
	if err := chaosTable(&fake{}, n, want); err != nil {
		t.Fatal(err)
	}
	listener, err := stdnet.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "nats://" + listener.Addr().String()
	listener.Close()
	dir := t.TempDir()
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	c := &cast{
		env: []string{chaosURL + "=" + url, chaosDir + "=" + dir, chaosModels + "=" + strconv.Itoa(n)},
		log: log, cmds: map[string]*exec.Cmd{}, ends: map[string]chan error{},
	}
	roles := []string{"broker", "agent", "searcher"}
	for _, role := range roles {
		c.start(t, role)
	}
	rng := rand.New(rand.NewPCG(7, uint64(kills)))
	killed := map[string]int{}
	for k := range kills {
		c.await(t, dir, (k+1)*chaosSession*n/(kills+1))
		role := roles[rng.IntN(len(roles))]
		killed[role]++
		c.kill(t, role)
	}
	if err := <-c.ends["searcher"]; err != nil {
		t.Fatalf("the searcher: %v\n%s", err, tailOf(log.Name()))
	}
	checkChaos(t, want, dir, n)
	if got := len(madeIn(t, dir)); got > chaosSession*n+kills {
		t.Errorf("measured %d times for %d measurements and %d kills: a kill may cost one", got, chaosSession*n, kills)
	}
	t.Logf("killed %v; measured %d times for %d measurements", killed, len(madeIn(t, dir)), chaosSession*n)
}

// await waits until the agent has measured so often.
func (c *cast) await(t *testing.T, dir string, times int) {
	t.Helper()
	for len(madeIn(t, dir)) < times {
		for role, end := range c.ends {
			select {
			case err := <-end:
				if role == "searcher" && err == nil {
					end <- nil
					return
				}
				// A service manager would start it again.
				t.Logf("%s ended by itself: %v", role, err)
				c.start(t, role)
			default:
			}
		}
		select {
		case <-t.Context().Done():
			t.Fatal(tailOf(c.log.Name()))
		case <-time.After(2 * time.Millisecond): // a file says nothing by itself
		}
	}
}

func checkChaos(t *testing.T, want, dir string, n int) {
	t.Helper()
	a, err := os.ReadFile(filepath.Join(want, "table"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "table"))
	if err != nil {
		t.Fatal(err)
	}
	if string(a) != string(b) {
		t.Error("the table differs from one that nothing disturbed")
	}
	text, err := os.ReadFile(filepath.Join(dir, "counted"))
	if err != nil {
		t.Fatal(err)
	}
	var counted []int64
	if err := json.Unmarshal(text, &counted); err != nil {
		t.Fatal(err)
	}
	made := madeIn(t, dir)
	slices.Sort(counted)
	if len(slices.Compact(slices.Clone(counted))) != chaosSession*n || len(counted) != chaosSession*n {
		t.Errorf("%d samples are counted, %d of them different, want %d", len(counted), len(slices.Compact(slices.Clone(counted))), chaosSession*n)
	}
	for _, number := range counted {
		if !made[number] {
			t.Errorf("sample %d was never measured", number)
		}
	}
}

// madeIn are the numbers of all samples that the agent made.
func madeIn(t *testing.T, dir string) map[int64]bool {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "measured"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	made := map[int64]bool{}
	for line := range strings.Lines(string(text)) {
		if n, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64); err == nil && strings.HasSuffix(line, "\n") {
			made[n] = true
		}
	}
	return made
}

func tailOf(path string) string {
	text, _ := os.ReadFile(path)
	return string(text[max(0, len(text)-8000):])
}
