package fleet

import (
	"context"
	"log/slog"
	"time"
)

// watchClock says when this machine's clock is set, until ctx ends. No work
// depends on it, but what is said and kept carries its time.
func watchClock(ctx context.Context, log *slog.Logger) {
	tick := time.NewTicker(beat)
	defer tick.Stop()
	for at := time.Now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := time.Now()
		if by := now.Round(0).Sub(at.Round(0)) - now.Sub(at); by.Abs() > time.Second {
			log.Warn("this machine's clock was set, or it slept; work goes on", "by", by.Round(time.Second).String())
		}
		at = now
	}
}
