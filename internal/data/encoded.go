package data

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"spos/internal/imaging"
)

// imageLimits are for files that the user chose to train on: wider than a
// server's. ImageNet's largest photograph has 61 million pixels.
var imageLimits = imaging.Limits{Bytes: 256 << 20, Pixels: 200_000_000, Side: 65535}

// item is one image file of a data set.
type item struct {
	name   string // slash-separated, within the data set
	offset int64  // in an archive
	size   int64
	label  int32
}

// source reads the bytes of items, by several goroutines at a time.
type source interface {
	read(it *item, buf *bytes.Buffer) error
	Close() error
}

// encoded is a [Dataset] of image files, decoded whenever they are asked for.
type encoded struct {
	classes []string
	items   []item
	source  source
	buffers *sync.Pool
}

func (e *encoded) Len() int          { return len(e.items) }
func (e *encoded) Classes() []string { return e.classes }
func (e *encoded) Label(i int) int   { return int(e.items[i].label) }
func (e *encoded) Name(i int) string { return e.items[i].name }

func (e *encoded) Image(i int) (imaging.Image, error) {
	it := &e.items[i]
	buf := e.buffers.Get().(*bytes.Buffer)
	defer e.buffers.Put(buf)
	buf.Reset()
	if it.size > imageLimits.Bytes {
		return imaging.Image{}, fmt.Errorf("%s: %d bytes, limit %d: %w", it.name, it.size, imageLimits.Bytes, ErrData)
	}
	if err := e.source.read(it, buf); err != nil {
		return imaging.Image{}, fmt.Errorf("%s: %w: %w", it.name, ErrData, err)
	}
	m, err := imaging.Decode(buf.Bytes(), imageLimits)
	if err != nil {
		return imaging.Image{}, fmt.Errorf("%s: %w: %w", it.name, ErrData, err)
	}
	return *m, nil
}

// drop takes out broken images.
func (e *encoded) drop(bad []BadImage) { e.items = without(e.items, bad) }

// dirSource reads files below a folder. Without follow, the root refuses
// links that lead out of it.
type dirSource struct {
	dir  string
	root *os.Root // nil: follow links
}

func (d *dirSource) open(name string) (*os.File, error) {
	if d.root == nil {
		return os.Open(filepath.Join(d.dir, filepath.FromSlash(name)))
	}
	return d.root.Open(filepath.FromSlash(name))
}

func (d *dirSource) read(it *item, buf *bytes.Buffer) error {
	f, err := d.open(it.name)
	if err != nil {
		return err
	}
	defer f.Close()
	buf.Grow(int(it.size) + bytes.MinRead)
	_, err = buf.ReadFrom(io.LimitReader(f, imageLimits.Bytes+1))
	return err
}

func (d *dirSource) Close() error {
	if d.root == nil {
		return nil
	}
	return d.root.Close()
}

// tarSource reads parts of an archive: a file, or its unpacked bytes.
type tarSource struct {
	io.ReaderAt
	io.Closer
}

func (t *tarSource) read(it *item, buf *bytes.Buffer) error {
	buf.Grow(int(it.size) + bytes.MinRead)
	n, err := buf.ReadFrom(io.NewSectionReader(t, it.offset, it.size))
	if err == nil && n < it.size {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// BadImage is an image that does not decode, and why.
type BadImage struct {
	Index int
	Name  string
	Err   error
}

// Check decodes every image of d, in parallel, and lists those that are
// broken, in order. It returns an error only when ctx is done.
func Check(ctx context.Context, d Dataset) ([]BadImage, error) {
	_, bad, err := decodeAll(ctx, d, 0)
	return bad, err
}

// errBudget stops a decodeAll that keeps more than it may.
var errBudget = errors.New("over the memory budget")

// decodeAll decodes every image and keeps the pixels, up to a budget in
// bytes; none are kept where it is zero. It returns errBudget when it is
// exceeded.
func decodeAll(ctx context.Context, d Dataset, budget int64) (*Memory, []BadImage, error) {
	n := d.Len()
	m := &Memory{classes: d.Classes(), images: make([]imaging.Image, n), labels: make([]int32, n), names: make([]string, n)}
	var (
		next, used atomic.Int64
		mu         sync.Mutex
		bad        []BadImage
		group      sync.WaitGroup
	)
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() {
			for ctx.Err() == nil && used.Load() <= budget {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				im, err := d.Image(i)
				if err != nil {
					mu.Lock()
					bad = append(bad, BadImage{i, Name(d, i), err})
					mu.Unlock()
					continue
				}
				if budget > 0 {
					used.Add(int64(len(im.Pix)))
					m.images[i], m.labels[i], m.names[i] = im, int32(d.Label(i)), Name(d, i)
				}
			}
		})
	}
	group.Wait()
	switch {
	case ctx.Err() != nil:
		return nil, nil, context.Cause(ctx)
	case used.Load() > budget:
		return nil, nil, errBudget
	}
	slices.SortFunc(bad, func(a, b BadImage) int { return cmp.Compare(a.Index, b.Index) })
	return m, bad, nil
}
