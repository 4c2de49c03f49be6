package cli

import (
	"io"
	"runtime"
	"strings"
	"testing"
)

func TestServeFlags(t *testing.T) {
	for args, want := range map[string]string{
		"--model-control maybe": "use none or explicit",
		"--poll -1s":            "use 0 for never",
		"--poll often":          "invalid",
	} {
		root := NewRoot("spos", "test")
		root.AddCommand(NewServeCommand())
		root.SetArgs(append([]string{"serve", "--repository", t.TempDir()}, strings.Fields(args)...))
		root.SetOut(io.Discard)
		root.SetErr(io.Discard)
		if err := root.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", args, err, want)
		}
	}
}

func TestWiden(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	t.Setenv("GOMAXPROCS", "")
	undo := widen(3)
	if got := runtime.GOMAXPROCS(0); got != before+3 {
		t.Errorf("%d beside 3 runs, want %d", got, before+3)
	}
	undo()
	t.Setenv("GOMAXPROCS", "1")
	defer widen(3)()
	if got := runtime.GOMAXPROCS(0); got != before {
		t.Errorf("%d where the environment decides, want it left at %d", got, before)
	}
}
