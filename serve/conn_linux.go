package serve

import (
	"io"
	"net"
	"syscall"
)

// discard is a read of bytes that nobody looks at: of a connection without TLS, the kernel drops them without a copy
// (MSG_TRUNC, tcp(7)).
func (c *limitedConn) discard(p []byte) (n int, err error) {
	tcp, ok := c.Conn.(*net.TCPConn)
	if !ok {
		return c.Conn.Read(p)
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return 0, err
	}
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		for {
			n, _, failed = syscall.Recvfrom(int(fd), p, syscall.MSG_TRUNC)
			if failed != syscall.EINTR {
				return failed != syscall.EAGAIN
			}
		}
	})
	switch {
	case err != nil:
		return 0, err
	case failed != nil:
		return 0, &net.OpError{Op: "read", Net: "tcp", Source: tcp.LocalAddr(), Addr: tcp.RemoteAddr(), Err: failed}
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}
