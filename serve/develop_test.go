package serve

import (
	"context"
	"errors"
	"log/slog"
	"testing"
)

// TestDevelopStops: nobody waits for the pictures that are left.
func TestDevelopStops(t *testing.T) {
	s, err := New(Options{Logger: slog.New(slog.DiscardHandler), HTTP: "127.0.0.1:0"}, classifier())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	v, err := s.lookup(t.Context(), "c", "")
	if err != nil {
		t.Fatal(err)
	}
	defer v.release()
	data := seedImages(t)["image/jpeg"]
	req := &inferRequest{pictures: [][]byte{data, data}}
	if err := s.probe(v, req); err != nil {
		t.Fatal(err)
	}
	mem := &arena{m: &s.memory}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := v.develop(ctx, req, mem); err != nil {
		t.Errorf("before: %v", err)
	}
	cancel()
	if _, err := v.develop(ctx, req, mem); !errors.Is(err, errGone) {
		t.Errorf("after the client left: %v", err)
	}
	mem.free()
	if used := s.memory.used.Load(); used != 0 {
		t.Errorf("%d bytes are held", used)
	}
}
