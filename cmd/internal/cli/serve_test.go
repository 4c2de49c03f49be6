package cli

import (
	"io"
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
