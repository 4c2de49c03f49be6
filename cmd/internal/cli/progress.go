package cli

import (
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"
)

// Progress shows long work: bars with the time left on a terminal, a log line
// every few seconds elsewhere. Its Log must be used while it lives, so that
// lines and bars do not overwrite one another.
type Progress struct {
	Log  *slog.Logger
	bars *mpb.Progress // nil where stderr is no terminal
}

// logEvery is how often a task without a bar reports.
const logEvery = 10 * time.Second

// NewProgress prepares the verb's progress and logger. Close ends it.
func NewProgress(cmd *cobra.Command) (*Progress, error) {
	p := &Progress{}
	var w io.Writer = cmd.ErrOrStderr()
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.bars = mpb.New(mpb.WithOutput(f), mpb.WithWidth(40), mpb.WithRefreshRate(150*time.Millisecond))
		w = p.bars
	}
	log, err := Logger(cmd, w)
	p.Log = log
	return p, err
}

// Close waits until the bars are drawn for the last time.
func (p *Progress) Close() {
	if p.bars != nil {
		p.bars.Shutdown()
	}
}

// Task is one piece of work with a known length. Its methods may be called
// from several goroutines.
type Task struct {
	mu     sync.Mutex
	log    *slog.Logger
	bar    *mpb.Bar
	status string
	name   string
	total  int
	start  time.Time
	from   int // where a resumed task began
	last   time.Time
	ended  bool
}

// Task begins a piece of work of total steps, from of which are done already.
func (p *Progress) Task(name string, total, from int) *Task {
	t := &Task{log: p.Log, name: name, total: total, from: from, start: time.Now(), last: time.Now()}
	if p.bars != nil {
		t.bar = p.bars.New(0, mpb.BarStyle().Lbound("").Rbound("").Filler("━").Tip("━").Padding("─"),
			mpb.PrependDecorators(decor.Name(name, decor.WCSyncSpaceR)),
			mpb.AppendDecorators(
				decor.CountersNoUnit("%d/%d", decor.WCSyncSpace),
				decor.Any(func(s decor.Statistics) string { return t.left(int(s.Current)) }, decor.WCSyncSpace),
				decor.Any(func(decor.Statistics) string { t.mu.Lock(); defer t.mu.Unlock(); return "  " + t.status }),
			))
		t.bar.SetTotal(int64(total), false)
		t.bar.SetCurrent(int64(from))
	}
	return t
}

// Extend gives the task another total, where there turns out to be more to do.
func (t *Task) Extend(total int) {
	t.mu.Lock()
	t.total, t.ended = total, false
	t.mu.Unlock() // for the bar asks for it while it is drawn
	if t.bar != nil {
		t.bar.SetTotal(int64(total), false)
	}
}

// Set reports that done steps are done; status is a short text beside the bar
// and attrs are what a log line carries instead.
func (t *Task) Set(done int, status string, attrs ...any) {
	if t.bar != nil {
		t.mu.Lock()
		t.status = status
		t.mu.Unlock()
		t.bar.SetCurrent(int64(done))
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if time.Since(t.last) < logEvery && done < t.total || t.ended {
		return
	}
	t.last, t.ended = time.Now(), done >= t.total
	attrs = append([]any{"task", t.name, "done", done, "of", t.total}, attrs...)
	if left := remaining(t.start, done-t.from, t.total-done); left > 0 && !t.ended {
		attrs = append(attrs, "left", left.String())
	}
	t.log.Info("progress", attrs...)
}

// End finishes the task at whatever step it has reached.
func (t *Task) End() {
	if t.bar == nil {
		return
	}
	t.mu.Lock()
	total := int64(t.total)
	t.mu.Unlock()
	if t.bar.Current() >= total {
		t.bar.SetTotal(-1, true)
	} else {
		t.bar.Abort(false)
	}
}

// left runs while the bar is drawn, when asking the bar itself would wait for
// ever.
func (t *Task) left(done int) string {
	t.mu.Lock()
	total := t.total
	t.mu.Unlock()
	if left := remaining(t.start, done-t.from, total-done); left > 0 {
		return left.String() + " left"
	}
	return time.Since(t.start).Round(time.Second).String()
}

// remaining extrapolates the time that todo steps take from how long done did.
func remaining(start time.Time, done, todo int) time.Duration {
	if done <= 0 || todo <= 0 {
		return 0
	}
	per := float64(time.Since(start)) / float64(done)
	return time.Duration(per * float64(todo)).Round(time.Second)
}
