package config

import (
	"errors"
	"fmt"
	"math"

	"spos/internal/arch"
)

// Search is what "spos search" is told. [DefaultSearch] has the paper's
// values; data and space are the checkpoint's own unless given.
type Search struct {
	// Space must be the checkpoint's. Empty: it is.
	Space string `yaml:"space,omitempty"`
	// Method is evolution or random.
	Method string `yaml:"method"`
	// Population is the nets evaluated in a generation, Generations how many
	// follow the random first one, Parents the best nets that breed.
	Population  int `yaml:"population"`
	Generations int `yaml:"generations"`
	Parents     int `yaml:"parents"`
	// Mutation and Crossover breed Count nets of a generation each; random
	// ones fill it up.
	Mutation  Mutation  `yaml:"mutation"`
	Crossover Crossover `yaml:"crossover"`
	// MaxTriesFactor bounds the draws for a new net within the limits, to this
	// many for each that is asked for.
	MaxTriesFactor int `yaml:"max_tries_factor"`
	// Limits are what a net may cost.
	Limits Limits `yaml:"limits,omitempty"`
	// Calibration recomputes batch-norm statistics for each candidate, on
	// training images; Validation measures its accuracy on images held out of
	// training.
	Calibration Images `yaml:"calibration"`
	Validation  Images `yaml:"validation"`
	// Latency is how a candidate's latency is measured.
	Latency Latency `yaml:"latency,omitempty"`
	// RandomBaseline also runs random search with as many evaluations: what
	// the method has to beat.
	RandomBaseline bool `yaml:"random_baseline"`
	// Data overrides the checkpoint's. Absent: the checkpoint's own.
	Data    *Data `yaml:"data,omitempty"`
	Machine `yaml:",inline"`
}

// Mutation redraws each block of a parent with probability Prob.
type Mutation struct {
	Count int     `yaml:"count"`
	Prob  float64 `yaml:"prob"`
}

// Crossover takes each block from one of two parents.
type Crossover struct {
	Count int `yaml:"count"`
}

// Limits are upper ends. Zero: no limit.
type Limits struct {
	FLOPs int64 `yaml:"flops,omitempty"` // as Counter counts them
	// Counter is macs (the paper's), mmcv (mmrazor's) or thop. Empty: macs.
	Counter arch.Counter `yaml:"counter,omitempty"`
	Params  int64        `yaml:"params,omitempty"`
	// LatencyMS is in milliseconds, on the first device: this machine unless
	// another is asked for.
	LatencyMS float64 `yaml:"latency_ms,omitempty"`
	// Latency limits devices by name, each once; all must be met.
	Latency []DeviceLimit `yaml:"latency,omitempty" json:",omitempty"`
}

// Images is how many are used, and how many at a time.
type Images struct {
	Images int `yaml:"images"` // zero: all
	Batch  int `yaml:"batch"`
}

// Latency changes the measuring protocol of a search. Zero: the protocol's
// own value.
type Latency struct {
	Mode     string `yaml:"mode,omitempty"`     // hot, paced or cold
	Batch    int    `yaml:"batch,omitempty"`    // images in a run
	Threads  int    `yaml:"threads,omitempty"`  // that will serve
	Warmup   int    `yaml:"warmup,omitempty"`   // runs thrown away, at least
	Runs     int    `yaml:"runs,omitempty"`     // timed runs of a session
	Sessions int    `yaml:"sessions,omitempty"` // of a candidate
	// Provider is the execution provider of ONNX Runtime, with options in its
	// own spelling. Fallback is which part of a net's nodes, and of their time,
	// may run elsewhere: zero is none.
	Provider        string            `yaml:"provider,omitempty" json:",omitempty"`
	ProviderOptions map[string]string `yaml:"provider_options,omitempty" json:",omitempty"`
	Fallback        float64           `yaml:"fallback,omitempty" json:",omitempty"`
	// Devices are where to measure, the first one first. Empty: the devices
	// that have a limit, or this machine.
	Devices []string `yaml:"devices,omitempty" json:",omitempty"`
	// Table is a latency table of the first device: nets that it predicts
	// wholly above the limit are refused without measurement.
	Table string `yaml:"table,omitempty" json:",omitempty"`
}

