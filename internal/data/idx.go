package data

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"spos/internal/imaging"
)

// FashionClasses are the class names of Fashion-MNIST, by label.
var FashionClasses = []string{
	"T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
	"Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
}

// The most that an IDX file may claim: 16 million images, 65536 pixels a
// side, 2 GiB of data.
const (
	idxMaxCount = 1 << 24
	idxMaxDim   = 1 << 16
	idxMaxBytes = 1 << 31
)

// idxFile is the array in an IDX file of unsigned bytes (the MNIST format:
// two zero bytes, the type 8, the number of dimensions, each dimension as a
// big-endian 32-bit number, and the data).
type idxFile struct {
	dims []int
	data []byte
}

// readIDX reads an IDX file of n dimensions, gzipped or plain. It allocates
// as the data arrives and not as the header claims.
func readIDX(r io.Reader, n int) (idxFile, error) {
	br := bufio.NewReaderSize(r, 1<<16)
	if b, err := br.Peek(2); err == nil && b[0] == 0x1f && b[1] == 0x8b {
		z, err := gzip.NewReader(br)
		if err != nil {
			return idxFile{}, err
		}
		br = bufio.NewReaderSize(z, 1<<16)
	}
	head := make([]byte, 4+4*n)
	if _, err := io.ReadFull(br, head); err != nil {
		return idxFile{}, fmt.Errorf("header: %w", err)
	}
	if want := []byte{0, 0, 8, byte(n)}; !bytes.Equal(head[:4], want) {
		return idxFile{}, fmt.Errorf("magic number %x, want %x (unsigned bytes in %d dimensions)", head[:4], want, n)
	}
	f := idxFile{dims: make([]int, n)}
	size := int64(1)
	for i := range f.dims {
		d := int64(binary.BigEndian.Uint32(head[4+4*i:]))
		if d == 0 || d > idxMaxCount || (i > 0 && d > idxMaxDim) || d > idxMaxBytes/size {
			return idxFile{}, fmt.Errorf("dimension %d of %d is %d: too large or zero", i+1, n, d)
		}
		f.dims[i] = int(d)
		size *= d
	}
	var buf bytes.Buffer
	buf.Grow(int(min(size, 1<<20)) + bytes.MinRead)
	got, err := buf.ReadFrom(io.LimitReader(br, size))
	switch {
	case err != nil:
		return idxFile{}, fmt.Errorf("after %d of %d bytes: %w", got, size, err)
	case got < size:
		return idxFile{}, fmt.Errorf("after %d of %d bytes: %w", got, size, io.ErrUnexpectedEOF)
	}
	// Reading on to the end also verifies gzip's checksum.
	switch _, err := br.ReadByte(); {
	case err == nil:
		return idxFile{}, fmt.Errorf("more than the %d bytes that the header claims", size)
	case !errors.Is(err, io.EOF):
		return idxFile{}, err
	}
	f.data = buf.Bytes()
	return f, nil
}

// openIDX reads one part ("train" or "t10k") of a folder of the MNIST family.
// Nil classes are named by their numbers.
func openIDX(dir, part string, classes []string) (*Memory, error) {
	images, err := readIDXFile(dir, part+"-images", "idx3-ubyte", 3)
	if err != nil {
		return nil, err
	}
	labels, err := readIDXFile(dir, part+"-labels", "idx1-ubyte", 1)
	if err != nil {
		return nil, err
	}
	n, h, w := images.dims[0], images.dims[1], images.dims[2]
	if labels.dims[0] != n {
		return nil, fmt.Errorf("%s: %s has %d images and %d labels: %w", dir, part, n, labels.dims[0], ErrData)
	}
	m := &Memory{classes: classes, images: make([]imaging.Image, n), labels: make([]int32, n)}
	for i, l := range labels.data {
		if classes != nil && int(l) >= len(classes) {
			return nil, fmt.Errorf("%s: label %d of %s is %d, and there are %d classes: %w",
				dir, i, part, l, len(classes), ErrData)
		}
		for len(m.classes) <= int(l) {
			m.classes = append(m.classes, strconv.Itoa(len(m.classes)))
		}
		m.labels[i] = int32(l)
		m.images[i] = imaging.Image{W: w, H: h, C: 1, Pix: images.data[i*h*w : (i+1)*h*w : (i+1)*h*w]}
	}
	return m, nil
}

// findIDX is the path of an IDX file under one of its usual names.
func findIDX(dir, stem, suffix string) (string, error) {
	for _, sep := range []string{"-", "."} {
		for _, gz := range []string{"", ".gz"} {
			p := filepath.Join(dir, stem+sep+suffix+gz)
			if info, err := os.Stat(p); err == nil && info.Mode().IsRegular() {
				return p, nil
			}
		}
	}
	return "", fmt.Errorf("%s: no %s-%s or %[2]s-%[3]s.gz: %w: %w", dir, stem, suffix, ErrNotFound, fs.ErrNotExist)
}

func readIDXFile(dir, stem, suffix string, n int) (idxFile, error) {
	p, err := findIDX(dir, stem, suffix)
	if err != nil {
		return idxFile{}, err
	}
	r, err := os.Open(p)
	if err != nil {
		return idxFile{}, err
	}
	defer r.Close()
	f, err := readIDX(r, n)
	if err != nil {
		return idxFile{}, fmt.Errorf("%s: %w: %w", p, ErrData, err)
	}
	return f, nil
}

// hasIDX reports whether dir holds the four files of the MNIST family.
func hasIDX(dir string) bool {
	for _, part := range []string{"train", "t10k"} {
		if _, err := findIDX(dir, part+"-images", "idx3-ubyte"); err != nil {
			return false
		}
		if _, err := findIDX(dir, part+"-labels", "idx1-ubyte"); err != nil {
			return false
		}
	}
	return true
}
