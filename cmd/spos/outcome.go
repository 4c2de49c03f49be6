package main

import (
	"fmt"
	"io"
	"math"
	"net/url"
	"path/filepath"

	"spos/cmd/internal/cli"
	"spos/internal/report"
	"spos/search"
)

// searchOutcome is what a search found.
type searchOutcome struct {
	Dir       string        `json:"dir"`
	Space     string        `json:"space"`
	Method    string        `json:"method"`
	Limit     float64       `json:"latency_limit_ms,omitempty"` // of the first device
	Devices   []deviceLimit `json:"devices,omitempty"`          // unless it is this machine alone
	Evaluated int           `json:"evaluated"`                  // by each method
	Seconds   float64       `json:"seconds"`
	Best      search.Trial  `json:"best"`
	Random    *search.Trial `json:"random,omitempty"` // the best of random search

	trials, random []search.Trial
	devices        cli.Gauges
}

// deviceLimit is where a search measured, and what it was to stay below.
type deviceLimit struct {
	Device string  `json:"device"`
	Limit  float64 `json:"limit_ms,omitempty"`
}

// name says on which devices the search measured.
func (o *searchOutcome) name() {
	o.Limit = o.devices[0].Limit
	if len(o.devices) == 1 && o.devices[0].Device == cli.ThisDevice {
		return
	}
	for _, d := range o.devices {
		o.Devices = append(o.Devices, deviceLimit{d.Device, d.Limit})
	}
}

// on is a trial's latency on one of the devices.
func on(t search.Trial, device string) search.Interval {
	if i, ok := t.Devices[device]; ok {
		return i
	}
	return t.Latency
}

func (o *searchOutcome) write(w io.Writer) error {
	headings := []string{"method", "arch", "val top-1"}
	for _, d := range o.devices {
		headings = append(headings, d.What()+" ms (95 %)")
	}
	t := report.NewTable(append(headings, "MACs", "params")...)
	for column := 2; column < len(headings)+2; column++ {
		t.Right(column)
	}
	row := func(method string, b search.Trial) {
		cells := []string{method, string(b.Arch), fmt.Sprintf("%.2f %%", 100*b.Accuracy)}
		for _, d := range o.devices {
			i := on(b, d.Device)
			cells = append(cells, fmt.Sprintf("%.3f (%.3f–%.3f)", i.P50, i.Low, i.High))
		}
		t.Row(append(cells, millions(b.MACs), millions(b.Params))...)
	}
	row(o.Method, o.Best)
	if o.Random != nil {
		row("random", *o.Random)
	}
	_, err := fmt.Fprintf(w, "%s\n%d nets a method in %.0f s; the choice is in %s\n", t, o.Evaluated, o.Seconds, filepath.Join(o.Dir, "best.yaml"))
	return err
}

func millions(n int64) string { return fmt.Sprintf("%.2f M", float64(n)/1e6) }

// draw makes the pictures of the search: its trade-off on the first device in
// search.png, on another in search-NAME.png.
func (o *searchOutcome) draw(dir string) error {
	for i, d := range o.devices {
		name := "search.png"
		if i > 0 {
			name = "search-" + url.PathEscape(d.Device) + ".png"
		}
		clouds := []report.Cloud{cloud(o.Method, o.trials, o.Best, d.Device)}
		if o.Random != nil {
			clouds = append(clouds, cloud("random search", o.random, *o.Random, d.Device))
		}
		err := report.Save(filepath.Join(dir, name), report.Tradeoff{
			Title: "Search of " + o.Space, Cost: d.What() + ", ms", Limit: d.Limit, Clouds: clouds,
		})
		if err != nil {
			return err
		}
	}
	progress := []report.Progress{{Name: o.Method, Runs: [][]float64{accuracies(o.trials)}}}
	if o.Random != nil {
		progress = append(progress, report.Progress{Name: "random search", Runs: [][]float64{accuracies(o.random)}})
	}
	return report.Save(filepath.Join(dir, "anytime.png"), report.Anytime{Title: "Best net so far", Methods: progress})
}

func cloud(name string, trials []search.Trial, best search.Trial, device string) report.Cloud {
	c := report.Cloud{Name: name, BestLabel: string(best.Arch)}
	for i, t := range trials {
		latency := on(t, device)
		p := report.Point{Accuracy: t.Accuracy, Feasible: t.Feasible}
		if !t.Feasible {
			p.Accuracy = math.NaN()
		}
		if t.Arch == best.Arch {
			latency, c.Best = on(best, device), i
		}
		p.Cost, p.Low, p.High = latency.P50, latency.Low, latency.High
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
