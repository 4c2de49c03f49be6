// Command spos-edge is spos without training: every verb that needs no
// libtorch, in one file that can be copied to a device.
package main

import (
	"os"

	"spos/cmd/internal/cli"
)

func main() {
	root := cli.NewRoot("spos-edge", "Hardware-aware neural architecture search: the part that runs on devices")
	cli.AddVerbs(root)
	root.AddCommand(cli.NewExportCommand())
	os.Exit(cli.Run(root))
}
