package serve

import (
	"compress/zlib"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/gzip"
)

// A client must send leastPiece of a message in BodyIdleTimeout, or is too slow. One that has shown to be faster is
// asked for as much at once as comes in pieceTime, up to mostPiece: grpc then opens the flow-control window for all of
// that, where the client would otherwise wait for each piece to be read.
const (
	leastPiece = 32 << 10
	mostPiece  = 1 << 20
	pieceTime  = 2 * time.Second
)

// wireStream is a call's stream below grpc's codec. grpc's own way to a message opens the flow-control window for all
// of it and gathers it in memory before anybody could refuse it; from here its length is known when the first bytes
// are, and it is read as it comes, into memory that is counted.
//
// These are exported methods of an unexported type: an update of grpc that renames them fails every test of calls.
type wireStream interface {
	// ReadMessageHeader fills p, whatever it is of. It returns io.EOF when the stream ended before.
	ReadMessageHeader(p []byte) error
	RecvCompress() string
}

// inbound receives the messages of one call, one after the other, behind the same guards as the body of an HTTP
// request.
type inbound struct {
	s     *Server
	cause func() error // why the call's context is done
	call  *rpc
	from  wireStream

	read int64       // bytes of all messages
	got  int         // bytes of the message
	left int         // bytes of it that were not read
	at   time.Time   // when it began
	end  time.Time   // when all of it must be there
	slow *time.Timer // cancels the call; stopped between messages
}

func (g *rpcServer) inbound(ctx context.Context) (*inbound, error) {
	from, ok := grpc.ServerTransportStreamFromContext(ctx).(wireStream)
	if !ok {
		return nil, errors.New("this version of grpc hides its stream")
	}
	r := rpcOf(ctx)
	in := &inbound{s: g.s, cause: func() error { return context.Cause(ctx) }, call: r, from: from}
	in.slow = time.AfterFunc(time.Hour, func() { r.cancel(errSlow) })
	in.slow.Stop()
	if from.RecvCompress() != "" {
		// grpc would compress the answers as well: more work than tensors are worth.
		if err := grpc.SetSendCompressor(ctx, encoding.Identity); err != nil {
			return nil, err
		}
	}
	return in, nil
}

// next waits for a message and returns its content, decompressed. It returns io.EOF when the client has sent its last.
func (in *inbound) next() (io.Reader, error) {
	var header [5]byte
	if err := in.from.ReadMessageHeader(header[:]); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, io.EOF
		}
		return nil, in.lost(err)
	}
	in.at, in.got = time.Now(), 0
	in.end = in.at.Add(in.s.opt.BodyTimeout)
	in.slow.Reset(in.s.opt.BodyIdleTimeout)
	size := int64(binary.BigEndian.Uint32(header[1:]))
	if size > in.s.opt.MaxBody {
		return nil, errLarge
	}
	in.left = int(size)
	if header[0] == 0 {
		return in, nil
	}
	at := slices.IndexFunc(compressions, func(c encoding.Compressor) bool { return c.Name() == in.from.RecvCompress() })
	if header[0] != 1 || at < 0 {
		return nil, badRequest("the message is compressed in a way that the call does not name")
	}
	plain, err := compressions[at].Decompress(in)
	if err != nil {
		return nil, emptyIsCorrupt(err)
	}
	return &limitReader{corruptReader{plain}, in.s.opt.MaxBody}, nil
}

// Read reads of the message.
func (in *inbound) Read(p []byte) (int, error) {
	n := min(in.left, len(p), in.piece())
	if n == 0 {
		if len(p) == 0 {
			return 0, nil
		}
		return 0, io.EOF
	}
	in.slow.Reset(min(in.s.opt.BodyIdleTimeout, time.Until(in.end)))
	if err := in.from.ReadMessageHeader(p[:n]); err != nil {
		return 0, in.lost(notEOF(err))
	}
	in.left -= n
	in.got += n
	in.read += int64(n)
	return n, nil
}

// piece is how much to ask for.
func (in *inbound) piece() int {
	if in.got < leastPiece {
		return leastPiece
	}
	rate := float64(in.got) / max(time.Since(in.at), time.Millisecond).Seconds()
	return min(max(int(rate*pieceTime.Seconds()), leastPiece), mostPiece)
}

// finish drops what is left of a message.
func (in *inbound) finish() error {
	_, err := io.Copy(io.Discard, in)
	in.slow.Stop()
	return err
}

// last reports a message too many, where one was to come.
func (in *inbound) last() error {
	in.slow.Reset(in.s.opt.BodyIdleTimeout)
	defer in.slow.Stop()
	var header [5]byte
	switch err := in.from.ReadMessageHeader(header[:]); {
	case err == nil:
		return badRequest("more than one message in a call that takes one")
	case errors.Is(err, io.EOF):
		return nil
	default:
		return in.lost(err)
	}
}

// lost says why a stream ended early.
func (in *inbound) lost(err error) error {
	cause := in.cause()
	if e, ok := errors.AsType[*httpError](cause); ok {
		return e
	}
	switch {
	case errors.Is(cause, context.DeadlineExceeded):
		return errSlow
	case cause == nil && errors.Is(err, io.ErrUnexpectedEOF):
		return err
	}
	return errGone
}

// compressions are what messages may be compressed with.
var compressions = registered(encoding.GetCompressor(gzip.Name), deflate{})

// registered makes grpc know a compressor, which it wants done at the start.
func registered(gzip, deflate encoding.Compressor) []encoding.Compressor {
	encoding.RegisterCompressor(deflate)
	return []encoding.Compressor{gzip, deflate}
}

// deflate is what gRPC calls zlib, which grpc does not come with.
type deflate struct{}

func (deflate) Name() string { return "deflate" }

func (deflate) Compress(w io.Writer) (io.WriteCloser, error) { return zlib.NewWriter(w), nil }

func (deflate) Decompress(r io.Reader) (io.Reader, error) { return zlib.NewReader(r) }
