package pth

import (
	"archive/zip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// maxDirectory bounds the bytes that may be read to list a zip archive. An
// entry takes about 60, and some 300 in memory.
const maxDirectory = 8 << 20

// The old format begins with a pickle of this number (little-endian), and one
// of this version.
const (
	legacyMagic   = "\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
	legacyVersion = 1001
)

// loadZip reads NAME/data.pkl of a zip archive; NAME/data/KEY is the storage
// KEY, NAME/byteorder how its numbers are written.
func (f *File) loadZip() (any, func(*storage) (int64, error), error) {
	z, err := f.directory()
	if err != nil {
		return nil, nil, fmt.Errorf("zip archive: %w", err)
	}
	if _, ok := z.entries["constants.pkl"]; ok {
		return nil, nil, format("a TorchScript archive: save its state_dict instead")
	}
	if f.big, err = z.bigEndian(f.r); err != nil {
		return nil, nil, err
	}
	at, n, err := z.find("data.pkl")
	if err != nil {
		return nil, nil, err
	}
	if n > maxPickle {
		return nil, nil, corrupt("data.pkl has %d bytes, over the limit of %d", n, maxPickle)
	}
	root, m, err := unpickle(f.r, at, at+n)
	if err != nil {
		return nil, nil, fmt.Errorf("data.pkl: %w", err)
	}
	if m.at != n {
		return nil, nil, corrupt("data.pkl: %d bytes after the end of the pickle", n-m.at)
	}
	locate := func(s *storage) (int64, error) {
		at, got, err := z.find("data/" + s.key)
		if err == nil && got != s.n*s.dtype.size {
			err = corrupt("zip entry data/%.200s has %d bytes, not the %d of %d %s", s.key, got, s.n*s.dtype.size, s.n, s.dtype.name)
		}
		return at, err
	}
	return root, locate, nil
}

// archive is the directory of a zip file: entries by name, without the folder
// that torch puts around them.
type archive struct {
	size    int64
	entries map[string]*zip.File
}

func (f *File) directory() (archive, error) {
	budget := &limited{r: f.r, left: maxDirectory}
	r, err := zip.NewReader(budget, f.size)
	switch {
	case budget.err != nil:
		return archive{}, budget.err
	case err != nil:
		return archive{}, corrupt("no sound directory at the end, the file may be cut short (%v)", err)
	}
	budget.left = math.MaxInt64
	a := archive{size: f.size, entries: make(map[string]*zip.File, len(r.File))}
	folder := ""
	for i, e := range r.File {
		name := e.Name
		if i == 0 {
			folder = name[:strings.IndexByte(name, '/')+1]
		}
		name, ok := strings.CutPrefix(name, folder)
		if !ok {
			return a, corrupt("entry %.200q is not in the folder %.200q", e.Name, folder)
		}
		if _, dup := a.entries[name]; dup {
			return a, corrupt("entry %.200q appears twice", e.Name)
		}
		a.entries[name] = e
	}
	return a, nil
}

// find says where the bytes of an entry lie, which must be stored as they are.
func (a archive) find(name string) (at, n int64, err error) {
	e, ok := a.entries[name]
	if !ok {
		return 0, 0, corrupt("zip archive has no entry %.200q", name)
	}
	if e.Method != zip.Store || e.Flags&1 != 0 || e.CompressedSize64 != e.UncompressedSize64 {
		return 0, 0, corrupt("zip entry %.200q is compressed or encrypted, torch.save only stores", name)
	}
	at, err = e.DataOffset()
	if err != nil {
		return 0, 0, corrupt("zip entry %.200q has no header (%v)", name, err)
	}
	if at > a.size || e.UncompressedSize64 > uint64(a.size-at) {
		return 0, 0, corrupt("zip entry %.200q of %d bytes at byte %d ends after the file", name, e.UncompressedSize64, at)
	}
	return at, int64(e.UncompressedSize64), nil
}

// bigEndian reads the byteorder record. Files older than it are little-endian.
func (a archive) bigEndian(r io.ReaderAt) (bool, error) {
	if _, ok := a.entries["byteorder"]; !ok {
		return false, nil
	}
	at, n, err := a.find("byteorder")
	if err != nil {
		return false, err
	}
	order := make([]byte, min(n, 16))
	if err := readFull(r, order, at); err != nil {
		return false, err
	}
	if s := string(order); s != "little" && s != "big" {
		return false, corrupt("byteorder is %q, neither little nor big", s)
	}
	return string(order) == "big", nil
}

// limited is a reader that gives a bounded number of bytes and keeps the error
// that is not about their content.
type limited struct {
	r    io.ReaderAt
	left int64
	err  error
}

func (l *limited) ReadAt(b []byte, at int64) (int, error) {
	if l.left -= int64(len(b)); l.left < 0 {
		l.err = corrupt("a directory of more than %d bytes", maxDirectory)
		return 0, l.err
	}
	n, err := l.r.ReadAt(b, at)
	if err != nil && !errors.Is(err, io.EOF) {
		l.err = fmt.Errorf("read: %w", err)
	}
	return n, err
}

// loadLegacy reads the format of before torch 1.6: five pickles (magic number,
// version, the writer's machine, what was saved, keys of the storages), then
// each storage as a count and its numbers. Those are little-endian on every
// machine.
func (f *File) loadLegacy() (any, func(*storage) (int64, error), error) {
	var (
		at    int64
		parts [5]any
		saved *machine
	)
	for i, what := range []string{"magic number", "version", "system", "data", "storage keys"} {
		v, m, err := unpickle(f.r, at, f.size)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", what, err)
		}
		if i == 0 && v != any(long(legacyMagic)) {
			return nil, nil, format("a pickle, but not of torch.save, which begins with its magic number")
		}
		if i == 1 && v != any(int64(legacyVersion)) {
			return nil, nil, format("not version %d of torch.save's old format", legacyVersion)
		}
		if i == 3 {
			saved = m
		}
		parts[i] = v
		at += m.at
	}
	keys, ok := parts[4].(*seq)
	if !ok {
		return nil, nil, corrupt("storage keys: %s, not a list", describe(parts[4]))
	}
	if err := f.placeStorages(at, keys.items, saved.storages); err != nil {
		return nil, nil, err
	}
	return parts[3], func(s *storage) (int64, error) {
		if s.at == 0 {
			return 0, corrupt("storage %.200q is not in the file", s.key)
		}
		return s.at, nil
	}, nil
}

