package runs

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// events writes a TensorBoard event file: TFRecord framing around the fields
// of tensorflow.Event that scalars need. Losing its end costs nobody
// anything, so it is never synced.
type events struct{ f *os.File }

// newEvents starts a new file in dir and tells TensorBoard to forget what older
// files say about later steps.
func newEvents(dir string, now time.Time, step int64) (*events, error) {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	name := fmt.Sprintf("events.out.tfevents.%d.%s.%d", now.Unix(), host, os.Getpid())
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("tensorboard events: %w", err)
	}
	e := &events{f}
	version := protowire.AppendString(protowire.AppendTag(nil, 3, protowire.BytesType), "brain.Event:2")
	if err := e.write(now, 0, version); err != nil {
		return nil, err
	}
	const start = 1 // SessionLog.START
	status := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), start)
	session := protowire.AppendBytes(protowire.AppendTag(nil, 7, protowire.BytesType), status)
	// Events at the named step and later are forgotten.
	if err := e.write(now, step+1, session); err != nil {
		return nil, err
	}
	return e, nil
}

// scalars writes one summary, tags sorted.
func (e *events) scalars(now time.Time, step int64, values map[string]float64) error {
	var summary []byte
	for _, tag := range slices.Sorted(maps.Keys(values)) {
		v := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), tag)
		v = protowire.AppendFixed32(protowire.AppendTag(v, 2, protowire.Fixed32Type), math.Float32bits(float32(values[tag])))
		summary = protowire.AppendBytes(protowire.AppendTag(summary, 1, protowire.BytesType), v)
	}
	return e.write(now, step, protowire.AppendBytes(protowire.AppendTag(nil, 5, protowire.BytesType), summary))
}

func (e *events) write(now time.Time, step int64, what []byte) error {
	seconds := float64(now.UnixNano()) / 1e9
	event := protowire.AppendFixed64(protowire.AppendTag(nil, 1, protowire.Fixed64Type), math.Float64bits(seconds))
	event = protowire.AppendVarint(protowire.AppendTag(event, 2, protowire.VarintType), uint64(step))
	event = append(event, what...)

	length := binary.LittleEndian.AppendUint64(nil, uint64(len(event)))
	record := binary.LittleEndian.AppendUint32(length, masked(length))
	record = append(record, event...)
	record = binary.LittleEndian.AppendUint32(record, masked(event))
	if _, err := e.f.Write(record); err != nil {
		return fmt.Errorf("tensorboard events: %w", err)
	}
	return nil
}

// masked is TFRecord's checksum: CRC-32C, rotated and shifted so that a
// checksum of data that holds checksums stays a good one.
func masked(b []byte) uint32 {
	c := crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))
	return (c>>15 | c<<17) + 0xa282ead8
}
