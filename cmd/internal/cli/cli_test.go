package cli

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
)

func TestPrintError(t *testing.T) {
	inner := WithHint(errors.New("no disk"), "insert one")
	err := WithHint(fmt.Errorf("write: %w", inner), "try again")
	var out bytes.Buffer
	PrintError(&out, "spos", err)
	want := "spos: write: no disk\n  hint: try again\n  hint: insert one\n"
	if out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
	if WithHint(nil, "x") != nil {
		t.Error("a hint made an error of nil")
	}
}

// TestEveryVerbHasAnExample: help that shows no use is no help.
func TestEveryVerbHasAnExample(t *testing.T) {
	root := NewRoot("spos", "test")
	AddVerbs(root)
	root.AddCommand(NewExportCommand())
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Runnable() && c.Example == "" {
			t.Errorf("%s has no example", c.CommandPath())
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(root)
}

// TestTaskLogs: without a terminal a task says where it is at its end, with
// its attributes, and once.
func TestTaskLogs(t *testing.T) {
	root := NewRoot("spos", "test")
	var out bytes.Buffer
	root.SetErr(&out)
	if err := root.ParseFlags(nil); err != nil {
		t.Fatal(err)
	}
	p, err := NewProgress(root)
	if err != nil {
		t.Fatal(err)
	}
	task := p.Task("train", 3, 0)
	for i := 1; i <= 3; i++ {
		task.Set(i, "ignored", "loss", 0.5)
	}
	task.Set(3, "ignored", "loss", 0.5)
	task.End()
	p.Close()
	if n := strings.Count(out.String(), "\n"); n != 1 || !strings.Contains(out.String(), "msg=progress task=train done=3 of=3 loss=0.5") {
		t.Errorf("%d lines: %s", n, out.String())
	}
}

// TestTaskBars draws a bar: a decorator that asks the bar it belongs to would
// wait for ever.
func TestTaskBars(t *testing.T) {
	var out bytes.Buffer
	p := &Progress{
		Log:  slog.New(slog.DiscardHandler),
		bars: mpb.New(mpb.WithOutput(&out), mpb.WithAutoRefresh(), mpb.WithRefreshRate(time.Millisecond)),
	}
	task := p.Task("train", 3, 0)
	for i := 1; i <= 3; i++ {
		task.Set(i, "loss 0.5")
	}
	task.End()
	p.bars.Wait()
	if !strings.Contains(out.String(), "train") || !strings.Contains(out.String(), "3/3") {
		t.Errorf("drawn: %q", out.String())
	}
}

func TestRemaining(t *testing.T) {
	start := time.Now().Add(-10 * time.Second)
	if left := remaining(start, 5, 10); left < 19*time.Second || left > 25*time.Second {
		t.Errorf("5 of 15 took 10 s: %v left, want about 20 s", left)
	}
	if remaining(start, 0, 10) != 0 || remaining(start, 5, 0) != 0 {
		t.Error("time is left where nothing is known or nothing to do")
	}
}
