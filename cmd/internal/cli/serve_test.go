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
		"--queue 0":             "--queue 0: use 1 or more",
		"--cores -1":            "use 0 for all",
		"--max-connections 0":   "--max-connections 0: use 1 or more",
		"--max-connections -1":  "--max-connections -1: use 1 or more",
		"--timeout 0":           "--timeout 0s: use a duration",
		"--timeout -1s":         "--timeout -1s: use a duration",
		"--drain-timeout 0":     "--drain-timeout 0s: use a duration",
		"--drain-delay -1s":     "--drain-delay -1s: use 0 for none",
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
