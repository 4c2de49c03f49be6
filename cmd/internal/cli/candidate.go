package cli

import (
	"fmt"

	"spos/export"
	"spos/internal/arch"
	"spos/latency"
)

// CandidateModel is a net as it is measured before it is trained: its exported
// graph with random weights, for speed does not depend on them. The key names
// the graph alone.
func CandidateModel(n *arch.Net, batch int) (latency.Model, error) {
	g, err := export.Model(n, export.Random(n, 0), export.Options{Batch: batch})
	if err != nil {
		return latency.Model{}, err
	}
	text, err := export.Marshal(g)
	return latency.Model{
		Name: string(n.Arch), Bytes: text,
		Key: fmt.Sprintf("%s/%s/%dx%dx%d/%d", n.Space, n.Arch, n.In.C, n.In.H, n.In.W, n.Classes()),
	}, err
}
