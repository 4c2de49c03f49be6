// Package pth reads and writes PyTorch's checkpoint files (.pth, .pt) in plain
// Go: the zip archives of torch.save since 1.6 and the stream that it wrote
// before. It gives names, shapes and numbers, and must never know what network
// they belong to.
//
// A checkpoint is a pickle, which is a program. Nothing of it is ever run: the
// machine in pickle.go builds lists, dicts, numbers and the tensors that
// torch's own builders describe, and whatever else a file asks for becomes an
// inert placeholder. A file is outside data, so everything it can claim
// (lengths, counts, nesting, shapes, strides) is held against its size or a
// limit before memory is spent on it.
package pth

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"spos/internal/ckpt"
)

// ErrCorrupt is wrapped by every error about a file whose content is not what
// the format promises. The way out is another copy of the file.
var ErrCorrupt = errors.New("pth: file is damaged")

// ErrFormat is wrapped by the error about a file that may be sound but holds
// no dict of tensors: TorchScript, a pickled module, something else entirely.
var ErrFormat = errors.New("pth: no checkpoint of this kind is read")

// ErrChoice is wrapped where several dicts could be the weights, or the one
// that was asked for is not there. The way out is to name one.
var ErrChoice = errors.New("pth: name the dict of weights")

// Root names the outermost dict as the dict of weights.
const Root = "."

// File is an open checkpoint. What its tensors claim was checked; their
// numbers are read when asked for. Its methods may be called concurrently.
type File struct {
	name    string
	r       io.ReaderAt
	size    int64
	close   func() error
	big     bool // storages are big-endian
	key     string
	names   []string
	entries map[string]entry
	buffers sync.Pool // of *[window]byte
}

// Open opens a checkpoint and lists one dict of it, the weights. Which one:
//
//   - The one under the key weights, if that is not empty; [Root] is the
//     outermost dict itself.
//   - Else the one under state_dict.
//   - Else the only one that holds tensors, of the outermost dict and the
//     dicts right under its keys. To hold tensors is to reach one that is no
//     scalar through keys that are strings, directly or through further dicts:
//     so neither an optimizer, which counts its parameters, nor a best
//     accuracy that was saved beside the weights is in the way.
//   - Else it is an error that wraps [ErrChoice] and lists them.
//
// Dicts within the chosen one are flattened, their keys joined by dots. Errors
// about the content wrap [ErrCorrupt] or [ErrFormat] and name the file. CRCs
// are not looked at, for torch.save may be told not to compute them. The
// caller closes the file.
func Open(path, weights string) (*File, error) {
	f, size, err := ckpt.OpenRegular(path)
	if err != nil {
		return nil, err
	}
	p, err := Read(f, size, path, weights)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	p.close = f.Close
	return p, nil
}

// Read is [Open] for size bytes of r; name is how errors call them. Closing
// the File does not close r.
func Read(r io.ReaderAt, size int64, name, weights string) (*File, error) {
	f := &File{name: name, r: r, size: size, close: func() error { return nil }}
	f.buffers.New = func() any { return new([window]byte) }
	if err := f.read(weights); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return f, nil
}

func (f *File) read(weights string) error {
	root, locate, err := f.load()
	if err != nil {
		return err
	}
	d, key, err := choose(root, weights)
	if err != nil {
		return err
	}
	f.key = key
	l := list{size: f.size, locate: locate, budget: maxList, bytes: maxReuse * f.size, entries: map[string]entry{}}
	if err := l.add(d, "", 0); err != nil {
		return fmt.Errorf("dict %q: %w", key, err)
	}
	if len(l.names) == 0 {
		return format("no tensors in the dict %q", key)
	}
	f.names, f.entries = l.names, l.entries
	return nil
}

// load reads the container up to the numbers: what was pickled, and where the
// numbers of a storage begin.
func (f *File) load() (root any, locate func(*storage) (int64, error), err error) {
	var magic [4]byte
	if f.size < int64(len(magic)) {
		return nil, nil, corrupt("%d bytes are too few for a checkpoint", f.size)
	}
	if err := readFull(f.r, magic[:], 0); err != nil {
		return nil, nil, err
	}
	switch {
	case string(magic[:]) == "PK\x03\x04":
		return f.loadZip()
	case magic[0] == 0x80: // every pickle from protocol 2 on
		return f.loadLegacy()
	}
	return nil, nil, format("starts with % x: neither the zip archive nor the pickle that torch.save writes", magic)
}

// Close closes the file. Tensors that were read stay valid.
func (f *File) Close() error { return f.close() }

// Key is the key of the dict that was listed, [Root] for the outermost.
func (f *File) Key() string { return f.key }

// Names are the tensors in the order of the dict, those of types that
// [File.Tensor] refuses included. The slice is a copy.
func (f *File) Names() []string { return slices.Clone(f.names) }

// Shape is a tensor's shape, without reading it; errors are those of
// [File.DType].
func (f *File) Shape(name string) ([]int, error) {
	e, err := f.entry(name)
	if err != nil {
		return nil, err
	}
	return slices.Clone(e.shape), nil
}

// DType is a tensor's type as torch calls it, for instance float32, or int64
// for a norm's num_batches_tracked. It wraps [ckpt.ErrMissing], or [ErrFormat]
// where the value is built from a tensor by something that is not read.
func (f *File) DType(name string) (string, error) {
	e, err := f.entry(name)
	return e.dtype.name, err
}

func (f *File) entry(name string) (entry, error) {
	e, ok := f.entries[name]
	if !ok {
		return entry{}, fmt.Errorf("%s: tensor %q: %w", f.name, name, ckpt.ErrMissing)
	}
	if e.foreign != "" {
		return entry{}, fmt.Errorf("%s: tensor %q is %s: %w", f.name, name, e.foreign, ErrFormat)
	}
	return e, nil
}

// Prefix is the longest run of whole components, the last dot included, with
// which all names begin: "module." where DataParallel saved, empty where they
// share none. A name's last component is never part of it.
func Prefix(names []string) string {
	if len(names) == 0 {
		return ""
	}
	p := names[0][:strings.LastIndexByte(names[0], '.')+1]
	for _, name := range names[1:] {
		for !strings.HasPrefix(name, p) {
			p = p[:strings.LastIndexByte(p[:len(p)-1], '.')+1]
		}
	}
	return p
}

func corrupt(msg string, args ...any) error {
	return fmt.Errorf(msg+": %w", append(args, ErrCorrupt)...)
}

func format(msg string, args ...any) error {
	return fmt.Errorf(msg+": %w", append(args, ErrFormat)...)
}

// readFull fills b from offset at. A file that ends there lost bytes since its
// size was asked for.
func readFull(r io.ReaderAt, b []byte, at int64) error {
	n, err := r.ReadAt(b, at)
	if n == len(b) { // a reader may report the end together with a full buffer
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return corrupt("ends at byte %d: cut short since it was opened", at+int64(n))
	}
	return fmt.Errorf("read: %w", err)
}
