//go:build !linux

package serve

import (
	"fmt"
	"io/fs"
)

// stampOf tells versions of a file apart.
func stampOf(info fs.FileInfo) string {
	return fmt.Sprintf("%d.%d", info.Size(), info.ModTime().UnixNano())
}
