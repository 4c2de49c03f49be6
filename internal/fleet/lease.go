package fleet

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
)

// A worker speaks every beat; one that has been silent for leaseTime may be
// replaced.
const (
	beat      = 2 * time.Second
	leaseTime = 7 * time.Second
)

// said is what a worker says of itself: the presence of its device, and the
// lease on its name, for each message is taken only if nobody else spoke in
// between.
type said struct {
	Version int             `json:"v"`
	Worker  string          `json:"worker"`
	Info    json.RawMessage `json:"info,omitempty"`
	Job     string          `json:"job,omitempty"`   // key of the job in work
	ID      string          `json:"id,omitempty"`    // its ID
	Tries   int             `json:"tries,omitempty"` // workers that began it, this one among them
	Ack     string          `json:"ack,omitempty"`   // where the broker hears of it
	Gone    bool            `json:"gone,omitempty"`  // the worker ended in order
}

// lease is a worker's hold on a device's name.
type lease struct {
	c      *Conn
	device string
	info   func() json.RawMessage

	alive *nats.Subscription

	mu   sync.Mutex
	seq  uint64 // of what was said last, by whomever
	said said
}

// take gets hold of a name. Who has it and lives says so at once; one that
// died has no connection, which the broker knows; one that is cut off is
// silent for leaseTime by our monotonic clock.
func (c *Conn) take(ctx context.Context, device string, info func() json.RawMessage) (*lease, said, error) {
	l := &lease{c: c, device: device, info: info, said: said{Version: version, Worker: nuid.Next()}}
	var before said
	var since time.Time
	var seen uint64
	for first := true; ; first = false {
		seq, s, err := l.read(ctx)
		if err != nil {
			return nil, said{}, err
		}
		if first || seq != seen {
			seen, since = seq, time.Now()
		}
		before = s
		free, err := l.free(ctx, time.Since(since) > leaseTime)
		if err != nil {
			return nil, said{}, err
		}
		if !free {
			continue
		}
		alive, err := c.nc.Subscribe(aliveSubject(device), l.live)
		if err != nil {
			return nil, said{}, fmt.Errorf("fleet: %w", err)
		}
		l.seq = seq
		l.said.Job, l.said.ID, l.said.Tries, l.said.Ack = s.Job, s.ID, s.Tries, s.Ack
		l.alive = alive
		err = l.say(ctx)
		switch {
		case err == nil:
			return l, before, nil
		case ctx.Err() != nil: // the broker may have it, and who asks would take the device for there
			l.leave()
			return nil, said{}, err
		case !errors.Is(err, ErrDeviceTaken):
			return nil, said{}, errors.Join(err, alive.Unsubscribe())
		}
		if err := alive.Unsubscribe(); err != nil { // another was faster: it will answer
			return nil, said{}, fmt.Errorf("fleet: %w", err)
		}
	}
}

func (l *lease) live(m *nats.Msg) { _ = m.Respond([]byte(l.said.Worker)) }

// free asks whether a worker lives that has the name.
func (l *lease) free(ctx context.Context, expired bool) (bool, error) {
	var free bool
	err := l.c.persist(ctx, "take the name "+l.device, aliveSubject(l.device), func(ctx context.Context) error {
		rctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, err := l.c.nc.RequestWithContext(rctx, aliveSubject(l.device), nil)
		switch {
		case err == nil:
			return fmt.Errorf("%w: %s", ErrDeviceTaken, l.device)
		case errors.Is(err, nats.ErrNoResponders):
			free = true
			return nil
		case ctx.Err() == nil && rctx.Err() != nil: // it has a connection, and does not speak
			free = expired
			return nil
		}
		return err
	})
	return free, err
}

// read is what was said last, and its number; zero: nothing.
func (l *lease) read(ctx context.Context) (seq uint64, s said, err error) {
	subject := presenceSubject(l.device)
	err = l.c.persist(ctx, "read the presence of "+l.device, subject, func(ctx context.Context) error {
		seq, s = 0, said{}
		m, err := l.c.last(ctx, keptStream(l.device), subject)
		if errors.Is(err, errNone) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := json.Unmarshal(m.Data, &s); err != nil || s.Version != version {
			s = said{} // another version's words: its lease counts, its job is unknown
		}
		seq, err = sequence(m)
		return err
	})
	return seq, s, err
}

// say announces what l.said holds. ErrDeviceTaken: another worker spoke.
func (l *lease) say(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.info != nil {
		l.said.Info = l.info()
	}
	text, err := json.Marshal(l.said)
	if err != nil {
		return fmt.Errorf("fleet: what the device says of itself: %w", err)
	}
	m := nats.NewMsg(presenceSubject(l.device))
	m.Data = text
	return l.c.persist(ctx, "announce "+l.device, m.Subject, func(ctx context.Context) error {
		seq, err := l.c.put(ctx, m, l.seq)
		if err == nil {
			l.seq = seq
			return nil
		}
		if errors.Is(err, jetstream.ErrNoStreamResponse) {
			return l.restore(ctx, err)
		}
		if !errors.Is(err, errExists) {
			return err
		}
		// It may have been us, and the broker's word for it was lost; or the
		// broker lost what it had.
		now, s, err := l.read(ctx)
		if err != nil {
			return err
		}
		if now != 0 && s.Worker != l.said.Worker {
			return fmt.Errorf("%w: %s", ErrDeviceTaken, l.device)
		}
		l.seq = now
		return errRetry
	})
}

// restore makes the streams of a device that was forgotten while it was away.
// Where that is not allowed, the next client that asks for the device does.
func (l *lease) restore(ctx context.Context, missing error) error {
	l.c.forgetReady(l.device)
	if err := l.c.ensure(ctx, l.device); !errors.Is(err, ErrDenied) {
		return cmp.Or(err, errRetry)
	}
	return missing
}

// begin notes that a job is begun, and returns how many times it was.
func (l *lease) begin(ctx context.Context, key, id, ack string) (int, error) {
	l.mu.Lock()
	if l.said.Job != key {
		l.said.Tries = 0
	}
	l.said.Job, l.said.ID, l.said.Ack = key, id, ack
	l.said.Tries++
	tries := l.said.Tries
	l.mu.Unlock()
	return tries, l.say(ctx)
}

// done forgets the job; the next beat says so.
func (l *lease) done() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.said.Job, l.said.ID, l.said.Ack, l.said.Tries = "", "", "", 0
}

// keep speaks every beat until ctx ends, and returns why it cannot go on.
func (l *lease) keep(ctx context.Context) error {
	for {
		back, news := l.c.back(), l.c.news()
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(beat):
		case <-back:
		case <-news:
		}
		if err := l.say(ctx); err != nil && ctx.Err() == nil {
			return err
		}
	}
}
