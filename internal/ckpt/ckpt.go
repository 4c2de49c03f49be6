// Package ckpt keeps weights on disk: single safetensors files ([Open],
// [Write]) and checkpoint directories of a training run ([Save], [Find]). It
// knows names, shapes and numbers, and nothing of what they mean.
//
// The reader and writer of the format are our own and short. The Go module
// for it (nlpodyssey/safetensors) takes and returns whole files as byte
// slices, accepts a repeated tensor name in silence, and bounds neither the
// rank of a tensor nor the memory that its header costs; a checkpoint that a
// server opens is outside data, and a supernet of which one path is wanted
// should be read one tensor at a time.
package ckpt

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
)

// ErrCorrupt is wrapped by every error about a file whose content is not what
// the format promises. The way out is another copy of the file.
var ErrCorrupt = errors.New("ckpt: file is damaged")

// ErrMissing is wrapped when a file has no tensor of the wanted name.
var ErrMissing = errors.New("ckpt: no such tensor")

// Tensor is a dense float32 array, row-major. A scalar has an empty Shape and
// one element.
type Tensor struct {
	Shape []int
	Data  []float32
	// Load makes the elements where Data is nil. [Write] calls it when it comes
	// to the tensor, so that what is only passed on is never in memory as a
	// whole. No reader of this package sets it.
	Load func() ([]float32, error)
}

// load is the elements, as many as fill the shape.
func (t Tensor) load() ([]float32, error) {
	if t.Load != nil {
		var err error
		if t.Data, err = t.Load(); err != nil {
			return nil, err
		}
	}
	if n, err := elements(t.Shape, math.MaxInt64/4); err != nil || n != int64(len(t.Data)) {
		return nil, fmt.Errorf("%d elements do not fill shape %v", len(t.Data), t.Shape)
	}
	return t.Data, nil
}

// Write writes a safetensors file of float32 tensors, in the order in which
// they come, under a temporary name that replaces path once all of it is on
// the disk: path is either as it was or complete. The bytes depend on the
// arguments only. Tensors are kept until the header can be written, so an
// element slice must not change before Write returns.
func Write(path string, meta map[string]string, tensors iter.Seq2[string, Tensor]) error {
	head, all, err := header(meta, tensors)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return Replace(path, func(w *bufio.Writer) error {
		if _, err := w.Write(head); err != nil {
			return err
		}
		for _, t := range all {
			data, err := t.load()
			if err == nil {
				err = writeFloats(w, data)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// Replace has fill write a file under a temporary name that replaces path once
// all of it is on the disk.
func Replace(path string, fill func(*bufio.Writer) error) (err error) {
	f, err := renameio.NewPendingFile(path, renameio.WithTempDir(filepath.Dir(path)), renameio.WithPermissions(0o644))
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, f.Cleanup()) }()
	w := bufio.NewWriterSize(f, 1<<20)
	if err := fill(w); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := f.CloseAtomicallyReplace(); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// header is the length, the JSON and its padding, and the tensors in order.
func header(meta map[string]string, tensors iter.Seq2[string, Tensor]) ([]byte, []Tensor, error) {
	head := []byte("{")
	if len(meta) > 0 {
		m, err := json.Marshal(meta) // sorts the keys
		if err != nil {
			return nil, nil, err
		}
		head = append(append(head, `"__metadata__":`...), m...)
	}
	var (
		all    []Tensor
		offset int64
		seen   = map[string]bool{metadataKey: true}
	)
	for name, t := range tensors {
		if seen[name] {
			return nil, nil, fmt.Errorf("tensor %q: the name is taken", name)
		}
		seen[name] = true
		n, err := elements(t.Shape, math.MaxInt64/4)
		if err != nil || t.Load == nil && n != int64(len(t.Data)) {
			return nil, nil, fmt.Errorf("tensor %q: %d elements do not fill shape %v", name, len(t.Data), t.Shape)
		}
		e, err := json.Marshal(map[string]entry{name: {
			DType:   "F32",
			Shape:   append([]int64{}, widen(t.Shape)...),
			Offsets: []int64{offset, offset + 4*n},
		}})
		if err != nil {
			return nil, nil, err
		}
		if len(head) > 1 {
			head = append(head, ',')
		}
		head = append(head, e[1:len(e)-1]...)
		offset += 4 * n
		all = append(all, t)
	}
	head = append(head, '}')
	for len(head)%8 != 0 { // so that the data is aligned for readers that map the file
		head = append(head, ' ')
	}
	if len(head) > maxHeader {
		return nil, nil, fmt.Errorf("header of %d bytes is over the %d that readers accept", len(head), maxHeader)
	}
	return append(binary.LittleEndian.AppendUint64(nil, uint64(len(head))), head...), all, nil
}

func widen(shape []int) []int64 {
	w := make([]int64, len(shape))
	for i, d := range shape {
		w[i] = int64(d)
	}
	return w
}

func writeFloats(w io.Writer, data []float32) error {
	buf := make([]byte, 0, 1<<15)
	for len(data) > 0 {
		n := min(len(data), cap(buf)/4)
		buf = buf[:0]
		for _, v := range data[:n] {
			buf = binary.LittleEndian.AppendUint32(buf, math.Float32bits(v))
		}
		if _, err := w.Write(buf); err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

// Digest is the SHA-256 of a file in hexadecimal: how lineage names a parent
// checkpoint.
func Digest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("digest: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("digest %s: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
