package fleet_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

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

// TestBlobAnnounced announces attachments that are not there, or are others.
func TestBlobAnnounced(t *testing.T) {
	b := broker(t, fleet.BrokerOptions{Listen: "127.0.0.1:0"})
	client := connect(t, fleet.Options{Broker: b, Name: "asker"})
	work(t, connect(t, fleet.Options{URL: b.URL(), Name: "a"}), fleet.Worker{Device: "a", Do: echo})
	if _, err := client.Do(t.Context(), fleet.Job{ID: "first", Device: "a"}); err != nil {
		t.Fatal(err)
	}
	nc, _ := plain(t, b.URL(), "", "_INBOX")
	publish := func(subject, envelope, data string) {
		t.Helper()
		m := nats.NewMsg(subject)
		m.Header.Set("Spos-Job", envelope)
		m.Data = []byte(data)
		if m, err := nc.RequestMsg(m, time.Minute); err != nil || strings.Contains(string(m.Data), "error") {
			t.Fatalf("%s: %v, %v", subject, m, err)
		}
	}
	hashed := func(s string) string { sum := sha256.Sum256([]byte(s)); return hex.EncodeToString(sum[:]) }
	for _, data := range []string{"whole", "other"} {
		publish("spos.blob.a."+hashed(data)+".0", "", "whole")
	}
	for i, c := range []struct{ blob, size, want string }{
		{hashed("whole"), "-1", "an attachment of -1 bytes"},
		{hashed("whole"), "4611686018427387904", "an attachment of 4611686018427387904 bytes"},
		{hashed("whole"), "3", "has more than 3 bytes"},
		{hashed("other"), "5", "reads as " + hashed("whole")},
		{"a b", "5", `an attachment called "a b"`},
		{hashed("whole")[:62], "5", "want its SHA-256"},
		{hashed("whole"), "5", ""},
	} {
		id := strconv.Itoa(i)
		key := hashed(id)[:32] // what IDs are called in subjects
		publish("spos.job.a."+key, fmt.Sprintf(`{"v":1,"id":%q,"blob":%q,"size":%s}`, id, c.blob, c.size), "x")
		got, err := client.Do(t.Context(), fleet.Job{ID: id, Device: "a"})
		switch {
		case c.want == "" && (err != nil || string(got) != "Xwhole"):
			t.Errorf("%s, %s: got %q, %v", c.blob, c.size, got, err)
		case c.want == "":
		case err == nil || !strings.Contains(err.Error(), c.want):
			t.Errorf("%s, %s: got %q, %v, want %s", c.blob, c.size, got, err, c.want)
		}
	}
	// What is announced takes no memory before it comes.
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	publish("spos.job.a."+hashed("large")[:32], fmt.Sprintf(`{"v":1,"id":"large","blob":%q,"size":%d}`, hashed("large"), 800<<20), "x")
	for queueOf(t, client, "a") > 0 {
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 400<<20 {
		t.Errorf("an attachment of which nothing is there took %d bytes", n)
	}
}
