package serve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
)

// limitedListener accepts while fewer than a number of its connections are open. The kernel holds the rest.
type limitedListener struct {
	net.Listener
	places chan struct{}
	done   chan struct{}
	once   sync.Once
}

func newLimitedListener(ln net.Listener, n int) *limitedListener {
	return &limitedListener{Listener: ln, places: make(chan struct{}, n), done: make(chan struct{})}
}

func (l *limitedListener) Accept() (net.Conn, error) {
	select {
	case l.places <- struct{}{}:
	case <-l.done:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.places
		return nil, err
	}
	return &limitedConn{Conn: c, release: sync.OnceFunc(func() { <-l.places })}, nil
}

func (l *limitedListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return l.Listener.Close()
}

// reserved is how many descriptors the process needs beside those of connections: for listeners, the log, the files of
// models and of secrets that are read again.
const reserved = 24

// fitConns is the number of connections that each of some listeners may have, no more than were asked for and no more
// than the process has descriptors for: one that runs out of those cannot load a model or read a renewed certificate.
func fitConns(asked, listeners int, limit uint64) int {
	if limit > uint64(asked)*uint64(listeners)+reserved {
		return asked
	}
	return max(int(limit)-reserved, listeners) / listeners
}

// connSet is the connections of a listener, so that they can be closed.
type connSet struct {
	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	closed bool
}

// of is ln with its connections noted.
func (s *connSet) of(ln net.Listener) net.Listener { return &notedListener{ln, s} }

// add reports false when the set is closed already.
func (s *connSet) add(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	if s.conns == nil {
		s.conns = map[net.Conn]struct{}{}
	}
	s.conns[c] = struct{}{}
	return true
}

func (s *connSet) remove(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

func (s *connSet) close() {
	s.mu.Lock()
	open := s.conns
	s.closed, s.conns = true, nil
	s.mu.Unlock()
	for c := range open {
		_ = c.Close() // its reader sees that
	}
}

type notedListener struct {
	net.Listener
	set *connSet
}

func (l *notedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	n := &notedConn{c, l.set}
	if !l.set.add(n) {
		_ = c.Close()
		return nil, net.ErrClosed
	}
	return n, nil
}

type notedConn struct {
	net.Conn
	set *connSet
}

func (c *notedConn) Close() error {
	c.set.remove(c)
	return c.Conn.Close()
}

// fitConns lowers MaxConns to what the process has descriptors for.
func (s *Server) fitConns() {
	limit, ok := descriptors()
	if s.metrics != nil {
		limit -= min(limit, maxOperators)
	}
	clients := 1
	if s.grpc != nil {
		clients++
	}
	if n := fitConns(s.opt.MaxConns, clients, limit); ok && n < s.opt.MaxConns {
		s.opt.Logger.Warn("fewer connections than wanted, the process may open too few files", "wanted", s.opt.MaxConns, "connections", n, "ulimit", limit)
		s.opt.MaxConns = n
	}
}

func listen(addr string) (net.Listener, error) {
	ln, err := new(net.ListenConfig).Listen(context.Background(), "tcp", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("serve: %s is in use by another program: stop it, or choose another address (port 0 takes a free one)", addr)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("serve: %s: ports below 1024 need privileges: choose another", addr)
	case err != nil:
		return nil, fmt.Errorf("serve: %w", err)
	}
	return ln, nil
}
