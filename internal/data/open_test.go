package data_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"

	"spos/internal/arch"
	"spos/internal/data"
)

func picture(tb testing.TB, ext string, w, h int, shade uint8) []byte {
	tb.Helper()
	m := image.NewRGBA(image.Rect(0, 0, w, h))
	for i := range w * h {
		m.Set(i%w, i/w, color.RGBA{shade, 255 - shade, 7, 255})
	}
	var b bytes.Buffer
	err := errors.New("unknown extension")
	switch ext {
	case ".jpg":
		err = jpeg.Encode(&b, m, nil)
	case ".png":
		err = png.Encode(&b, m)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

// tree is files by name; a value of nil is an empty folder.
type tree map[string][]byte

func (f tree) write(tb testing.TB) string {
	tb.Helper()
	dir := tb.TempDir()
	for name, b := range f {
		p := filepath.Join(dir, name)
		if b == nil {
			if err := os.MkdirAll(p, 0o755); err != nil {
				tb.Fatal(err)
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			tb.Fatal(err)
		}
		if err := os.WriteFile(p, b, 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	return dir
}

func (f tree) archive(tb testing.TB, name, prefix string) string {
	tb.Helper()
	var b bytes.Buffer
	var w io.Writer = &b
	var z *gzip.Writer
	if strings.HasSuffix(name, "gz") {
		z = gzip.NewWriter(&b)
		w = z
	}
	tw := tar.NewWriter(w)
	names := slices.Sorted(func(yield func(string) bool) {
		for n := range f {
			if !yield(n) {
				return
			}
		}
	})
	for _, n := range names {
		h := &tar.Header{Name: prefix + n, Typeflag: tar.TypeReg, Size: int64(len(f[n])), Mode: 0o600}
		if f[n] == nil {
			h.Typeflag = tar.TypeDir
		}
		if err := tw.WriteHeader(h); err != nil {
			tb.Fatal(err)
		}
		if _, err := tw.Write(f[n]); err != nil {
			tb.Fatal(err)
		}
	}
	err := tw.Close()
	if z != nil {
		err = errors.Join(err, z.Close())
	}
	if err != nil {
		tb.Fatal(err)
	}
	p := filepath.Join(tb.TempDir(), name)
	if err := os.WriteFile(p, b.Bytes(), 0o600); err != nil {
		tb.Fatal(err)
	}
	return p
}

// pets is train/{cat,dog} with n images each, and m in test.
func pets(tb testing.TB, n, m int) tree {
	tb.Helper()
	f := tree{}
	add := func(part string, n int) {
		for i := range n {
			s := string(rune('a' + i))
			f[part+"/cat/"+s+".jpg"] = picture(tb, ".jpg", 8, 6, uint8(10*i))
			f[part+"/dog/deeper/"+s+".PNG"] = picture(tb, ".png", 8, 6, uint8(100+i))
		}
	}
	add("train", n)
	add("test", m)
	return f
}

func open(tb testing.TB, spec data.Spec) *data.Sets {
	tb.Helper()
	s, err := data.Open(tb.Context(), spec)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

// contents are the labels and pixels of a set.
func contents(t *testing.T, d data.Dataset) (labels []int, pixels []string) {
	t.Helper()
	for i := range d.Len() {
		im, err := d.Image(i)
		if err != nil {
			t.Fatal(err)
		}
		labels, pixels = append(labels, d.Label(i)), append(pixels, string(im.Pix))
	}
	return labels, pixels
}

func TestFolderAndArchivesHoldTheSame(t *testing.T) {
	f := pets(t, 10, 2)
	f["train/cat/notes.txt"], f["train/.cache/x.jpg"], f["README"] = []byte("x"), []byte("x"), []byte("x")
	dir := f.write(t)
	want := open(t, data.Spec{Path: dir})
	if d := cmp.Diff([]string{"cat", "dog"}, want.Classes); d != "" {
		t.Error(d)
	}
	if want.Train.Len() != 18 || want.Val.Len() != 2 || want.Test.Len() != 4 {
		t.Errorf("%d, %d, %d images", want.Train.Len(), want.Val.Len(), want.Test.Len())
	}
	if want.Shape != (arch.Shape{C: 3, H: 6, W: 8}) || !strings.HasPrefix(want.Fingerprint, "pixels-sha256:") {
		t.Errorf("shape %v, fingerprint %s", want.Shape, want.Fingerprint)
	}
	if n := data.Name(want.Test, 3); n != "test/dog/deeper/b.PNG" {
		t.Errorf("the last test image is %s", n)
	}
	specs := map[string]data.Spec{
		"not packed":       {Path: dir, Pack: data.PackOff},
		"tar":              {Path: f.archive(t, "pets.tar", "")},
		"tar, not packed":  {Path: f.archive(t, "pets.tar", "./"), Pack: data.PackOff},
		"tar.gz in folder": {Path: f.archive(t, "pets.tar.gz", "pets-1.0/"), Pack: data.PackOff},
		"tgz":              {Path: f.archive(t, "pets.tgz", "../")},
	}
	for name, spec := range specs {
		t.Run(name, func(t *testing.T) {
			got := open(t, spec)
			if spec.Pack != data.PackOff && got.Fingerprint != want.Fingerprint {
				t.Error("another fingerprint")
			}
			for i, d := range []data.Dataset{got.Train, got.Val, got.Test} {
				w := []data.Dataset{want.Train, want.Val, want.Test}[i]
				gl, gp := contents(t, d)
				wl, wp := contents(t, w)
				if !slices.Equal(gl, wl) || !slices.Equal(gp, wp) {
					t.Errorf("part %d differs", i)
				}
			}
		})
	}
}

func TestLayouts(t *testing.T) {
	base := pets(t, 10, 3)
	move := func(from, to string) tree {
		f := tree{}
		for n, b := range base {
			if rest, ok := strings.CutPrefix(n, from); ok {
				n = to + rest
			}
			f[n] = b
		}
		return f
	}
	only := func(part string, f tree) tree {
		out := tree{}
		for n, b := range f {
			if rest, ok := strings.CutPrefix(n, part+"/"); ok {
				out[rest] = b
			}
		}
		return out
	}
	tests := map[string]struct {
		dir              string
		spec             data.Spec
		train, val, test int
	}{
		"train and test":            {base.write(t), data.Spec{}, 18, 2, 6},
		"train and val":             {move("test/", "val/").write(t), data.Spec{}, 18, 2, 6},
		"val said to be validation": {move("test/", "val/").write(t), data.Spec{Val: "val", TestFraction: .2}, 16, 6, 4},
		"other names":               {move("test/", "holdout/").write(t), data.Spec{Test: "holdout", ValFraction: .3}, 14, 6, 6},
		"classes at the top":        {only("train", base).write(t), data.Spec{}, 16, 2, 2},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tt.spec.Path = tt.dir
			s := open(t, tt.spec)
			if a, b, c := s.Train.Len(), s.Val.Len(), s.Test.Len(); a != tt.train || b != tt.val || c != tt.test {
				t.Errorf("%d, %d, %d images; want %d, %d, %d", a, b, c, tt.train, tt.val, tt.test)
			}
			seen := map[string]bool{}
			for _, d := range []data.Dataset{s.Train, s.Val, s.Test} {
				for i := range d.Len() {
					if n := data.Name(d, i); seen[n] {
						t.Errorf("%s is in two sets", n)
					} else {
						seen[n] = true
					}
				}
			}
		})
	}
}

func TestMixedSizes(t *testing.T) {
	f := pets(t, 10, 2)
	f["train/cat/large.png"] = picture(t, ".png", 30, 20, 9)
	for _, pack := range []data.Pack{data.PackOn, data.PackOff, data.PackAuto} {
		s := open(t, data.Spec{Path: f.write(t), Pack: pack})
		if s.Shape != (arch.Shape{C: 3}) {
			t.Errorf("%s: shape %v", pack, s.Shape)
		}
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	with := func(change func(tree)) string {
		f := pets(t, 3, 1)
		change(f)
		return f.write(t)
	}
	broken := func(f tree) { f["train/dog/b.jpg"] = picture(t, ".jpg", 8, 6, 1)[:300] }
	file := filepath.Join(t.TempDir(), "x.zip")
	if err := os.WriteFile(file, []byte("PK"), 0o600); err != nil {
		t.Fatal(err)
	}
	notTar := strings.TrimSuffix(file, ".zip") + ".tar"
	if err := os.WriteFile(notTar, bytes.Repeat([]byte("nothing"), 200), 0o600); err != nil {
		t.Fatal(err)
	}
	truncated := pets(t, 3, 1).archive(t, "cut.tar.gz", "")
	if err := os.Truncate(truncated, 600); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		spec data.Spec
		want error
		says []string
	}{
		"nothing there":  {data.Spec{Path: "/no/such/folder"}, data.ErrNotFound, []string{"/no/such/folder"}},
		"no path":        {data.Spec{}, data.ErrNotFound, []string{"path"}},
		"zip":            {data.Spec{Path: file}, data.ErrData, []string{"x.zip", ".tar"}},
		"not a tar":      {data.Spec{Path: notTar}, data.ErrData, []string{"x.tar"}},
		"truncated tar":  {data.Spec{Path: truncated}, data.ErrData, []string{"cut.tar.gz", "EOF"}},
		"file as folder": {data.Spec{Path: file, Kind: data.Folder}, data.ErrData, []string{"folder"}},
		"empty folder":   {data.Spec{Path: t.TempDir()}, data.ErrData, []string{"class folders"}},
		"broken image":   {data.Spec{Path: with(broken)}, data.ErrData, []string{"train/dog/b.jpg", "jpeg", "broken: skip"}},
		"empty class": {
			data.Spec{Path: with(func(f tree) { f["train/eel"] = nil })},
			data.ErrData,
			[]string{"train/eel", "no JPEG or PNG"},
		},
		"class of other files": {
			data.Spec{Path: with(func(f tree) { f["train/eel/a.webp"] = []byte("x") })},
			data.ErrData,
			[]string{"train/eel", "a.webp"},
		},
		"class only in test": {
			data.Spec{Path: with(func(f tree) { f["test/eel/a.png"] = picture(t, ".png", 8, 6, 0) })},
			data.ErrData,
			[]string{"test/eel/a.png", `"eel"`},
		},
		"no such part":  {data.Spec{Path: with(func(tree) {}), Test: "holdout"}, data.ErrData, []string{"test", "holdout"}},
		"no such train": {data.Spec{Path: with(func(tree) {}), Train: "training"}, data.ErrData, []string{"train", "training"}},
		"too few":       {data.Spec{Path: tree{"a/x.png": picture(t, ".png", 4, 4, 1)}.write(t)}, data.ErrData, []string{"too few"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := data.Open(t.Context(), tt.spec)
			if !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want an error that wraps %v", err, tt.want)
			}
			for _, s := range tt.says {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("%v: does not say %s", err, s)
				}
			}
		})
	}
}

func TestBrokenImagesAreSkippedAndListed(t *testing.T) {
	f := pets(t, 10, 2)
	f["train/cat/a.jpg"], f["train/dog/broken.png"], f["test/cat/b.jpg"] = []byte("no image"), []byte{}, f["test/cat/b.jpg"][:200]
	for _, pack := range []data.Pack{data.PackOn, data.PackOff} {
		s := open(t, data.Spec{Path: f.write(t), Broken: data.SkipBroken, Pack: pack})
		var names []string
		for _, b := range s.Skipped {
			names = append(names, b.Name)
			if b.Err == nil {
				t.Errorf("%s: no reason", b.Name)
			}
		}
		want := []string{"train/cat/a.jpg", "train/dog/broken.png", "test/cat/b.jpg"}
		if d := cmp.Diff(want, names); d != "" {
			t.Error(d)
		}
		if n := s.Train.Len() + s.Val.Len(); n != 19 || s.Test.Len() != 3 {
			t.Errorf("%d and %d images left", n, s.Test.Len())
		}
		for _, d := range []data.Dataset{s.Train, s.Val, s.Test} {
			if bad, err := data.Check(t.Context(), d); len(bad) > 0 || err != nil {
				t.Errorf("still broken: %v, %v", bad, err)
			}
		}
	}
	// Unpacked and unchecked, the first use is what names the file.
	s := open(t, data.Spec{Path: tree{
		"train/a/1.png": picture(t, ".png", 90, 90, 0), "train/a/2.png": []byte("\x89PNG\r\n\x1a\n"),
		"test/a/1.png": picture(t, ".png", 90, 90, 0),
	}.write(t), ValFraction: .4})
	bad, err := data.Check(t.Context(), s.Train)
	more, err2 := data.Check(t.Context(), s.Val)
	if bad = append(bad, more...); len(bad) != 1 || bad[0].Name != "train/a/2.png" || err != nil || err2 != nil {
		t.Errorf("check found %v, %v, %v", bad, err, err2)
	}
}

func TestLinks(t *testing.T) {
	outside := tree{"x.png": picture(t, ".png", 8, 6, 3)}.write(t)
	f := pets(t, 3, 1)
	dir := f.write(t)
	link := func(target, name string) {
		t.Helper()
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Skipf("no symbolic links here: %v", err)
		}
	}
	link("a.jpg", "train/cat/inside.jpg")
	if s := open(t, data.Spec{Path: dir}); s.Train.Len()+s.Val.Len() != 7 {
		t.Errorf("%d images: the link inside does not count", s.Train.Len()+s.Val.Len())
	}
	link(outside, "train/eel")
	_, err := data.Open(t.Context(), data.Spec{Path: dir})
	if !errors.Is(err, data.ErrData) || !strings.Contains(err.Error(), "train/eel is a link to "+outside) {
		t.Errorf("link outside: %v", err)
	}
	s := open(t, data.Spec{Path: dir, FollowLinks: true, Pack: data.PackOff})
	if d := cmp.Diff([]string{"cat", "dog", "eel"}, s.Classes); d != "" {
		t.Error(d)
	}
	link("..", "train/cat/up")
	if _, err := data.Open(t.Context(), data.Spec{Path: dir, FollowLinks: true}); !errors.Is(err, data.ErrData) {
		t.Errorf("link to itself: %v", err)
	}
}

func TestSpecInYAML(t *testing.T) {
	var s data.Spec
	in := "kind: folder\npath: /x\nval_fraction: 0.2\nbroken: skip\npack: on\n"
	if err := yaml.UnmarshalWithOptions([]byte(in), &s, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	want := data.Spec{Kind: data.Folder, Path: "/x", ValFraction: .2, Broken: data.SkipBroken, Pack: data.PackOn}
	if d := cmp.Diff(want, s); d != "" || s.Validate() != nil {
		t.Error(d, s.Validate())
	}
	for field, bad := range map[string]data.Spec{
		"kind": {Kind: "lmdb"}, "pack": {Pack: "yes"}, "broken": {Broken: "ignore"},
		"val_fraction": {ValFraction: 1}, "test_fraction": {TestFraction: -1},
	} {
		if err := bad.Validate(); err == nil || !strings.HasPrefix(err.Error(), field+":") {
			t.Errorf("%+v: error %v does not name %s", bad, err, field)
		}
	}
}
