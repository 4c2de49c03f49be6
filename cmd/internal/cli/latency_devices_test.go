package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"spos/internal/fleet"
	"spos/latency"
)

// TestDevicesPrintable: what a device says of itself moves no cursor.
func TestDevicesPrintable(t *testing.T) {
	s := latency.AgentStatus{Version: "1\x1b[2J", State: "idle\x07"}
	s.Fingerprint.Host = latency.Host{CPU: "Some CPU\x1b]0;title\x07", Arch: "linux/arm64\n", Governor: "\u009b31m", Quota: "\r1"}
	s.Fingerprint.Session.Runtime = "1\b"
	info, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := writeDevices(&out, []listedDevice{listDevice(fleet.Presence{Name: "pi5", State: fleet.Idle, Info: info})}); err != nil {
		t.Fatal(err)
	}
	if text := out.String(); !strings.Contains(text, "Some CPU") || strings.Count(text, "\n") != 2 || strings.ContainsAny(text, "\x1b\x07\b\r\u009b") {
		t.Errorf("shown as %q", text)
	}
}

func TestDevicesForget(t *testing.T) {
	url := serveFleet(t)
	log := slog.New(slog.DiscardHandler)
	verb := func(args ...string) (stdout, stderr string, err error) {
		root := NewRoot("spos", "test")
		AddVerbs(root)
		var out, said bytes.Buffer
		root.SetOut(&out)
		root.SetErr(&said)
		root.SetArgs(append([]string{"--log-format", "json", "latency", "devices", "--fleet", url}, args...))
		err = root.ExecuteContext(t.Context())
		return out.String(), said.String(), err
	}
	agent, err := (&FleetFlags{URL: url}).Connect(t.Context(), "pi5", log)
	if err != nil {
		t.Fatal(err)
	}
	defer agent.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var group sync.WaitGroup
	group.Go(func() {
		if err := agent.Work(ctx, fleet.Worker{Device: "pi5", Do: func(context.Context, fleet.Job) ([]byte, error) { return nil, nil }}); err != nil {
			t.Error(err)
		}
	})
	for out := ""; !strings.Contains(out, "idle"); {
		if out, _, err = verb(); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := verb("--forget", "pi5"); !errors.Is(err, fleet.ErrPresent) || !strings.Contains(hintsOf(err), "end its agent") {
		t.Errorf("a device that is there: %v, %s", err, hintsOf(err))
	}
	cancel()
	group.Wait()
	out, said, err := verb("--forget", "pi5")
	if err != nil || !strings.Contains(out, "no devices") || !strings.Contains(said, `"jobs_dropped":0`) {
		t.Errorf("forgotten: %v\n%s%s", err, out, said)
	}
	if _, _, err := verb("--forget", "pi5"); !errors.Is(err, fleet.ErrUnknown) || hintsOf(err) == "" {
		t.Errorf("forgotten twice: %v", err)
	}
}
