package data

import (
	"archive/tar"
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// Bounds of what is listed: a hostile archive or a wrong path, the root of a
// disk say, ends in an error and not in swap.
const (
	maxFiles  = 50_000_000
	maxDepth  = 16
	maxUnpack = 4 << 30 // bytes of a compressed archive, which is kept in memory
)

// listing is what a folder or an archive holds: the folders, and the regular
// files, by slash-separated names.
type listing struct {
	dirs  []string
	files []item
}

func (l *listing) addFile(it item) error {
	if len(l.files) >= maxFiles {
		return fmt.Errorf("more than %d files: %w", maxFiles, ErrData)
	}
	l.files = append(l.files, it)
	return nil
}

// listDir walks a folder. Symbolic links are followed where they may be.
func listDir(dir string, follow bool) (listing, source, error) {
	src := &dirSource{dir: dir}
	if !follow {
		root, err := os.OpenRoot(dir)
		if err != nil {
			return listing{}, nil, err
		}
		src.root = root
	}
	var l listing
	if err := src.walk(&l, ".", 0); err != nil {
		return listing{}, nil, errors.Join(err, src.Close())
	}
	return l, src, nil
}

func (d *dirSource) walk(l *listing, dir string, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%s: more than %d folders deep (a link to itself?): %w", dir, maxDepth, ErrData)
	}
	f, err := d.open(dir)
	if err != nil {
		return err
	}
	entries, err := f.ReadDir(-1)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	for _, e := range entries {
		name := path.Join(dir, e.Name())
		if hidden(e.Name()) {
			continue
		}
		info, err := d.stat(e, name)
		if err != nil {
			return err
		}
		switch {
		case info.IsDir():
			l.dirs = append(l.dirs, name)
			err = d.walk(l, name, depth+1)
		case info.Mode().IsRegular():
			err = l.addFile(item{name: name, size: info.Size()})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// stat describes what an entry is, or, for a link, what it leads to.
func (d *dirSource) stat(e fs.DirEntry, name string) (fs.FileInfo, error) {
	if e.Type()&fs.ModeSymlink == 0 {
		return e.Info()
	}
	full := filepath.Join(d.dir, filepath.FromSlash(name))
	if d.root == nil {
		return os.Stat(full)
	}
	info, err := d.root.Stat(filepath.FromSlash(name))
	if err != nil {
		target, _ := os.Readlink(full)
		return nil, fmt.Errorf("%s is a link to %s, broken or leading out of %s (follow_links: true accepts the latter): %w: %w",
			name, target, d.dir, ErrData, err)
	}
	return info, nil
}

// listTar indexes an archive once. A plain one stays on disk and is read in
// place; a compressed one is unpacked into memory.
func listTar(file string) (listing, source, error) {
	f, err := os.Open(file)
	if err != nil {
		return listing{}, nil, err
	}
	br := bufio.NewReaderSize(io.NewSectionReader(f, 0, math.MaxInt64), 1<<16)
	src := &tarSource{f, f}
	var r io.ReadSeeker = f
	if b, _ := br.Peek(2); bytes.Equal(b, []byte{0x1f, 0x8b}) {
		var buf bytes.Buffer
		err := unpack(&buf, br)
		if err = errors.Join(err, f.Close()); err != nil {
			return listing{}, nil, fmt.Errorf("%s: %w: %w", file, ErrData, err)
		}
		// ReadAt does not move the position that Read and Seek share.
		all := bytes.NewReader(buf.Bytes())
		src = &tarSource{all, io.NopCloser(nil)}
		r = all
	}
	l, err := indexTar(r)
	if err != nil {
		return listing{}, nil, errors.Join(fmt.Errorf("%s: %w: %w", file, ErrData, err), src.Close())
	}
	return l, src, nil
}

func unpack(dst *bytes.Buffer, r io.Reader) error {
	z, err := gzip.NewReader(r)
	if err != nil {
		return err
	}
	n, err := dst.ReadFrom(io.LimitReader(z, maxUnpack+1))
	if err == nil && n > maxUnpack {
		err = fmt.Errorf("unpacks to more than %d bytes: unpack it to a .tar or a folder first", int64(maxUnpack))
	}
	return err
}

func indexTar(r io.ReadSeeker) (listing, error) {
	var l listing
	seen := map[string]bool{}
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return l, nil
		}
		if err != nil {
			return l, fmt.Errorf("after %d files: %w", len(l.files), err)
		}
		name := path.Clean("/" + h.Name)[1:] // nothing is above the top
		if name == "" || hidden(name) || strings.Contains(name, "/.") {
			continue
		}
		for dir := path.Dir(name); dir != "." && !seen[dir]; dir = path.Dir(dir) {
			seen[dir] = true
			l.dirs = append(l.dirs, dir)
		}
		switch h.Typeflag {
		case tar.TypeDir:
			if !seen[name] {
				seen[name] = true
				l.dirs = append(l.dirs, name)
			}
		case tar.TypeReg:
			at, err := r.Seek(0, io.SeekCurrent)
			if err != nil {
				return l, err
			}
			if err := l.addFile(item{name: name, offset: at, size: h.Size}); err != nil {
				return l, err
			}
		}
	}
}

func hidden(name string) bool { return strings.HasPrefix(name, ".") }

func isImage(name string) bool {
	switch strings.ToLower(path.Ext(name)) {
	case ".jpg", ".jpeg", ".png":
		return true
	}
	return false
}

// unwrap takes off the one folder that an archive's contents often lie in.
func (l *listing) unwrap(parts []string) {
	top := l.tops()
	if len(top) != 1 || slices.Contains(parts, top[0]) {
		return
	}
	prefix := top[0] + "/"
	for _, d := range l.dirs { // its folders hold folders: classes or parts
		if strings.HasPrefix(d, prefix) {
			for i := range l.dirs {
				l.dirs[i] = strings.TrimPrefix(l.dirs[i], prefix)
			}
			for i := range l.files {
				l.files[i].name = strings.TrimPrefix(l.files[i].name, prefix)
			}
			l.dirs = slices.DeleteFunc(l.dirs, func(d string) bool { return d == top[0] })
			return
		}
	}
}

// tops are the folders at the top, sorted.
func (l *listing) tops() []string {
	var top []string
	for _, d := range l.dirs {
		if !strings.Contains(d, "/") {
			top = append(top, d)
		}
	}
	slices.Sort(top)
	return top
}

// part is the sub-set under a folder ("" for all): its classes are the
// folders in it, sorted by name as torchvision sorts them, unless given.
func (l *listing) part(name string, classes []string, src source, buffers *sync.Pool) (*encoded, error) {
	prefix := ""
	if name != "" {
		prefix = name + "/"
	}
	label := map[string]int32{}
	var own []string
	for _, d := range l.dirs {
		if c, ok := strings.CutPrefix(d, prefix); ok && !strings.Contains(c, "/") {
			own = append(own, c)
		}
	}
	slices.Sort(own)
	if len(own) == 0 {
		return nil, fmt.Errorf("%q holds no class folders: each class is a folder of JPEG or PNG images: %w", cmp.Or(name, "."), ErrData)
	}
	if classes == nil {
		classes = own
	}
	for i, c := range classes {
		label[c] = int32(i)
	}
	e := &encoded{classes: classes, source: src, buffers: buffers}
	images, others := map[string]int{}, map[string]string{}
	for _, f := range l.files {
		rest, ok := strings.CutPrefix(f.name, prefix)
		class, _, inside := strings.Cut(rest, "/")
		if !ok || !inside {
			continue
		}
		if !isImage(f.name) {
			others[class] = f.name
			continue
		}
		if f.label, ok = label[class]; !ok {
			return nil, fmt.Errorf("%s: class %q is not among the %d classes of the training images: %w", f.name, class, len(classes), ErrData)
		}
		images[class]++
		e.items = append(e.items, f)
	}
	for _, c := range own {
		if images[c] > 0 {
			continue
		}
		what := ""
		if o := others[c]; o != "" {
			what = fmt.Sprintf(" (but other files, such as %s)", o)
		}
		return nil, fmt.Errorf("class folder %s holds no JPEG or PNG image%s: fill it or take it away: %w", prefix+c, what, ErrData)
	}
	slices.SortFunc(e.items, func(a, b item) int {
		return cmp.Or(cmp.Compare(a.label, b.label), cmp.Compare(a.name, b.name))
	})
	return e, nil
}

// fingerprint hashes names and sizes: reading a large folder to hash its
// content would take longer than an epoch.
func (e *encoded) fingerprint() string {
	h := sha256.New()
	for _, it := range e.items {
		_, _ = fmt.Fprintf(h, "%s %d\n", it.name, it.size)
	}
	return "listing-sha256:" + hex.EncodeToString(h.Sum(nil))
}
