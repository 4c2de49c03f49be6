package cli

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"spos/latency"
)

// timed is a device that takes as long to answer as gone says.
type timed struct {
	latency.Device
	gone time.Duration
}

func (d timed) Time(ctx context.Context, _ latency.Task) (latency.Sample, error) {
	select {
	case <-time.After(d.gone):
		return latency.Sample{Runs: []time.Duration{1}}, nil
	case <-ctx.Done():
		return latency.Sample{}, context.Cause(ctx)
	}
}

// A device that answers in time is not spoken of; one that is gone for hours
// is named while it is, and its answer counts.
func TestWatch(t *testing.T) {
	for name, c := range map[string]struct {
		gone    time.Duration
		changes [][]string
		log     []string
	}{
		"there": {time.Second, nil, nil},
		"gone": {
			3 * time.Hour, [][]string{{"pi5"}, {}},
			[]string{`level=INFO msg="waiting for a device" device=pi5`, `level=INFO msg="the device has answered" device=pi5 seconds=10800`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				var changes [][]string
				d := Watch([]NamedDevice{{timed{gone: c.gone}, "pi5"}}, slog.New(slog.NewTextHandler(&log, nil)),
					func(waiting []string) { changes = append(changes, waiting) })[0]
				s, err := d.Time(t.Context(), latency.Task{})
				if err != nil || len(s.Runs) != 1 {
					t.Fatalf("%v, %v", s, err)
				}
				if !slices.EqualFunc(changes, c.changes, slices.Equal) {
					t.Errorf("waiting for %v, want %v", changes, c.changes)
				}
				for _, want := range c.log {
					if !strings.Contains(log.String(), want) {
						t.Errorf("log %q lacks %q", log.String(), want)
					}
				}
				if c.log == nil && log.Len() > 0 {
					t.Errorf("log %q, want none", log.String())
				}
			})
		})
	}
}

// Whoever gives up while a device is gone gets the reason.
func TestWatchGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		d := Watch([]NamedDevice{{timed{gone: 2 * time.Hour}, "pi5"}}, slog.New(slog.DiscardHandler), nil)[0]
		if _, err := d.Time(ctx, latency.Task{}); err != context.DeadlineExceeded { //nolint:errorlint // the cause itself
			t.Errorf("%v", err)
		}
	})
}

func TestCampaign(t *testing.T) {
	path := filepath.Join(t.TempDir(), CampaignFile)
	first, err := Campaign(path)
	if err != nil || first == "" {
		t.Fatal(first, err)
	}
	if other, _ := Campaign(path); other == first {
		t.Errorf("two pieces of work are both called %s", first)
	}
	if err := KeepCampaign(path, first); err != nil {
		t.Fatal(err)
	}
	if again, err := Campaign(path); again != first || err != nil {
		t.Errorf("%q, %v; it was %q", again, err, first)
	}
	if err := KeepCampaign(path, "../../etc"); err != nil {
		t.Fatal(err)
	}
	if _, err := Campaign(path); err == nil || !strings.Contains(err.Error(), ".campaign") {
		t.Errorf("a name that is a path: %v", err)
	}
}

// A table that is measured anew gets none of what a device has measured for
// another; one that goes on does.
func TestTableCampaign(t *testing.T) {
	prefix := filepath.Join(t.TempDir(), "official.table")
	name := func(prefix string) string {
		t.Helper()
		name, err := tableCampaign(prefix)
		if err != nil {
			t.Fatal(err)
		}
		return name
	}
	first := name(prefix)
	if other := name(prefix + "2"); other == first {
		t.Errorf("two tables are both called %s", first)
	}
	write := func() {
		c, err := latency.OpenCache(prefix + tableJournal)
		if err == nil {
			err = c.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	write()
	if again := name(prefix); again != first {
		t.Errorf("a table that goes on is called %s, and was %s", again, first)
	}
	if err := os.Remove(prefix + tableJournal); err != nil {
		t.Fatal(err)
	}
	if anew := name(prefix); anew == first {
		t.Errorf("a table that is measured anew is called %s as before", anew)
	}
}
