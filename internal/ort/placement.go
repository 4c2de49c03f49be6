package ort

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Placement says where the nodes of a model ran. A session that cannot run a
// node on the provider that was asked for gives it to the processor and says
// nothing.
type Placement struct {
	Provider string         `json:"provider"` // that was asked for
	Shares   map[string]Use `json:"shares"`   // by the provider that ran them
	// Elsewhere is what did not run on Provider, the most expensive first.
	Elsewhere []Stray `json:"elsewhere,omitempty"`
}

// Use is what one provider ran.
type Use struct {
	Nodes int     `json:"nodes"`
	Time  float64 `json:"time_share"` // of the time that all kernels took together
}

// Stray is the nodes of one operator that did not run where they were asked to.
type Stray struct {
	Op       string  `json:"op"`
	Provider string  `json:"provider"` // where they ran
	Nodes    int     `json:"nodes"`
	Time     float64 `json:"time_share"`
	// Shapes marks arithmetic on shapes: no result is more than a few
	// integers. Providers leave that to the processor on purpose.
	Shapes bool `json:"shapes,omitempty"`
}

// Share is which part of the nodes and of the kernels' time the provider ran,
// each between 0 and 1. Arithmetic on shapes is not counted.
func (p Placement) Share() (nodes, time float64) {
	own := p.Shares[p.Provider]
	away, awayTime := 0, 0.0
	for _, s := range p.Elsewhere {
		if !s.Shapes {
			away, awayTime = away+s.Nodes, awayTime+s.Time
		}
	}
	if own.Nodes == 0 {
		return 0, 0
	}
	nodes = float64(own.Nodes) / float64(own.Nodes+away)
	if own.Time+awayTime > 0 {
		time = own.Time / (own.Time + awayTime)
	}
	return nodes, time
}

// placementRuns of a profiled session, of which the last one counts: providers
// compile in the first.
const placementRuns = 3

// Place finds out where the nodes of a model run under o, in sessions of its
// own: bind feeds each, as for a measurement. The provider may run many nodes
// as one kernel, so nodes are counted in the graph that providers are offered,
// which is the model after the rewritings of [LevelBasic]; what the processor
// then fuses further it fuses after the division. Nodes that the provider's
// kernels stand for are those that ran nowhere else.
func (r *Runtime) Place(model []byte, o Options, bind func(*Session) (*Fixed, error)) (Placement, error) {
	if o.GraphLevel != LevelDisable {
		o.GraphLevel = LevelBasic
	}
	kernels, err := r.kernels(model, o, placementRuns, bind)
	if err != nil {
		return Placement{}, err
	}
	p := place(kernels, o.provider())
	if own := p.Shares[p.Provider]; own.Nodes > 0 {
		plain := o
		plain.Provider, plain.ProviderConfig = CPU, nil
		// A model that the processor cannot run is counted by its kernels.
		if all, err := r.kernels(model, plain, 1, bind); err == nil {
			own.Nodes = max(own.Nodes, len(all)-len(kernels)+own.Nodes)
			p.Shares[p.Provider] = own
		}
	}
	return p, nil
}

