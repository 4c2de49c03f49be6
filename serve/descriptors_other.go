//go:build !unix

package serve

func descriptors() (uint64, bool) { return 0, false }
