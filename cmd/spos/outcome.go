package main

import (
	"fmt"
	"io"
	"math"
	"path/filepath"

	"spos/internal/report"
	"spos/search"
)

// searchOutcome is what a search found.
type searchOutcome struct {
	Dir       string        `json:"dir"`
	Space     string        `json:"space"`
	Method    string        `json:"method"`
	Limit     float64       `json:"latency_limit_ms,omitempty"`
	Evaluated int           `json:"evaluated"` // by each method
	Seconds   float64       `json:"seconds"`
	Best      search.Trial  `json:"best"`
	Random    *search.Trial `json:"random,omitempty"` // the best of random search

	trials, random []search.Trial
}

func (o *searchOutcome) write(w io.Writer) error {
	t := report.NewTable("method", "arch", "val top-1", "latency ms (95 %)", "MACs", "params")
	t.Right(2, 3, 4, 5)
	row := func(method string, b search.Trial) {
		t.Row(method, string(b.Arch), fmt.Sprintf("%.2f %%", 100*b.Accuracy),
			fmt.Sprintf("%.3f (%.3f–%.3f)", b.Latency.P50, b.Latency.Low, b.Latency.High), millions(b.MACs), millions(b.Params))
	}
	row(o.Method, o.Best)
	if o.Random != nil {
		row("random", *o.Random)
	}
	_, err := fmt.Fprintf(w, "%s\n%d nets a method in %.0f s; the choice is in %s\n", t, o.Evaluated, o.Seconds, filepath.Join(o.Dir, "best.yaml"))
	return err
}

func millions(n int64) string { return fmt.Sprintf("%.2f M", float64(n)/1e6) }

// draw makes the pictures of the search.
func (o *searchOutcome) draw(dir string) error {
	clouds := []report.Cloud{cloud(o.Method, o.trials, o.Best)}
	progress := []report.Progress{{Name: o.Method, Runs: [][]float64{accuracies(o.trials)}}}
	if o.Random != nil {
		clouds = append(clouds, cloud("random search", o.random, *o.Random))
		progress = append(progress, report.Progress{Name: "random search", Runs: [][]float64{accuracies(o.random)}})
	}
	err := report.Save(filepath.Join(dir, "search.png"), report.Tradeoff{
		Title: "Search of " + o.Space, Cost: "latency, ms", Limit: o.Limit, Clouds: clouds,
	})
	if err != nil {
		return err
	}
	return report.Save(filepath.Join(dir, "anytime.png"), report.Anytime{Title: "Best net so far", Methods: progress})
}

func cloud(name string, trials []search.Trial, best search.Trial) report.Cloud {
	c := report.Cloud{Name: name, BestLabel: string(best.Arch)}
	for i, t := range trials {
		p := report.Point{Cost: t.Latency.P50, Low: t.Latency.Low, High: t.Latency.High, Accuracy: t.Accuracy, Feasible: t.Feasible}
		if !t.Feasible {
			p.Accuracy = math.NaN()
		}
		if t.Arch == best.Arch {
			p.Cost, p.Low, p.High = best.Latency.P50, best.Latency.Low, best.Latency.High
			c.Best = i
		}
		c.Points = append(c.Points, p)
	}
	return c
}

func accuracies(trials []search.Trial) []float64 {
	var a []float64
	for _, t := range trials {
		if t.Feasible {
			a = append(a, t.Accuracy)
		}
	}
	return a
}
