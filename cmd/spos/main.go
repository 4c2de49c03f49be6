// Command spos trains a single-path supernet, searches it for the most
// accurate network within limits that include latency on the serving device,
// retrains the winner, exports it to ONNX and serves it.
package main

import (
	"os"

	"spos/cmd/internal/cli"
)

func main() {
	boundOpenMP()
	os.Exit(run())
}

func run() int {
	root := cli.NewRoot("spos", "Hardware-aware neural architecture search, from photographs to an endpoint")
	cli.AddVerbs(root)
	root.AddCommand(newTrainCommand(), newEvalCommand(), newSearchCommand(), newExportCommand(), newQuickstartCommand())
	return cli.Run(root)
}
