package latency_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"spos/internal/runs"
	"spos/latency"
)

// TestLooks: the journal has every look at the sentinel, also those that found
// nothing, between the results of the stretches; a cache passes over them.
func TestLooks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "latency.jsonl")
	synctest.Test(t, func(t *testing.T) {
		cache, err := latency.OpenCache(path)
		if err != nil {
			t.Fatal(err)
		}
		defer cache.Close()
		// Steady at first, slower for good after the first stretch and its look.
		f := &fake{speed: func(n int) float64 { return map[bool]float64{true: 1.1, false: 1}[n >= 6] }}
		m := &latency.Meter{
			Runner: f, Protocol: latency.Screening(), Cache: cache, Log: slog.New(slog.DiscardHandler),
			Sentinel: &latency.Sentinel{Model: latency.Model{Name: "sentinel", Bytes: []byte("50")}, Every: 2, Retries: 1},
		}
		if _, err := m.Measure(t.Context(), models("100", "200", "300", "400")...); err != nil {
			t.Fatal(err)
		}
	})
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	records, err := latency.DecodeJournal(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range records {
		switch l := r.Look; {
		case l == nil:
			got = append(got, r.Result.Model)
		case l.Sentinel != "sentinel" || l.Allowed != 0.03 || l.P50 != time.Duration(l.Ratio*50_000+0.5) || l.Environment == "":
			t.Errorf("look %+v", *l)
		case l.Again:
			got = append(got, "again")
		case l.Kept:
			got = append(got, "kept")
		default:
			got = append(got, "look")
		}
	}
	if want := []string{"look", "look", "net100", "net200", "again", "kept", "net300", "net400"}; !slices.Equal(got, want) {
		t.Errorf("journal of %v, want %v", got, want)
	}
	if first, _, _ := strings.Cut(string(text), "\n"); strings.Contains(first, "result") || strings.Contains(first, "key") {
		t.Errorf("a look's line says %s", first)
	}
	cache, err := latency.OpenCache(path)
	if err != nil {
		t.Fatal(err)
	}
	defer cache.Close()
	if cache.Len() != 4 {
		t.Errorf("%d results in the cache, want 4", cache.Len())
	}
	if _, err := latency.DecodeJournal(strings.NewReader("{}x\n{}\n")); !errors.Is(err, runs.ErrCorrupt) {
		t.Errorf("a damaged journal: %v, want ErrCorrupt", err)
	}
}

// TestDriftIsRemembered: what was measured on a machine that has drifted says
// so after sessions were added to it, and others do not.
func TestDriftIsRemembered(t *testing.T) {
	path := filepath.Join(t.TempDir(), "latency.jsonl")
	synctest.Test(t, func(t *testing.T) {
		cache, err := latency.OpenCache(path)
		if err != nil {
			t.Fatal(err)
		}
		defer cache.Close()
		f := &fake{speed: func(n int) float64 { return map[bool]float64{true: 1.1, false: 1}[n >= 5] }}
		sentinel := &latency.Sentinel{Model: latency.Model{Name: "sentinel", Bytes: []byte("50")}, Every: 1, Retries: 1}
		m := &latency.Meter{Runner: f, Protocol: latency.Screening(), Cache: cache, Log: slog.New(slog.DiscardHandler), Sentinel: sentinel}
		two := models("100", "200")
		if _, err := m.Measure(t.Context(), two...); err != nil {
			t.Fatal(err)
		}
		m.Sentinel, m.Protocol.Sessions = nil, 3
		r, err := m.Measure(t.Context(), two...)
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []int{0, 1} {
			drifted := 0
			for _, w := range r[i].Warnings {
				drifted += strings.Count(w, "drifted by +10.0 %")
			}
			if drifted != want || r[i].Sessions != 3 {
				t.Errorf("%s: %q, want %d of drift", r[i].Model, r[i].Warnings, want)
			}
		}
	})
}

// keeping is a device elsewhere: it answers a session that it has timed with
// what it has, and fails after so many.
type keeping struct {
	fake
	kept  map[string]latency.Sample
	until int
}

var errKilled = errors.New("killed")

func (k *keeping) Time(ctx context.Context, t latency.Task) (latency.Sample, error) {
	if s, ok := k.kept[t.Key]; ok {
		return s, nil
	}
	if len(k.calls) == k.until {
		return latency.Sample{}, errKilled
	}
	s, err := k.fake.Time(ctx, t)
	if t.Key != "" {
		k.kept[t.Key] = s
	}
	return s, err
}

// TestDriftedSessionsAreNotAskedForAgain: what was measured in vain before a
// process was killed does not come back from the device when it goes on.
func TestDriftedSessionsAreNotAskedForAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "latency.jsonl")
	k := &keeping{kept: map[string]latency.Sample{}}
	measure := func(sentinel *latency.Sentinel, speed func(int) float64, until int) ([]latency.Result, error) {
		cache, err := latency.OpenCache(path)
		if err != nil {
			t.Fatal(err)
		}
		defer cache.Close()
		k.speed, k.until, k.calls = speed, until, nil
		m := &latency.Meter{Runner: k, Protocol: latency.Screening(), Cache: cache, Log: slog.New(slog.DiscardHandler), Sentinel: sentinel}
		return m.Measure(t.Context(), models("100", "200")...)
	}
	sentinel := &latency.Sentinel{Model: latency.Model{Name: "sentinel", Bytes: []byte("50")}, Pause: time.Nanosecond}
	// A neighbour comes after the first three looks; the second try is cut off.
	busy := func(n int) float64 { return map[bool]float64{true: 1.2, false: 1}[n >= 3] }
	if _, err := measure(sentinel, busy, 10); !errors.Is(err, errKilled) || len(k.kept) != 3 {
		t.Fatalf("%v with %d sessions kept, want an end in the second try", err, len(k.kept))
	}
	// And then the neighbour has gone, where the last one was timed
	for key, s := range k.kept {
		if strings.HasSuffix(key, ".1") {
			delete(k.kept, key)
		} else if s.Runs[0]%100_000 == 0 {
			t.Errorf("session %s of the first try took %v, want the neighbour's doing", key, s.Runs[0])
		}
	}
	for name, s := range map[string]*latency.Sentinel{"without a sentinel": nil, "with one": sentinel} {
		before, _ := os.ReadFile(path)
		kept := maps.Clone(k.kept)
		r, err := measure(s, nil, -1)
		if err != nil || r[0].P50 != 100*time.Microsecond || r[1].P50 != 200*time.Microsecond {
			t.Errorf("%s: %v, %v", name, r, err)
		}
		k.kept = kept
		if err := os.WriteFile(path, before, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
