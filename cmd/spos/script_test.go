package main

import (
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"spos/configs"
	"spos/internal/arch"
	"spos/internal/ckpt"
	"spos/internal/dialect"
	"spos/internal/native"
	"spos/internal/pth"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"spos": func() { os.Exit(run()) }})
}

// TestScripts runs the verbs as a user does, in folders of their own.
func TestScripts(t *testing.T) {
	lib, err := native.ONNXRuntime()
	if err != nil {
		t.Fatal(err)
	}
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("SPOS_ONNXRUNTIME", lib)
			e.Setenv("OMP_WAIT_POLICY", "passive")
			e.Setenv("PTH", filepath.Join(root, "internal", "pth", "testdata"))
			e.Setenv("XDG_CACHE_HOME", filepath.Join(e.WorkDir, "cache"))
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"images":   images,
			"truncate": truncate,
			"occupy":   occupy,
			"behead":   behead,
			"tensors":  tensors,
			"history":  history,

			"statedict": statedict,
		},
	})
}

// images DIR makes a data set of three classes of 8×8 pictures that a net can
// tell apart: the class is where the bright band lies.
func images(ts *testscript.TestScript, _ bool, args []string) {
	r := rand.New(rand.NewPCG(1, 2))
	for part, n := range map[string]int{"train": 40, "test": 10} {
		for class, name := range []string{"high", "low", "middle"} {
			dir := filepath.Join(ts.MkAbs(args[0]), part, name)
			ts.Check(os.MkdirAll(dir, 0o755))
			for i := range n {
				im := image.NewGray(image.Rect(0, 0, 8, 8))
				for y := range 8 {
					for x := range 8 {
						v := r.IntN(80)
						if y/3 == []int{0, 2, 1}[class] {
							v += 150
						}
						im.SetGray(x, y, color.Gray{Y: uint8(v)})
					}
				}
				f, err := os.Create(filepath.Join(dir, fmt.Sprintf("%02d.png", i)))
				ts.Check(err)
				ts.Check(png.Encode(f, im))
				ts.Check(f.Close())
			}
		}
	}
}

// truncate FILE… cuts files to half.
func truncate(ts *testscript.TestScript, _ bool, args []string) {
	for _, a := range args {
		path := ts.MkAbs(a)
		info, err := os.Stat(path)
		ts.Check(err)
		ts.Check(os.Truncate(path, info.Size()/2))
	}
}

// occupy VAR takes a port and names its address in a variable.
func occupy(ts *testscript.TestScript, _ bool, args []string) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { _ = ln.Close() })
	ts.Setenv(args[0], ln.Addr().String())
}

// behead FILE N keeps the first N lines of a journal and half of the next,
// as a killed process leaves it.
func behead(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	lines := strings.SplitAfter(ts.ReadFile(path), "\n")
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	torn := lines[n][:len(lines[n])/2]
	ts.Check(os.WriteFile(path, []byte(strings.Join(lines[:n], "")+torn), 0o644))
}

// tensors A B compares two safetensors files, whose metadata tells the time,
// by their tensors alone.
func tensors(ts *testscript.TestScript, _ bool, args []string) {
	var files [2]*ckpt.File
	for i := range files {
		f, err := ckpt.Open(ts.MkAbs(args[i]))
		ts.Check(err)
		defer f.Close()
		files[i] = f
	}
	if !slices.Equal(files[0].Names(), files[1].Names()) {
		ts.Fatalf("%s and %s hold other tensors", args[0], args[1])
	}
	for _, name := range files[0].Names() {
		a, err := files[0].Tensor(name)
		ts.Check(err)
		b, err := files[1].Tensor(name)
		ts.Check(err)
		if !slices.Equal(a.Data, b.Data) {
			ts.Fatalf("%s differs between %s and %s", name, args[0], args[1])
		}
	}
}

// history A B compares two journals of trials but for the seconds.
func history(ts *testscript.TestScript, _ bool, args []string) {
	seconds := regexp.MustCompile(`"seconds":[^,}]*`)
	a := seconds.ReplaceAllString(ts.ReadFile(args[0]), "")
	b := seconds.ReplaceAllString(ts.ReadFile(args[1]), "")
	if a != b || a == "" {
		ts.Fatalf("%s:\n%s\n%s:\n%s", args[0], a, args[1], b)
	}
}

// statedict FILE DIALECT SPACE ARCH CLASSES writes random weights as a code
// base would save them; ARCH is - for a supernet.
func statedict(ts *testscript.TestScript, _ bool, args []string) {
	d, err := dialect.Find(args[1])
	ts.Check(err)
	name := args[2]
	if strings.HasSuffix(name, ".yaml") {
		name = ts.MkAbs(name)
	}
	s, err := configs.Space(name)
	ts.Check(err)
	classes, err := strconv.Atoi(args[4])
	ts.Check(err)
	s, err = s.With(s.In, classes)
	ts.Check(err)
	entries, err := d.Export(dialect.Target{Space: s, Arch: arch.Arch(strings.Trim(args[3], "-"))})
	ts.Check(err)
	var o pth.Options
	if d.Wrapped {
		o.Meta = map[string]string{}
	}
	o.Int64 = func(name string) bool { return strings.HasSuffix(name, "num_batches_tracked") }
	r := rand.New(rand.NewPCG(3, 4))
	ts.Check(pth.Write(ts.MkAbs(args[0]), func(yield func(string, ckpt.Tensor) bool) {
		for _, e := range entries {
			t := ckpt.Tensor{Shape: e.Shape, Data: make([]float32, e.Numel())}
			for i := range t.Data {
				t.Data[i] = (r.Float32() - 0.5) / 4
				if e.Role == arch.NormGamma || e.Role == arch.RunningVar {
					t.Data[i]++
				}
			}
			if e.Name == "" { // a counter
				t.Data[0] = 7
			}
			if !yield(e.Key, t) {
				return
			}
		}
	}, o))
}
