package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"spos/configs"
	"spos/internal/archfile"
)

// run executes a verb and returns what it printed.
func run(t *testing.T, stdin string, args ...string) (string, error) {
	t.Helper()
	root := NewRoot("spos", "test")
	AddVerbs(root)
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&out)
	root.SetIn(strings.NewReader(stdin))
	root.SetArgs(args)
	err := root.ExecuteContext(t.Context())
	return out.String(), err
}

// TestArchCostLayers compares what `arch cost --layers` says of two whole
// networks with the tables of configs/testdata, which are computed from the
// published definitions.
func TestArchCostLayers(t *testing.T) {
	for _, name := range []string{"spos-mmrazor", "anglenas-spos"} {
		text, err := os.ReadFile("../../../configs/testdata/layers_" + name + ".tsv")
		if err != nil {
			t.Fatal(err)
		}
		var want []string
		for line := range strings.Lines(string(text)) {
			if f := strings.Split(strings.TrimSpace(line), "\t"); !strings.HasPrefix(line, "#") {
				want = append(want, strings.Join(f[2:10], " "))
			}
		}
		out, err := run(t, "", "arch", "cost", name, "--layers", "--json")
		if err != nil {
			t.Fatal(err)
		}
		var got struct{ Layers []layerEntry }
		if err := json.Unmarshal([]byte(out), &got); err != nil {
			t.Fatal(err)
		}
		var lines []string
		for _, l := range got.Layers {
			lines = append(lines, fmt.Sprint(l.Kernel, l.Stride, l.Groups, l.In, l.Out, l.OutSize[0], l.FLOPs.MACs, l.Weights))
		}
		if !slices.Equal(lines, want) || len(want) < 50 {
			t.Errorf("%s: layers\n%s\nwant\n%s", name, strings.Join(lines, "\n"), strings.Join(want, "\n"))
		}
		if out, err = run(t, "", "arch", "cost", name, "--layers"); err != nil || strings.Count(out, "\n") < len(want) {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// TestArchConvert: every published network to every format that can say it
// and back.
func TestArchConvert(t *testing.T) {
	converted := 0
	for _, name := range configs.Networks() {
		digits, err := run(t, "", "arch", "convert", name, "--to", "digits")
		if err != nil {
			t.Fatal(err)
		}
		f, err := configs.Network(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, format := range archfile.Formats() {
			text, err := run(t, "", "arch", "convert", name, "--to", string(format))
			if err != nil {
				continue
			}
			converted++
			back, err := run(t, text, "arch", "convert", "-", "--space", f.Space, "--from", string(format), "--to", "digits")
			if err != nil || back != digits {
				t.Errorf("%s as %s reads as %s, %v; want %s", name, format, back, err, digits)
			}
		}
	}
	if converted < 80 {
		t.Errorf("%d conversions", converted)
	}
}

func TestArchCompletion(t *testing.T) {
	for line, want := range map[string]string{
		"arch show ":                    "spos-official",
		"arch cost shufflenetv2-cifar ": "spos-cifar10",
		"arch convert ":                 "anglenas-spos",
		"arch convert x --to ":          "mmrazor-1.x",
		"arch list --space ":            "nasbench-macro",
	} {
		out, err := run(t, "", append([]string{"__complete"}, strings.Split(line, " ")...)...)
		if err != nil || !strings.Contains(out, want+"\n") {
			t.Errorf("%q completes to %v\n%s\nwant %s", line, err, out, want)
		}
	}
}
