package cli

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"

	"spos/serve"
)

// socketNames are those of FileDescriptorName= in socket units.
var socketNames = []string{"http", "grpc", "metrics"}

// activated are the listeners that systemd opened for the program, by name. A lone one without a name of ours is http.
func activated() (map[string]net.Listener, error) {
	named, err := activation.ListenersWithNames()
	if err != nil {
		return nil, fmt.Errorf("sockets of systemd: %w", err)
	}
	return byName(named)
}

func byName(named map[string][]net.Listener) (map[string]net.Listener, error) {
	found := map[string]net.Listener{}
	if len(named) == 1 {
		for name, lns := range named {
			if !slices.Contains(socketNames, name) && len(lns) == 1 {
				return map[string]net.Listener{"http": lns[0]}, nil
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(named)) {
		if !slices.Contains(socketNames, name) {
			return nil, fmt.Errorf("a socket of systemd is called %q: give it one of FileDescriptorName=%s", name, strings.Join(socketNames, ", "))
		}
		if n := len(named[name]); n != 1 {
			return nil, fmt.Errorf("%d sockets of systemd are called %q, one is wanted", n, name)
		}
		found[name] = named[name][0]
	}
	return found, nil
}

// notify tells systemd, if it started the program, what became of it.
func notify(log *slog.Logger, state ...string) {
	if _, err := daemon.SdNotify(false, strings.Join(state, "\n")); err != nil {
		log.Warn("systemd was not told", "state", state[0], "err", err)
	}
}

// watchdog tells systemd that the program is alive, twice as often as it wants to hear it, until ctx is done.
func watchdog(ctx context.Context, log *slog.Logger) {
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil || every <= 0 {
		return
	}
	tick := time.NewTicker(every / 2)
	defer tick.Stop()
	for {
		notify(log, daemon.SdNotifyWatchdog)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// runWatched runs a server that systemd, if it started the program, sees alive until it has stopped.
func runWatched(ctx context.Context, log *slog.Logger, srv *serve.Server) error {
	running, stopped := context.WithCancel(context.WithoutCancel(ctx))
	var watch sync.WaitGroup
	watch.Go(func() { watchdog(running, log) })
	defer watch.Wait()
	defer stopped()
	return srv.Run(ctx)
}
