package search

import (
	"context"
	"fmt"
	"strings"

	"golang.org/x/sync/errgroup"

	"spos/internal/arch"
)

// OnDevice is a limit of one device.
type OnDevice struct {
	Device string
	Below
}

// EachBelow is met where every device's limit is, each as [Below] has it. The
// devices measure at the same time; a net that one of them has refused is
// measured no further, and one that is undecided only on the devices where it
// is. Its verdicts name what each device found last.
type EachBelow []OnDevice

// Name implements [Constraint].
func (e EachBelow) Name() string {
	names := make([]string, len(e))
	for i, d := range e {
		names[i] = d.Name()
	}
	return strings.Join(names, " and ")
}

// Name is the limit's with its device.
func (d OnDevice) Name() string {
	if d.Limit == 0 {
		return fmt.Sprintf("%s on %s", d.What, d.Device)
	}
	return fmt.Sprintf("%s on %s < %g %s", d.What, d.Device, d.Limit, d.Unit)
}

// Check implements [Constraint].
func (e EachBelow) Check(ctx context.Context, nets []*arch.Net) ([]Verdict, error) {
	found := make([][]Interval, len(e)) // by device and net
	open := make([][]int, len(e))       // by device, indices of nets to measure
	refused := make([]string, len(nets))
	for d := range e {
		found[d] = make([]Interval, len(nets))
		for n := range nets {
			open[d] = append(open[d], n)
		}
	}
	for effort := 0; e.want(open, effort); effort++ {
		if err := e.measure(ctx, nets, open, effort, found); err != nil {
			return nil, err
		}
		for d, on := range e {
			for _, n := range open[d] {
				if i := found[d][n]; on.Limit != 0 && i.Low >= on.Limit && refused[n] == "" {
					refused[n] = on.Device + ": " + on.decide(i).Reason
				}
			}
		}
		for d, on := range e {
			var straddle []int
			for _, n := range open[d] {
				if on.undecided(found[d][n]) && refused[n] == "" {
					straddle = append(straddle, n)
				}
			}
			open[d] = straddle
		}
	}
	return e.verdicts(nets, found, refused), nil
}

// want forgets nets that have had all the effort, and tells whether any is
// left to measure.
func (e EachBelow) want(open [][]int, effort int) bool {
	left := 0
	for d, on := range e {
		if effort >= on.efforts() {
			open[d] = nil
		}
		left += len(open[d])
	}
	return left > 0
}

// measure has every device measure what is open on it.
func (e EachBelow) measure(ctx context.Context, nets []*arch.Net, open [][]int, effort int, found [][]Interval) error {
	group, ctx := errgroup.WithContext(ctx)
	for d, on := range e {
		if len(open[d]) == 0 {
			continue
		}
		group.Go(func() error {
			intervals, err := on.measure(ctx, nets, open[d], effort)
			if err != nil {
				return fmt.Errorf("%s: %w", on.Device, err)
			}
			for i, n := range open[d] {
				found[d][n] = intervals[i]
			}
			return nil
		})
	}
	return group.Wait()
}

func (e EachBelow) verdicts(nets []*arch.Net, found [][]Interval, refused []string) []Verdict {
	verdicts := make([]Verdict, len(nets))
	for n := range nets {
		v := Verdict{Interval: found[0][n], Devices: map[string]Interval{}, Reason: refused[n]}
		for d, on := range e {
			v.Devices[on.Device] = found[d][n]
			if w := on.decide(found[d][n]); !w.Met && v.Reason == "" {
				v.Reason = on.Device + ": " + w.Reason
			}
		}
		v.Met = v.Reason == ""
		verdicts[n] = v
	}
	return verdicts
}
