package cli

import (
	"os"
	"runtime/debug"
)

// tuneCollector has garbage collected less often than the runtime would by itself: what a server holds is small beside
// the pictures that it decodes, and every second one would bring a collection. The limit is for when it holds much.
func tuneCollector() {
	const percent, limit = 400, 1 << 30
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(limit)
	}
}
