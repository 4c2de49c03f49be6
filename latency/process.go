package latency

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"unicode"
)

// process is a child process that answers frames.
type process struct {
	cmd     *exec.Cmd
	tasks   io.WriteCloser
	answers *os.File
	words   tail
	done    chan struct{} // closed once it has ended and its words are in
}

// ask gives up, and kills the process, when ctx ends.
func (p *process) ask(ctx context.Context, header any, blob []byte, r *reply) error {
	stop := context.AfterFunc(ctx, func() { _ = p.cmd.Process.Kill() })
	defer stop()
	p.words.reset()
	if err := writeFrame(p.tasks, header, blob); err != nil {
		return err
	}
	_, err := readFrame(p.answers, r)
	return err
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// end kills it and waits for it.
func (p *process) end() {
	_ = p.cmd.Process.Kill() // or it has ended
	<-p.done
	_ = p.answers.Close()
}

// obituary is how an ended process ended, and its last words.
func (p *process) obituary() string {
	how := p.cmd.ProcessState.String()
	if words := p.words.String(); words != "" {
		how += ": " + words
	}
	return how
}

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	text []byte
}

// tailBytes is more than the stacks of a child process take.
const tailBytes = 256 << 10

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, b...)
	if extra := len(t.text) - tailBytes; extra > 0 {
		t.text = append(t.text[:0], t.text[extra:]...)
	}
	return len(b), nil
}

func (t *tail) reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = t.text[:0]
}

// stacks is where Go's runtime, having said why it gives up, goes on to say
// where everything stood.
var (
	stacks  = regexp.MustCompile(`(?m)^(goroutine \d+ |runtime stack:|PC=)`)
	escapes = regexp.MustCompile("\x1b\\[[0-9;]*[A-Za-z]")
)

// lastWords is how many lines of a dead process are kept.
const lastWords = 3

// String is the last lines that say something, on one line.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	text := escapes.ReplaceAllString(string(t.text), "")
	if at := stacks.FindStringIndex(text); at != nil {
		text = text[:at[0]]
	}
	var kept []string
	for line := range strings.Lines(text) {
		line = strings.TrimRight(strings.Map(func(r rune) rune {
			if unicode.IsControl(r) && r != '\t' || r == unicode.ReplacementChar {
				return -1
			}
			return r
		}, line), " \t")
		if line == "" {
			continue
		}
		if len(line) > 300 {
			line = fmt.Sprintf("%s…", strings.ToValidUTF8(line[:300], ""))
		}
		kept = append(kept, line)
	}
	return strings.Join(kept[max(0, len(kept)-lastWords):], "; ")
}
