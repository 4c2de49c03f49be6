package latency

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"
)

// Child is a [Device] that does its work in another process of this machine:
// this program started again, with a verb that calls [ServeChild]. A model
// that crashes the runtime, hangs or takes all memory ends that process, and
// an error that names what happened comes back; the next task gets a new one.
// The process lives on between tasks, and its measurements are a [Local]'s,
// for that is what runs in it. Tasks run one at a time. Close it at the end.
type Child struct {
	Command []string // program and arguments
	Env     []string // in addition to this process's
	// Memory is how many bytes the process may hold, its code aside; 0 means
	// half of what this machine, or its control group, has. Where the system
	// knows no such limit nothing is limited.
	Memory int64
	// Limit is how long one task may take; 0 means what the protocol could
	// need if each run took two seconds, and two minutes more.
	Limit time.Duration

	mu      sync.Mutex
	process *process
}

// hello is the first frame that a child gets; its answer is an empty reply
// once the device is open.
type hello struct {
	Memory int64 `json:"memory"`
}

// Time implements [Runner]. A fault of the model is a [*ModelError].
func (c *Child) Time(ctx context.Context, t Task) (Sample, error) {
	r, err := c.ask(ctx, request{Protocol: t.Protocol}, t.Model)
	if err != nil {
		return Sample{}, err
	}
	if r.Sample == nil {
		return Sample{}, fmt.Errorf("%w: an answer without a sample", errFrame)
	}
	return *r.Sample, nil
}

// Fingerprint implements [Describer].
func (c *Child) Fingerprint(ctx context.Context, model []byte, p Protocol) (Fingerprint, error) {
	r, err := c.ask(ctx, request{Describe: true, Protocol: p}, nil)
	if err != nil {
		return Fingerprint{}, err
	}
	if r.Fingerprint == nil {
		return Fingerprint{}, fmt.Errorf("%w: an answer without a fingerprint", errFrame)
	}
	r.Fingerprint.Model = identify(model)
	return *r.Fingerprint, nil
}

// Close ends the process.
func (c *Child) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.process != nil {
		c.process.end()
		c.process = nil
	}
	return nil
}

// ask tries twice where the process dies: somebody else may have killed it.
func (c *Child) ask(ctx context.Context, q request, model []byte) (reply, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for try := 0; ; try++ {
		r, err := c.once(ctx, q, model)
		if fault, ok := errors.AsType[*ModelError](err); !ok || fault.Reason != Crash || try > 0 {
			return r, err
		}
	}
}

// ErrChild is wrapped where a child process cannot be had at all: no model is
// to blame.
var ErrChild = errors.New("latency: no child process to measure in")

// errHang is the cause that ends a task that takes too long.
var errHang = errors.New("too long")

func (c *Child) once(ctx context.Context, q request, model []byte) (reply, error) {
	if err := ctx.Err(); err != nil {
		return reply{}, context.Cause(ctx)
	}
	if c.process != nil && c.process.ended() {
		c.process = nil
	}
	if c.process == nil {
		p, err := c.start(ctx)
		if err != nil {
			return reply{}, err
		}
		c.process = p
	}
	limit := cmp.Or(c.Limit, q.Protocol.patience())
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errHang)
	defer cancel()
	var r reply
	err := c.process.ask(ctx, q, model, &r)
	if err == nil {
		if r.Fault != nil {
			return reply{}, r.Fault.err()
		}
		return r, nil
	}
	// Whatever went wrong, the process can no longer be trusted.
	p := c.process
	c.process = nil
	p.end()
	switch {
	case errors.Is(context.Cause(ctx), errHang):
		return reply{}, &ModelError{Reason: Hang, Err: fmt.Errorf("within %v, and was stopped", limit)}
	case ctx.Err() != nil:
		return reply{}, context.Cause(ctx)
	}
	how := p.obituary()
	if outOfMemory(how) {
		return reply{}, &ModelError{Reason: NoMemory, Err: fmt.Errorf("%d MiB: %s", c.memory()>>20, how)}
	}
	return reply{}, &ModelError{Reason: Crash, Err: errors.New(how)}
}

func (c *Child) memory() int64 { return cmp.Or(c.Memory, machineMemory(os.DirFS("/"))/2) }

// patience is how long one session of p may take at most.
func (p Protocol) patience() time.Duration {
	runs := time.Duration(p.WarmupMax + p.Runs)
	return 2*time.Minute + 2*p.MinTime + runs*(2*time.Second+p.Gap)
}

// start makes a process and waits until its device is open.
func (c *Child) start(ctx context.Context) (*process, error) {
	if len(c.Command) == 0 {
		return nil, fmt.Errorf("%w: no command is set", ErrChild)
	}
	answers, answer, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrChild, err)
	}
	p := &process{answers: answers, done: make(chan struct{})}
	p.cmd = exec.Command(c.Command[0], c.Command[1:]...) //nolint:noctx // it outlives the task that starts it
	// Libraries may print: what is not an answer is for the obituary.
	p.cmd.Stdout, p.cmd.Stderr = &p.words, &p.words
	p.cmd.ExtraFiles = []*os.File{answer}
	p.cmd.Env = append(os.Environ(), c.Env...)
	if p.tasks, err = p.cmd.StdinPipe(); err == nil {
		err = p.cmd.Start()
	}
	_ = answer.Close() // the child has its own
	if err != nil {
		_ = answers.Close()
		return nil, fmt.Errorf("%w: %w", ErrChild, err)
	}
	go func() {
		_ = p.cmd.Wait() // its state tells
		close(p.done)
	}()
	var r reply
	if err := p.ask(ctx, hello{Memory: c.memory()}, nil, &r); err != nil {
		p.end()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, fmt.Errorf("%w: it ends at once: %s", ErrChild, p.obituary())
	}
	if r.Fault != nil {
		p.end()
		return nil, fmt.Errorf("%w: %w", ErrChild, r.Fault.err())
	}
	return p, nil
}

// ServeChild is the other side of [Child]: it opens a device and does the
// tasks that in brings, until in ends. The process's third file is where
// answers go ([ChildAnswers]). It ends the process when in ends in the middle
// of a task, for nobody is left to hear of it.
func ServeChild(ctx context.Context, open func() (Device, error), in io.Reader, out io.Writer) error {
	var h hello
	if _, err := readFrame(in, &h); err != nil {
		return fmt.Errorf("latency: child: %w", err)
	}
	limitMemory(h.Memory)
	d, err := open()
	if err != nil {
		return errors.Join(err, writeFrame(out, reply{Fault: newFault(err)}, nil))
	}
	if err := writeFrame(out, reply{}, nil); err != nil {
		return err
	}
	type task struct {
		request
		model []byte
	}
	tasks := make(chan task)
	ends := make(chan error, 1)
	go func() {
		for {
			var t task
			model, err := readFrame(in, &t.request)
			if err != nil {
				ends <- err
				return
			}
			t.model = model
			tasks <- t
		}
	}()
	for {
		select {
		case err := <-ends:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		case t := <-tasks:
			answered := make(chan reply, 1)
			go func() { answered <- t.answer(ctx, d, t.model) }()
			select {
			case r := <-answered:
				if err := writeFrame(out, r, nil); err != nil {
					return err
				}
			case err := <-ends:
				return err // a run cannot be stopped: the process's end does
			}
		}
	}
}

// ChildAnswers is the file that a child process writes its answers to.
func ChildAnswers() *os.File { return os.NewFile(3, "answers") }
