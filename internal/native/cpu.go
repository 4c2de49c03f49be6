package native

import (
	"cmp"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/klauspost/cpuid/v2"
)

// Processor is what bears on speed: the chip, and the part of it that this
// process may use. A field that the machine does not tell is zero.
type Processor struct {
	Model       string   `json:"model"`
	Arch        string   `json:"arch"`     // GOARCH
	Physical    int      `json:"physical"` // cores of one socket
	Logical     int      `json:"logical"`  // CPUs that this process may be scheduled on
	Quota       float64  `json:"quota"`    // CPUs that the control group grants; 0: no limit
	Features    []string `json:"features"` // of those that the kernels of libtorch and ONNX Runtime choose by
	L2          int64    `json:"l2_bytes"`
	L3          int64    `json:"l3_bytes"`
	Governor    string   `json:"governor"`     // of CPU 0, as the kernel spells it
	Turbo       string   `json:"turbo"`        // on or off
	Memory      int64    `json:"memory_bytes"` // of the machine
	MemoryLimit int64    `json:"memory_limit"` // bytes that the control group grants; 0: no limit
}

// CPU describes the processor of this machine: see [Host.CPU].
func CPU() Processor { return Host{}.CPU() }

// CPU describes the processor. The chip's own facts are always those of the
// machine that runs the program; limits and settings are read under h.Root.
func (h Host) CPU() Processor {
	chip := cpuid.CPU
	p := Processor{
		Model:    cmp.Or(strings.TrimSpace(chip.BrandName), h.modelName(), "unknown"),
		Arch:     runtime.GOARCH,
		Physical: chip.PhysicalCores,
		Logical:  runtime.NumCPU(),
		Features: features(&chip),
		L2:       max(0, int64(chip.Cache.L2)),
		L3:       max(0, int64(chip.Cache.L3)),
		Governor: h.read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
		Memory:   h.memory(),
	}
	switch {
	case h.read("/sys/devices/system/cpu/intel_pstate/no_turbo") == "1", h.read("/sys/devices/system/cpu/cpufreq/boost") == "0":
		p.Turbo = "off"
	case h.read("/sys/devices/system/cpu/intel_pstate/no_turbo") == "0", h.read("/sys/devices/system/cpu/cpufreq/boost") == "1":
		p.Turbo = "on"
	}
	p.Quota, p.MemoryLimit = h.limits()
	return p
}

func features(chip *cpuid.CPUInfo) []string {
	found := []string{}
	for _, f := range []cpuid.FeatureID{
		cpuid.AVX, cpuid.AVX2, cpuid.FMA3, cpuid.F16C, cpuid.AVX512F, cpuid.AVX512BW, cpuid.AVX512VNNI, cpuid.AVX512BF16,
		cpuid.AVX512FP16, cpuid.AVXVNNI, cpuid.AMXTILE, cpuid.AMXBF16, cpuid.AMXINT8,
		cpuid.ASIMD, cpuid.ASIMDDP, cpuid.ASIMDHP, cpuid.SVE,
	} {
		if chip.Supports(f) {
			found = append(found, f.String())
		}
	}
	return found
}

// modelName serves the chips that do not tell their name themselves (arm64).
func (h Host) modelName() string {
	for _, key := range []string{"model name", "Model", "Hardware"} {
		if v := field(h.read("/proc/cpuinfo"), key); v != "" {
			return v
		}
	}
	return strings.TrimRight(h.read("/proc/device-tree/model"), "\x00")
}

func (h Host) memory() int64 {
	kib, _ := strconv.ParseInt(strings.TrimSuffix(field(h.read("/proc/meminfo"), "MemTotal"), " kB"), 10, 64)
	return kib << 10
}

// limits reads the tightest CPU and memory limits on the way from this
// process's control group to the root: version 2, and where only it is
// mounted, the group that version 1 shows a container.
func (h Host) limits() (cpus float64, memory int64) {
	const mount = "/sys/fs/cgroup"
	cpus, memory = math.Inf(1), math.MaxInt64
	group := strings.TrimPrefix(field(h.read("/proc/self/cgroup"), "0"), ":") // the line 0::/path
	for dir := filepath.Join("/", group); ; dir = filepath.Dir(dir) {
		quota, period, _ := strings.Cut(h.read(filepath.Join(mount, dir, "cpu.max")), " ")
		cpus = min(cpus, ratio(quota, period))
		memory = min(memory, positive(h.read(filepath.Join(mount, dir, "memory.max"))))
		if dir == "/" {
			break
		}
	}
	cpus = min(cpus, ratio(h.read(mount+"/cpu/cpu.cfs_quota_us"), h.read(mount+"/cpu/cpu.cfs_period_us")))
	memory = min(memory, positive(h.read(mount+"/memory/memory.limit_in_bytes")))
	if math.IsInf(cpus, 1) {
		cpus = 0
	}
	if memory >= math.MaxInt64>>1 { // version 1 spells "no limit" as a number near the maximum
		memory = 0
	}
	return cpus, memory
}

func ratio(quota, period string) float64 {
	q, p := positive(quota), positive(period)
	if q == math.MaxInt64 || p == math.MaxInt64 {
		return math.Inf(1)
	}
	return float64(q) / float64(p)
}

// positive parses a limit; what is no positive number ("max", "-1") is none.
func positive(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n <= 0 {
		return math.MaxInt64
	}
	return n
}

// read is the trimmed text of a small kernel file, empty where there is none.
func (h Host) read(path string) string {
	text, err := os.ReadFile(h.path(path))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// field is the value of the first line "key: value" of text, trimmed.
func field(text, key string) string {
	for line := range strings.Lines(text) {
		k, v, ok := strings.Cut(line, ":")
		if ok && strings.TrimSpace(k) == key {
			return strings.TrimSpace(v)
		}
	}
	return ""
}
