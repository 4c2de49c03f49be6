package serve_test

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"spos/serve"
)

// until polls the index until it says what is wanted.
func until(t *testing.T, url, want string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); indexed(t, url) != want; {
		if time.Now().After(deadline) {
			t.Fatalf("the index says %q, want %q", indexed(t, url), want)
		}
	}
}

// relink makes a link lead elsewhere, at once.
func relink(t *testing.T, to, link string) {
	t.Helper()
	if err := errors.Join(os.Symlink(to, link+".new"), os.Rename(link+".new", link)); err != nil {
		t.Fatal(err)
	}
}

// TestModelThatCannotBeReadStays: where looking at a model's directory fails, as with no descriptors left or on a disk
// that is ill, the model is not taken for one that was removed.
func TestModelThatCannotBeReadStays(t *testing.T) {
	library(t)
	dir := repository(t, map[string]string{".kept/m/1": "testdata/picture.onnx"})
	link := filepath.Join(dir, "m")
	relink(t, ".kept/m", link)
	url := startONNX(t, dir, serve.Options{Poll: 5 * time.Millisecond}, quiet())
	until(t, url, "m/1 READY")
	relink(t, strings.Repeat("x", 300), link)
	until(t, url, "m/1 READY the version before its last change is served: statat m: "+syscall.ENAMETOOLONG.Error())
	if v := version(t, url); v != "1" {
		t.Errorf("version %s answers", v)
	}
	relink(t, ".kept/m", link)
	until(t, url, "m/1 READY")
	relink(t, ".kept/none", link)
	until(t, url, "")
}

// TestRepositoryThatCannotBeRead says why it holds no model.
func TestRepositoryThatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	relink(t, strings.Repeat("x", 300), filepath.Join(dir, "m"))
	_, err := serve.OpenRepository(t.Context(), dir, serve.RepositoryOptions{Logger: quiet()})
	if !errors.Is(err, syscall.ENAMETOOLONG) {
		t.Error(err)
	}
}

// testFullLog writes the log of requests to a device that has no room.
func testFullLog(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	if _, err := io.WriteString(full, "x"); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	url := start(t, serve.Options{Logger: slog.New(slog.NewTextHandler(full, nil))}, echoModel("m", fp32x3))
	for body, code := range map[string]int{jsonBody("[1,3]", "[1,2,3]"): 200, "{": 400} {
		if r := send(t, "POST", url+"/v2/models/m/infer", nil, []byte(body)); r.code != code {
			t.Errorf("%d %s", r.code, r.body)
		}
	}
}

// testClocks: a time keeps the monotonic reading beside the wall's, so that what is computed with it does not jump,
// until one of these is called. Only what goes out of the process may.
func testClocks(t *testing.T) {
	strips := regexp.MustCompile(`\.(Unix(Nano|Milli|Micro)?|Round|Truncate|UTC|Local|In|AddDate)\(|\btime\.(Unix(Milli|Micro)?|Date)\(`)
	may := map[string]int{
		"stats.go":       1, // last_inference, since 1970
		"stamp_linux.go": 1, // of a file
		"stamp_other.go": 1,
		"log.go":         1, // of a number
	}
	for _, pattern := range []string{"*.go", "keys/*.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatal(files, err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if found := strips.FindAllString(string(text), -1); len(found) > may[file] {
				t.Errorf("%s: %q takes a time's monotonic reading away", file, found)
			}
		}
	}
}
