package fleet

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	connectTimeout = 5 * time.Second
	slowest        = 2 * time.Second  // between attempts
	requestTimeout = 10 * time.Second // of one attempt; it is tried again until the context ends
)

// Options of a connection to a broker.
type Options struct {
	URL    string  // nats://host:port or tls://host:port, several with commas between
	Broker *Broker // in this process, instead of a URL
	// Name is shown in the broker's logs and in errors. The connection of a
	// device carries the device's name: what it may do depends on it.
	Name  string
	Token string
	NKey  string // file with the seed of a user nkey
	CA    string // PEM file; set: the broker must show a certificate of it
	Cert  string // PEM file with our certificate, where the broker wants one
	Key   string // PEM file with its key
	Log   *slog.Logger
}

// Conn is a connection that comes back by itself. It is safe for concurrent
// use.
type Conn struct {
	nc   *nats.Conn
	js   jetstream.JetStream
	name string
	log  *slog.Logger
	stop context.CancelFunc // of what runs beside it

	mu        sync.Mutex
	connected chan struct{} // closed and replaced when the connection is back
	changed   chan struct{} // closed and replaced by Changed
	ready     map[string]bool
	states    map[string]State     // of devices that jobs wait for, as last logged
	sent      map[string]time.Time // attachments by device and hash: when they were seen at the broker
	attempts  map[*attempt]struct{}
	refused   bool // since it was connected, as logged

	sending sync.Mutex // one attachment at a time
}

// attempt is a request that waits. What ends it early comes beside it: the
// broker refuses its subject, or is gone.
type attempt struct {
	subject string
	cancel  context.CancelCauseFunc
}

// Connect connects to a broker. It tries once: the caller knows whether a
// broker that is not there may still come ([ErrNoBroker]). Wrong keys and
// certificates are [ErrRefused] and [ErrTLS]. A connection that was made and
// is lost is made again for ever.
func Connect(ctx context.Context, o Options) (*Conn, error) {
	c := &Conn{
		name: o.Name, log: cmp.Or(o.Log, slog.New(slog.DiscardHandler)),
		connected: make(chan struct{}), changed: make(chan struct{}),
		ready: map[string]bool{}, states: map[string]State{}, sent: map[string]time.Time{}, attempts: map[*attempt]struct{}{},
	}
	opts, err := c.options(o)
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < connectTimeout {
		opts = append(opts, nats.Timeout(max(time.Until(deadline), time.Millisecond)))
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("fleet: connect: %w", context.Cause(ctx))
	}
	if c.nc, err = nats.Connect(o.URL, opts...); err != nil {
		return nil, connectError(o, err)
	}
	if c.js, err = jetstream.New(c.nc); err != nil {
		c.nc.Close()
		return nil, fmt.Errorf("fleet: %w", err)
	}
	watch, stop := context.WithCancel(context.WithoutCancel(ctx))
	c.stop = stop
	if o.Broker == nil { // which watches itself
		go watchClock(watch, c.log)
	}
	return c, nil
}

func (c *Conn) options(o Options) ([]nats.Option, error) {
	opts := []nats.Option{
		nats.Name(cmp.Or(o.Name, "spos")), nats.CustomInboxPrefix(inboxPrefix(o.Name)), nats.Timeout(connectTimeout),
		nats.MaxReconnects(-1), nats.IgnoreAuthErrorAbort(), nats.CustomReconnectDelay(reconnectDelay),
		nats.ReconnectBufSize(-1), // nothing is sent late that we think was not sent
		nats.PingInterval(3 * time.Second), nats.MaxPingsOutstanding(2),
		nats.ReconnectHandler(func(*nats.Conn) { c.onReconnect() }),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				c.log.Warn("connection to broker lost", "err", err)
			}
			c.onDisconnect()
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			if refused := connectError(o, err); errors.Is(refused, ErrRefused) {
				c.onRefused(refused)
			}
			c.onError(err)
		}),
	}
	if o.Broker != nil {
		return append(opts, nats.InProcessServer(o.Broker.srv), nats.Token(o.Broker.inner)), nil
	}
	if o.Token != "" {
		opts = append(opts, nats.Token(o.Token))
	}
	if o.NKey != "" {
		opt, err := nats.NkeyOptionFromSeed(o.NKey)
		if err != nil {
			return nil, fmt.Errorf("fleet: nkey %s: %w", o.NKey, err)
		}
		opts = append(opts, opt)
	}
	if o.CA != "" {
		pool, err := readPool(o.CA)
		if err != nil {
			return nil, err
		}
		opts = append(opts, nats.Secure(&tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}))
	}
	if o.Cert != "" || o.Key != "" {
		opts = append(opts, nats.ClientCert(o.Cert, o.Key))
	}
	return opts, nil
}

func readPool(path string) (*x509.CertPool, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("fleet: certificate authority: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("fleet: certificate authority: %s holds no certificate in PEM", path)
	}
	return pool, nil
}

