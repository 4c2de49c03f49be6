package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"spos/internal/fleet"
	"spos/latency"
)

type agentOptions struct {
	fleet     FleetFlags
	name      string
	cpus      []int
	rest      time.Duration
	coolBelow float64
	memory    string
	limit     time.Duration
	every     int
}

// NewAgentCommand is `agent`.
func NewAgentCommand() *cobra.Command {
	var o agentOptions
	cmd := &cobra.Command{
		Use:   "agent --connect nats://HOST:4222 --name NAME",
		Short: "Measure models on this device for searches elsewhere",
		Long: `Measure models on this device for searches elsewhere. The agent dials the broker,
says what the device is, and takes one model at a time from its queue; each runs
in a process of its own, so that one that crashes ONNX Runtime is reported and
the next goes on. Between tasks it measures a small network of its own: when its
time changes by more than 3 %, the device has drifted, and rests.

It waits for a broker that is not there, and can be killed and started again at
any time: what it had not answered comes again.`,
		Example: `  spos-edge agent --connect nats://host:4222 --name pi5 --fleet-token pi5.token
  spos-edge agent --connect tls://host:4222 --name pi5 --fleet-ca ca.pem --fleet-nkey pi5.nkey \
      --cool-below 65 --rest 200ms --max-memory 2GiB`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return agentFunc(cmd, o)
		},
	}
	o.fleet.Add(cmd, "connect")
	f := cmd.Flags()
	f.StringVar(&o.name, "name", "", "what searches call this device: --device NAME")
	f.IntSliceVar(&o.cpus, "cpus", nil, "processors to measure on, the first thread's first (default: the last ones)")
	f.DurationVar(&o.rest, "rest", 0, "rest before each task")
	f.Float64Var(&o.coolBelow, "cool-below", 0, "begin a task only below this temperature in °C, for two minutes at most")
	f.StringVar(&o.memory, "max-memory", "", "memory that a model may take, as 2GiB (default: half of what there is)")
	f.DurationVar(&o.limit, "task-limit", 0, "stop a model that gives no answer for so long (default: from the protocol, minutes)")
	f.IntVar(&o.every, "sentinel-every", 16, "tasks between two looks at the agent's own network")
	_ = cmd.MarkFlagRequired("name")
	return cmd
}

func agentFunc(cmd *cobra.Command, o agentOptions) error {
	log, err := Logger(cmd, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	if err := fleet.CheckDevice(o.name); err != nil {
		return err
	}
	child, err := o.child()
	if err != nil {
		return err
	}
	defer child.Close()
	conn, err := o.dial(cmd.Context(), log)
	if err != nil {
		return err
	}
	defer conn.Close()
	agent := &latency.Agent{
		Device: child, Version: Version, Every: max(o.every, 1), Rest: o.rest, CoolBelow: o.coolBelow, Log: log, Changed: conn.Changed,
	}
	ctx, cancel := context.WithCancelCause(cmd.Context())
	var watch sync.WaitGroup
	watch.Go(func() {
		if err := agent.Run(ctx); err != nil {
			cancel(err)
		}
	})
	log.Info("agent is ready", "device", o.name, "version", Version)
	err = conn.Work(ctx, fleet.Worker{
		Device: o.name,
		Info:   func() json.RawMessage { text, _ := json.Marshal(agent.Status()); return text },
		Do: func(ctx context.Context, j fleet.Job) ([]byte, error) {
			start := time.Now()
			answer, err := agent.Do(ctx, j.Body, j.Blob)
			log.Debug("task", "id", j.ID, "bytes", len(j.Blob), "seconds", time.Since(start).Seconds(), "err", err)
			return answer, err
		},
		Answer: agent.Answer,
	})
	cancel(err)
	watch.Wait()
	switch {
	case errors.Is(err, fleet.ErrDeviceTaken):
		err = WithHint(err, "another agent works as "+o.name+": stop it, or give this one another --name")
	case errors.Is(err, latency.ErrChild):
		err = WithHint(err, "run `spos-edge doctor` on the device to see what is missing")
	}
	return err
}

// child is this program again, as what measures.
func (o *agentOptions) child() (*latency.Child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program's file: %w", err)
	}
	c := &latency.Child{Command: []string{self, "latency", "child"}, Limit: o.limit}
	if len(o.cpus) > 0 {
		words := make([]string, len(o.cpus))
		for i, cpu := range o.cpus {
			words[i] = strconv.Itoa(cpu)
		}
		c.Command = append(c.Command, "--cpus", strings.Join(words, ","))
	}
	if o.memory != "" {
		if c.Memory, err = parseBytes(o.memory); err != nil {
			return nil, fmt.Errorf("--max-memory: %w", err)
		}
	}
	return c, nil
}

// dial waits for a broker that is not there yet.
func (o *agentOptions) dial(ctx context.Context, log *slog.Logger) (*fleet.Conn, error) {
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		conn, err := o.fleet.Connect(ctx, o.name, log)
		if !errors.Is(err, fleet.ErrNoBroker) {
			return conn, err
		}
		if wait == 100*time.Millisecond {
			log.Warn("the broker does not answer; the agent waits for it", "err", err)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// parseBytes reads 512MiB, 2GiB, 2G or a number of bytes.
func parseBytes(s string) (int64, error) {
	number := strings.TrimRight(s, "iBKMGT")
	shift, ok := map[string]int{"": 0, "B": 0, "K": 10, "KiB": 10, "M": 20, "MiB": 20, "G": 30, "GiB": 30, "T": 40, "TiB": 40}[s[len(number):]]
	n, err := strconv.ParseFloat(number, 64)
	if !ok || err != nil || !(n > 0 && n*float64(int64(1)<<shift) < 1<<62) {
		return 0, fmt.Errorf("%q is no amount of memory: write it as 512MiB or 2GiB", s)
	}
	return int64(n * float64(int64(1)<<shift)), nil
}

// newLatencyChildCommand is what an agent starts to measure in.
func newLatencyChildCommand() *cobra.Command {
	var cpus []int
	cmd := &cobra.Command{
		Use:     "child",
		Short:   "Time the models that another process sends",
		Example: "  spos-edge latency child   # as an agent starts it, with a pipe on file 3",
		Hidden:  true,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			// Who started it ends it: a terminal's or a service manager's signal
			// must not fail the measurement that its agent is about to finish.
			signal.Ignore(os.Interrupt, syscall.SIGTERM)
			return latency.ServeChild(context.WithoutCancel(cmd.Context()), func() (latency.Device, error) {
				rt, err := OpenRuntime()
				return LocalDevice(rt, cpus), err
			}, cmd.InOrStdin(), latency.ChildAnswers())
		},
	}
	cmd.Flags().IntSliceVar(&cpus, "cpus", nil, "processors to measure on")
	return cmd
}
