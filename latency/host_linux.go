package latency

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// readHost reads the machine's side of a fingerprint out of a file system that
// is rooted at "/"; what is not there stays empty.
func readHost(root fs.FS) Host {
	h := Host{Arch: runtime.GOOS + "/" + runtime.GOARCH, Cores: runtime.NumCPU()}
	var flags string
	h.CPU, h.Microcode, flags = cpuinfo(read(root, "proc/cpuinfo"))
	sum := sha256.Sum256([]byte(flags))
	h.Flags = hex.EncodeToString(sum[:6])
	h.Kernel = read(root, "proc/sys/kernel/osrelease")
	const cpu = "sys/devices/system/cpu/"
	h.Governor = read(root, cpu+"cpu0/cpufreq/scaling_governor")
	switch {
	case read(root, cpu+"intel_pstate/no_turbo") == "0", read(root, cpu+"cpufreq/boost") == "1":
		h.Turbo = "on"
	case read(root, cpu+"intel_pstate/no_turbo") == "1", read(root, cpu+"cpufreq/boost") == "0":
		h.Turbo = "off"
	}
	h.Quota = quota(root)
	h.Memory = memoryLimit(root)
	switch read(root, cpu+"smt/active") {
	case "0":
		h.SMT = "off"
	case "1":
		h.SMT = "on"
	}
	if _, mode, ok := strings.Cut(read(root, "sys/kernel/mm/transparent_hugepage/enabled"), "["); ok {
		h.HugePages, _, _ = strings.Cut(mode, "]")
	}
	return h
}

// memoryLimit is the least that a cgroup above this process grants, "" where
// none is below the machine's own.
func memoryLimit(root fs.FS) string {
	var total, least uint64
	for line := range strings.Lines(read(root, "proc/meminfo")) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "MemTotal:" {
			kib, _ := strconv.ParseUint(f[1], 10, 64)
			total = kib << 10
		}
	}
	for _, dir := range controlGroups(root, "memory") {
		for _, name := range []string{"memory.max", "memory.limit_in_bytes"} {
			n, err := strconv.ParseUint(read(root, dir+"/"+name), 10, 64) // "max" is none
			if err == nil && n > 0 && (least == 0 || n < least) && (total == 0 || n < total) {
				least = n
			}
		}
	}
	if least == 0 {
		return ""
	}
	return fmt.Sprintf("%d MiB", least>>20)
}

// cpuinfo finds the first processor's model, microcode and flags, as x86 and
// ARM spell them; ARM has numbers for a name.
func cpuinfo(text string) (model, microcode, flags string) {
	values := map[string]string{}
	for line := range strings.Lines(text) {
		k, v, ok := strings.Cut(line, ":")
		k = strings.TrimSpace(k)
		if _, seen := values[k]; ok && !seen {
			values[k] = strings.TrimSpace(v)
		}
	}
	words := strings.Fields(values["flags"] + values["Features"])
	slices.Sort(words)
	model = values["model name"]
	for _, k := range []string{"cpu family", "model", "stepping", "CPU implementer", "CPU part", "CPU revision"} {
		if v := values[k]; v != "" {
			model += " " + strings.TrimPrefix(k, "CPU ") + " " + v
		}
	}
	return strings.TrimSpace(model), values["microcode"], strings.Join(words, " ")
}

// quota is the least number of processors that a cgroup above this process
// grants, of version 2 or 1.
func quota(root fs.FS) string {
	least := 0.0
	note := func(quota, period string) {
		q, err1 := strconv.ParseFloat(quota, 64) // "max" and -1 are no limit
		p, err2 := strconv.ParseFloat(period, 64)
		if err1 == nil && err2 == nil && q > 0 && p > 0 && (least == 0 || q/p < least) {
			least = q / p
		}
	}
	for _, dir := range groups(root) {
		if granted := strings.Fields(read(root, dir+"/cpu.max")); len(granted) == 2 {
			note(granted[0], granted[1])
		}
		note(read(root, dir+"/cpu.cfs_quota_us"), read(root, dir+"/cpu.cfs_period_us"))
	}
	if least == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", least)
}

// loadAverage is over the last minute, -1 where unknown.
func loadAverage(root fs.FS) float64 {
	first, _, _ := strings.Cut(read(root, "proc/loadavg"), " ")
	load, err := strconv.ParseFloat(first, 64)
	if err != nil {
		return -1
	}
	return load
}

// lastLevelCache is its size in bytes, 0 where unknown.
func lastLevelCache(root fs.FS) int {
	size := 0
	for _, index := range []string{"index2", "index3", "index4"} {
		text := read(root, "sys/devices/system/cpu/cpu0/cache/"+index+"/size")
		if n, err := strconv.Atoi(strings.TrimSuffix(text, "K")); err == nil {
			size = max(size, n<<10)
		}
	}
	return size
}

func read(root fs.FS, name string) string {
	b, err := fs.ReadFile(root, name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// allowed lists the processors that this thread may run on.
func allowed() []int {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil
	}
	var cpus []int
	for cpu := range len(set) * 64 {
		if set.IsSet(cpu) {
			cpus = append(cpus, cpu)
		}
	}
	return cpus
}

// bind binds the calling thread, which must be locked, to processors and
// returns what undoes it.
func bind(cpus ...int) (undo func(), err error) {
	var before, set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return nil, fmt.Errorf("read the thread's affinity: %w", err)
	}
	for _, cpu := range cpus {
		set.Set(cpu)
	}
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("bind to processors %v: %w", cpus, err)
	}
	return func() { _ = unix.SchedSetaffinity(0, &before) }, nil
}

// favour puts the calling thread, which must be locked, and the threads that
// it starts, before all ordinary work: the lowest real-time priority, where
// that is permitted. Niceness would not do: where the kernel groups processes
// by session, it counts only within one. The kernel keeps a twentieth of the
// time for others. It returns what undoes it.
func favour() (undo func()) {
	before, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		return func() {}
	}
	realtime := &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}
	if unix.SchedSetAttr(0, realtime, 0) != nil {
		return func() {}
	}
	return func() { _ = unix.SchedSetAttr(0, before, 0) }
}

// turn waits until no other process holds the file's lock, and holds it.
func turn(ctx context.Context, path string) (release func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
	if errors.Is(err, fs.ErrPermission) {
		f, err = os.Open(path) // another user's: a lock needs no right to write
	}
	if err != nil {
		return func() {}, nil //nolint:nilerr // a read-only machine: measure all the same
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil // closing lets go
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return func() {}, f.Close()
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("latency: wait for another process's measurement: %w", context.Cause(ctx)), f.Close())
		}
	}
}

// preemptions counts how often the calling thread lost its processor.
func preemptions() int64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
		return 0
	}
	return u.Nivcsw
}
