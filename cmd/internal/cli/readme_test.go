package cli

import (
	"encoding/binary"
	"fmt"
	"image/color"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"spos/internal/imaging"
	"spos/internal/npy"
	"spos/serve"
)

// TestMain is the program itself where a test starts it so.
func TestMain(m *testing.M) {
	if os.Getenv("SPOS_IS_PROGRAM") != "" {
		root := NewRoot("spos", "test")
		AddVerbs(root)
		os.Exit(Run(root))
	}
	if os.Getenv(envLoad) != "" {
		load()
	}
	os.Exit(m.Run())
}

// boot is a model of the quickstart's form that sees an ankle boot everywhere.
func boot() *function {
	labels := []string{"T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"}
	return &function{serve.ModelInfo{
		Name: "fashion", Version: "1", Labels: labels,
		Recipe:  &imaging.Recipe{Color: imaging.Gray, Height: 28, Width: 28},
		Inputs:  []serve.TensorInfo{{Name: "input", Type: serve.FP32, Shape: []int64{-1, 1, 28, 28}}},
		Outputs: []serve.TensorInfo{{Name: "logits", Type: serve.FP32, Shape: []int64{-1, 10}}},
	}, func(in, out []serve.Tensor) error {
		out[0].Shape = []int64{in[0].Shape[0], 10}
		for range in[0].Shape[0] {
			for class := range labels {
				out[0].Data = binary.LittleEndian.AppendUint32(out[0].Data, math.Float32bits(float32(class)))
			}
		}
		return nil
	}}
}

// examples are the fenced texts of a section that are of a language.
func examples(t *testing.T, section string) (all []struct{ language, text string }) {
	t.Helper()
	readme, err := os.ReadFile("../../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, found := strings.Cut(string(readme), "\n## "+section+"\n")
	if !found {
		t.Fatalf("the README has no section %s", section)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	for _, m := range regexp.MustCompile("(?ms)^```([a-z]+)\n(.*?)^```$").FindAllStringSubmatch(text, -1) {
		all = append(all, struct{ language, text string }{m[1], m[2]})
	}
	return all
}

// TestReadmeClients runs the examples of the README as they stand, against a server on ports of its own.
func TestReadmeClients(t *testing.T) {
	url, rpc := startServer(t, serve.Options{}, boot())
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	spos := fmt.Sprintf("#!/bin/sh\nverb=$1; shift\nSPOS_IS_PROGRAM=1 exec %q \"$verb\" --server %s \"$@\"\n", self, url)
	for name, content := range map[string][]byte{
		"spos":       []byte(spos),
		"shoe.png":   pixel(t, color.Gray{Y: 100}),
		"pixels.npy": array(t, npy.Array{Type: "f4", Shape: []int64{1, 1, 28, 28}, Data: make([]byte, 4*28*28)}),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	all := examples(t, "Clients")
	if len(all) < 5 {
		t.Fatalf("%d examples", len(all))
	}
	here := strings.NewReplacer("127.0.0.1:8000", strings.TrimPrefix(url, "http://"), "127.0.0.1:8001", rpc)
	for i, e := range all {
		t.Run(fmt.Sprintf("%s/%d", e.language, i), func(t *testing.T) {
			program := map[string]string{"sh": "sh", "python": os.Getenv("SPOS_PYTHON")}[e.language]
			if program == "" {
				program = "python3"
			}
			args := []string{"-c", here.Replace(e.text)}
			if e.language == "sh" {
				args = append([]string{"-eu"}, args...)
			}
			for _, needed := range regexp.MustCompile(`(?m)^(curl) |^import (tritonclient\.\w+)`).FindAllStringSubmatch(e.text, -1) {
				if _, err := exec.LookPath("curl"); needed[1] != "" && err != nil {
					t.Skip(err)
				}
				if err := exec.CommandContext(t.Context(), program, "-c", "import "+needed[2]).Run(); needed[2] != "" && err != nil {
					t.Skipf("%s has no %s: set SPOS_PYTHON to one that has it, `make peers` makes one", program, needed[2])
				}
			}
			cmd := exec.CommandContext(t.Context(), program, args...)
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
			out, err := cmd.CombinedOutput()
			want := "9" // the score of a boot
			if strings.Contains(e.text, "shoe.png") {
				want = "Ankle boot"
			}
			if err != nil || !strings.Contains(string(out), want) {
				t.Errorf("%s\n%v\n%s", e.text, err, out)
			}
		})
	}
}
