package latency

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// smallPages is memory of some bytes, for good, of pages that the kernel does
// not make huge: whether it finds any is luck, and a pass over them takes two
// thirds of the time.
func smallPages(bytes int) []uint64 {
	m, err := unix.Mmap(-1, 0, bytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return make([]uint64, bytes/8)
	}
	_ = unix.Madvise(m, unix.MADV_NOHUGEPAGE) // unknown to kernels that have none
	return unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(m))), bytes/8)
}
