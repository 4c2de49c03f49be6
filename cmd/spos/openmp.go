package main

import (
	"os"
	"syscall"
)

// boundOpenMP starts the program over with a bound on how long OpenMP's
// waiting threads spin before they sleep, unless the user has chosen. The
// default spins for milliseconds: as soon as anything else runs, the spinning
// thread holds the processor that its partner needs, and a training step
// takes ten times as long. Sleeping at once costs a quarter of the speed of a
// quiet machine (docs/lab.md). The library reads its environment when it is
// loaded, so before main.
func boundOpenMP() {
	const policy, spin, count = "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "40000"
	for _, name := range []string{policy, spin} {
		if _, chosen := os.LookupEnv(name); chosen {
			return
		}
	}
	exe, err := os.Executable()
	if err != nil || os.Setenv(spin, count) != nil {
		return // slower, not wrong
	}
	_ = syscall.Exec(exe, os.Args, os.Environ())
}
