package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"spos/internal/fleet"
)

// A program whose clock is set at will runs under user-mode emulation, for Go
// asks the kernel for the time and no library: the emulator is a C program,
// and what it asks is libfaketime.
const (
	emulateClock   = "SPOS_TEST_CLOCK"    // file with how far the clock is off
	emulateQEMU    = "SPOS_TEST_QEMU"     // the emulator
	emulateLibrary = "SPOS_TEST_FAKETIME" // libfaketime
	emulatedName   = "emulated"           // what the program is called then
)

// emulate starts this process over under the emulator. What it starts in turn
// begins outside, and comes here too.
func emulate() {
	self, err := os.Executable()
	if err == nil {
		qemu := os.Getenv(emulateQEMU)
		args := append([]string{qemu, "-0", emulatedName, "-U", "LD_PRELOAD", self}, os.Args[1:]...)
		env := append(os.Environ(), "LD_PRELOAD="+os.Getenv(emulateLibrary), "FAKETIME_TIMESTAMP_FILE="+os.Getenv(emulateClock),
			"FAKETIME_NO_CACHE=1", "DONT_FAKE_MONOTONIC=1")
		err = syscall.Exec(qemu, args, env)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// clocks are the files that say how far the programs' clocks are off.
type clocks struct{ dir, qemu, library string }

func newClocks(t *testing.T) clocks {
	t.Helper()
	qemu, err := exec.LookPath("qemu-x86_64")
	if err != nil {
		t.Skip("no qemu-x86_64 (apt-get install qemu-user)")
	}
	libraries, err := filepath.Glob("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
	if err != nil || len(libraries) == 0 {
		t.Skip("no libfaketime for x86-64 (apt-get install libfaketime)")
	}
	c := clocks{t.TempDir(), qemu, libraries[0]}
	for _, role := range roles {
		c.set(t, role, 0)
	}
	return c
}

func (c clocks) file(role string) string { return filepath.Join(c.dir, role) }

// set sets a role's clock to so far off the true one, all at once.
func (c clocks) set(t *testing.T, role string, off time.Duration) {
	t.Helper()
	next := c.file("next")
	err := os.WriteFile(next, fmt.Appendf(nil, "%+d\n", int64(off.Seconds())), 0o600)
	if err == nil {
		err = os.Rename(next, c.file(role))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (c clocks) env(role string) []string {
	return []string{emulateClock + "=" + c.file(role), emulateQEMU + "=" + c.qemu, emulateLibrary + "=" + c.library}
}

const day = 24 * time.Hour

// leaps are where a clock is set, one after the other: on by a day, back, back
// by a day, on until jobs and attachments have aged out, back by an hour.
var leaps = []time.Duration{day, 0, -day, 8 * day, -time.Hour, 0}

// TestClocks sets the clocks of the programs, each by itself, while they
// measure, and kills each once just after (make agents-clock).
func TestClocks(t *testing.T) {
	if os.Getenv("SPOS_CLOCK") == "" {
		t.Skip("SPOS_CLOCK is not set: make agents-clock does; it takes minutes")
	}
	c := newClocks(t)
	e := newEnsemble(t, size{nets: 1, holdout: 1, sessions: 2}, c.env)
	type leap struct {
		role string
		to   time.Duration
		kill bool
	}
	var order []leap
	for i, to := range leaps {
		for j, role := range roles {
			order = append(order, leap{role, to, i == 2+j}) // back, far on, back
		}
	}
	rng := rand.New(rand.NewPCG(3, 3))
	for i := 0; i < len(order); i += len(roles) {
		rng.Shuffle(len(roles), func(a, b int) { order[i+a], order[i+b] = order[i+b], order[i+a] })
	}
	killed := 0
	for k, l := range order {
		e.await(t, (k+1)*e.all()/(len(order)+1))
		c.set(t, l.role, l.to)
		if l.kill {
			killed++
			e.stop(l.role)
			e.start(t, l.role)
		}
		e.awaitState(t, fleet.Idle, fleet.Busy)
	}
	e.finish(t)
	t.Logf("%d leaps of clocks, %d programs killed", len(order), killed)
	e.check(t, killed)
	for _, role := range roles {
		if len(e.said(t, role, "this machine's clock was set, or it slept; work goes on")) == 0 {
			t.Errorf("the %s does not say that its clock was set", role)
		}
	}

	e.stop("agent")
	c.set(t, "broker", -2*day)
	e.awaitState(t, fleet.Away)
}

// awaitState waits until the broker says that of the device.
func (e *ensemble) awaitState(t *testing.T, states ...fleet.State) {
	t.Helper()
	conn := e.connect(t)
	defer conn.Close()
	for {
		list, err := conn.Devices(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(list, func(p fleet.Presence) bool { return p.Name == "dev" })
		if i >= 0 && slices.Contains(states, list[i].State) {
			return
		}
		time.Sleep(50 * time.Millisecond) // nothing says when it changes
	}
}
