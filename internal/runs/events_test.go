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
	files, _ := filepath.Glob(filepath.Join(r.Dir, "events.out.tfevents.*"))
	if len(files) != 1 {
		t.Fatalf("event files: %v", files)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	var events [][]byte
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
