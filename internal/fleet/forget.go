package fleet

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// ErrPresent is a device that is there, and so cannot be forgotten.
var ErrPresent = errors.New("fleet: the device is there")

// ErrUnknown is a device of which the broker knows nothing.
var ErrUnknown = errors.New("fleet: the broker knows no such device")

// Forgotten is what a broker no longer keeps of a device.
type Forgotten struct {
	Jobs    int `json:"jobs"`    // that waited
	Answers int `json:"answers"` // that could have been asked for again
}

// Forget removes a device that is gone, with its queue, its answers and its
// attachments. One that is there is [ErrPresent], and stays as it is. Who waits
// for a job of it makes the queue again.
func (c *Conn) Forget(ctx context.Context, device string) (Forgotten, error) {
	var f Forgotten
	if err := CheckDevice(device); err != nil {
		return f, err
	}
	if err := c.absent(ctx, device); err != nil {
		return f, err
	}
	found := false
	streams := streamsOf(device)
	for i := len(streams) - 1; i >= 0; i-- { // the queue first: what has none is not listed
		name := streams[i].Name
		n, err := c.drop(ctx, name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			continue
		}
		if err != nil {
			return f, err
		}
		found = true
		switch name {
		case jobsStream(device):
			f.Jobs = n
		case keptStream(device):
			f.Answers = n
		}
	}
	c.forgetReady(device)
	if !found {
		return f, fmt.Errorf("%w: %s", ErrUnknown, device)
	}
	return f, nil
}

// drop deletes a stream, and returns how many jobs or answers were in it.
func (c *Conn) drop(ctx context.Context, stream string) (int, error) {
	n, tried := 0, false
	err := c.persist(ctx, "forget stream "+stream, "$JS.API.STREAM", func(ctx context.Context) error {
		s, err := c.js.Stream(ctx, stream)
		if tried && errors.Is(err, jetstream.ErrStreamNotFound) {
			return nil // it was us, and the broker's word was lost
		}
		if err != nil {
			return err
		}
		info, err := s.Info(ctx, jetstream.WithSubjectFilter(presenceSubject("*")))
		if err != nil {
			return err
		}
		n, tried = int(info.State.Msgs)-len(info.State.Subjects), true
		return c.js.DeleteStream(ctx, stream)
	})
	return n, err
}

// absent is nil where nobody works as the device: none spoke lately, and no
// connection listens for the device's questions. A worker that is stopped or cut
// off for longer than its lease and has no connection is as good as gone.
func (c *Conn) absent(ctx context.Context, device string) error {
	err := c.persist(ctx, "look for "+device, keptStream(device), func(ctx context.Context) error {
		s, err := c.js.Stream(ctx, keptStream(device))
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		p, err := c.presence(ctx, device, s.CachedInfo().TimeStamp)
		if err != nil {
			return err
		}
		if p.State != Unseen && p.State != Away && p.Age.Abs() <= leaseTime {
			return fmt.Errorf("%w: %s spoke %v ago", ErrPresent, device, p.Age.Round(time.Second))
		}
		return nil
	})
	if err != nil {
		return err
	}
	return c.persist(ctx, "look for "+device, askSubject(device), func(ctx context.Context) error {
		actx, cancel := context.WithTimeout(ctx, beat)
		defer cancel()
		_, err := c.nc.RequestWithContext(actx, askSubject(device), nil)
		switch {
		case errors.Is(err, nats.ErrNoResponders):
			return nil
		case err == nil:
			return fmt.Errorf("%w: %s answers", ErrPresent, device)
		case ctx.Err() == nil && actx.Err() != nil:
			return fmt.Errorf("%w: %s is connected, though it does not answer", ErrPresent, device)
		}
		return err
	})
}
