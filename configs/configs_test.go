package configs_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"spos/configs"
	"spos/internal/arch"
	"spos/internal/config"
)

// TestShippedConfigurations reads every shipped file the way its verb does,
// and finds its arch in its space.
func TestShippedConfigurations(t *testing.T) {
	names, err := fs.Glob(configs.Files(), "*.yaml")
	if err != nil || len(names) == 0 {
		t.Fatalf("no configurations: %v", err)
	}
	for _, name := range names {
		f, err := configs.Files().Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if strings.Contains(name, "search") {
			if _, err := config.Read(f, name, config.DefaultSearch(), nil); err != nil {
				t.Error(err)
			}
			continue
		}
		c, err := config.Read(f, name, config.DefaultTrain(), nil)
		if err != nil {
			t.Error(err)
			continue
		}
		s, err := configs.Space(c.Space)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if c.Arch != "" {
			if _, err := configs.Arch(s, c.Arch); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// TestSpaceText: a checkpoint's copy of a space is the space.
func TestSpaceText(t *testing.T) {
	for _, name := range configs.Spaces() {
		s, err := configs.Space(name)
		if err != nil {
			t.Fatal(err)
		}
		if s, err = s.With(arch.Shape{C: 1, H: 32, W: 32}, 7); err != nil {
			t.Fatal(err)
		}
		text, err := configs.SpaceText(s)
		if err != nil {
			t.Fatal(err)
		}
		back, err := configs.ParseSpace(text, "copy")
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, text)
		}
		if d := cmp.Diff(s.Spec(), back.Spec()); d != "" {
			t.Errorf("%s changed (-before +after):\n%s", name, d)
		}
	}
}

func TestUnknownSpaces(t *testing.T) {
	if _, err := configs.Space("shufflenet"); !errors.Is(err, configs.ErrUnknownSpace) || !strings.Contains(err.Error(), "shufflenetv2-spos") {
		t.Errorf("unknown name: %v", err)
	}
	if _, err := configs.Space("no/such.yaml"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	path := filepath.Join(t.TempDir(), "mine.yaml")
	if err := os.WriteFile(path, []byte("name: mine\ncolour: red\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := configs.Space(path); err == nil || !strings.Contains(err.Error(), "mine.yaml:2:1") {
		t.Errorf("unknown key: %v", err)
	}
}
