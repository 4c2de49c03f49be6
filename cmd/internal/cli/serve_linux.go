package cli

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// patiently has threads that wake wait for a processor until the scheduler's
// next look, at most some milliseconds, where they would take it from a run at
// once: with as many runs as processors, every piece of every request would
// interrupt one. Where a processor is idle nobody waits. What an administrator
// has chosen stays as it is, and so does everything where this is not allowed.
func patiently() (undo func()) {
	if !schedule(unix.SCHED_NORMAL, unix.SCHED_BATCH) {
		return func() {}
	}
	return func() { schedule(unix.SCHED_BATCH, unix.SCHED_NORMAL) }
}

// schedule moves all threads of one policy to another, until a look finds none:
// a thread has that of the one that started it. It reports whether it moved any.
func schedule(from, to uint32) (moved bool) {
	for changed := true; changed; {
		changed = false
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return moved
		}
		for _, task := range tasks {
			tid, err := strconv.Atoi(task.Name())
			if err != nil {
				continue
			}
			a, err := unix.SchedGetAttr(tid, 0)
			if err != nil || a.Policy != from {
				continue // it has ended, or is not ours to change
			}
			a.Policy = to
			if err := unix.SchedSetAttr(tid, a, 0); err == nil {
				changed, moved = true, true
			}
		}
	}
	return moved
}
