package serve

import (
	"context"
	"net"
)

// limitedConn is a connection of a limitedListener. Its reads and writes can be told what net/http, in between, does
// not know of them.
type limitedConn struct {
	net.Conn
	release func()
	holding bool
	held    []byte // written, but not yet sent
	waste   bool   // nobody looks at the large reads
}

type connKey struct{}

// withConn is http.Server's ConnContext. A connection under TLS is left alone: what is read of it has to be decrypted.
func withConn(ctx context.Context, c net.Conn) context.Context {
	if l, ok := c.(*limitedConn); ok {
		return context.WithValue(ctx, connKey{}, l)
	}
	return ctx
}

// connOf is the connection that an HTTP/1 request came over, nil where it cannot be told anything.
func connOf(ctx context.Context) *limitedConn {
	c, _ := ctx.Value(connKey{}).(*limitedConn)
	return c
}

// maxHeld is the longest answer that is held; logits of a thousand classes and their header fit.
const maxHeld = 8 << 10

// hold keeps what is written until send, so that a short answer goes out at once. net/http sends each four kilobytes,
// and the first of them wakes a client that has to wait for the rest.
func (c *limitedConn) hold() { c.holding = true }

// send sends what was held.
func (c *limitedConn) send() error {
	if !c.holding {
		return nil
	}
	held := c.held
	c.holding, c.held = false, held[:0]
	if len(held) == 0 {
		return nil
	}
	_, err := c.Conn.Write(held)
	return err
}

func (c *limitedConn) Write(p []byte) (int, error) {
	if c.holding {
		if len(c.held)+len(p) <= maxHeld {
			c.held = append(c.held, p...)
			return len(p), nil
		}
		if err := c.send(); err != nil {
			return 0, err
		}
	}
	return c.Conn.Write(p)
}

// bufferSize is what net/http reads at a time, unless it is asked for more of a body.
const bufferSize = 4 << 10

// Read reads. Its shorter reads may reach into the next request, and one of a single byte waits for the client to go
// while the request is answered.
func (c *limitedConn) Read(p []byte) (int, error) {
	if len(p) > bufferSize && c.waste {
		return c.discard(p)
	}
	return c.Conn.Read(p)
}

func (c *limitedConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}
