package cli

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"

	"spos/internal/arch"
	"spos/internal/config"
)

// TestMeterSaysWhatDriftLeaves: of nets that were measured one by one, those
// before the look are kept, and that is said once while the drift lasts.
func TestMeterSaysWhatDriftLeaves(t *testing.T) {
	var digits []string
	for i := range 4 * LookEvery {
		digits = append(digits, fmt.Sprintf("%d%d%d00000", i%4, i/4%4, i/16))
	}
	s, nets := smallNets(t, digits...)
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		b := &board{name: "board", factor: 1}
		m, err := NewMeter(s, b, config.Latency{}, slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		for i, n := range nets {
			if i == LookEvery+3 {
				b.factor = 1.2
			}
			if _, err := m.Nets(t.Context(), []*arch.Net{n}, 0); err != nil {
				t.Fatal(err)
			}
			said := strings.Count(log.String(), fmt.Sprintf("are kept as they are\" nets=%d ratio=1.2", LookEvery-1))
			if want := min(1, (i+1)/(2*LookEvery)); said != want {
				t.Fatalf("said %d times after %d nets, want %d:\n%s", said, i+1, want, &log)
			}
		}
	})
}
