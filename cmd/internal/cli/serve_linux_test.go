package cli

import (
	"os"
	"runtime"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

func TestPatiently(t *testing.T) {
	policies := func() map[uint32]int {
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			t.Fatal(err)
		}
		n := map[uint32]int{}
		for _, task := range tasks {
			tid, err := strconv.Atoi(task.Name())
			if err != nil {
				t.Fatal(err)
			}
			if a, err := unix.SchedGetAttr(tid, 0); err == nil { // it may have ended
				n[a.Policy]++
			}
		}
		return n
	}
	if n := policies(); n[unix.SCHED_NORMAL] == 0 || n[unix.SCHED_BATCH] > 0 {
		t.Skipf("threads by policy %v: somebody has chosen one", n)
	}
	undo := patiently()
	started := make(chan struct{})
	release := make(chan struct{})
	defer close(release)
	for range 4 { // more threads than there are
		go func() {
			runtime.LockOSThread()
			started <- struct{}{}
			<-release
		}()
	}
	for range 4 {
		<-started
	}
	if n := policies(); n[unix.SCHED_NORMAL] > 0 || n[unix.SCHED_BATCH] == 0 {
		t.Errorf("threads by policy %v, want all to be patient", n)
	}
	patiently()() // all are already, as where an administrator has chosen it
	if n := policies(); n[unix.SCHED_NORMAL] > 0 {
		t.Errorf("threads by policy %v, want the choice of somebody else kept", n)
	}
	undo()
	if n := policies(); n[unix.SCHED_BATCH] > 0 {
		t.Errorf("threads by policy %v afterwards", n)
	}
}
