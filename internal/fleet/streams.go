package fleet

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// ensure makes a device's streams where they are not. Those that are there
// stay as they are: who runs the broker may have set other limits.
func (c *Conn) ensure(ctx context.Context, device string) error {
	c.mu.Lock()
	ready := c.ready[device]
	c.mu.Unlock()
	if ready {
		return nil
	}
	for _, cfg := range streamsOf(device) {
		if err := c.ensureStream(ctx, cfg); err != nil {
			return err
		}
	}
	err := c.persist(ctx, "make the queue of "+device, "$JS.API.CONSUMER", func(ctx context.Context) error {
		_, err := c.js.Consumer(ctx, jobsStream(device), workerConsumer)
		if errors.Is(err, jetstream.ErrConsumerNotFound) {
			_, err = c.js.CreateConsumer(ctx, jobsStream(device), consumerOf())
		}
		return err
	})
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.ready[device] = true
	c.mu.Unlock()
	return nil
}

func (c *Conn) ensureStream(ctx context.Context, cfg jetstream.StreamConfig) error {
	return c.persist(ctx, "make stream "+cfg.Name, "$JS.API.STREAM", func(ctx context.Context) error {
		_, err := c.js.Stream(ctx, cfg.Name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			_, err = c.js.CreateStream(ctx, cfg)
		}
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			return nil // another made it, between our two requests
		}
		return err
	})
}

func (c *Conn) forgetReady(device string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.ready, device)
}

// errNone is a subject without a message.
var errNone = errors.New("no message")

// last reads the message of a subject; errNone: there is none. One request,
// and none of the rights that reading by a consumer takes.
func (c *Conn) last(ctx context.Context, stream, subject string) (*nats.Msg, error) {
	m, err := c.nc.RequestWithContext(ctx, directSubject(stream, subject), nil)
	if err != nil {
		return nil, err
	}
	switch status := m.Header.Get("Status"); status {
	case "":
		return m, nil
	case "404":
		return nil, errNone
	default:
		return nil, fmt.Errorf("read %s: %s %s: %w", subject, status, m.Header.Get("Description"), errRetry)
	}
}

// errExists is a subject that has a message already, or another than expected.
var errExists = errors.New("there already")

// put publishes a message if the last one of its subject has the number seq;
// 0: if there is none. Otherwise errExists. The broker decides in one step.
func (c *Conn) put(ctx context.Context, m *nats.Msg, seq uint64) (uint64, error) {
	ack, err := c.js.PublishMsg(ctx, m, jetstream.WithExpectLastSequencePerSubject(seq))
	if api, ok := errors.AsType[*jetstream.APIError](err); ok &&
		(api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant) {
		return 0, errExists
	}
	if err != nil {
		return 0, err
	}
	return ack.Sequence, nil
}
