package latency

import (
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// limitMemory bounds this process's data, and lets the kernel choose it first
// where memory runs out all the same. It is the private writable memory that
// is bounded: Go and ONNX Runtime both reserve addresses that they never use.
func limitMemory(bytes int64) {
	if bytes > 0 {
		limit := unix.Rlimit{Cur: uint64(bytes), Max: uint64(bytes)}
		_ = unix.Setrlimit(unix.RLIMIT_DATA, &limit) // refused where a lower limit holds
	}
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0) // or the kernel decides by itself
}

// machineMemory is how many bytes this machine or a control group above this
// process has, 0 where unknown.
func machineMemory(root fs.FS) int64 {
	var least int64
	note := func(bytes int64) {
		if bytes > 0 && (least == 0 || bytes < least) {
			least = bytes
		}
	}
	for line := range strings.Lines(read(root, "proc/meminfo")) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "MemTotal:" {
			kib, _ := strconv.ParseInt(f[1], 10, 64)
			note(kib << 10)
		}
	}
	for line := range strings.Lines(read(root, "proc/self/cgroup")) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 || parts[1] != "" {
			continue
		}
		for dir := path.Clean("/" + parts[2]); ; dir = path.Dir(dir) {
			bytes, _ := strconv.ParseInt(read(root, path.Join("sys/fs/cgroup", dir, "memory.max")), 10, 64)
			note(bytes)
			if dir == "/" {
				break
			}
		}
	}
	return least
}
