package search

import (
	"spos/internal/arch"
	"spos/internal/archfile"
)

// NewBest is a trial as best.yaml spells it. The trial's own lineage is filled
// in; the caller sets Method, Seed, Checkpoint, Evaluated and LatencyLimit.
func NewBest(s *arch.Space, t Trial) (archfile.File, error) {
	f, err := archfile.New(s, t.Arch)
	if err != nil {
		return archfile.File{}, err
	}
	f.Accuracy, f.Values = t.Accuracy, t.Values
	f.Lineage = &archfile.Lineage{
		Config: t.Config, Trial: t.ID, Generation: t.Generation, Origin: string(t.Origin), Parents: t.Parents,
	}
	if t.Latency != (Interval{}) {
		f.Latency = new(archfile.Interval(t.Latency))
	}
	return f, nil
}
