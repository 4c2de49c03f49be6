package fleet

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// startTimeout bounds recovery of a store; a thousand jobs take a fraction of
// a second.
const startTimeout = time.Minute

// BrokerOptions say how a broker is run.
type BrokerOptions struct {
	Listen string      // host:port; "": in this process only
	Dir    string      // where messages are kept; survives kill -9 of the process
	TLS    *tls.Config // nil: none
	Access Access      // zero: whoever reaches it may do everything
	Log    *slog.Logger
}

// Broker is a NATS server with JetStream inside this process.
type Broker struct {
	srv   *server.Server
	log   *serverLog
	lock  *os.File
	inner string // token of connections from this process
	close sync.Once

	stop   context.CancelFunc // of what looks after the broker
	keeper sync.WaitGroup
}

// StartBroker starts a broker and returns when it takes connections. The
// directory belongs to one broker at a time.
func StartBroker(o BrokerOptions) (*Broker, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Dir == "" {
		return nil, errors.New("fleet: a broker needs a directory")
	}
	opts, err := serverOptions(o)
	if err != nil {
		return nil, err
	}
	lock, err := lockDir(o.Dir)
	if err != nil {
		return nil, err
	}
	watch, stop := context.WithCancel(context.Background())
	b := &Broker{lock: lock, log: &serverLog{log: o.Log}, stop: stop}
	secret, grant, err := NewToken(Client, "broker")
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	b.inner = secret
	gate := &gate{inner: grant.Key, log: o.Log, access: o.Access}
	opts.CustomClientAuthentication = gate
	if b.srv, err = server.NewServer(opts); err != nil {
		return nil, errors.Join(fmt.Errorf("fleet: start broker: %w", err), lock.Close())
	}
	gate.srv = b.srv
	b.srv.SetLogger(b.log, false, false)
	b.srv.Start()
	if !b.srv.ReadyForConnections(startTimeout) {
		err := fmt.Errorf("fleet: broker at %q does not start: %s", o.Listen, b.log.last())
		return nil, errors.Join(err, b.Close())
	}
	if err := b.makeStreams(watch, o.Access.Grants); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	b.keeper.Go(func() { watchClock(watch, o.Log) })
	if o.Access.path != "" {
		b.keeper.Go(func() { b.follow(watch, gate) })
	}
	return b, nil
}

func serverOptions(o BrokerOptions) (*server.Options, error) {
	opts := &server.Options{
		ServerName: "spos", JetStream: true, StoreDir: o.Dir, SyncAlways: true,
		JetStreamMaxStore: 1 << 50, // streams are bounded one by one
		NoSigs:            true, NoLog: true, DisableJetStreamBanner: true, AlwaysEnableNonce: true,
		MaxPayload: 8 << 20, PingInterval: 5 * time.Second, MaxPingsOut: 2,
		DontListen: o.Listen == "",
	}
	if o.Listen != "" {
		host, port, err := net.SplitHostPort(o.Listen)
		if err != nil {
			return nil, fmt.Errorf("fleet: listen: %w", err)
		}
		opts.Host = host
		if opts.Port, err = strconv.Atoi(port); err != nil {
			return nil, fmt.Errorf("fleet: listen on %q: the port is no number", o.Listen)
		}
		if opts.Port == 0 {
			opts.Port = server.RANDOM_PORT
		}
		// The server only logs that a port is taken.
		l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", o.Listen)
		if err != nil {
			return nil, fmt.Errorf("fleet: %w", err)
		}
		if err := l.Close(); err != nil {
			return nil, fmt.Errorf("fleet: %w", err)
		}
	}
	if o.TLS != nil {
		opts.TLS, opts.TLSConfig, opts.TLSTimeout = true, o.TLS, 5
		opts.TLSVerify = o.TLS.ClientAuth == tls.RequireAndVerifyClientCert
	}
	return opts, nil
}

// lockDir keeps a second broker out of a directory; the system lets go of the
// lock when the process dies.
func lockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("fleet: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("fleet: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("fleet: %s belongs to a broker that runs: %w", dir, err), f.Close())
	}
	return f, nil
}

// makeStreams makes those of devices that were given access: they may not make
// their own.
func (b *Broker) makeStreams(ctx context.Context, grants []Grant) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	c, err := Connect(ctx, Options{Broker: b, Name: "broker"})
	if err != nil {
		return err
	}
	defer c.Close()
	for _, g := range grants {
		if g.Role != Device {
			continue
		}
		if err := c.ensure(ctx, g.Name); err != nil {
			return err
		}
		if _, err := deviceAccount(b.srv, g.Name); err != nil {
			return err
		}
	}
	return nil
}

// follow has changes of the access file take effect: a device that is new gets
// its queue, and whose grant is gone is cut off.
func (b *Broker) follow(ctx context.Context, g *gate) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		came, gone := g.changes()
		for _, grant := range gone {
			n, err := g.expel(grant)
			g.log.Info("access is withdrawn", "role", grant.Role, "name", grant.Name, "connections", n)
			if err != nil {
				g.log.Error("connections may go on", "err", err)
			}
		}
		for _, grant := range came {
			g.log.Info("access is given", "role", grant.Role, "name", grant.Name)
		}
		if len(came) == 0 {
			continue
		}
		if err := b.makeStreams(ctx, came); err != nil && ctx.Err() == nil {
			g.log.Error("a device has no queue until a client asks for it", "err", err)
		}
	}
}

// URL is where the broker is reached from outside; "" if it is not.
func (b *Broker) URL() string {
	if b.srv.Addr() == nil {
		return ""
	}
	return b.srv.ClientURL()
}

// Close stops the broker. What it keeps stays.
func (b *Broker) Close() error {
	var err error
	b.close.Do(func() {
		b.stop()
		b.keeper.Wait()
		b.srv.Shutdown()
		b.srv.WaitForShutdown()
		err = b.lock.Close()
	})
	return err
}

// serverLog is what the server says, for a slog.Logger: its notices are our
// details.
type serverLog struct {
	log  *slog.Logger
	mu   sync.Mutex
	text string // of the last error
}

func (l *serverLog) fail(format string, v []any) {
	l.mu.Lock()
	l.text = fmt.Sprintf(format, v...)
	l.mu.Unlock()
	l.log.Error("broker", "err", fmt.Sprintf(format, v...))
}

func (l *serverLog) last() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.text == "" {
		return fmt.Sprintf("not ready after %v", startTimeout)
	}
	return l.text
}

func (l *serverLog) Noticef(format string, v ...any) {
	l.log.Debug("broker", "text", fmt.Sprintf(format, v...))
}

func (l *serverLog) Warnf(format string, v ...any) {
	l.log.Warn("broker", "text", fmt.Sprintf(format, v...))
}
func (l *serverLog) Fatalf(format string, v ...any) { l.fail(format, v) }
func (l *serverLog) Errorf(format string, v ...any) { l.fail(format, v) }
func (l *serverLog) Debugf(string, ...any)          {}
func (l *serverLog) Tracef(string, ...any)          {}
