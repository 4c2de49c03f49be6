package pth_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"spos/internal/ckpt"
	"spos/internal/pth"
)

// supernet writes a checkpoint of about 30 MB in 1500 tensors, as a supernet
// of ShuffleNetV2 blocks has them.
func supernet(tb testing.TB) (path string, size int64) {
	tb.Helper()
	data := make([]float32, 1<<16)
	var all []named
	for i := range 250 {
		base := fmt.Sprintf("module.features.%d.%d.branch_main.", i/4, i%4)
		for j, shape := range [][]int{{160, 160, 1, 1}, {25, 160, 1, 1}, {160}, {160}, {160}, {}} {
			n := 1
			for _, d := range shape {
				n *= d
			}
			all = append(all, named{fmt.Sprint(base, j, ".weight"), ckpt.Tensor{Shape: shape, Data: data[:n]}})
		}
	}
	path = write(tb, pth.Options{Meta: map[string]string{}}, all...)
	info, err := os.Stat(path)
	if err != nil {
		tb.Fatal(err)
	}
	return path, info.Size()
}

// keepAll reads every tensor of a checkpoint.
func keepAll(tb testing.TB, path string) []ckpt.Tensor {
	tb.Helper()
	f, err := pth.Open(path, "")
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	names := f.Names()
	all := make([]ckpt.Tensor, len(names))
	for i, name := range names {
		if all[i], err = f.Tensor(name); err != nil {
			tb.Fatal(err)
		}
	}
	return all
}

func BenchmarkRead(b *testing.B) {
	path, size := supernet(b)
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		keepAll(b, path)
	}
}

// The transposed matrix is the worst order to read in.
func BenchmarkReadTransposed(b *testing.B) {
	const n = 1 << 11
	p := of("w", rebuilt(storageID("FloatStorage", "0", n*n), 0, nums(n, n), nums(1, n)))
	path := filepath.Join(b.TempDir(), "t.pth")
	if err := os.WriteFile(path, stored(p, string(make([]byte, 4*n*n))), 0o600); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(4 * n * n)
	for b.Loop() {
		keepAll(b, path)
	}
}

func BenchmarkWrite(b *testing.B) {
	path, size := supernet(b)
	all := keepAll(b, path)
	b.SetBytes(size)
	for b.Loop() {
		err := pth.Write(path, func(yield func(string, ckpt.Tensor) bool) {
			for i, t := range all {
				if !yield(fmt.Sprint(i), t) {
					return
				}
			}
		}, pth.Options{})
		if err != nil {
			b.Fatal(err)
		}
	}
}

// Reading all of a checkpoint takes at most twice its size, the float32 result
// included. Measured in a process of its own, whose heap never was larger.
func TestMemory(t *testing.T) {
	if path := os.Getenv("PTH_MEMORY_OF"); path != "" {
		all := keepAll(t, path)
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		t.Logf("heap %d", m.HeapSys)
		runtime.KeepAlive(all)
		return
	}
	path, size := supernet(t)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestMemory$", "-test.v")
	cmd.Env = append(os.Environ(), "PTH_MEMORY_OF="+path)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var heap int64
	_, rest, _ := strings.Cut(string(out), "heap ")
	if _, err := fmt.Sscan(rest, &heap); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	t.Logf("heap of %d bytes for a file of %d: %.2f times", heap, size, float64(heap)/float64(size))
	if heap > 2*size {
		t.Errorf("heap of %d bytes for a file of %d", heap, size)
	}
}
