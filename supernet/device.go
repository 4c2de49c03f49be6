package supernet

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"spos/supernet/internal/torchx"
)

// ErrNoCUDA is wrapped by the error about a CUDA device that is not there.
var ErrNoCUDA = errors.New("no such CUDA device")

// Device is where a [Supernet] computes. The zero Device is the CPU.
type Device struct {
	cuda int // device index plus one; 0 is the CPU
}

// ParseDevice reads "cpu", "cuda" (the first device) or "cuda:N". It wraps
// [ErrNoCUDA].
func ParseDevice(text string) (Device, error) {
	kind, number, numbered := strings.Cut(text, ":")
	switch {
	case text == "cpu":
		return Device{}, nil
	case kind != "cuda":
		return Device{}, fmt.Errorf("device %q: want cpu, cuda or cuda:N", text)
	}
	index := 0
	if numbered {
		n, err := strconv.ParseUint(number, 10, 8)
		if err != nil {
			return Device{}, fmt.Errorf("device %q: %q is no device number", text, number)
		}
		index = int(n)
	}
	switch n := torchx.CUDADevices(); {
	case n == 0:
		return Device{}, fmt.Errorf("device %q: libtorch %s finds no usable GPU; use cpu, or check the driver (nvidia-smi) and build against a CUDA libtorch: %w",
			text, torchx.Version(), ErrNoCUDA)
	case index >= n:
		return Device{}, fmt.Errorf("device %q: there are %d, numbered from 0: %w", text, n, ErrNoCUDA)
	}
	return Device{cuda: index + 1}, nil
}

// CUDA reports whether the device is a GPU.
func (d Device) CUDA() bool { return d.cuda > 0 }

func (d Device) String() string {
	if d.cuda == 0 {
		return "cpu"
	}
	return fmt.Sprintf("cuda:%d", d.cuda-1)
}
