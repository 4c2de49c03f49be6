package fleet

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// triesAllowed is how many workers may die of one job unless told otherwise.
const triesAllowed = 5

// pullTime is how long one request for a job waits at the broker. A worker that
// dies leaves its request there, and a job that is given to it is lost for
// ackWait.
const pullTime = 2 * time.Second

// Worker is what works as a device.
type Worker struct {
	Device string
	// Info is announced every few seconds and on [Conn.Changed]; nil: nothing.
	Info func() json.RawMessage
	// Do does one job at a time. Its error is an answer and is kept. Its
	// context ends when the name is lost or the worker is to stop: the job is
	// then given to another.
	Do func(ctx context.Context, j Job) ([]byte, error)
	// Answer answers a question, one at a time, also while a job is done; nil:
	// questions are refused.
	Answer func(ctx context.Context, body []byte) ([]byte, error)
	// Tries is how many times in a row a job may be begun and not ended because
	// the worker died; after that it is answered with an error. 0: 5.
	Tries int
}

// Work works as a device until ctx ends. It comes back from every loss of the
// connection. It fails with [ErrDeviceTaken] where another worker with the
// name is alive, or took it while this one was cut off.
func (c *Conn) Work(ctx context.Context, w Worker) error {
	if err := CheckDevice(w.Device); err != nil {
		return err
	}
	if c.name != w.Device {
		return fmt.Errorf("fleet: connected as %q, and to work as %q: connect with the device's name", c.name, w.Device)
	}
	consumer, err := c.queue(ctx, w.Device)
	if err != nil {
		return err
	}
	l, before, err := c.take(ctx, w.Device, w.Info)
	if ctx.Err() != nil && errors.Is(err, context.Cause(ctx)) {
		return nil // ended before it began
	}
	if err != nil {
		return err
	}
	if before.Ack != "" { // begun by one that died: have it again now
		_ = c.nc.Publish(before.Ack, []byte("-NAK"))
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel(nil)
	group.Go(func() { cancel(l.keep(ctx)) })
	questions, err := c.answer(ctx, w)
	if err != nil {
		l.leave()
		return err
	}
	r := runner{c: c, w: w, l: l, consumer: consumer}
	err = r.run(ctx)
	cancel(nil)
	l.leave(questions)
	return err
}

// leave says that the worker ends in order. It listens no more before it says
// so: the broker's word for that is then its word for both.
func (l *lease) leave(listening ...*nats.Subscription) {
	ctx, cancel := context.WithTimeout(context.Background(), beat)
	defer cancel()
	l.done()
	l.mu.Lock()
	l.said.Gone = true
	l.mu.Unlock()
	for _, s := range append(listening, l.alive) {
		if err := s.Unsubscribe(); err != nil {
			l.c.log.Debug("leave", "subject", s.Subject, "err", err)
		}
	}
	if err := l.say(ctx); err != nil {
		l.c.log.Debug("leave", "err", err)
	}
}

// queue finds the device's queue, makes it where that is allowed, and waits
// for it otherwise.
func (c *Conn) queue(ctx context.Context, device string) (jetstream.Consumer, error) {
	var consumer jetstream.Consumer
	told := false
	err := c.persist(ctx, "find the queue of "+device, "$JS.API.CONSUMER.INFO."+jobsStream(device), func(ctx context.Context) error {
		var err error
		consumer, err = c.js.Consumer(ctx, jobsStream(device), workerConsumer)
		if !errors.Is(err, jetstream.ErrStreamNotFound) && !errors.Is(err, jetstream.ErrConsumerNotFound) {
			return err
		}
		err = c.ensure(ctx, device)
		if errors.Is(err, ErrDenied) {
			if !told {
				told = true
				c.log.Warn("the broker has no queue for this device, which may not make it: it waits for a client to ask for the device", "device", device)
			}
			return errRetry
		}
		return cmp.Or(err, errRetry)
	})
	return consumer, err
}

// answer takes questions until ctx ends or its subscription does.
func (c *Conn) answer(ctx context.Context, w Worker) (*nats.Subscription, error) {
	sub, err := c.nc.Subscribe(askSubject(w.Device), func(q *nats.Msg) {
		a := answerEnvelope{Version: version}
		var e jobEnvelope
		var data []byte
		err := readEnvelope(q, jobHeader, &e)
		switch {
		case err != nil:
		case e.Version != version:
			a.Skew = true
			err = &VersionError{"of who asks", e.Version, version}
		case w.Answer == nil:
			err = fmt.Errorf("fleet: device %s answers no questions", w.Device)
		default:
			data, err = w.Answer(ctx, q.Data)
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			a.Error, data = cmp.Or(err.Error(), "an error without text"), nil
		}
		m := nats.NewMsg(q.Reply)
		m.Data = data
		if err = setEnvelope(m, answerHeader, a); err == nil {
			err = q.RespondMsg(m)
		}
		if err != nil {
			c.log.Debug("answer a question", "err", err)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("fleet: %w", err)
	}
	return sub, nil
}

// runner takes jobs from the queue.
type runner struct {
	c        *Conn
	w        Worker
	l        *lease
	consumer jetstream.Consumer
	hash     string // of the last attachment, which the next job often shares
	blob     []byte
}

func (r *runner) run(ctx context.Context) error {
	for {
		m, err := r.next(ctx)
		if ctx.Err() != nil {
			return stopped(ctx)
		}
		if r.c.nc.IsClosed() {
			return ErrClosed
		}
		if err != nil {
			r.c.log.Debug("take a job", "err", err)
			select {
			case <-ctx.Done():
			case <-r.c.back():
			case <-time.After(time.Second):
			}
			continue
		}
		if m == nil {
			r.reclaim(ctx)
			continue
		}
		if err := r.job(ctx, m); err != nil {
			if ctx.Err() != nil {
				_ = m.Nak() // for who has the name next
				return stopped(ctx)
			}
			return err
		}
	}
}

// stopped is nil where the caller ended ctx, and the reason where we did.
func stopped(ctx context.Context) error {
	err := context.Cause(ctx)
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}

// next waits for a job; nil: none yet. A connection that came back may have
// lost the request, which ends then.
func (r *runner) next(ctx context.Context) (jetstream.Msg, error) {
	back := r.c.back()
	ctx, cancel := context.WithTimeout(ctx, pullTime)
	defer cancel()
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-back:
			cancel()
		case <-done:
		}
	}()
	batch, err := r.consumer.Fetch(1, jetstream.FetchContext(ctx))
	if err != nil {
		return nil, err
	}
	for m := range batch.Messages() {
		return m, nil
	}
	if err := batch.Error(); err != nil && ctx.Err() == nil {
		return nil, err
	}
	return nil, nil
}

// reclaim has a job come again that the broker gave to nobody who lives: we
// have none. The broker would give it away itself, by a clock that may have
// been set back since.
func (r *runner) reclaim(ctx context.Context) {
	info, err := r.consumer.Info(ctx)
	if err != nil || info.NumAckPending == 0 {
		return
	}
	at := info.Delivered
	ack := fmt.Sprintf("$JS.ACK.%s.%s.1.%d.%d.0.0", jobsStream(r.w.Device), workerConsumer, at.Stream, at.Consumer)
	if err := r.c.nc.Publish(ack, []byte("-NAK")); err != nil {
		r.c.log.Debug("have a job again", "err", err)
	}
}

// job does one job and keeps its answer. An error is only that the worker
// cannot go on.
func (r *runner) job(ctx context.Context, m jetstream.Msg) error {
	key := m.Subject()[strings.LastIndexByte(m.Subject(), '.')+1:]
	hold, release := context.WithCancel(ctx)
	defer release()
	go r.hold(hold, m)
	answered, err := r.answered(ctx, key)
	if err != nil {
		return err
	}
	if answered {
		r.l.done() // the one that died may have kept it
		r.ack(m)
		return nil
	}
	a, data, err := r.do(ctx, key, m)
	if errors.Is(err, errGone) {
		r.c.log.Warn("a job is dropped: its attachment is gone, and nobody waits for it", "id", a.ID)
		r.l.done()
		r.ack(m)
		return nil
	}
	if err != nil {
		return err
	}
	if err := r.keep(ctx, key, a, data); err != nil {
		return err
	}
	r.l.done()
	r.ack(m)
	return nil
}

// hold tells the broker that the job is in work.
func (r *runner) hold(ctx context.Context, m jetstream.Msg) {
	tick := time.NewTicker(ackWait / 4)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := m.InProgress(); err != nil {
				r.c.log.Debug("hold a job", "err", err)
			}
		}
	}
}

