package archfile_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"spos/configs"
	"spos/internal/arch"
	"spos/internal/archfile"
)

func space(t testing.TB, name string) *arch.Space {
	t.Helper()
	s, err := configs.Space(name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// tiny is four choice blocks of three candidates, in stages of one and three.
func tiny(t testing.TB) *arch.Space {
	t.Helper()
	s, err := configs.ParseSpace([]byte(`name: tiny
input: [3, 32, 32]
classes: 10
init: kaiming
norm: {eps: 1.0e-5, momentum: 0.1, supernet_affine: true}
stem: [{out: 8, kernel: 3, act: relu}]
candidates:
  - {name: identity, block: identity}
  - {name: mb_k3e3, block: mbconv, kernel: 3, expand: 3, act: relu}
  - {name: mb_k5e6, block: mbconv, kernel: 5, expand: 6, act: relu}
stages: [{out: 16, blocks: 1, stride: 2}, {out: 32, blocks: 3, stride: 2}]
tail: [{out: 16, kernel: 1, act: relu}]
head: {bias: true}
`), "tiny")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// published is a file with everything in it.
func published(t *testing.T, s *arch.Space) archfile.File {
	t.Helper()
	f, err := archfile.New(s, "21012020202300003233")
	if err != nil {
		t.Fatal(err)
	}
	f.Accuracy, f.Values = 0.7123, map[string]float64{"top5": 0.9}
	f.Latency, f.LatencyLimit = &archfile.Interval{P50: 4.1, Low: 4.05, High: 4.2}, 4.5
	f.Devices = []archfile.OnDevice{
		{Device: "local", Latency: *f.Latency, Limit: 4.5},
		{Device: "pi5", Latency: archfile.Interval{P50: 41, Low: 40, High: 42}},
	}
	f.Measured = &archfile.Measured{Mode: "paced", Batch: 2, Threads: 4}
	f.Lineage = &archfile.Lineage{
		Method: "evolution", Seed: 1<<63 + 1, Config: "0123456789abcdef", Checkpoint: "supernet/last", Evaluated: 1050,
		Trial: 812, Generation: 16, Origin: "crossover", Parents: []arch.Arch{"21012020202300003233", "21012020202300003230"},
	}
	return f
}

func TestRoundTrip(t *testing.T) {
	s := space(t, "shufflenetv2-spos")
	want := published(t, s)
	if want.Cost.MACs != 322_918_720 || want.Cost.Params != 3_558_464 {
		t.Errorf("the published net costs %+v", want.Cost)
	}
	path := filepath.Join(t.TempDir(), "best.yaml")
	if err := want.Write(path); err != nil {
		t.Fatal(err)
	}
	got, err := archfile.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("read back differently:\n%s", d)
	}
	if a, err := got.In(s); err != nil || a != want.Arch {
		t.Errorf("In(%s) = %s, %v", s.Name, a, err)
	}
}

func TestByHand(t *testing.T) {
	// Without quotes YAML sees a number, of which no digit may get lost.
	for _, spelled := range []string{`"01012020202300003233"`, "01012020202300003233", "01012020202300003233 # mine", "21012020202300003233", "00000000000000000000"} {
		b, err := archfile.Parse([]byte("format: spos.best/1\nspace: shufflenetv2-spos\narch: "+spelled+"\n"), "mine.yaml")
		if err != nil {
			t.Errorf("arch: %s: %v", spelled, err)
			continue
		}
		if a, err := b.In(space(t, "shufflenetv2-spos")); err != nil || !strings.Contains(spelled, string(a)) {
			t.Errorf("arch: %s reads as %s, %v", spelled, a, err)
		}
	}
}

func TestBad(t *testing.T) {
	s := space(t, "shufflenetv2-spos")
	good, err := published(t, s).Text()
	if err != nil {
		t.Fatal(err)
	}
	other, err := configs.Space("shufflenetv2-small")
	if err != nil {
		t.Fatal(err)
	}
	change := func(from, to string) string {
		if !strings.Contains(string(good), from) {
			t.Fatalf("%q is not in the good file", from)
		}
		return strings.Replace(string(good), from, to, 1)
	}
	cases := map[string]struct {
		text  string
		in    *arch.Space
		names string
	}{
		"empty":           {"", s, "it is empty"},
		"no YAML":         {"\x00{", s, ""},
		"unknown key":     {change("accuracy:", "acuracy:"), s, "acuracy"},
		"twice":           {change("classes: 1000", "classes: 1000\nclasses: 10"), s, "classes"},
		"other format":    {change("spos.best/1", "spos.best/2"), s, "spos.best/2"},
		"no arch":         {"format: spos.best/1\nspace: x\n", s, "arch is missing"},
		"no space":        {"format: spos.best/1\narch: x\n", s, "space is missing"},
		"short arch":      {"format: spos.best/1\nspace: shufflenetv2-spos\narch: \"012\"\n", s, "3 digits"},
		"choice too high": {"format: spos.best/1\nspace: shufflenetv2-spos\narch: \"00000000000000000009\"\n", s, "block 19"},
		"disagreeing":     {change("- shuffle_7x7", "- shuffle_5x5"), s, "block 0: choices say shuffle_5x5"},
		"few choices":     {change("- shuffle_7x7\n", ""), s, "choices"},
		"of other space":  {string(good), other, "of space shufflenetv2-spos, not of shufflenetv2-small"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			b, err := archfile.Parse([]byte(c.text), "mine.yaml")
			if err == nil {
				_, err = b.In(c.in)
			}
			if !errors.Is(err, archfile.ErrText) || !strings.Contains(err.Error(), c.names) {
				t.Errorf("error %v, want ErrText that names %q", err, c.names)
			}
		})
	}
}

func TestUnboundedSize(t *testing.T) {
	path := filepath.Join(t.TempDir(), "best.yaml")
	if err := os.WriteFile(path, make([]byte, 2<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := archfile.Read(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("two megabytes: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	s := tiny(f)
	f.Add([]byte("format: spos.best/1\nspace: tiny\narch: \"0121\"\nchoices: [identity, mb_k3e3, mb_k5e6, mb_k3e3]\n"))
	f.Add([]byte("format: spos.best/1\nspace: tiny\narch: 0121\ninput: [1, 2]\n"))
	f.Add([]byte("- &a [*a]\n"))
	f.Add([]byte(""))
	f.Fuzz(func(t *testing.T, text []byte) {
		b, err := archfile.Parse(text, "fuzz")
		if err != nil {
			if !errors.Is(err, archfile.ErrText) {
				t.Errorf("error %v does not wrap ErrText", err)
			}
			return
		}
		if a, err := b.In(s); err == nil {
			if _, err := s.Net(a); err != nil {
				t.Errorf("accepted %q: %v", a, err)
			}
		}
	})
}
