package serve_test

import (
	"errors"
	"os"
	"runtime/debug"
	"syscall"
)

func fifo(path string) error { return syscall.Mkfifo(path, 0o644) }

// sparse makes a file that is large and takes no space.
func sparse(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

func freeMemory() { debug.FreeOSMemory() }
