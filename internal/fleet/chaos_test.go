package fleet_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"spos/internal/fleet"
)

// The test binary started again is one of these, killed without a warning.
const roleEnv, dirEnv, urlEnv, jobsEnv = "FLEET_TEST_ROLE", "FLEET_TEST_DIR", "FLEET_TEST_URL", "FLEET_TEST_JOBS"

var roles = map[string]func(ctx context.Context, dir, url string, jobs int, log *slog.Logger) error{
	"broker": beBroker, "worker": beWorker, "asker": beAsker,
}

func TestMain(m *testing.M) {
	role, ok := roles[os.Getenv(roleEnv)]
	if !ok {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	jobs, _ := strconv.Atoi(os.Getenv(jobsEnv))
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("role", os.Getenv(roleEnv), "pid", os.Getpid())
	if err := role(ctx, os.Getenv(dirEnv), os.Getenv(urlEnv), jobs, log); err != nil {
		log.Error("role ends", "err", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func beBroker(ctx context.Context, dir, url string, _ int, log *slog.Logger) error {
	access, err := fleet.ReadAccess(filepath.Join(dir, "access"))
	if err != nil {
		return err
	}
	b, err := fleet.StartBroker(fleet.BrokerOptions{Listen: strings.TrimPrefix(url, "nats://"), Dir: filepath.Join(dir, "broker"), Access: access, Log: log})
	if err != nil {
		return err
	}
	<-ctx.Done()
	return b.Close()
}

// dial waits for a broker that is being started.
func dial(ctx context.Context, dir, url, name string, log *slog.Logger) (*fleet.Conn, error) {
	token, err := os.ReadFile(filepath.Join(dir, name+".token"))
	if err != nil {
		return nil, err
	}
	for {
		c, err := fleet.Connect(ctx, fleet.Options{URL: url, Name: name, Token: string(token), Log: log})
		if !errors.Is(err, fleet.ErrNoBroker) || ctx.Err() != nil {
			return c, err
		}
	}
}

// measured is what a job comes to: the same in every run.
func measured(id string, blob []byte) int {
	h := fnv.New32a()
	_, _ = h.Write(append([]byte(id), blob...))
	return int(h.Sum32() % 100_000)
}

func blobOf(id int) []byte { return bytes.Repeat([]byte{byte(id % 7)}, 1000*1000) }

// addLine writes a line in one call: a kill leaves all of it or nothing.
func addLine(f *os.File, line string) error {
	_, err := f.WriteString(line + "\n")
	return err
}

func appendFile(dir, name string) (*os.File, error) {
	return os.OpenFile(filepath.Join(dir, name), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
}

// beWorker answers with a value and the execution that it comes from, which
// the ledger records when it is complete.
func beWorker(ctx context.Context, dir, url string, _ int, log *slog.Logger) error {
	ledger, err := appendFile(dir, "ledger")
	if err != nil {
		return err
	}
	c, err := dial(ctx, dir, url, "dev", log)
	if err != nil {
		return err
	}
	n := 0
	return c.Work(ctx, fleet.Worker{
		Device: "dev",
		Info:   func() json.RawMessage { return json.RawMessage(strconv.Itoa(os.Getpid())) },
		Do: func(ctx context.Context, j fleet.Job) ([]byte, error) {
			value := measured(j.ID, j.Blob)
			select { // what a measurement takes
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(time.Duration(value%20) * time.Millisecond):
			}
			n++
			execution := fmt.Sprintf("%d.%d", os.Getpid(), n)
			if err := addLine(ledger, j.ID+" "+execution); err != nil {
				return nil, err
			}
			return fmt.Appendf(nil, "%d %s", value, execution), nil
		},
	})
}

// beAsker has every job done whose answer its journal lacks, four at a time.
func beAsker(ctx context.Context, dir, url string, jobs int, log *slog.Logger) error {
	journal, err := appendFile(dir, "journal")
	if err != nil {
		return err
	}
	have, err := readLines(filepath.Join(dir, "journal"))
	if err != nil {
		return err
	}
	c, err := dial(ctx, dir, url, "asker", log)
	if err != nil {
		return err
	}
	var group sync.WaitGroup
	places := make(chan struct{}, 4)
	for i := range jobs {
		id := "job " + strconv.Itoa(i)
		if len(have[id]) > 0 {
			continue
		}
		places <- struct{}{}
		group.Go(func() {
			defer func() { <-places }()
			answer, err := c.Do(ctx, fleet.Job{ID: id, Device: "dev", Body: []byte("measure"), Blob: blobOf(i)})
			if err == nil {
				err = addLine(journal, id+" = "+string(answer))
			}
			if err != nil {
				log.Error("job", "id", id, "err", err)
			}
		})
	}
	group.Wait()
	log.Info("asker has asked for everything")
	<-ctx.Done()
	return nil
}

// readLines groups lines by the two words that name a job.
func readLines(path string) (map[string][]string, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := map[string][]string{}
	s := bufio.NewScanner(f)
	for s.Scan() {
		words := strings.SplitN(s.Text(), " ", 3)
		id := words[0] + " " + words[1]
		lines[id] = append(lines[id], words[2])
	}
	return lines, s.Err()
}

// stage runs the roles in one directory.
type stage struct {
	t    *testing.T
	dir  string
	url  string
	jobs int
	wrap map[string][]string // a command line to start a role with
	log  *os.File

	mu      sync.Mutex
	running map[string]*exec.Cmd
}

func newStage(t *testing.T, jobs int) *stage {
	t.Helper()
	s := &stage{t: t, dir: t.TempDir(), jobs: jobs, running: map[string]*exec.Cmd{}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.url = "nats://" + l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	var lines []byte
	for name, role := range map[string]fleet.Role{"asker": fleet.Client, "dev": fleet.Device} {
		secret, grant, err := fleet.NewToken(role, name)
		if err != nil {
			t.Fatal(err)
		}
		lines = fmt.Appendln(lines, grant)
		if err := os.WriteFile(filepath.Join(s.dir, name+".token"), []byte(secret), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(s.dir, "access"), lines, 0o600); err != nil {
		t.Fatal(err)
	}
	if s.log, err = os.Create(filepath.Join(t.ArtifactDir(), "log")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for role := range roles {
			s.kill(role)
		}
		_ = s.log.Close()
	})
	return s
}

func (s *stage) start(role string) {
	s.t.Helper()
	args := append(append([]string{}, s.wrap[role]...), os.Args[0])
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), roleEnv+"="+role, dirEnv+"="+s.dir, urlEnv+"="+s.url, jobsEnv+"="+strconv.Itoa(s.jobs))
	cmd.Stderr, cmd.Stdout = s.log, s.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running[role] = cmd
}

// kill ends a role as kill -9 does.
func (s *stage) kill(role string) {
	s.mu.Lock()
	cmd := s.running[role]
	delete(s.running, role)
	s.mu.Unlock()
	if cmd == nil {
		return
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

func (s *stage) answers() int {
	lines, err := readLines(filepath.Join(s.dir, "journal"))
	if err != nil {
		s.t.Fatal(err)
	}
	return len(lines)
}

// until waits for a number of answers in the journal.
func (s *stage) until(n int) {
	for s.answers() < n {
		select {
		case <-s.t.Context().Done():
			s.t.Fatal("ended")
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// check holds the journal against a run that nobody disturbed, the ledger, and
// what the broker says when all is over.
func (s *stage) check() {
	s.t.Helper()
	s.kill("asker")
	journal, err := readLines(filepath.Join(s.dir, "journal"))
	if err != nil {
		s.t.Fatal(err)
	}
	ledger, err := readLines(filepath.Join(s.dir, "ledger"))
	if err != nil {
		s.t.Fatal(err)
	}
	c, err := dial(s.t.Context(), s.dir, s.url, "asker", slog.New(slog.DiscardHandler))
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	sum, want, executions := 0, 0, 0
	for i := range s.jobs {
		id := "job " + strconv.Itoa(i)
		want += measured(id, blobOf(i))
		executions += len(ledger[id])
		if len(journal[id]) != 1 {
			s.t.Errorf("%s is counted %d times: %q", id, len(journal[id]), journal[id])
			continue
		}
		var value int
		var execution string
		if _, err := fmt.Sscanf(journal[id][0], "= %d %s", &value, &execution); err != nil {
			s.t.Errorf("%s: %q: %v", id, journal[id][0], err)
		}
		sum += value
		if !strings.Contains(strings.Join(ledger[id], " ")+" ", execution+" ") {
			s.t.Errorf("%s has an answer of execution %s, and the ledger holds %q", id, execution, ledger[id])
		}
		kept, err := c.Do(s.t.Context(), fleet.Job{ID: id, Device: "dev"})
		if err != nil || "= "+string(kept) != journal[id][0] {
			s.t.Errorf("%s: the journal holds %q, and the broker %q, %v", id, journal[id][0], kept, err)
		}
	}
	if sum != want {
		s.t.Errorf("the sum is %d, and undisturbed %d", sum, want)
	}
	s.t.Logf("%d jobs, %d executions, sum %d", s.jobs, executions, sum)
}

// chaosKills is how often each role is killed in the long run of the test.
func chaosKills(t *testing.T) int {
	text := os.Getenv("SPOS_FLEET_CHAOS")
	if text == "" {
		return 0
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestKills kills worker, asker and broker in random order while jobs are
// done: six jobs for every kill of each. SPOS_FLEET_CHAOS=50 is the long run.
func TestKills(t *testing.T) {
	t.Parallel()
	const seed = 5
	kills := max(chaosKills(t), 3)
	s := newStage(t, 6*kills)
	rng := rand.New(rand.NewPCG(seed, 0))
	var order []string
	for range kills {
		order = append(order, "broker", "worker", "asker")
	}
	rng.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	for role := range roles {
		s.start(role)
	}
	for i, role := range order {
		s.until(i * s.jobs / len(order))
		again := time.NewTimer(time.Duration(rng.IntN(60)) * time.Millisecond) // anywhere in a job
		<-again.C
		s.kill(role)
		if rng.IntN(2) == 0 && i+1 < len(order) && order[i+1] != role { // two at once
			other := order[i+1]
			s.kill(other)
			s.start(other)
		}
		s.start(role)
	}
	s.until(s.jobs)
	s.check()
}