// placeStorages walks the storages from byte at to the end of the file.
func (f *File) placeStorages(at int64, keys []any, storages map[string]*storage) error {
	for _, k := range keys {
		key, _ := k.(string)
		s := storages[key]
		if s == nil || s.at != 0 {
			return corrupt("storage %.200q is listed twice or belongs to nothing", key)
		}
		if s.dtype.size == 0 {
			return format("storage %.200q is of type %s, of unknown size", key, s.dtype.name)
		}
		var count [8]byte
		if f.size-at < int64(len(count)) {
			return corrupt("storage %.200q begins at byte %d of %d: the file is cut short", key, at, f.size)
		}
		if err := readFull(f.r, count[:], at); err != nil {
			return err
		}
		if n := binary.LittleEndian.Uint64(count[:]); n != uint64(s.n) {
			return corrupt("storage %.200q at byte %d has %d numbers, not %d", key, at, n, s.n)
		}
		at += int64(len(count))
		if s.n*s.dtype.size > f.size-at {
			return corrupt("storage %.200q of %d bytes at byte %d ends after byte %d: the file is cut short", key, s.n*s.dtype.size, at, f.size)
		}
		s.at = at
		at += s.n * s.dtype.size
	}
	if at != f.size {
		return corrupt("%d bytes after the last storage", f.size-at)
	}
	return nil
}

// choose picks the dict of weights by the rule of [Open].
func choose(root any, weights string) (*dict, string, error) {
	d, ok := root.(*dict)
	if !ok {
		return nil, "", format("what was saved is %s, not a dict of tensors: save a state_dict", describe(root))
	}
	found := candidates(d)
	if weights == "" && slices.Contains(found, "state_dict") {
		weights = "state_dict"
	}
	switch {
	case weights == Root:
		return d, Root, nil
	case weights != "":
		v, ok := d.get(weights)
		if !ok {
			return nil, "", fmt.Errorf("no key %q, the dicts that hold tensors are %s: %w", weights, quoted(found), ErrChoice)
		}
		if d, ok = v.(*dict); !ok {
			return nil, "", format("%q is %s, not a dict of tensors", weights, describe(v))
		}
		return d, weights, nil
	case len(found) == 0:
		return nil, "", format("no tensors in the dict or in those under its keys (%s)", quoted(slices.Sorted(keysOf(d))))
	case len(found) > 1:
		return nil, "", fmt.Errorf("the dicts that hold tensors are %s: %w", quoted(found), ErrChoice)
	case found[0] == Root:
		return d, Root, nil
	}
	v, _ := d.get(found[0])
	return v.(*dict), found[0], nil
}
