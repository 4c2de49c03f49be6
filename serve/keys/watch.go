// Package keys holds the secrets that a server is started with: bearer tokens, and certificates for TLS. Both come from
// files and are read again when these change, so that a token can be revoked and a certificate renewed without a stop.
// A changed file that cannot be used is logged, and what was read before it stays. It must never know what is served,
// and never writes a secret anywhere.
package keys

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// maxFile bounds every file that is read here.
const maxFile = 1 << 20

// every is how often files are looked at, at most.
const every = time.Second

// watched calls load again when one of its files has changed.
type watched struct {
	what  string // they are, in the log
	paths []string
	load  func() error
	log   *slog.Logger

	start time.Time    // a monotonic clock: the wall's may jump
	next  atomic.Int64 // nanoseconds since start
	mu    sync.Mutex
	seen  []os.FileInfo
	said  string // the last complaint, which is not repeated
}

// open loads for the first time, when failing is the caller's to report.
func (w *watched) open() error {
	w.paths = slices.DeleteFunc(w.paths, func(p string) bool { return p == "" })
	w.start = time.Now()
	w.next.Store(int64(every))
	seen, err := statAll(w.paths)
	if err != nil {
		return err
	}
	w.seen = seen
	return w.load()
}

// refresh looks at the files, once a second however often it is called. Who comes while another looks goes on.
func (w *watched) refresh() {
	now := time.Since(w.start)
	if int64(now) < w.next.Load() || !w.mu.TryLock() {
		return
	}
	defer w.mu.Unlock()
	w.next.Store(int64(now + every))
	seen, err := statAll(w.paths)
	if err == nil {
		if slices.EqualFunc(seen, w.seen, same) {
			return
		}
		// Noted before reading: what is written meanwhile changes it again.
		w.seen = seen
		if err = w.load(); err == nil {
			w.said = ""
			w.log.Info("read again", "what", w.what)
			return
		}
	}
	if text := err.Error(); text != w.said {
		w.said = text
		w.log.Error("changed and cannot be used; what was read before stays", "what", w.what, "err", err)
	}
}

func statAll(paths []string) ([]os.FileInfo, error) {
	var all []os.FileInfo
	for _, p := range paths {
		info, err := os.Stat(p) // through links: mounted secrets change by those
		if err != nil {
			return nil, err
		}
		all = append(all, info)
	}
	return all, nil
}

func same(a, b os.FileInfo) bool {
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size() && a.Mode() == b.Mode()
}

// read returns a regular file and what it is.
func read(path string) (_ []byte, _ os.FileInfo, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() { // opening a pipe would wait
		return nil, nil, fmt.Errorf("%s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if info, err = f.Stat(); err != nil {
		return nil, nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, nil, err
	}
	if len(b) > maxFile {
		return nil, nil, fmt.Errorf("%s is larger than %d bytes", path, maxFile)
	}
	return b, info, nil
}