func (r *runner) answered(ctx context.Context, key string) (bool, error) {
	var found bool
	subject := answerSubject(r.w.Device, key)
	err := r.c.persist(ctx, "look for an answer", subject, func(ctx context.Context) error {
		_, err := r.c.last(ctx, keptStream(r.w.Device), subject)
		found = err == nil
		if errors.Is(err, errNone) {
			return nil
		}
		return err
	})
	return found, err
}

// do is the answer to a job; an error is that there is none.
func (r *runner) do(ctx context.Context, key string, m jetstream.Msg) (answerEnvelope, []byte, error) {
	a := answerEnvelope{Version: version, Worker: r.l.said.Worker}
	var e jobEnvelope
	if err := readEnvelope(&nats.Msg{Subject: m.Subject(), Header: m.Headers()}, jobHeader, &e); err != nil {
		a.Error = err.Error()
		return a, nil, nil //nolint:nilerr // what is no job has that for an answer
	}
	a.ID = e.ID
	if e.Version != version {
		a.Skew, a.Error = true, fmt.Sprintf("fleet: a job of version %d of the protocol, and this device speaks %d", e.Version, version)
		r.c.log.Error("a job cannot be done: install the same release on both sides", "id", e.ID, "version", e.Version, "ours", version)
		return a, nil, nil
	}
	if e.Blob != "" {
		if err := checkBlob(e.Blob, e.Size); err != nil {
			a.Error = err.Error()
			return a, nil, nil //nolint:nilerr // as above
		}
	}
	tries, err := r.l.begin(ctx, key, e.ID, m.Reply())
	if err != nil {
		return a, nil, err
	}
	if limit := cmp.Or(r.w.Tries, triesAllowed); tries > limit {
		a.Error = fmt.Sprintf("fleet: job %q ended the worker of %s %d times in a row, and is given up", e.ID, r.w.Device, limit)
		return a, nil, nil
	}
	if e.Blob != "" && e.Blob != r.hash {
		blob, err := r.c.getBlob(ctx, r.w.Device, e.Blob, e.Size)
		if errors.Is(err, errDamaged) {
			a.Error = err.Error()
			return a, nil, nil
		}
		if err != nil {
			return a, nil, err
		}
		r.hash, r.blob = e.Blob, blob
	}
	j := Job{ID: e.ID, Device: r.w.Device, Body: m.Data()}
	if e.Blob != "" {
		j.Blob = r.blob
	}
	data, err := r.w.Do(ctx, j)
	switch limit := r.c.nc.MaxPayload() - 4096; {
	case ctx.Err() != nil && (err != nil || !errors.Is(context.Cause(ctx), context.Canceled)):
		return a, nil, context.Cause(ctx) // for the next worker
	case err != nil:
		a.Error = cmp.Or(err.Error(), "an error without text")
		data = nil
	case int64(len(data)) > limit:
		a.Error = fmt.Sprintf("fleet: an answer of %d bytes is more than the broker takes (%d)", len(data), limit)
		data = nil
	}
	return a, data, nil
}

