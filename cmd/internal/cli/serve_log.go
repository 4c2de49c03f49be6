package cli

import (
	"bytes"
	"io"
	"sync/atomic"
	"time"
)

// Sizes of a background log: lines that may wait, and how long the last ones have when the program ends.
const (
	logLines    = 4096
	logFarewell = time.Second
)

// backgroundLog writes lines in the background, so that nobody waits for whoever reads them. Lines that come faster
// than they are taken, or cannot be written because the disk is full or nobody reads, are lost and counted: a server
// goes on without its log. Every Write is one line.
type backgroundLog struct {
	out   io.Writer
	lines chan []byte
	done  chan struct{}
	lost  atomic.Int64
	// report is called in the background where lines are missing, once more can be written. Nil: nobody is told.
	report func(lost int64)
}

// start begins to write. It must be called once, before Close.
func (l *backgroundLog) start() { go l.run() }

func newBackgroundLog(out io.Writer) *backgroundLog {
	return &backgroundLog{out: out, lines: make(chan []byte, logLines), done: make(chan struct{})}
}

func (l *backgroundLog) Write(line []byte) (int, error) {
	select {
	case l.lines <- bytes.Clone(line):
	default:
		l.lost.Add(1)
	}
	return len(line), nil
}

func (l *backgroundLog) run() {
	defer close(l.done)
	said := int64(0)
	for line := range l.lines {
		if line == nil {
			return
		}
		if _, err := l.out.Write(line); err != nil {
			l.lost.Add(1)
			continue
		}
		if lost := l.lost.Load(); lost > said && len(l.lines) == 0 && l.report != nil {
			l.report(lost - said)
			said = lost
		}
	}
}

// Lost is the number of lines that were not written.
func (l *backgroundLog) Lost() int64 { return l.lost.Load() }

// Close writes what waits, unless nobody takes it. Lines that come later are lost.
func (l *backgroundLog) Close() {
	end := time.NewTimer(logFarewell)
	defer end.Stop()
	select {
	case l.lines <- nil:
	case <-end.C:
		return
	}
	select {
	case <-l.done:
	case <-end.C:
	}
}
