package ort

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	yalue "github.com/yalue/onnxruntime_go"
)

// GraphLevel says how far the library rewrites a graph before it runs it. It
// changes not only the speed of nets but their ranking, so it belongs to
// every measurement.
type GraphLevel string

// The levels; the zero value means LevelAll.
const (
	LevelDisable  GraphLevel = "disable"
	LevelBasic    GraphLevel = "basic"    // constant folding, fused batch norm
	LevelExtended GraphLevel = "extended" // fused activations
	LevelAll      GraphLevel = "all"      // blocked layouts of this processor
)

// CPU is the provider that is always there, and the zero value's meaning.
const CPU = "cpu"

// Options is how a session runs. The zero value is what this project measures
// and serves with: one thread, every optimisation, the processor.
type Options struct {
	Name string `yaml:"name,omitempty" json:"name,omitempty"` // in errors; "" means the file's path, or "model"

	IntraOp int `yaml:"intra_op,omitempty" json:"intra_op,omitempty"` // threads in an operator, the caller's included; 0 means 1
	InterOp int `yaml:"inter_op,omitempty" json:"inter_op,omitempty"` // operators at a time; 0 means 1, the sequential executor

	GraphLevel     GraphLevel        `yaml:"graph_level,omitempty" json:"graph_level,omitempty"`           // "" means all
	Spinning       *bool             `yaml:"spinning,omitempty" json:"spinning,omitempty"`                 // waiting threads spin; nil leaves the library's choice (yes)
	DenormalAsZero bool              `yaml:"denormal_as_zero,omitempty" json:"denormal_as_zero,omitempty"` // treat denormal floats as zero, on the session's own threads
	NoArena        bool              `yaml:"no_arena,omitempty" json:"no_arena,omitempty"`                 // free activations after each run instead of keeping them
	NoMemPattern   bool              `yaml:"no_mem_pattern,omitempty" json:"no_mem_pattern,omitempty"`     // do not plan memory by the last run's shapes
	Provider       string            `yaml:"provider,omitempty" json:"provider,omitempty"`                 // one of [Providers] or another that the library knows; "" means cpu
	ProviderConfig map[string]string `yaml:"provider_config,omitempty" json:"provider_config,omitempty"`   // options of the provider, its own spelling
	Config         map[string]string `yaml:"config,omitempty" json:"config,omitempty"`                     // further session entries, such as session.intra_op_thread_affinities

	profile string // where to write what each kernel took, less the name's end; "": nowhere
}

var levels = map[GraphLevel]yalue.GraphOptimizationLevel{
	"":            yalue.GraphOptimizationLevelEnableAll,
	LevelDisable:  yalue.GraphOptimizationLevelDisableAll,
	LevelBasic:    yalue.GraphOptimizationLevelEnableBasic,
	LevelExtended: yalue.GraphOptimizationLevelEnableExtended,
	LevelAll:      yalue.GraphOptimizationLevelEnableAll,
}

// Validate reports what no library could obey. Whether a provider exists is
// only known when a session is made.
func (o Options) Validate() error {
	var errs []error
	if _, ok := levels[o.GraphLevel]; !ok {
		errs = append(errs, fmt.Errorf("graph_level: %q is not one of disable, basic, extended, all", o.GraphLevel))
	}
	if o.IntraOp < 0 {
		errs = append(errs, fmt.Errorf("intra_op: %d threads", o.IntraOp))
	}
	if o.InterOp < 0 {
		errs = append(errs, fmt.Errorf("inter_op: %d operators", o.InterOp))
	}
	if o.OnCPU() && len(o.ProviderConfig) > 0 {
		errs = append(errs, fmt.Errorf("provider_config: the cpu provider has no options, it was given %v",
			slices.Sorted(maps.Keys(o.ProviderConfig))))
	}
	return errors.Join(errs...)
}

// session makes the library's options; the caller destroys them.
func (o Options) session() (so *yalue.SessionOptions, err error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o = o.settled()
	so, err = yalue.NewSessionOptions()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, so.Destroy())
			so = nil
		}
	}()
	mode := yalue.ExecutionMode(yalue.ExecutionModeSequential)
	if o.InterOp > 1 {
		mode = yalue.ExecutionModeParallel
	}
	err = errors.Join(
		so.SetIntraOpNumThreads(max(o.IntraOp, 1)),
		so.SetInterOpNumThreads(max(o.InterOp, 1)),
		so.SetExecutionMode(mode),
		so.SetGraphOptimizationLevel(levels[o.GraphLevel]),
		so.SetCpuMemArena(!o.NoArena),
		so.SetMemPattern(!o.NoMemPattern),
		// A failing kernel's text comes back as the error; on stderr a client's
		// bad request would write a line each time.
		so.SetLogSeverityLevel(yalue.LoggingLevelFatal),
	)
	if err != nil {
		return so, err
	}
	for _, e := range o.entries() {
		if err := so.AddSessionConfigEntry(e[0], e[1]); err != nil {
			return so, fmt.Errorf("%s=%s: %w", e[0], e[1], err)
		}
	}
	if o.profile != "" {
		if err := so.EnableProfiling(o.profile); err != nil {
			return so, err
		}
	}
	if err := o.addProvider(so); err != nil {
		return so, err
	}
	return so, nil
}

// entries are the session's configuration entries in a fixed order, Config's
// last so that they win.
func (o Options) entries() [][2]string {
	bit := map[bool]string{false: "0", true: "1"}
	var e [][2]string
	if o.Spinning != nil {
		e = append(e,
			[2]string{"session.intra_op.allow_spinning", bit[*o.Spinning]},
			[2]string{"session.inter_op.allow_spinning", bit[*o.Spinning]})
	}
	if o.DenormalAsZero {
		e = append(e, [2]string{"session.set_denormal_as_zero", "1"})
	}
	for _, k := range slices.Sorted(maps.Keys(o.Config)) {
		e = append(e, [2]string{k, o.Config[k]})
	}
	return e
}
