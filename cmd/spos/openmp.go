package main

import (
	"os"
	"syscall"
)

// passiveOpenMP starts the program over with OpenMP's waiting threads asleep,
// unless the user has chosen otherwise. Spinning threads, the default, take
// the processor from whoever they wait for as soon as anything else runs:
// training became fifty times slower on a busy two-core machine. The library
// reads its environment when it is loaded, so before main.
func passiveOpenMP() {
	const policy = "OMP_WAIT_POLICY"
	if _, chosen := os.LookupEnv(policy); chosen {
		return
	}
	exe, err := os.Executable()
	if err != nil || os.Setenv(policy, "passive") != nil {
		return // slower, not wrong
	}
	_ = syscall.Exec(exe, os.Args, os.Environ())
}
