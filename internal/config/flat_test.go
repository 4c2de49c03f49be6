package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"spos/internal/config"

	"github.com/google/go-cmp/cmp"
)

func TestFlat(t *testing.T) {
	path := filepath.Join(t.TempDir(), "serve.yaml")
	known := []string{"http", "hosts", "threads", "on", "wait", "rate"}
	read := func(text string) ([]config.Setting, error) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return config.Flat(path, known)
	}
	got, err := read("# all of it\nhttp: 0.0.0.0:8000\nhosts:\n  - a.example\n  - 'b.example'\nthreads: {x: 2, y: 1}\non: true\nwait: 30s\nrate: 007\n")
	want := []config.Setting{
		{"http", "0.0.0.0:8000", path + ":2:1"}, {"hosts", "a.example,b.example", path + ":3:1"}, {"threads", "x=2,y=1", path + ":6:1"},
		{"on", "true", path + ":7:1"}, {"wait", "30s", path + ":8:1"}, {"rate", "007", path + ":9:1"},
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	for _, empty := range []string{"", "# nothing\n", "---\n"} {
		if got, err := read(empty); err != nil || got != nil {
			t.Errorf("%q: %v %v", empty, got, err)
		}
	}
	for text, want := range map[string]string{
		"htpp: x":                   "serve.yaml:1:1: htpp: no such key (did you mean http?); there are http, hosts",
		"HTTP: x":                   "no such key",
		"http: x\nhttp: y":          "http",
		"\nhttp:":                   "serve.yaml:2:7: http: no value",
		"hosts: [[a]]":              "one value",
		"hosts: ['a,b']":            "no comma",
		"hosts: [null]":             "no value",
		"threads: {x: {y: 1}}":      "one value",
		"http: &a x\nhosts: [*a]":   "wanted",
		"- http":                    "keys with values",
		"just text":                 "keys with values",
		"http: |\n  two\n  lines\n": "wanted",
		"http: x\n---\nhosts: [y]":  "more than one",
		strings.Repeat("#", 5000):   "longer than",
	} {
		if _, err := read(text); err == nil || !errors.Is(err, config.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if _, err := config.Flat(path+"-not-there", known); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

func FuzzFlat(f *testing.F) {
	f.Add("http: 0.0.0.0:8000\nhosts: [a, b]\nthreads: {x: 2}\n")
	f.Add("http: &a x\n? [b]\n: c")
	path := filepath.Join(f.TempDir(), "flat.yaml")
	f.Fuzz(func(t *testing.T, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		all, err := config.Flat(path, []string{"http", "hosts", "threads"})
		if err != nil && !errors.Is(err, config.ErrInvalid) {
			t.Errorf("%q: %v", text, err)
		}
		if len(all) > 3 {
			t.Errorf("%q: %v", text, all)
		}
	})
}
