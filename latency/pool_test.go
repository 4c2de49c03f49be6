package latency_test

import (
	"context"
	"testing"
	"time"

	"spos/latency"
)

// clocked is a device with a clock.
type clocked struct {
	fake
	now time.Time
}

func (c *clocked) Time(ctx context.Context, t latency.Task) (latency.Sample, error) {
	s, err := c.fake.Time(ctx, t)
	s.Started = c.now
	return s, err
}

// TestPoolOrdersNothing: two boards' clocks do not tell which session came
// first, and a table would take one board's level out of the other's sessions.
func TestPoolOrdersNothing(t *testing.T) {
	a, b := &clocked{now: seconds(1)}, &clocked{now: seconds(1000)}
	started := func(members ...latency.Member) time.Time {
		s, err := latency.NewPool(members...).Time(t.Context(), latency.Task{Model: []byte("100"), Protocol: brief()})
		if err != nil {
			t.Fatal(err)
		}
		return s.Started
	}
	if at := started(latency.Member{Device: a, Name: "a"}, latency.Member{Device: b, Name: "b"}); !at.IsZero() {
		t.Errorf("a session of two boards began at %v", at)
	}
	if at := started(latency.Member{Device: a, Name: "a"}); !at.Equal(a.now) {
		t.Errorf("a session of one board began at %v, want %v", at, a.now)
	}
}
