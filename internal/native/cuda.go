package native

import (
	"context"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// Devices is what the NVIDIA driver shows. Driver is empty where there is none.
type Devices struct {
	Driver string   `json:"driver"`
	GPUs   []string `json:"gpus"` // model names, in the driver's order
}

var driverVersion = regexp.MustCompile(`Kernel Module.*?\s(\d+(?:\.\d+)+)`)

// CUDA describes the CUDA devices of this machine: see [Host.CUDA].
func CUDA() Devices { return Host{}.CUDA() }

// CUDA reads the driver's version and devices from /proc, and where a
// container hides these, from nvidia-smi, which gets five seconds.
func (h Host) CUDA() Devices {
	d := Devices{GPUs: []string{}}
	if m := driverVersion.FindStringSubmatch(h.read("/proc/driver/nvidia/version")); m != nil {
		d.Driver = m[1]
	}
	infos, _ := filepath.Glob(h.path("/proc/driver/nvidia/gpus/*/information")) // the pattern is good
	for _, info := range infos {
		if model := field(h.read(strings.TrimPrefix(info, h.Root)), "Model"); model != "" {
			d.GPUs = append(d.GPUs, model)
		}
	}
	if h.Root == "" && (d.Driver == "" || len(d.GPUs) == 0) {
		d.ask()
	}
	return d
}

func (d *Devices) ask() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "nvidia-smi", "--query-gpu=driver_version,name", "--format=csv,noheader").Output()
	if err != nil {
		return
	}
	d.GPUs = d.GPUs[:0]
	for line := range strings.Lines(string(out)) {
		driver, name, ok := strings.Cut(strings.TrimSpace(line), ", ")
		if ok {
			d.Driver = driver
			d.GPUs = append(d.GPUs, name)
		}
	}
}
