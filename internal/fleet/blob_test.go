package fleet_test

import (
	"context"
	"strings"
	"syscall"
	"testing"

	"spos/internal/fleet"
)

// TestBlobTooLarge asks for more than the broker's stream can hold at a time.
func TestBlobTooLarge(t *testing.T) {
	client := connect(t, fleet.Options{Broker: broker(t, fleet.BrokerOptions{}), Name: "asker"})
	// Memory that nobody touches takes none, unlike the heap's.
	huge, err := syscall.Mmap(-1, 0, 1<<30, syscall.PROT_READ, syscall.MAP_ANON|syscall.MAP_PRIVATE|syscall.MAP_NORESERVE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Munmap(huge) })
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // nothing is sent
	if _, err := client.Do(ctx, fleet.Job{ID: "1", Device: "a", Blob: huge}); err == nil || !strings.Contains(err.Error(), "an attachment of 1073741824 bytes is more than the broker keeps") {
		t.Errorf("got %v", err)
	}
}
