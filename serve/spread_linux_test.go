package serve

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSpread: a run that would begin where another did goes elsewhere, as long as there is an elsewhere, and its thread
// may run afterwards where it might before.
func TestSpread(t *testing.T) {
	runtime.LockOSThread() // and leave the thread to end: it may be narrowed when the test fails
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	s := spread{begun: map[int]int{}}
	for left := all.Count(); left > 0; left-- {
		for taken := range s.begun {
			back(t, taken, &all)
			break
		}
		defer s.enter()()
		if want := all.Count() - left + 1; len(s.begun) != want {
			t.Fatalf("%d runs began on %d processors: %v", want, len(s.begun), s.begun)
		}
	}
	leave := s.enter() // one more than there are processors
	if len(s.begun) != all.Count() {
		t.Errorf("runs on %v of %d processors", s.begun, all.Count())
	}
	leave()
	for cpu, runs := range s.begun {
		if runs != 1 {
			t.Errorf("%d runs on processor %d, want 1", runs, cpu)
		}
	}
	var after unix.CPUSet
	if err := unix.SchedGetaffinity(0, &after); err != nil || after != all {
		t.Errorf("the thread may run on %d processors (%v), before on %d", after.Count(), err, all.Count())
	}
}

// back puts the calling thread onto a processor, free to leave it.
func back(t *testing.T, cpu int, all *unix.CPUSet) {
	t.Helper()
	var one unix.CPUSet
	one.Set(cpu)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
	if err := unix.SchedSetaffinity(0, all); err != nil {
		t.Fatal(err)
	}
}
