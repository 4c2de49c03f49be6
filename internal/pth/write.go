package pth

import (
	"archive/zip"
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"iter"
	"maps"
	"math"
	"slices"
	"strconv"

	"spos/internal/ckpt"
)

// alignment is that of a storage in the file, which lets torch map it.
const alignment = 64

// folder is the name that torch gives an archive without a file name.
const folder = "archive/"

// Options of [Write]. The zero value writes a bare state dict of float32.
type Options struct {
	// Meta, if not nil, wraps the weights as mmengine and mmcv save them:
	// {'meta': Meta, 'state_dict': weights}.
	Meta map[string]string
	// Int64 tells which tensors are written as int64, as a norm's
	// num_batches_tracked must be. Their numbers have to be whole. Nil: none.
	Int64 func(name string) bool
}

// Write writes tensors as torch.save does, an OrderedDict in the order in which
// they come that torch.load reads with weights_only. It is written under a
// temporary name that replaces path once all of it is on the disk: path is
// either as it was or complete. The bytes depend on the tensors and options
// only. Tensors are kept until the pickle can be written, so an element slice
// must not change before Write returns.
func Write(path string, tensors iter.Seq2[string, ckpt.Tensor], o Options) error {
	all, err := collectAll(tensors, o)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return ckpt.Replace(path, func(w *bufio.Writer) error { return writeArchive(w, all, o.Meta) })
}

// written is a tensor to write.
type written struct {
	name  string
	shape []int
	data  []float32
	whole bool // as int64
}

func collectAll(tensors iter.Seq2[string, ckpt.Tensor], o Options) ([]written, error) {
	var all []written
	seen := map[string]bool{}
	for name, t := range tensors {
		if seen[name] {
			return nil, fmt.Errorf("tensor %q: the name is taken", name)
		}
		seen[name] = true
		n := 1
		for _, d := range t.Shape {
			if d < 0 || d > 0 && int64(n) > maxNumbers/int64(d) {
				return nil, fmt.Errorf("tensor %q: shape %v", name, t.Shape)
			}
			n *= d
		}
		if n != len(t.Data) {
			return nil, fmt.Errorf("tensor %q: %d elements do not fill shape %v", name, len(t.Data), t.Shape)
		}
		w := written{name: name, shape: t.Shape, data: t.Data, whole: o.Int64 != nil && o.Int64(name)}
		if w.whole {
			for _, v := range t.Data {
				if !(math.Abs(float64(v)) < 1<<63) || float32(int64(v)) != v {
					return nil, fmt.Errorf("tensor %q: %v is no int64", name, v)
				}
			}
		}
		all = append(all, w)
	}
	return all, nil
}

// writeArchive writes the entries in torch's order.
func writeArchive(w io.Writer, all []written, meta map[string]string) error {
	a := &archiver{to: w, sum: sha256.New()}
	a.zip = zip.NewWriter(a)
	record := func(name string, b []byte) error {
		return a.entry(name, len(b), func(w io.Writer) error {
			_, err := w.Write(b)
			return err
		})
	}
	if err := record("data.pkl", pickle(all, meta)); err != nil {
		return err
	}
	if err := record("byteorder", []byte("little")); err != nil {
		return err
	}
	for i, t := range all {
		if err := a.entry("data/"+strconv.Itoa(i), len(t.data)*t.width(), t.write); err != nil {
			return err
		}
	}
	if err := record("version", []byte("3\n")); err != nil {
		return err
	}
	if err := record(".data/serialization_id", serializationID(a.sum.Sum(nil))); err != nil {
		return err
	}
	return a.zip.Close()
}

// serializationID is two numbers of 20 digits that identify the content.
func serializationID(sum []byte) []byte {
	return fmt.Appendf(nil, "%020d%020d", binary.LittleEndian.Uint64(sum), binary.LittleEndian.Uint64(sum[8:]))
}

// archiver writes a zip file of entries that are stored and aligned.
type archiver struct {
	zip *zip.Writer
	to  io.Writer
	at  int64
	sum hash.Hash // of the entries' names and checksums
}

func (a *archiver) Write(b []byte) (int, error) {
	n, err := a.to.Write(b)
	a.at += int64(n)
	return n, err
}

