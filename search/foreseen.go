package search

import (
	"context"
	"fmt"

	"spos/internal/arch"
)

// Foreseen spares another constraint the nets that a prediction refuses: those
// whose predicted interval lies wholly at or above the limit. All others are
// checked by Then; a prediction never lets a net pass.
type Foreseen struct {
	Below // what is foreseen; its Measure is not used
	// Predict is the interval of a net, or false where nothing can be said.
	Predict func(*arch.Net) (Interval, bool)
	Then    Constraint
}

// Name implements [Constraint].
func (f Foreseen) Name() string { return f.Then.Name() }

// Check implements [Constraint].
func (f Foreseen) Check(ctx context.Context, nets []*arch.Net) ([]Verdict, error) {
	verdicts := make([]Verdict, len(nets))
	var left []*arch.Net
	var at []int
	for i, n := range nets {
		p, ok := f.Predict(n)
		if !ok || f.Limit == 0 || p.Low < f.Limit {
			left, at = append(left, n), append(at, i)
			continue
		}
		verdicts[i] = Verdict{Interval: p, Reason: fmt.Sprintf("%s predicted %v %s is not below %g", f.What, p, f.Unit, f.Limit)}
	}
	if len(left) == 0 {
		return verdicts, nil
	}
	checked, err := f.Then.Check(ctx, left)
	if err != nil {
		return nil, err
	}
	if len(checked) != len(left) {
		return nil, fmt.Errorf("%d verdicts on %d nets", len(checked), len(left))
	}
	for i, v := range checked {
		verdicts[at[i]] = v
	}
	return verdicts, nil
}