// DefaultSearch is the paper's evolution: a random population
// of 50 and 20 generations, batch-norm statistics from 20,000 images, and no
// limits.
func DefaultSearch() Search {
	return Search{
		Method:     "evolution",
		Population: 50, Generations: 20, Parents: 10,
		Mutation: Mutation{Count: 25, Prob: 0.1}, Crossover: Crossover{Count: 25},
		MaxTriesFactor: 10,
		Calibration:    Images{Images: 20_000, Batch: 128},
		Validation:     Images{Batch: 200},
		RandomBaseline: true,
		Machine:        Machine{Device: "cpu"},
	}
}

// Evaluations is the number of nets that are evaluated: the official code's
// 1,050 with the paper's values.
func (s Search) Evaluations() int { return s.Population * (s.Generations + 1) }

// Validate reports the first field that makes no sense.
func (s Search) Validate() error {
	if err := s.method(); err != nil {
		return err
	}
	if err := s.Limits.Validate(); err != nil {
		return fmt.Errorf("limits.%w", err)
	}
	switch {
	case s.Calibration.Images < 0 || s.Calibration.Batch < 1:
		return fmt.Errorf("calibration: %d images, %d at a time", s.Calibration.Images, s.Calibration.Batch)
	case s.Validation.Images < 0 || s.Validation.Batch < 1:
		return fmt.Errorf("validation: %d images, %d at a time", s.Validation.Images, s.Validation.Batch)
	}
	l := s.Latency
	switch {
	case l.Mode != "" && l.Mode != "hot" && l.Mode != "paced" && l.Mode != "cold":
		return fmt.Errorf("latency.mode: %q is none of hot, paced, cold", l.Mode)
	case l.Batch < 0 || l.Threads < 0 || l.Warmup < 0 || l.Runs < 0 || l.Sessions < 0:
		return errors.New("latency: batch, threads, warmup, runs, sessions: none may be negative")
	}
	if !(l.Fallback >= 0 && l.Fallback <= 1) {
		return fmt.Errorf("latency.fallback: %v is not between 0 and 1", l.Fallback)
	}
	if err := s.devices(); err != nil {
		return err
	}
	if s.Data != nil {
		if err := s.Data.Validate(); err != nil {
			return fmt.Errorf("data.%w", err)
		}
	}
	return s.Machine.Validate()
}

func (s Search) method() error {
	switch {
	case s.Method != "evolution" && s.Method != "random":
		return fmt.Errorf("method: %q is none of evolution, random", s.Method)
	case s.Population < 1 || s.Generations < 0:
		return fmt.Errorf("population, generations: %d, %d leave nothing to search", s.Population, s.Generations)
	case s.Parents < 1 || s.Parents > s.Evaluations():
		return fmt.Errorf("parents: %d is outside 1 to %d", s.Parents, s.Evaluations())
	case s.Mutation.Count < 0 || s.Crossover.Count < 0 || s.Mutation.Count+s.Crossover.Count > s.Population:
		return fmt.Errorf("mutation.count, crossover.count: %d and %d do not fit into a population of %d", s.Mutation.Count, s.Crossover.Count, s.Population)
	case !(s.Mutation.Prob > 0 && s.Mutation.Prob <= 1):
		return fmt.Errorf("mutation.prob: %v is no probability above 0", s.Mutation.Prob)
	case s.MaxTriesFactor < 1:
		return fmt.Errorf("max_tries_factor: %d is below 1", s.MaxTriesFactor)
	}
	return nil
}

// Validate reports the first field that makes no sense.
func (l Limits) Validate() error {
	switch l.Counter {
	case "", arch.MACs, arch.MMCV, arch.Thop:
	default:
		return fmt.Errorf("counter: %q is none of macs, mmcv, thop", l.Counter)
	}
	switch {
	case l.FLOPs < 0:
		return fmt.Errorf("flops: %d is negative", l.FLOPs)
	case l.Params < 0:
		return fmt.Errorf("params: %d is negative", l.Params)
	case !(l.LatencyMS >= 0 && l.LatencyMS < math.Inf(1)):
		return fmt.Errorf("latency_ms: %v is negative", l.LatencyMS)
	}
	return nil
}
