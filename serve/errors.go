package serve

import (
	"compress/gzip"
	"compress/zlib"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"spos/internal/imaging"
)

// httpError is an answer: an HTTP status, from which the code of gRPC follows, and a text that the client may read.
// It never holds a path, a stack or the text of a library.
type httpError struct {
	code int
	msg  string
	// allow is the value of the Allow header of a 405.
	allow string
	// challenge is the value of the WWW-Authenticate header of a 401 or 403.
	challenge string
	// retry is when to ask again after a 503; 0: soon.
	retry time.Duration
}

func (e *httpError) Error() string { return e.msg }

// GRPCStatus is the same answer to a call.
func (e *httpError) GRPCStatus() *status.Status { return status.New(e.grpcCode(), e.msg) }

func (e *httpError) grpcCode() codes.Code {
	switch e.code {
	case http.StatusUnauthorized:
		return codes.Unauthenticated
	case http.StatusForbidden:
		return codes.PermissionDenied
	case http.StatusNotFound:
		return codes.NotFound
	case http.StatusRequestTimeout, http.StatusGatewayTimeout:
		return codes.DeadlineExceeded
	case http.StatusRequestEntityTooLarge, http.StatusTooManyRequests:
		return codes.ResourceExhausted
	case statusClientGone:
		return codes.Canceled
	case http.StatusNotImplemented:
		return codes.Unimplemented
	case http.StatusServiceUnavailable:
		if e == errQueued { // HTTP tells the two apart by 503 and 504
			return codes.DeadlineExceeded
		}
		return codes.Unavailable
	}
	if e.code >= 500 {
		return codes.Internal
	}
	return codes.InvalidArgument
}

func failf(code int, format string, args ...any) error {
	return &httpError{code: code, msg: fmt.Sprintf(format, args...)}
}

func badRequest(format string, args ...any) error {
	return failf(http.StatusBadRequest, format, args...)
}

// statusClientGone is logged, never written: nobody is left to read it.
const statusClientGone = 499

var (
	errNoPath  = &httpError{code: http.StatusNotFound, msg: "no such path"}
	errBusy    = &httpError{code: http.StatusServiceUnavailable, msg: "the model's queue is full, try again later"}
	errFull    = &httpError{code: http.StatusServiceUnavailable, msg: "every model's queue is full, try again later"}
	errMemory  = &httpError{code: http.StatusServiceUnavailable, msg: "the requests in flight hold all memory that they may, try again later"}
	errNeeds   = &httpError{code: http.StatusRequestEntityTooLarge, msg: "the request needs more memory than the server has for all of them"}
	errQueued  = &httpError{code: http.StatusServiceUnavailable, msg: "the request's time ran out while it waited in the queue"}
	errRun     = &httpError{code: http.StatusGatewayTimeout, msg: "the request's time ran out while the model computed"}
	errStop    = &httpError{code: http.StatusServiceUnavailable, msg: "the server stopped before the request was done"}
	errGone    = &httpError{code: statusClientGone, msg: "the client went away"}
	errLarge   = &httpError{code: http.StatusRequestEntityTooLarge, msg: "the request's body is larger than the server accepts"}
	errMethod  = &httpError{code: http.StatusNotImplemented, msg: "no such method"}
	errIdle    = &httpError{code: http.StatusServiceUnavailable, msg: "no request came on the stream for too long"}
	errWatches = &httpError{code: http.StatusServiceUnavailable, msg: "too many streams that only wait are open"}
	errSlow    = &httpError{code: http.StatusRequestTimeout, msg: "the request's body did not arrive in time"}
	errCoding  = &httpError{code: http.StatusUnsupportedMediaType, msg: "Content-Encoding is not supported: use gzip, deflate or none"}
	errChunks  = &httpError{code: http.StatusBadRequest, msg: "the request's chunks are broken, or end early"}
)

// answer is the one table from errors to HTTP. What it does not know is a 500 whose text stays in the log.
func answer(err error, id string) *httpError {
	if e, ok := errors.AsType[*httpError](err); ok {
		return e
	}
	code, msg := http.StatusInternalServerError, "the request failed inside the server; its log has the reason under request id "+id
	switch {
	case errors.Is(err, ErrUnavailable):
		code, msg = http.StatusServiceUnavailable, "the model is not available"
	case errors.Is(err, imaging.ErrTooLarge):
		code, msg = http.StatusRequestEntityTooLarge, err.Error()
	case errors.Is(err, imaging.ErrFormat):
		code, msg = http.StatusUnsupportedMediaType, err.Error()
	case errors.Is(err, imaging.ErrImage):
		code, msg = http.StatusBadRequest, err.Error()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errSlow
	case errors.Is(err, context.Canceled):
		return errGone
	case isCorrupt(err):
		code, msg = http.StatusBadRequest, "the request's body is corrupt or ends early"
	}
	return &httpError{code: code, msg: msg}
}

// isNetwork reports errors of the connection: time ran out, or the client went away.
func isNetwork(err error) bool {
	_, ok := errors.AsType[net.Error](err)
	return ok
}

// isCorrupt reports errors of reading a body that the sender is to blame for.
func isCorrupt(err error) bool {
	for _, target := range []error{io.ErrUnexpectedEOF, gzip.ErrHeader, gzip.ErrChecksum, zlib.ErrHeader, zlib.ErrChecksum, zlib.ErrDictionary} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// seconds is the value of a Retry-After header: whole seconds, at least one, and no more than anybody would wait.
func seconds(d time.Duration) string {
	return strconv.Itoa(min(max(int((d+time.Second-1)/time.Second), 1), 60))
}
