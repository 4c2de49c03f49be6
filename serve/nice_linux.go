package serve

import "syscall"

// addNice makes the calling thread nicer: on Linux, each has a priority of its own.
func addNice(n int) error {
	const least = 19
	now, err := syscall.Getpriority(syscall.PRIO_PROCESS, 0)
	if err != nil {
		return err
	}
	return syscall.Setpriority(syscall.PRIO_PROCESS, 0, min(20-now+n, least)) // the system call returns 20 less the priority
}
