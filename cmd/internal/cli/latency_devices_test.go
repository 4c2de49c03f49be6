package cli

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"spos/internal/fleet"
)

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
