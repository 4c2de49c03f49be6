//go:build !linux

package latency

func smallPages(bytes int) []uint64 { return make([]uint64, bytes/8) }
