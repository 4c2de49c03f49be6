package load

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Process is a server that runs as a program of its own, so that its processor time is not its clients'.
type Process struct {
	cmd  *exec.Cmd
	addr map[string]string
	log  journal
	done chan struct{}
	err  error
}

// address finds what a server logs when it has taken its ports.
var address = regexp.MustCompile(`(address|grpc)=(?:http://)?([0-9.]+:[0-9]+)`)

// Start runs a program and waits until it has logged the addresses that it serves on.
func Start(ctx context.Context, program string, args ...string) (*Process, error) {
	p := &Process{cmd: exec.CommandContext(ctx, program, args...), addr: map[string]string{}, done: make(chan struct{})}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	ready := make(chan struct{})
	go func() {
		defer close(p.done)
		lines := bufio.NewReader(stderr)
		for {
			line, err := lines.ReadString('\n')
			p.log.add(line)
			if len(p.addr) == 0 && strings.Contains(line, "msg=serving ") {
				for _, m := range address.FindAllStringSubmatch(line, -1) {
					p.addr[m[1]] = m[2]
				}
				close(ready)
			}
			if err != nil {
				break
			}
		}
		p.err = p.cmd.Wait()
	}()
	select {
	case <-ready:
		return p, nil
	case <-p.done:
		return nil, fmt.Errorf("%s did not serve: %w: %s", program, p.err, p.log.String())
	}
}

// HTTP and GRPC are the addresses that the server listens on.
func (p *Process) HTTP() string { return p.addr["address"] }

// GRPC is empty where the server has none.
func (p *Process) GRPC() string { return p.addr["grpc"] }

// Log is the end of what the server logged.
func (p *Process) Log() string { return p.log.String() }

// Logged is how many requests the server logged with a status.
func (p *Process) Logged(status string) int {
	p.log.mu.Lock()
	defer p.log.mu.Unlock()
	return p.log.statuses[status]
}

// Signal sends a signal.
func (p *Process) Signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// Wait waits for the program's end and returns its error.
func (p *Process) Wait() error {
	<-p.done
	return p.err
}

// Stop asks the program to end, and waits for it.
func (p *Process) Stop() error {
	if err := p.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return p.Wait()
}

// CPU is the processor time that the program has used, to 10 ms.
func (p *Process) CPU() (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, rest, ok := strings.Cut(string(b), ") ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 13 {
		return 0, fmt.Errorf("process status %q", b)
	}
	const tick = 10 * time.Millisecond // of Linux, whatever its timer's rate
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * tick, errors.Join(err1, err2)
}

// Memory is the resident size of the program in bytes: now, and the most that it ever was.
func (p *Process) Memory() (now, peak int64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(b)) {
		for key, to := range map[string]*int64{"VmRSS:": &now, "VmHWM:": &peak} {
			if rest, ok := strings.CutPrefix(line, key); ok {
				if _, err := fmt.Sscanf(rest, "%d kB", to); err != nil {
					return 0, 0, err
				}
				*to <<= 10
			}
		}
	}
	return now, peak, nil
}

// OwnCPU is the processor time that this process has used.
func OwnCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// Busy is the processor time that all programs of the machine have used since it started, those outside of it that
// took its processors away among them; 0 where the system does not tell.
func Busy() time.Duration {
	f, err := os.Open("/proc/stat")
	if err != nil {
		return 0
	}
	defer f.Close()
	var user, nice, system, idle, wait, irq, soft, steal int64
	if _, err := fmt.Fscanf(io.LimitReader(f, 1<<10), "cpu %d %d %d %d %d %d %d %d", &user, &nice, &system, &idle, &wait, &irq, &soft, &steal); err != nil {
		return 0
	}
	return time.Duration(user+nice+system+irq+soft+steal) * 10 * time.Millisecond
}

// journal counts the requests in a log and keeps its end.
type journal struct {
	mu       sync.Mutex
	end      string
	statuses map[string]int
}

var answer = regexp.MustCompile(`msg=request .*status=(\w+)`)

func (j *journal) add(line string) {
	const most = 4 << 10
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.end += line; len(j.end) > most {
		j.end = j.end[len(j.end)-most:]
	}
	if m := answer.FindStringSubmatch(line); m != nil {
		if j.statuses == nil {
			j.statuses = map[string]int{}
		}
		j.statuses[m[1]]++
	}
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.end
}

// Ahead lets this process's threads go before all ordinary ones, and so do those that they start from then on: clients of
// a server under load are elsewhere, and what they wait for a processor is not the server's. Programs started before
// are left as they are. It needs a privilege.
func Ahead() error {
	const most = -20
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range threads {
		id, err := strconv.Atoi(t.Name())
		if err != nil {
			return err
		}
		if err := syscall.Setpriority(syscall.PRIO_PROCESS, id, most); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("priority of thread %d: %w", id, err)
		}
	}
	return nil
}
