package runs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
)

// ErrLocked is wrapped when another process is writing the run.
var ErrLocked = errors.New("runs: in use by another process")

// Lock takes the exclusive lock on a file for whoever writes what it stands
// for. It wraps [ErrLocked] and names the holder where there is one.
func Lock(path string) (io.Closer, error) { return lock(path) }

// lock takes the exclusive lock on a file, which the kernel gives back however
// the process ends, and leaves the process's id in it for others to read.
func lock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		holder, err := io.ReadAll(io.LimitReader(f, 200))
		if err != nil {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		return nil, fmt.Errorf("%s is held by %s: wait for it or end it, or work elsewhere: %w", path, strings.TrimSpace(string(holder)), ErrLocked)
	}
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	if err := f.Truncate(0); err != nil {
		return nil, errors.Join(fmt.Errorf("lock: %w", err), f.Close())
	}
	if _, err := fmt.Fprintf(f, "process %d on %s\n", os.Getpid(), host); err != nil {
		return nil, errors.Join(fmt.Errorf("lock: %w", err), f.Close())
	}
	return f, nil
}
