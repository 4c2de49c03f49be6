package load

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"
)

// patience is how long a client waits for an answer before it counts as lost.
const patience = 60 * time.Second

// httpClient sends the same bytes again and again over one connection. It does less than any client that a program
// would use, so that what is measured is the server.
type httpClient struct {
	conn    net.Conn
	answers *bufio.Reader
	send    func(net.Conn) error
	close   func() error
}

// HTTP is a client that posts a body to a path.
func HTTP(addr, path string, header http.Header, body []byte) Dial {
	request := post(addr, path, header, body)
	return func() (Client, error) {
		return dialHTTP(addr, func(conn net.Conn) error {
			_, err := conn.Write(request)
			return err
		}, func() error { return nil })
	}
}

// HTTPFile is [HTTP] whose requests the kernel sends from a file, which it writes: a client that leaves the processors
// to the server as far as one on the same machine can.
func HTTPFile(file, addr, path string, header http.Header, body []byte) (Dial, error) {
	if err := os.WriteFile(file, post(addr, path, header, body), 0o600); err != nil {
		return nil, err
	}
	return func() (Client, error) {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		return dialHTTP(addr, func(conn net.Conn) error {
			_, err := f.Seek(0, io.SeekStart)
			if err == nil {
				_, err = io.Copy(conn, f) // sendfile(2)
			}
			return err
		}, f.Close)
	}, nil
}

func post(addr, path string, header http.Header, body []byte) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n", path, addr, len(body))
	_ = header.Write(&b) // to memory
	b.WriteString("\r\n")
	b.Write(body)
	return b.Bytes()
}

func dialHTTP(addr string, send func(net.Conn) error, closed func() error) (Client, error) {
	conn, err := net.Dial("tcp", addr) //nolint:noctx // loopback; there is nothing to cancel
	if err != nil {
		return nil, errors.Join(err, closed())
	}
	return &httpClient{conn, bufio.NewReaderSize(conn, 16<<10), send, closed}, nil
}

func (c *httpClient) Do() (Outcome, error) {
	if err := c.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return Failed, err
	}
	// A server may answer before it has all of the request, and then close.
	sent := c.send(c.conn)
	resp, err := http.ReadResponse(c.answers, nil)
	if err != nil {
		if sent != nil {
			err = sent
		}
		return Failed, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 200))
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body)
	}
	if err != nil {
		return Failed, err
	}
	switch resp.StatusCode {
	case http.StatusOK:
		return Answered, nil
	case http.StatusServiceUnavailable:
		if resp.Close || sent != nil {
			return Refused, c.renew()
		}
		return Refused, nil
	}
	return Failed, fmt.Errorf("%s: %s", resp.Status, text)
}

// renew replaces a connection that the server closed.
func (c *httpClient) renew() error {
	addr := c.conn.RemoteAddr()
	_ = c.conn.Close()
	conn, err := net.Dial(addr.Network(), addr.String()) //nolint:noctx // as in HTTP
	if err != nil {
		return err
	}
	c.conn = conn
	c.answers.Reset(conn)
	return nil
}

func (c *httpClient) Close() error { return errors.Join(c.conn.Close(), c.close()) }
