package serve

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// processor is where the calling thread is, -1 where that is not to be had.
func processor() int {
	var cpu uint32
	if _, _, err := unix.RawSyscall(unix.SYS_GETCPU, uintptr(unsafe.Pointer(&cpu)), 0, 0); err != 0 {
		return -1
	}
	return int(cpu)
}

// avoid moves the calling thread to a processor that is not among these, if it may run on one, and returns where it is
// then. Narrowing what it may run on moves it at once, and giving it the rest again does not bring it back.
func avoid(taken map[int]int) int {
	var all unix.CPUSet
	if unix.SchedGetaffinity(0, &all) != nil {
		return processor()
	}
	others := all
	for cpu := range taken {
		others.Clear(cpu)
	}
	if others.Count() == 0 || unix.SchedSetaffinity(0, &others) != nil {
		return processor() // where it is, it runs as well as before
	}
	at := processor()
	_ = unix.SchedSetaffinity(0, &all) // what it had
	return at
}