// entry writes one entry of n bytes; write is called twice, for the header
// begins with a checksum. The data is moved to a multiple of the alignment by
// a field of the header that means nothing, as torch does.
func (a *archiver) entry(name string, n int, write func(io.Writer) error) error {
	const header, field = 30, 4 // bytes before the name, and before the padding
	crc := crc32.NewIEEE()
	if err := write(crc); err != nil {
		return err
	}
	fmt.Fprintf(a.sum, "%s %08x\n", name, crc.Sum32())
	if err := a.zip.Flush(); err != nil {
		return err
	}
	name = folder + name
	pad := (alignment - (a.at+header+int64(len(name))+field)%alignment) % alignment
	w, err := a.zip.CreateRaw(&zip.FileHeader{
		Name:               name,
		Method:             zip.Store,
		CRC32:              crc.Sum32(),
		CompressedSize64:   uint64(n),
		UncompressedSize64: uint64(n),
		Extra:              append([]byte{'F', 'B', byte(pad), 0}, bytes.Repeat([]byte("Z"), int(pad))...),
	})
	if err != nil {
		return err
	}
	return write(w)
}

// width is the size of a number in bytes.
func (t *written) width() int {
	if t.whole {
		return 8
	}
	return 4
}

func (t *written) write(w io.Writer) error {
	buf := make([]byte, 0, 1<<15)
	for data := t.data; len(data) > 0; {
		n := min(len(data), cap(buf)/t.width())
		buf = buf[:0]
		for _, v := range data[:n] {
			if t.whole {
				buf = binary.LittleEndian.AppendUint64(buf, uint64(int64(v)))
			} else {
				buf = binary.LittleEndian.AppendUint32(buf, math.Float32bits(v))
			}
		}
		if _, err := w.Write(buf); err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

// pickle is data.pkl, in protocol 2 as torch writes it.
func pickle(all []written, meta map[string]string) []byte {
	p := &pickler{b: []byte{0x80, 2}, memo: map[string]byte{}}
	if meta != nil {
		p.emit("}(")
		p.str("meta")
		p.emit("}(")
		for _, k := range slices.Sorted(maps.Keys(meta)) {
			p.str(k)
			p.str(meta[k])
		}
		p.emit("u")
		p.str("state_dict")
	}
	p.global("collections", "OrderedDict")
	p.emit(")R(")
	for i, t := range all {
		p.str(t.name)
		p.tensor(i, t)
	}
	p.emit("u")
	if meta != nil {
		p.emit("u")
	}
	p.emit(".")
	return p.b
}

// pickler builds a pickle. Names of classes are memoised, as there are few.
type pickler struct {
	b    []byte
	memo map[string]byte
}

func (p *pickler) emit(s string) { p.b = append(p.b, s...) }

func (p *pickler) str(s string) {
	p.emit("X")
	p.b = binary.LittleEndian.AppendUint32(p.b, uint32(len(s)))
	p.emit(s)
}

func (p *pickler) int(n int) {
	if n <= math.MaxInt32 {
		p.b = binary.LittleEndian.AppendUint32(append(p.b, 'J'), uint32(n))
		return
	}
	p.b = binary.LittleEndian.AppendUint64(append(p.b, 0x8a, 8), uint64(n))
}

func (p *pickler) global(module, name string) {
	text := "c" + module + "\n" + name + "\n"
	if k, ok := p.memo[text]; ok {
		p.b = append(p.b, 'h', k)
		return
	}
	k := byte(len(p.memo))
	p.memo[text] = k
	p.emit(text)
	p.b = append(p.b, 'q', k)
}

// tensor calls _rebuild_tensor_v2(storage, 0, shape, strides, False,
// OrderedDict()), the last two being requires_grad and hooks.
func (p *pickler) tensor(i int, t written) {
	p.global("torch._utils", "_rebuild_tensor_v2")
	p.emit("((")
	p.str("storage")
	if t.whole {
		p.global("torch", "LongStorage")
	} else {
		p.global("torch", "FloatStorage")
	}
	p.str(strconv.Itoa(i))
	p.str("cpu")
	p.int(len(t.data))
	p.emit("tQ")
	p.int(0)
	p.emit("(")
	for _, d := range t.shape {
		p.int(d)
	}
	p.emit("t(")
	for k := range t.shape {
		stride := 1
		for _, d := range t.shape[k+1:] {
			stride *= max(d, 1)
		}
		p.int(stride)
	}
	p.emit("t\x89")
	p.global("collections", "OrderedDict")
	p.emit(")RtR")
}
