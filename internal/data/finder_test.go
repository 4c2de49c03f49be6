package data

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// publicHome serves four small files as the data set's home does.
func publicHome(t *testing.T, spoil func(try int, name string, w http.ResponseWriter, body []byte) bool) (url string, files []remoteFile, asked map[string]int) {
	t.Helper()
	bodies := map[string][]byte{}
	asked = map[string]int{}
	for _, f := range fashionFiles {
		dims := []uint32{2}
		if strings.Contains(f.name, "idx3") {
			dims = []uint32{2, 1, 1}
		}
		plain := idx([]byte{0, 1}, dims...)
		sum := sha256.Sum256(plain)
		bodies[f.name] = gzipped(plain)
		files = append(files, remoteFile{f.name, int64(len(plain)), hex.EncodeToString(sum[:])})
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := r.URL.Path[1:]
		asked[name]++
		if spoil != nil && spoil(asked[name], name, w, bodies[name]) {
			return
		}
		_, _ = w.Write(bodies[name])
	}))
	t.Cleanup(s.Close)
	return s.URL, files, asked
}

func finder(t *testing.T) *Finder {
	t.Helper()
	return &Finder{
		Cache: t.TempDir(), Log: slog.New(slog.DiscardHandler), system: filepath.Join(t.TempDir(), "none"),
		pause: time.Nanosecond, home: "http://127.0.0.1:0",
		install: func(context.Context, string, ...string) error { return errors.New("no such package") },
	}
}

func TestFinderKeepsItsOrder(t *testing.T) {
	system, env, dir := mnist(t, nil), t.TempDir(), mnist(t, nil)
	f := finder(t)
	if _, err := f.Find(); !errors.Is(err, ErrNotFound) {
		t.Errorf("nothing anywhere: %v", err)
	}
	f.system = system
	expect := func(want string) {
		t.Helper()
		if got, err := f.Obtain(t.Context()); got != want || err != nil {
			t.Errorf("got %s, %v; want %s", got, err, want)
		}
	}
	f.Env = env // an empty one is passed by
	expect(system)
	if err := os.Rename(mnist(t, nil), filepath.Join(env, "fashion-mnist")); err != nil {
		t.Fatal(err)
	}
	expect(filepath.Join(env, "fashion-mnist"))
	f.Dir = dir
	expect(dir)
	f.Dir = filepath.Join(dir, "wrong") // the user's word is final
	if _, err := f.Obtain(t.Context()); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), f.Dir) {
		t.Errorf("a wrong folder: %v", err)
	}
}

func TestFinderInstalls(t *testing.T) {
	f := finder(t)
	var ran []string
	f.install = func(_ context.Context, name string, arg ...string) error {
		ran = append(ran, name+" "+arg[0])
		if len(ran) < 3 && arg[0] == "install" {
			return errors.New("not in the lists")
		}
		if arg[0] == "install" {
			f.system = mnist(t, nil)
		}
		return nil
	}
	dir, err := f.Obtain(t.Context())
	if err != nil || dir != f.system || strings.Join(ran, ", ") != "apt-get install, apt-get update, apt-get install" {
		t.Errorf("%s, %v after %q", dir, err, ran)
	}
}

func TestFinderDownloads(t *testing.T) {
	f := finder(t)
	var asked map[string]int
	f.home, f.files, asked = publicHome(t, func(try int, name string, w http.ResponseWriter, body []byte) bool {
		if try > 2 || !strings.HasPrefix(name, "t10k-images") {
			return false
		}
		if try == 1 {
			w.WriteHeader(http.StatusBadGateway)
		} else { // cut off
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write(body[:10])
		}
		return true
	})
	told := map[string]bool{}
	f.Progress = func(file string, done, _ int64) { told[file] = done > 0 }
	dir, err := f.Obtain(t.Context())
	if err != nil || dir != filepath.Join(f.Cache, "fashion-mnist") || len(told) != 4 {
		t.Fatalf("%s, %v, progress of %v", dir, err, told)
	}
	if asked["t10k-images-idx3-ubyte.gz"] != 3 || asked["train-images-idx3-ubyte.gz"] != 1 {
		t.Errorf("asked %v", asked)
	}
	if _, err := Open(t.Context(), Spec{Path: dir, Kind: FashionMNIST}); err == nil || strings.Contains(err.Error(), "magic") {
		t.Errorf("the download does not read: %v", err) // too few images is all that is wrong
	}
	if again, err := f.Obtain(t.Context()); again != dir || err != nil || asked["train-images-idx3-ubyte.gz"] != 1 {
		t.Errorf("downloaded again: %v, %v", err, asked)
	}
}

func TestFinderRefusesForeignContent(t *testing.T) {
	for name, spoil := range map[string]func(int, string, http.ResponseWriter, []byte) bool{
		"other bytes": func(_ int, _ string, w http.ResponseWriter, _ []byte) bool {
			_, _ = w.Write(gzipped(idx([]byte{9, 9}, 2)))
			return true
		},
		"a bomb": func(_ int, _ string, w http.ResponseWriter, _ []byte) bool {
			_, _ = w.Write(gzipped(make([]byte, 1<<20)))
			return true
		},
		"a page": func(_ int, _ string, w http.ResponseWriter, _ []byte) bool {
			_, _ = w.Write([]byte("<html>"))
			return true
		},
		"endless": func(_ int, _ string, w http.ResponseWriter, body []byte) bool {
			_, _ = w.Write(append(body, make([]byte, 1<<20)...))
			return true
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := finder(t)
			var asked map[string]int
			f.home, f.files, asked = publicHome(t, spoil)
			_, err := f.Obtain(t.Context())
			if !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "apt-get install "+fashionPackage) || !strings.Contains(err.Error(), "--data") {
				t.Errorf("error %v does not say what to do", err)
			}
			if len(asked) != 1 || asked["train-images-idx3-ubyte.gz"] != 3 {
				t.Errorf("asked %v", asked)
			}
			left, err := os.ReadDir(filepath.Join(f.Cache, "fashion-mnist"))
			if err != nil || len(left) != 0 {
				t.Errorf("%v left behind, %v", left, err)
			}
		})
	}
}
