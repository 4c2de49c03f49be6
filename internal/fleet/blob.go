package fleet

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// pieceSize is what one message of an attachment holds. It stays below the
// megabyte that brokers take unless told otherwise; each is written and synced
// by itself, so small ones are slow.
const pieceSize = 768 << 10

// sentFor is how long an attachment that was at the broker is taken to be
// there still. Where it is not, the device asks for it.
const sentFor = 10 * time.Minute

func pieces(size int) int { return (size + pieceSize - 1) / pieceSize }

func purgeSubject(subject string) jetstream.StreamPurgeOpt {
	return jetstream.WithPurgeSubject(subject)
}

// sendBlob puts an attachment where the device finds it; the pieces that are
// there are not sent again. Force looks although it was there a while ago.
func (c *Conn) sendBlob(ctx context.Context, device, hash string, blob []byte, force bool) error {
	c.sending.Lock()
	defer c.sending.Unlock()
	id := device + "/" + hash
	c.mu.Lock()
	at, ok := c.sent[id]
	c.mu.Unlock()
	if ok && time.Since(at) < sentFor && !force {
		return nil
	}
	err := c.persist(ctx, "send an attachment", blobSubject(device, hash, ""), func(ctx context.Context) error {
		have, err := c.piecesThere(ctx, device, hash)
		if err != nil {
			return err
		}
		return c.sendPieces(ctx, device, hash, blob, have)
	})
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.sent[id] = time.Now()
	c.mu.Unlock()
	return nil
}

func (c *Conn) piecesThere(ctx context.Context, device, hash string) (map[string]uint64, error) {
	s, err := c.js.Stream(ctx, blobsStream(device))
	if err != nil {
		return nil, err
	}
	info, err := s.Info(ctx, jetstream.WithSubjectFilter(blobSubject(device, hash, "*")))
	if err != nil {
		return nil, err
	}
	return info.State.Subjects, nil
}

func (c *Conn) sendPieces(ctx context.Context, device, hash string, blob []byte, have map[string]uint64) error {
	var acks []jetstream.PubAckFuture
	for i := range pieces(len(blob)) {
		subject := pieceSubject(device, hash, i)
		if have[subject] > 0 {
			continue
		}
		piece := blob[i*pieceSize : min((i+1)*pieceSize, len(blob))]
		ack, err := c.js.PublishAsync(subject, piece)
		if err != nil {
			return err
		}
		acks = append(acks, ack)
	}
	for _, ack := range acks {
		select {
		case <-ack.Ok():
		case err := <-ack.Err():
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// errGone is an attachment that is not at the broker, and that nobody who
// waits could send.
var errGone = errors.New("fleet: the attachment is gone, and who sent it too")

// errDamaged is an attachment that is not what its hash and size say.
var errDamaged = errors.New("the attachment is not what was announced")

// checkBlob refuses what announces no attachment that could be there.
func checkBlob(hash string, size int) error {
	if sum, err := hex.DecodeString(hash); err != nil || len(sum) != sha256.Size {
		return fmt.Errorf("fleet: an attachment called %.80q: want its SHA-256 in hexadecimal", hash)
	}
	if size < 0 || size > maxBlob {
		return fmt.Errorf("fleet: an attachment of %d bytes: want at most %d", size, maxBlob)
	}
	return nil
}

// getBlob reads an attachment, and asks for it again where it is not complete.
func (c *Conn) getBlob(ctx context.Context, device, hash string, size int) ([]byte, error) {
	var blob []byte
	err := c.persist(ctx, "read an attachment", directSubject(blobsStream(device), blobSubject(device, hash, "")), func(ctx context.Context) error {
		var err error
		blob, err = c.readPieces(ctx, device, hash, size)
		if !errors.Is(err, errNone) {
			return err
		}
		_, err = c.nc.RequestWithContext(ctx, wantSubject(device, hash), nil)
		if errors.Is(err, nats.ErrNoResponders) {
			return errGone
		}
		if err == nil {
			err = errRetry // it is there now
		}
		return err
	})
	return blob, err
}

// readPieces takes memory as pieces come, not as they are announced.
func (c *Conn) readPieces(ctx context.Context, device, hash string, size int) ([]byte, error) {
	var blob []byte
	for i := range pieces(size) {
		m, err := c.last(ctx, blobsStream(device), pieceSubject(device, hash, i))
		if err != nil {
			return nil, err
		}
		if len(m.Data) > size-len(blob) {
			return nil, fmt.Errorf("%w: %s has more than %d bytes", errDamaged, hash, size)
		}
		blob = append(blob, m.Data...)
	}
	if got := hashOf(blob); got != hash {
		return nil, fmt.Errorf("%w: %s reads as %s", errDamaged, hash, got)
	}
	return blob, nil
}