// keep stores an answer unless there is one. What was worked for is kept even
// if the worker is to stop, for which it may take a moment.
func (r *runner) keep(ctx context.Context, key string, a answerEnvelope, data []byte) error {
	ctx, cancel := afterwards(ctx)
	defer cancel()
	m := nats.NewMsg(answerSubject(r.w.Device, key))
	m.Data = data
	if err := setEnvelope(m, answerHeader, a); err != nil {
		return err
	}
	return r.c.persist(ctx, "keep an answer", m.Subject, func(ctx context.Context) error {
		_, err := r.c.put(ctx, m, 0)
		if errors.Is(err, errExists) {
			return nil // by another, or by us before the broker's word was lost
		}
		return err
	})
}

// ack takes a job out of the queue. Nobody waits for the broker's word: where
// it does not hear of this, the job comes again, and its answer is found.
func (r *runner) ack(m jetstream.Msg) {
	if err := m.Ack(); err != nil {
		r.c.log.Debug("end a job", "err", err)
	}
}

// afterwards is a context that outlives ctx by ackWait.
func afterwards(ctx context.Context) (context.Context, context.CancelFunc) {
	long, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-long.Done():
		case <-time.After(ackWait):
			cancel()
		}
	})
	return long, func() { stop(); cancel() }
}
