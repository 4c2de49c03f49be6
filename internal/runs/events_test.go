package runs_test

import (
	"encoding/binary"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"spos/internal/runs"
)

// The CRC-32C test vector of RFC 3720 (32 zero bytes) pins the polynomial;
// TestEvents undoes the masking.
func TestCastagnoli(t *testing.T) {
	if got := crc32.Checksum(make([]byte, 32), crc32.MakeTable(crc32.Castagnoli)); got != 0x8a9136aa {
		t.Fatalf("%#x", got)
	}
}

func TestEvents(t *testing.T) {
	r := create(t)
	if err := r.Rewind(2); err != nil {
		t.Fatal(err)
	}
	if err := r.Record(metric(3), metric(4)); err != nil {
		t.Fatal(err)
	}
	r.Close()
	events := eventsOf(t, r.Dir)
	if len(events) != 4 { // version, start of session, two summaries
		t.Fatalf("%d events", len(events))
	}
	if step, _ := field(events[1], 2); step != 3 {
		t.Errorf("session starts at step %d, want 3", step)
	}
	_, summary := field(events[2], 5)
	_, value := field(summary, 1)
	_, tag := field(value, 1)
	number, _ := field(value, 2)
	if string(tag) != "lr" || math.Float32frombits(uint32(number)) != 0.5 {
		t.Errorf("first value: %q %v", tag, math.Float32frombits(uint32(number)))
	}
	if _, err := runs.ReadMetrics(r.Dir); err != nil {
		t.Error(err)
	}
}

// A run that starts over from nothing is told so, too.
func TestEventsOfAFreshStart(t *testing.T) {
	r := create(t)
	if err := r.Record(metric(1), metric(2)); err != nil {
		t.Fatal(err)
	}
	r.Close()
	again, err := runs.Resume(r.Dir, nil, later)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Rewind(0); err != nil {
		t.Fatal(err)
	}
	if err := again.Record(metric(1)); err != nil {
		t.Fatal(err)
	}
	again.Close()
	if ms, err := runs.ReadMetrics(r.Dir); err != nil || len(ms) != 1 {
		t.Errorf("metrics %v, %v", ms, err)
	}
	// The second, of the same second and process, follows in the same file.
	events := eventsOf(t, r.Dir)
	if len(events) != 7 {
		t.Fatalf("%d events", len(events))
	}
	_, session := field(events[5], 7)
	start, _ := field(session, 1)
	if step, _ := field(events[5], 2); step != 1 || start != 1 {
		t.Errorf("session with status %d starts at step %d, want a start at 1", start, step)
	}
}

// eventsOf reads the one event file of a run and checks its framing.
func eventsOf(t *testing.T, dir string) (events [][]byte) {
	t.Helper()
	files, _ := filepath.Glob(filepath.Join(dir, "events.out.tfevents.*"))
	if len(files) != 1 {
		t.Fatalf("event files: %v", files)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	for len(text) > 0 {
		n := binary.LittleEndian.Uint64(text)
		head, data := text[:8], text[12:12+n]
		for at, sum := range map[string]uint32{string(head): binary.LittleEndian.Uint32(text[8:]), string(data): binary.LittleEndian.Uint32(text[12+n:])} {
			// unmask, as TFRecord's readers do
			rot := sum - 0xa282ead8
			if got := rot>>17 | rot<<15; got != crc32.Checksum([]byte(at), crc32.MakeTable(crc32.Castagnoli)) {
				t.Fatalf("checksum of %q", at)
			}
		}
		events = append(events, data)
		text = text[16+n:]
	}
	return events
}

// field is the first field of that number in a message.
func field(b []byte, want protowire.Number) (number uint64, bytes []byte) {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		b = b[n:]
		switch typ {
		case protowire.VarintType:
			number, n = protowire.ConsumeVarint(b)
		case protowire.Fixed32Type:
			var v uint32
			v, n = protowire.ConsumeFixed32(b)
			number = uint64(v)
		case protowire.Fixed64Type:
			number, n = protowire.ConsumeFixed64(b)
		default:
			bytes, n = protowire.ConsumeBytes(b)
		}
		if num == want {
			return number, bytes
		}
		b = b[n:]
	}
	return 0, nil
}
