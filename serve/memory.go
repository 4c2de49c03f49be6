package serve

import (
	"io"
	"math/bits"
	"sync"
	"sync/atomic"
	"unsafe"
)

const (
	alignment  = 64      // of every tensor: a cache line, and the widest vector register
	smallest   = 4 << 10 // of the pooled buffers
	numClasses = 4 * 23  // the largest buffer is 32 GiB; the limit on bodies comes far earlier
	directRead = 4 << 20 // announced sizes up to here get their memory at once, larger ones as the bytes arrive
)

// memory is the pool of all buffers that hold requests, and the limit on their sum. Bodies of half a megabyte that
// become garbage with every request cost a fifth of a small model's latency.
type memory struct {
	limit int64
	used  atomic.Int64
	pools [numClasses]sync.Pool
}

type block struct {
	buf   []byte // aligned
	class int
}

// arena is the memory of one request. It is not safe for concurrent use.
type arena struct {
	m        *memory
	blocks   []*block
	reserved int64
}

// classOf is the size class of n bytes: four of them for each power of two, so that no more than a fifth of a buffer
// lies idle.
func classOf(n int) (class int, size int64) {
	if n <= smallest {
		return 0, smallest
	}
	shift := bits.Len(uint(n-1)) - 3
	quarter := (n-1)>>shift + 1 // 5 to 8
	return 4*(shift-bits.Len(smallest)+3) + quarter - 4, int64(quarter) << shift
}

// alloc returns n bytes of aligned memory with arbitrary content and the capacity of its size class. The error is
// a 503 when the requests in flight already hold the server's limit.
func (a *arena) alloc(n int) ([]byte, error) {
	class, size := classOf(n)
	if class >= numClasses || size > a.m.limit {
		return nil, errNeeds
	}
	if a.m.used.Add(size) > a.m.limit {
		a.m.used.Add(-size)
		return nil, errMemory
	}
	b, _ := a.m.pools[class].Get().(*block)
	if b == nil {
		raw := make([]byte, size+alignment)
		shift := -uintptr(unsafe.Pointer(unsafe.SliceData(raw))) & (alignment - 1)
		b = &block{raw[shift : int64(shift)+size : int64(shift)+size], class}
	}
	a.blocks = append(a.blocks, b)
	return b.buf[:n], nil
}

// reserve counts n bytes that other code will allocate, until the arena is freed.
func (a *arena) reserve(n int64) error {
	if n > a.m.limit {
		return errNeeds
	}
	if a.m.used.Add(n) > a.m.limit {
		a.m.used.Add(-n)
		return errMemory
	}
	a.reserved += n
	return nil
}

// unreserve takes back what was reserved.
func (a *arena) unreserve(n int64) {
	a.m.used.Add(-n)
	a.reserved -= n
}

// free gives everything back. Slices from alloc must not be used afterwards.
func (a *arena) free() {
	for _, b := range a.blocks {
		a.m.used.Add(-int64(len(b.buf)))
		a.m.pools[b.class].Put(b)
	}
	a.m.used.Add(-a.reserved)
	a.blocks, a.reserved = nil, 0
}

// abandon leaves the memory to whoever still reads it, and to the garbage collector.
func (a *arena) abandon() {
	for _, b := range a.blocks {
		a.m.used.Add(-int64(len(b.buf)))
	}
	a.blocks = nil
}

// drop gives back the block that was allocated last.
func (a *arena) drop(b *block) {
	for i := range a.blocks {
		if a.blocks[i] == b {
			a.blocks = append(a.blocks[:i], a.blocks[i+1:]...)
			break
		}
	}
	a.m.used.Add(-int64(len(b.buf)))
	a.m.pools[b.class].Put(b)
}

// readFull reads n announced bytes. A client that announces much and sends little is given little.
func (a *arena) readFull(r io.Reader, n int) ([]byte, error) {
	buf, err := a.alloc(min(n, directRead))
	if err != nil {
		return nil, err
	}
	for have := 0; ; {
		k, err := io.ReadFull(r, buf[have:])
		have += k
		if err != nil || have == n {
			return buf[:have], err
		}
		if buf, err = a.grow(buf, min(n, 2*have)); err != nil {
			return nil, err
		}
	}
}

// readAll reads to the end; hint is the expected size or -1.
func (a *arena) readAll(r io.Reader, hint int64) ([]byte, error) {
	size := int64(64 << 10)
	if hint >= 0 {
		size = min(hint+1, directRead) // one more byte, so that the end is seen without growing
	}
	buf, err := a.alloc(int(size))
	if err != nil {
		return nil, err
	}
	buf = buf[:cap(buf)]
	for have := 0; ; {
		if have == len(buf) {
			if buf, err = a.grow(buf, 2*have); err != nil {
				return nil, err
			}
		}
		k, err := r.Read(buf[have:])
		have += k
		if err == io.EOF {
			return buf[:have], nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// grow moves buf, the latest allocation, into a block of n bytes.
func (a *arena) grow(buf []byte, n int) ([]byte, error) {
	old := a.blocks[len(a.blocks)-1]
	if n <= cap(buf) {
		return buf[:n], nil
	}
	next, err := a.alloc(n)
	if err != nil {
		return nil, err
	}
	copy(next, buf)
	a.drop(old)
	return next, nil
}
