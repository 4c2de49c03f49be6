package cli

import (
	"io"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestNoDevice has every kind of verb refuse a list of devices that holds none.
func TestNoDevice(t *testing.T) {
	const want = "no device is named"
	for _, args := range []string{
		"space latency shufflenetv2-small --limit 4ms", "latency measure m.onnx", "latency verify m.onnx", "latency table shufflenetv2-small",
	} {
		root := NewRoot("spos", "test")
		root.AddCommand(NewSpaceCommand(), NewLatencyCommand())
		root.SetArgs(append(strings.Fields(args), "--device", ""))
		root.SetOut(io.Discard)
		root.SetErr(io.Discard)
		if err := root.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", args, err, want)
		}
	}
	var o PromiseFlags
	cmd := &cobra.Command{}
	o.Add(cmd)
	if err := cmd.ParseFlags([]string{"--latency", "--device="}); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("--latency: %v, want %q", err, want)
	}
}
