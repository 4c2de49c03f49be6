package native

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"text/tabwriter"
)

// Item is one thing that the program can use, as it was found.
type Item struct {
	Name    string `json:"name"`
	Found   bool   `json:"found"`
	Version string `json:"version,omitempty"`
	Path    string `json:"path,omitempty"`
	Detail  string `json:"detail,omitempty"`
	Problem string `json:"problem,omitempty"` // what is wrong; empty where all is well or the thing is optional
	Mend    string `json:"mend,omitempty"`    // what to do about it
}

func (it *Item) blame(err error) {
	it.Problem = err.Error()
	if missing, ok := errors.AsType[*MissingError](err); ok {
		it.Problem, it.Mend = missing.Problem, missing.Mend
	}
}

// Report is the state of the machine as far as the program is concerned.
type Report struct {
	CPU   Processor `json:"cpu"`
	CUDA  Devices   `json:"cuda"`
	Items []Item    `json:"items"`
}

// Examine looks at this machine: see [Host.Examine].
func Examine() Report { return Host{}.Examine() }

// Examine looks at everything once. It opens no library: whether one loads is
// seen by its user.
func (h Host) Examine() Report {
	r := Report{CPU: h.CPU(), CUDA: h.CUDA()}
	torch, build := h.examineLibtorch()
	r.Items = []Item{
		examineCPU(r.CPU),
		torch,
		examineCUDA(r.CUDA, build),
		h.examineONNXRuntime(),
	}
	return r
}

// Healthy says whether the report names no problem.
func (r Report) Healthy() bool {
	for _, it := range r.Items {
		if it.Problem != "" {
			return false
		}
	}
	return true
}

func examineCPU(p Processor) Item {
	it := Item{Name: "cpu", Found: true, Version: p.Model}
	details := []string{fmt.Sprintf("%d CPUs", p.Logical)}
	if p.Quota > 0 {
		details = append(details, fmt.Sprintf("quota %.3g CPUs", p.Quota))
	}
	if p.Memory > 0 {
		details = append(details, gib(p.Memory)+" memory")
	}
	if p.MemoryLimit > 0 && p.MemoryLimit < p.Memory {
		details = append(details, "limited to "+gib(p.MemoryLimit))
	}
	if p.Governor != "" {
		details = append(details, "governor "+p.Governor)
	}
	if p.Turbo != "" {
		details = append(details, "turbo "+p.Turbo)
	}
	it.Detail = strings.Join(append(details, strings.Join(p.Features, " ")), ", ")
	if p.Governor == "powersave" {
		it.Mend = "for steady latencies: cpupower frequency-set -g performance"
	}
	return it
}

func gib(bytes int64) string { return fmt.Sprintf("%.1f GiB", float64(bytes)/(1<<30)) }

func (h Host) examineLibtorch() (Item, Build) {
	it := Item{Name: "libtorch"}
	b, err := h.Libtorch()
	switch {
	case errors.Is(err, ErrTorchless):
		it.Detail = "not part of this program: use spos to train"
	case err != nil:
		it.blame(err)
	default:
		it.Found, it.Version, it.Path = true, b.Torch, b.TorchDir
		it.Detail = fmt.Sprintf("from %s, built with %s, %s", b.Origin, b.Compiler, map[bool]string{true: "CUDA", false: "CPU only"}[b.CUDA])
	}
	return it, b
}

func examineCUDA(d Devices, b Build) Item {
	it := Item{Name: "cuda", Found: len(d.GPUs) > 0, Version: d.Driver, Detail: strings.Join(d.GPUs, ", ")}
	switch {
	case d.Driver == "":
		it.Detail = "no NVIDIA driver: training runs on the CPU"
	case len(d.GPUs) == 0:
		it.Problem = "there is an NVIDIA driver, but no device"
		it.Mend = "check nvidia-smi; in a container, pass the devices in (docker run --gpus all)"
	case b.Torch != "" && !b.CUDA:
		it.Problem = "there are devices, but the program is linked with a libtorch for the CPU only"
		it.Mend = "make native build, with LIBTORCH unset or naming a libtorch with CUDA"
	}
	return it
}

func (h Host) examineONNXRuntime() Item {
	it := Item{Name: "onnxruntime"}
	path, err := h.ONNXRuntime()
	if err != nil {
		it.blame(err)
		return it
	}
	it.Found, it.Path = true, path
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	_, version, _ := strings.Cut(filepath.Base(path), ".so.")
	it.Version = cmp.Or(version, "unknown")
	return it
}

// Write prints the report for a person: a line for each item, and under it
// what is wrong and the way out.
func (r Report) Write(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, it := range r.Items {
		state := map[bool]string{true: "ok", false: "none"}[it.Found]
		if it.Problem != "" {
			state = "PROBLEM"
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\n", it.Name, state, strings.Join(nonEmpty(it.Version, it.Path), "  "))
		for _, line := range nonEmpty(it.Detail, it.Problem) {
			fmt.Fprintf(tw, "\t\t%s\n", line)
		}
		if it.Mend != "" {
			fmt.Fprintf(tw, "\t\tmend: %s\n", it.Mend)
		}
	}
	return tw.Flush()
}

func nonEmpty(parts ...string) []string {
	var kept []string
	for _, p := range parts {
		if p != "" {
			kept = append(kept, p)
		}
	}
	return kept
}
