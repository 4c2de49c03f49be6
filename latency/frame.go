package latency

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// A frame is a JSON header and a blob, each behind its length in four bytes,
// the least first.
const (
	maxHeader = 64 << 20
	maxBlob   = 1<<31 - 1 // what a model may have, as protobuf bounds it
)

var errFrame = errors.New("latency: malformed frame")

// request is what is asked of a child or of an agent; the model is beside it.
type request struct {
	Version  string   `json:"version,omitempty"` // the asker's; agents only
	Describe bool     `json:"describe,omitempty"`
	Pause    *bool    `json:"pause,omitempty"` // begin a pause or end it; agents only
	Protocol Protocol `json:"protocol"`
}

// reply holds one of its fields.
type reply struct {
	Sample      *Sample      `json:"sample,omitempty"`
	Fingerprint *Fingerprint `json:"fingerprint,omitempty"`
	Fault       *fault       `json:"fault,omitempty"`
}

// answer asks a device and never fails: an error is an answer as well.
func (q request) answer(ctx context.Context, d Device, model []byte) reply {
	if q.Describe {
		fp, err := d.Fingerprint(ctx, model, q.Protocol)
		if err != nil {
			return reply{Fault: newFault(err)}
		}
		return reply{Fingerprint: &fp}
	}
	s, err := d.Time(ctx, Task{Model: model, Protocol: q.Protocol})
	if err != nil {
		return reply{Fault: newFault(err)}
	}
	return reply{Sample: &s}
}

func writeFrame(w io.Writer, header any, blob []byte) error {
	text, err := json.Marshal(header)
	if err != nil {
		return err
	}
	if len(text) > maxHeader || len(blob) > maxBlob {
		return fmt.Errorf("%w: %d and %d bytes are more than fit", errFrame, len(text), len(blob))
	}
	for _, part := range [][]byte{text, blob} {
		if _, err := w.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(part)))); err != nil {
			return err
		}
		if _, err := w.Write(part); err != nil {
			return err
		}
	}
	return nil
}

// readFrame is io.EOF where no further frame begins. Memory grows with what
// arrives, not with what is announced.
func readFrame(r io.Reader, header any) (blob []byte, err error) {
	text, err := readPart(r, maxHeader)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, header); err != nil {
		return nil, fmt.Errorf("%w: %w", errFrame, err)
	}
	blob, err = readPart(r, maxBlob)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return blob, err
}

func readPart(r io.Reader, most int64) ([]byte, error) {
	var length [4]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, err
	}
	n := int64(binary.LittleEndian.Uint32(length[:]))
	if n > most {
		return nil, fmt.Errorf("%w: %d bytes announced, at most %d may come", errFrame, n, most)
	}
	var b bytes.Buffer
	if got, err := io.CopyN(&b, r, n); err != nil {
		return nil, fmt.Errorf("%w: %d of %d bytes: %w", errFrame, got, n, io.ErrUnexpectedEOF)
	}
	return b.Bytes(), nil
}
