package serve

import (
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// body is a request's body behind its guards: deadlines that move with the bytes, a limit on the bytes as sent, the
// decompressor that the client named, and the same limit on what comes out of it.
type body struct {
	io.Reader
	// size is the length when it is known before reading, else -1. It counts decompressed bytes.
	size  int64
	clear func() // takes the read deadline off, so that waiting for the model is not cut by it
}

// openBody checks what can be checked before the first byte.
func (s *Server) openBody(w http.ResponseWriter, r *http.Request, limit int64) (*body, error) {
	if r.ContentLength > limit {
		return nil, errLarge
	}
	control := http.NewResponseController(w)
	paced := &pacedReader{
		r: r.Body, set: control.SetReadDeadline, idle: s.opt.BodyIdleTimeout, end: time.Now().Add(s.opt.BodyTimeout),
		chunked: len(r.TransferEncoding) > 0,
	}
	b := &body{Reader: &limitReader{paced, limit}, size: r.ContentLength, clear: func() { setReadDeadline(w, time.Time{}) }}
	encodings := r.Header.Values("Content-Encoding")
	if len(encodings) == 0 {
		return b, nil
	}
	var err error
	var plain io.Reader
	switch strings.ToLower(strings.TrimSpace(strings.Join(encodings, ","))) {
	case "", "identity":
		return b, nil
	case "gzip":
		plain, err = gzip.NewReader(b.Reader)
	case "deflate": // zlib by RFC 9110
		plain, err = zlib.NewReader(b.Reader)
	default:
		return nil, errCoding
	}
	if err != nil {
		return nil, emptyIsCorrupt(err)
	}
	b.Reader, b.size = &limitReader{corruptReader{plain}, limit}, -1
	return b, nil
}

// finish reports bytes that are left over.
func (b *body) finish() error {
	var one [1]byte
	n, err := io.ReadFull(b.Reader, one[:])
	if n > 0 {
		return badRequest("the body goes on after the last tensor")
	}
	if err != io.EOF {
		return err
	}
	return nil
}

// pacedReader gives every read its own deadline and the whole body another, so that a slow client is cut and a large
// body from an honest one is not.
type pacedReader struct {
	r    io.Reader
	set  func(time.Time) error
	idle time.Duration
	end  time.Time
	// chunked: the body came in HTTP/1.1's chunks.
	chunked bool
}

func (p *pacedReader) Read(b []byte) (int, error) {
	deadline := time.Now().Add(p.idle)
	if p.end.Before(deadline) {
		deadline = p.end
	}
	if err := p.set(deadline); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return 0, err
	}
	n, err := p.r.Read(b)
	if p.chunked && err != nil && err != io.EOF && !isNetwork(err) { // io.EOF as it is ends a body
		err = errChunks // net/http has no values for what can be wrong with them
	}
	return n, err
}

// limitReader fails with errLarge where io.LimitReader would pretend that the body ended.
type limitReader struct {
	r    io.Reader
	left int64
}

func (l *limitReader) Read(b []byte) (int, error) {
	if int64(len(b)) > l.left+1 {
		b = b[:l.left+1]
	}
	n, err := l.r.Read(b)
	if l.left -= int64(n); l.left < 0 {
		return 0, errLarge
	}
	return n, err
}

// corruptReader tells a body that cannot be decompressed from one that cannot be read.
type corruptReader struct{ r io.Reader }

func (c corruptReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	if _, ok := errors.AsType[flate.CorruptInputError](err); ok {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func emptyIsCorrupt(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// drain reads a short rest of a refused request, so that a client that is still writing gets to read the answer and
// keeps its connection. It leaves a deadline for what net/http reads after it.
func drain(w *recorder, r *http.Request) {
	const most, patience = 1 << 20, time.Second
	if r.ContentLength == 0 || !setReadDeadline(w, time.Now().Add(patience)) {
		return
	}
	if r.ContentLength > 0 && r.ContentLength <= most && r.Header.Get("Expect") == "" {
		if w.conn != nil {
			w.conn.waste = true
			defer func() { w.conn.waste = false }()
		}
		discard(r.Body)
	}
}

// waste takes what nobody reads. It is large, because a full queue has to throw whole tensors away, and each read costs
// as much as copying tens of kilobytes. On Linux its memory stays untouched.
var waste = sync.Pool{New: func() any { return new([256 << 10]byte) }}

// discard reads to the end. An answer follows whatever happens here; a connection that cannot be drained is closed by
// net/http.
func discard(r io.Reader) {
	b := waste.Get().(*[256 << 10]byte)
	defer waste.Put(b)
	for {
		if _, err := r.Read(b[:]); err != nil {
			return
		}
	}
}

// setReadDeadline reports whether the writer's connection has deadlines and took this one.
func setReadDeadline(w http.ResponseWriter, at time.Time) bool {
	return http.NewResponseController(w).SetReadDeadline(at) == nil
}

// hurry bounds what others write of a short answer by one deadline. HTTP/2 ends a stream whose deadline has passed, so that
// it is for the moment before the writing. Where there are no deadlines, nobody can hold a connection.
func (s *Server) hurry(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(s.opt.WriteIdleTimeout))
}

// writePaced writes in pieces, each with its own deadline.
func writePaced(w http.ResponseWriter, data []byte, idle time.Duration) error {
	const piece = 64 << 10
	control := http.NewResponseController(w)
	for len(data) > 0 {
		if err := control.SetWriteDeadline(time.Now().Add(idle)); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return err
		}
		n := min(piece, len(data))
		if _, err := w.Write(data[:n]); err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}
