package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

// measured is how long requests took as the client saw it.
type measured struct {
	Requests    int            `json:"requests"`
	Concurrency int            `json:"concurrency"`
	Failed      int            `json:"failed"`
	Rate        float64        `json:"requests_per_second"` // of those that succeeded
	P50         float64        `json:"p50_ms"`
	P90         float64        `json:"p90_ms"`
	P99         float64        `json:"p99_ms"`
	Max         float64        `json:"max_ms"`
	Errors      map[string]int `json:"errors,omitempty"`
}

// measure asks again and again. Each question is asked once before, to make connections and to load what is to be
// loaded.
func (o *inferOptions) measure(cmd *cobra.Command, questions []question) error {
	for _, q := range questions {
		if _, err := q.ask(cmd.Context()); err != nil {
			return fmt.Errorf("%s: %w", q.name, err)
		}
	}
	took := make([]float64, o.repeat)
	began := time.Now()
	errs := forEach(cmd.Context(), o.repeat, o.concurrency, func(ctx context.Context, i int) error {
		a, err := questions[i%len(questions)].ask(ctx)
		if err == nil {
			took[i] = a.MS
		}
		return err
	})
	m := summarize(took, errs, time.Since(began))
	m.Concurrency = min(o.concurrency, o.repeat)
	if err := o.showMeasured(cmd, m); err != nil {
		return err
	}
	if m.Failed == 0 {
		return nil
	}
	most := slices.MaxFunc(slices.Collect(maps.Keys(m.Errors)), func(a, b string) int {
		return cmp.Or(cmp.Compare(m.Errors[a], m.Errors[b]), cmp.Compare(b, a))
	})
	last := errs[slices.IndexFunc(errs, func(err error) bool { return err != nil && err.Error() == most })]
	if errors.Is(last, context.Canceled) {
		return last
	}
	return fmt.Errorf("%d of %d requests failed, %d of them so: %w", m.Failed, m.Requests, m.Errors[most], last)
}

func summarize(took []float64, errs []error, all time.Duration) measured {
	m := measured{Requests: len(took), Errors: map[string]int{}}
	var good []float64
	for i, err := range errs {
		if err != nil {
			m.Failed++
			m.Errors[err.Error()]++
			continue
		}
		good = append(good, took[i])
	}
	if len(good) == 0 {
		return m
	}
	slices.Sort(good)
	quantile := func(percent int) float64 { return good[(percent*len(good)+99)/100-1] } // nearest rank
	m.P50, m.P90, m.P99, m.Max = quantile(50), quantile(90), quantile(99), quantile(100)
	m.Rate = float64(len(good)) / all.Seconds()
	return m
}

func (o *inferOptions) showMeasured(cmd *cobra.Command, m measured) error {
	if o.json {
		return PrintJSON(cmd, m)
	}
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "REQUESTS\tCONCURRENCY\tFAILED\tREQUESTS/S\tP50\tP90\tP99\tMAX")
	fmt.Fprintf(w, "%d\t%d\t%d\t%.1f\t%.2f ms\t%.2f ms\t%.2f ms\t%.2f ms\n", m.Requests, m.Concurrency, m.Failed, m.Rate, m.P50, m.P90, m.P99, m.Max)
	return w.Flush()
}