// reconnectDelay is short at first, for a broker that is started again.
func reconnectDelay(attempts int) time.Duration {
	return min(50*time.Millisecond<<min(attempts, 10), 5*time.Second)
}

func connectError(o Options, err error) error {
	where := cmp.Or(o.URL, "this process")
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	_, invalid := errors.AsType[x509.CertificateInvalidError](err)
	_, host := errors.AsType[x509.HostnameError](err)
	_, verify := errors.AsType[*tls.CertificateVerificationError](err)
	_, record := errors.AsType[tls.RecordHeaderError](err)
	switch {
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrNkeyButNoSigCB),
		strings.Contains(err.Error(), "Authorization Violation"):
		return fmt.Errorf("%w: %s (%w)", ErrRefused, where, err)
	case unknown, invalid, host, verify, record, errors.Is(err, nats.ErrSecureConnWanted), errors.Is(err, nats.ErrSecureConnRequired),
		strings.Contains(err.Error(), "tls: "), strings.Contains(err.Error(), "tls error"):
		return fmt.Errorf("%w: %s (%w)", ErrTLS, where, err)
	}
	return fmt.Errorf("%w: %s (%w)", ErrNoBroker, where, err)
}

// Close ends the connection; what waits on it fails with [ErrClosed].
func (c *Conn) Close() error {
	c.stop()
	c.nc.Close()
	c.onReconnect() // wakes who waits for it
	return nil
}

// Changed has what a worker says of itself announced now.
func (c *Conn) Changed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *Conn) onDisconnect() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for a := range c.attempts {
		a.cancel(fmt.Errorf("the connection was lost: %w", errRetry))
	}
}

// onRefused says once that the broker does not let us in again.
func (c *Conn) onRefused(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.refused {
		c.refused = true
		c.log.Error("the connection to the broker does not come back; trying on", "err", err)
	}
}

func (c *Conn) onReconnect() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refused = false
	close(c.connected)
	c.connected = make(chan struct{})
	clear(c.ready) // it may be another broker, or an empty one
	clear(c.sent)
}

// back is closed when the connection has been lost and made again after the
// call.
func (c *Conn) back() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.connected
}

func (c *Conn) news() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

func (c *Conn) onError(err error) {
	if !errors.Is(err, nats.ErrPermissionViolation) {
		c.log.Debug("connection to broker", "err", err)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for a := range c.attempts {
		if strings.Contains(err.Error(), a.subject) {
			a.cancel(fmt.Errorf("%w: %w", ErrDenied, err))
		}
	}
}

// once runs one attempt of a request, which ends early when the connection is
// lost, or the broker refuses a subject that holds the given text.
func (c *Conn) once(ctx context.Context, subject string, f func(context.Context) error) error {
	actx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	a := &attempt{subject, cancel}
	c.mu.Lock()
	c.attempts[a] = struct{}{}
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.attempts, a)
	}()
	err := f(actx)
	if err != nil && actx.Err() != nil {
		return context.Cause(actx)
	}
	return err
}

// persist runs attempts until one succeeds, fails for good, or ctx ends.
func (c *Conn) persist(ctx context.Context, what, subject string, f func(context.Context) error) error {
	return c.insist(ctx, what, subject, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, requestTimeout)
		defer cancel()
		return f(ctx)
	})
}

// insist is persist for attempts that set their own time.
func (c *Conn) insist(ctx context.Context, what, subject string, f func(context.Context) error) error {
	told := false
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, slowest) {
		back := c.back()
		err := c.once(ctx, subject, f)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("fleet: %s: %w", what, context.Cause(ctx))
		case c.nc.IsClosed():
			return fmt.Errorf("%s: %w", what, ErrClosed)
		case !passing(err):
			return fmt.Errorf("fleet: %s: %w", what, err)
		}
		if wait == slowest && !told {
			told = true
			c.log.Warn("still trying", "what", what, "err", err)
		}
		c.log.Debug("trying again", "what", what, "err", err)
		select {
		case <-ctx.Done():
		case <-back:
		case <-time.After(wait):
		}
	}
}

// passing tells whether an error may be gone the next time: a broker that is
// away, starts or is slow.
func passing(err error) bool {
	if api, ok := errors.AsType[*jetstream.APIError](err); ok {
		return api.Code >= 500 && api.ErrorCode != codeNoResources && api.ErrorCode != codeNoStorage
	}
	for _, e := range []error{
		context.DeadlineExceeded, nats.ErrTimeout, nats.ErrNoResponders, nats.ErrDisconnected, nats.ErrConnectionReconnecting,
		nats.ErrReconnectBufExceeded, nats.ErrStaleConnection, nats.ErrConnectionClosed, nats.ErrBadSubscription,
		jetstream.ErrNoStreamResponse, jetstream.ErrJetStreamNotEnabled, errRetry,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Codes of the JetStream API that nats.go does not name: no room for a stream.
const (
	codeNoResources jetstream.ErrorCode = 10023
	codeNoStorage   jetstream.ErrorCode = 10047
)

// errRetry marks what is worth another attempt.
var errRetry = errors.New("not yet")
