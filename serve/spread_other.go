//go:build !linux

package serve

// processor is where the calling thread is, -1 where that is not to be had.
func processor() int { return -1 }

func avoid(map[int]int) int { return -1 }