// kernels profiles some runs of a model and returns the last one's kernels.
func (r *Runtime) kernels(model []byte, o Options, runs int, bind func(*Session) (*Fixed, error)) (_ []kernel, err error) {
	dir, err := os.MkdirTemp("", "spos-placement-")
	if err != nil {
		return nil, fmt.Errorf("ort: place %s: %w", o.Name, err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	o.profile = filepath.Join(dir, "profile")
	if err := r.profile(model, o, runs, bind); err != nil {
		return nil, err
	}
	found, err := filepath.Glob(o.profile + "*")
	if err == nil && len(found) != 1 {
		err = fmt.Errorf("the library left %d profiles, not one", len(found))
	}
	if err != nil {
		return nil, fmt.Errorf("ort: place %s: %w", o.Name, err)
	}
	f, err := os.Open(found[0])
	if err != nil {
		return nil, fmt.Errorf("ort: place %s: %w", o.Name, err)
	}
	defer f.Close()
	kernels, err := readProfile(f)
	if err != nil {
		return nil, fmt.Errorf("ort: place %s: the library's profile: %w", o.Name, err)
	}
	return kernels, nil
}

// profile runs a session whose end writes the profile.
func (r *Runtime) profile(model []byte, o Options, runs int, bind func(*Session) (*Fixed, error)) (err error) {
	s, err := r.NewSession(model, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	f, err := bind(s)
	if err != nil {
		return err
	}
	for range runs {
		if err := f.Run(); err != nil {
			return err
		}
	}
	return nil
}

// kernel is one node of a run.
type kernel struct {
	op, provider string
	micros       int64
	shapes       bool
}

// event is a line of the library's profile, as far as it is of use here.
type event struct {
	Category string `json:"cat"`
	Name     string `json:"name"`
	Micros   int64  `json:"dur"`
	Args     struct {
		Op       string             `json:"op_name"`
		Provider string             `json:"provider"`
		Index    string             `json:"node_index"`
		Outputs  []map[string][]int `json:"output_type_shape"`
	} `json:"args"`
}

// maxProfile bounds what is read of a profile, in bytes.
const maxProfile = 256 << 20

// readProfile returns the kernels of the last complete run in a profile. One
// that a loop repeats is one, with the time of all.
func readProfile(r io.Reader) ([]kernel, error) {
	d := json.NewDecoder(io.LimitReader(r, maxProfile))
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return nil, fmt.Errorf("it is not a list of events: %w", errors.Join(err, io.ErrUnexpectedEOF))
	}
	type node struct{ name, index string }
	var last, run []kernel
	seen := map[node]int{}
	for d.More() {
		var e event
		if err := d.Decode(&e); err != nil {
			return nil, err
		}
		switch {
		case e.Category == "Session" && e.Name == "model_run":
			last, run = run, nil
			clear(seen)
		case e.Category == "Node" && strings.HasSuffix(e.Name, "_kernel_time"):
			e.Micros = max(e.Micros, 0)
			at := node{e.Name, e.Args.Index}
			if i, again := seen[at]; again {
				run[i].micros += e.Micros
				continue
			}
			seen[at] = len(run)
			run = append(run, kernel{e.Args.Op, ProviderName(e.Args.Provider), e.Micros, e.shapes()})
		}
	}
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	if len(last) == 0 {
		return nil, errors.New("it tells of no kernel")
	}
	return last, nil
}

// maxShape is how many numbers a shape has at most.
const maxShape = 16

// shapes reports whether all results are a few integers.
func (e event) shapes() bool {
	for _, out := range e.Args.Outputs {
		for kind, dims := range out {
			n := 1
			for _, d := range dims {
				n = min(n*min(max(d, 0), maxShape+1), maxShape+1)
			}
			integral := kind == "int64" || kind == "int32" || kind == "bool"
			if !integral || len(dims) > 1 || n > maxShape {
				return false
			}
		}
	}
	return len(e.Args.Outputs) > 0
}

// place adds kernels up.
func place(kernels []kernel, asked string) Placement {
	p := Placement{Provider: asked, Shares: map[string]Use{asked: {}}}
	total := 0.0
	for _, k := range kernels {
		total += float64(k.micros)
	}
	for _, k := range kernels {
		share := 0.0
		if total > 0 {
			share = float64(k.micros) / total
		}
		use := p.Shares[k.provider]
		p.Shares[k.provider] = Use{use.Nodes + 1, use.Time + share}
		if k.provider == asked {
			continue
		}
		i := slices.IndexFunc(p.Elsewhere, func(s Stray) bool {
			return s.Op == k.op && s.Provider == k.provider && s.Shapes == k.shapes
		})
		if i < 0 {
			i = len(p.Elsewhere)
			p.Elsewhere = append(p.Elsewhere, Stray{Op: k.op, Provider: k.provider, Shapes: k.shapes})
		}
		p.Elsewhere[i].Nodes++
		p.Elsewhere[i].Time += share
	}
	slices.SortStableFunc(p.Elsewhere, func(a, b Stray) int {
		switch {
		case a.Time > b.Time:
			return -1
		case a.Time < b.Time:
			return 1
		}
		return strings.Compare(a.Op, b.Op)
	})
	return p
}
