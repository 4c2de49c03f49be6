package latency

import (
	"runtime"
	"testing"
	"testing/fstest"
)

func tree(files map[string]string) fstest.MapFS {
	m := fstest.MapFS{}
	for name, text := range files {
		m[name] = &fstest.MapFile{Data: []byte(text + "\n")}
	}
	return m
}

func TestReadHost(t *testing.T) {
	const x86 = "processor\t: 0\nmodel name\t: Example 9\ncpu family\t: 25\nmodel\t\t: 17\nstepping\t: 1\nmicrocode\t: 0xa1\nflags\t\t: sse avx2 fpu\n\nprocessor\t: 1\nmodel name\t: Other\n"
	const reordered = "model name\t: Example 9\ncpu family\t: 25\nmodel\t\t: 17\nstepping\t: 1\nflags\t\t: fpu avx2 sse\n"
	const arm = "processor\t: 0\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\nCPU part\t: 0xd08\nCPU revision\t: 3\n"
	cpu := "sys/devices/system/cpu/"
	h := readHost(tree(map[string]string{
		"proc/cpuinfo": x86, "proc/sys/kernel/osrelease": "6.1.0",
		cpu + "cpu0/cpufreq/scaling_governor": "powersave", cpu + "intel_pstate/no_turbo": "0",
		"proc/self/cgroup": "0::/a/b", "sys/fs/cgroup/a/cpu.max": "150000 100000", "sys/fs/cgroup/a/b/cpu.max": "max 100000",
		"proc/meminfo": "MemTotal:  8388608 kB\nMemFree: 1 kB", "sys/fs/cgroup/a/memory.max": "2147483648", "sys/fs/cgroup/memory.max": "max",
		"sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never", cpu + "smt/active": "0",
	}))
	want := Host{
		CPU: "Example 9 cpu family 25 model 17 stepping 1", Flags: h.Flags, Cores: runtime.NumCPU(),
		Arch: runtime.GOOS + "/" + runtime.GOARCH, Kernel: "6.1.0", Governor: "powersave", Turbo: "on", Quota: "1.50",
		Memory: "2048 MiB", HugePages: "madvise", SMT: "off", Microcode: "0xa1",
	}
	if h != want || h.Flags == "" {
		t.Errorf("got  %+v\nwant %+v", h, want)
	}
	if again := readHost(tree(map[string]string{"proc/cpuinfo": reordered})); again.Flags != h.Flags {
		t.Error("the order of the flags changes their hash")
	}
	a := readHost(tree(map[string]string{"proc/cpuinfo": arm, cpu + "cpufreq/boost": "0"}))
	if a.CPU != "implementer 0x41 part 0xd08 revision 3" || a.Turbo != "off" {
		t.Errorf("ARM: %+v", a)
	}
	unlimited := map[string]string{
		"proc/meminfo": "MemTotal:  8388608 kB", "proc/self/cgroup": "4:memory:/job", "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "9223372036854771712",
	}
	if got := memoryLimit(tree(unlimited)); got != "" {
		t.Errorf("memory limit %q where there is none", got)
	}
	if none := readHost(tree(nil)); none.CPU != "" || none.Quota != "" || none.Turbo != "" {
		t.Errorf("nothing to read: %+v", none)
	}
}

func TestQuota(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  string
	}{
		"v1": {map[string]string{
			"proc/self/cgroup":                           "3:cpu,cpuacct:/job\n1:name=systemd:/",
			"sys/fs/cgroup/cpu/job/cpu.cfs_quota_us":     "50000",
			"sys/fs/cgroup/cpu/job/cpu.cfs_period_us":    "100000",
			"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1",
		}, "0.50"},
		"least of two": {map[string]string{
			"proc/self/cgroup": "0::/a/b", "sys/fs/cgroup/cpu.max": "100000 100000", "sys/fs/cgroup/a/b/cpu.max": "400000 100000",
		}, "1.00"},
		"unlimited": {map[string]string{"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "max 100000"}, ""},
		"nonsense":  {map[string]string{"proc/self/cgroup": "what\n0::\n::::", "sys/fs/cgroup/cpu.max": "0 0"}, ""},
	} {
		if got := quota(tree(c.files)); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestLoadAndCache(t *testing.T) {
	root := tree(map[string]string{
		"proc/loadavg": "8.99 6.27 3.12 12/151 26749",
		"sys/devices/system/cpu/cpu0/cache/index2/size": "1024K", "sys/devices/system/cpu/cpu0/cache/index3/size": "32768K",
	})
	if got := loadAverage(root); got != 8.99 {
		t.Errorf("load %v, want 8.99", got)
	}
	if got := lastLevelCache(root); got != 32<<20 {
		t.Errorf("cache %d, want 32 MiB", got)
	}
	if loadAverage(tree(nil)) != -1 || lastLevelCache(tree(nil)) != 0 {
		t.Error("unknown is not told apart")
	}
}
