package fleet

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
)

// lookAgain is how often who waits looks for itself, should word of an answer
// have been lost.
const lookAgain = 15 * time.Second

// Job is work for one device.
type Job struct {
	// ID is what the answer is kept under: who asks for the same ID gets the
	// same answer, whoever died in between, and nothing is done twice for it.
	ID     string
	Device string
	Body   []byte // small: it travels in one message
	// Blob is large. The broker keeps it by content, so that jobs that share
	// one send it once. nil: none.
	Blob []byte
	// Passing tells of an answer that it may be another the next time, so that
	// it is not kept once it has been read; nil: of none.
	Passing func(answer []byte) bool
}

// Do has a job done and returns its answer. It submits the job unless the
// queue or the answers hold it already, and waits until ctx ends, also for a
// device that is away and a broker that is. The job stays when ctx ends: the
// next Do of its ID takes up where this one was. An error that the device met
// is a [*RemoteError], another version of its program a [*VersionError].
func (c *Conn) Do(ctx context.Context, j Job) ([]byte, error) {
	if err := CheckDevice(j.Device); err != nil {
		return nil, err
	}
	if limit := c.nc.MaxPayload() - 4096; int64(len(j.Body)) > limit {
		return nil, fmt.Errorf("fleet: job %q for %s: a body of %d bytes is more than the broker takes (%d): put it into Blob", j.ID, j.Device, len(j.Body), limit)
	}
	if len(j.Blob) > maxBlob {
		return nil, fmt.Errorf("fleet: job %q for %s: an attachment of %d bytes is more than the broker keeps (%d)", j.ID, j.Device, len(j.Blob), maxBlob)
	}
	w := waiter{c: c, j: j, key: keyOf(j.ID)}
	if j.Blob != nil {
		w.hash = hashOf(j.Blob)
	}
	stop, err := w.listen()
	if err != nil {
		return nil, fmt.Errorf("fleet: job %q for %s: %w", j.ID, j.Device, err)
	}
	defer stop()
	answer, err := w.wait(ctx)
	if _, ok := errors.AsType[*RemoteError](err); ok || err == nil {
		return answer, err
	}
	return nil, fmt.Errorf("job %q for %s: %w", j.ID, j.Device, err)
}

// waiter is one Do.
type waiter struct {
	c    *Conn
	j    Job
	key  string
	hash string // of the attachment; "": none
	told chan *nats.Msg
	want chan *nats.Msg
}

// listen hears of the answer and of devices that lack the attachment.
func (w *waiter) listen() (stop func(), err error) {
	w.told, w.want = make(chan *nats.Msg, 1), make(chan *nats.Msg, 8)
	told, err := w.c.nc.ChanSubscribe(toldSubject(w.j.Device, w.key), w.told)
	if err != nil || w.hash == "" {
		return func() { _ = told.Unsubscribe() }, err
	}
	want, err := w.c.nc.ChanSubscribe(wantSubject(w.j.Device, w.hash), w.want)
	if err != nil {
		_ = told.Unsubscribe()
	}
	return func() { _, _ = told.Unsubscribe(), want.Unsubscribe() }, err
}

func (w *waiter) wait(ctx context.Context) ([]byte, error) {
	for {
		back := w.c.back()
		m, err := w.stored(ctx)
		if err != nil {
			return nil, err
		}
		if m == nil {
			if err := w.submit(ctx); err != nil {
				return nil, err
			}
			m, err = w.hear(ctx, back)
		}
		switch {
		case err != nil:
			return nil, err
		case m == nil:
			continue
		}
		answer, err := readAnswer(w.j.Device, m)
		_, skewed := errors.AsType[*VersionError](err)
		if skewed || err == nil && w.j.Passing != nil && w.j.Passing(answer) {
			w.forget(ctx)
		}
		return answer, err
	}
}

// hear waits for the answer; nil: time to look for oneself.
func (w *waiter) hear(ctx context.Context, back <-chan struct{}) (*nats.Msg, error) {
	again := time.NewTimer(lookAgain)
	defer again.Stop()
	for {
		select {
		case m := <-w.told:
			return m, nil
		case m := <-w.want:
			if err := w.c.sendBlob(ctx, w.j.Device, w.hash, w.j.Blob, true); err != nil {
				return nil, err
			}
			_ = m.Respond(nil) // unheard, the device asks again
		case <-back:
			return nil, nil
		case <-again.C:
			w.c.noteState(ctx, w.j.Device)
			return nil, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// stored is the answer that is kept; nil: none.
func (w *waiter) stored(ctx context.Context) (*nats.Msg, error) {
	var m *nats.Msg
	subject := answerSubject(w.j.Device, w.key)
	err := w.c.persist(ctx, "look for an answer", directSubject(keptStream(w.j.Device), subject), func(ctx context.Context) error {
		if err := w.c.ensure(ctx, w.j.Device); err != nil {
			return err
		}
		var err error
		m, err = w.c.last(ctx, keptStream(w.j.Device), subject)
		if errors.Is(err, errNone) {
			m, err = nil, nil
		}
		if errors.Is(err, nats.ErrNoResponders) {
			w.c.forgetReady(w.j.Device)
		}
		return err
	})
	return m, err
}

// submit puts the job into the queue, unless it is there.
func (w *waiter) submit(ctx context.Context) error {
	if w.hash != "" {
		if err := w.c.sendBlob(ctx, w.j.Device, w.hash, w.j.Blob, false); err != nil {
			return err
		}
	}
	m := nats.NewMsg(jobSubject(w.j.Device, w.key))
	m.Data = w.j.Body
	if err := setEnvelope(m, jobHeader, jobEnvelope{version, w.j.ID, w.hash, len(w.j.Blob)}); err != nil {
		return err
	}
	return w.c.persist(ctx, "submit", m.Subject, func(ctx context.Context) error {
		_, err := w.c.put(ctx, m, 0)
		if errors.Is(err, errExists) {
			return nil
		}
		return err
	})
}

// forget drops an answer that is one of its time, so that the job can be done
// when another has come.
func (w *waiter) forget(ctx context.Context) {
	s, err := w.c.js.Stream(ctx, keptStream(w.j.Device))
	if err == nil {
		err = s.Purge(ctx, purgeSubject(answerSubject(w.j.Device, w.key)))
	}
	if err != nil {
		w.c.log.Debug("drop an answer", "err", err)
	}
}
