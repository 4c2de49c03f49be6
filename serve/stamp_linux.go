package serve

import (
	"fmt"
	"io/fs"
	"syscall"
)

// stampOf tells versions of a file apart: by its node, its size, and the time of its last change, which unlike the
// time of its content no program can set back.
func stampOf(info fs.FileInfo) string {
	changed := info.ModTime().UnixNano()
	node := uint64(0)
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		changed, node = st.Ctim.Nano(), st.Ino
	}
	return fmt.Sprintf("%d.%d.%d", info.Size(), changed, node)
}
