//go:build unix

package serve

import "syscall"

// descriptors is how many files and connections the process may have open.
func descriptors() (uint64, bool) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, false
	}
	return uint64(limit.Cur), true //nolint:unconvert // signed on FreeBSD
}
