package latency

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"spos/internal/ort"
)

// ErrIncomparable is wrapped where two latencies were measured under
// conditions that differ.
var ErrIncomparable = errors.New("latency: measurements are not comparable")

// Fingerprint is everything that a latency depends on and that stays the same
// from one run to the next.
type Fingerprint struct {
	Host    Host    `json:"host"`
	Session Setting `json:"session"`
	Model   ModelID `json:"model"`
}

// Host is the machine.
type Host struct {
	CPU      string `json:"cpu"`      // the model as the processor names itself
	Flags    string `json:"flags"`    // hash of its feature flags
	Cores    int    `json:"cores"`    // processors online
	Arch     string `json:"arch"`     // GOOS/GOARCH
	Kernel   string `json:"kernel"`   // release
	Governor string `json:"governor"` // frequency governor, "" where the system has none to show
	Turbo    string `json:"turbo"`    // on, off, or "" where unknown
	Quota    string `json:"quota"`    // processors that the cgroup grants, "" without a limit

	Memory    string `json:"memory,omitempty"`     // what the cgroup grants, "" without a limit
	HugePages string `json:"huge_pages,omitempty"` // transparent ones: always, madvise, never
	SMT       string `json:"smt,omitempty"`        // threads share a core: on, off, or "" where unknown
	Microcode string `json:"microcode,omitempty"`  // revision
}

// Setting is how the model was run.
type Setting struct {
	Runtime    string            `json:"runtime"`           // ONNX Runtime's version
	Build      string            `json:"build,omitempty"`   // which build of that version: of its file
	Provider   string            `json:"provider"`          // execution provider
	Options    map[string]string `json:"options,omitempty"` // of the provider and of the session, where not the defaults
	GraphLevel ort.GraphLevel    `json:"graph_level"`
	Threads    int               `json:"threads"`
	Affinity   []int             `json:"affinity,omitempty"` // processors the threads are bound to; none: not bound
	Priority   bool              `json:"priority"`           // asked for
	Mode       Mode              `json:"mode"`
	Gap        time.Duration     `json:"gap_ns,omitempty"` // of mode paced
	Batch      int               `json:"batch"`
}

// ModelID is the model and what it was fed.
type ModelID struct {
	SHA256 string `json:"sha256"`           // of the file's bytes
	Opset  int64  `json:"opset,omitempty"`  // of the default operator set
	DType  string `json:"dtype,omitempty"`  // of most of the weights
	Inputs string `json:"inputs,omitempty"` // names, types and shapes, as "x float32 1x3x224x224"
}

// Comparable reports, as an error that lists the differences, whether the
// latencies of two models may be set against each other: machine and settings
// must be equal, the models need not. It wraps [ErrIncomparable].
func (f Fingerprint) Comparable(other Fingerprint) error {
	return differences(diff("host", f.Host, other.Host), diff("session", f.Session, other.Session))
}

// Repeats reports likewise whether two measurements are of one thing: all of
// it must be equal, the model's bytes and inputs too.
func (f Fingerprint) Repeats(other Fingerprint) error {
	return differences(diff("host", f.Host, other.Host), diff("session", f.Session, other.Session),
		diff("model", f.Model, other.Model))
}

func differences(lists ...[]string) error {
	d := slices.Concat(lists...)
	if len(d) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrIncomparable, strings.Join(d, "; "))
}

// diff lists the fields of two structs of one type that differ.
func diff(where string, a, b any) []string {
	va, vb := reflect.ValueOf(a), reflect.ValueOf(b)
	var d []string
	for i := range va.NumField() {
		x, y := va.Field(i).Interface(), vb.Field(i).Interface()
		if fmt.Sprint(x) != fmt.Sprint(y) { // nil and empty are one
			name, _, _ := strings.Cut(va.Type().Field(i).Tag.Get("json"), ",")
			d = append(d, fmt.Sprintf("%s %s: %q and %q", where, name, fmt.Sprint(x), fmt.Sprint(y)))
		}
	}
	return d
}

// Key names what a latency depends on in one short string: equal exactly
// where [Fingerprint.Comparable] finds no difference.
func (f Fingerprint) Key() string {
	h := sha256.New()
	// %v prints maps in the order of their keys.
	fmt.Fprintf(h, "%q", fmt.Sprint(f.Host, f.Session))
	return hex.EncodeToString(h.Sum(nil)[:12])
}

// providerOption begins the names of a provider's options among all options.
const providerOption = "provider."

// setting is how a session under p is run; [optionsOf] is the way back.
func setting(version, build string, p Protocol, affinity []int) Setting {
	o := p.options()
	s := Setting{
		Runtime: version, Build: build, Provider: o.Provider, GraphLevel: o.GraphLevel,
		Threads: p.Threads, Affinity: affinity, Priority: p.Priority, Mode: p.Mode, Batch: p.Batch,
	}
	if s.Provider == "" {
		s.Provider = ort.CPU
	}
	if s.GraphLevel == "" {
		s.GraphLevel = ort.LevelAll
	}
	if p.Mode == Paced {
		s.Gap = p.Gap
	}
	s.Options = map[string]string{}
	for k, v := range p.Dims {
		s.Options["dim."+k] = fmt.Sprint(v)
	}
	for k, v := range o.ProviderConfig {
		s.Options[providerOption+k] = v
	}
	maps.Copy(s.Options, o.Config)
	for name, set := range map[string]bool{"denormal_as_zero": o.DenormalAsZero, "no_arena": o.NoArena, "no_mem_pattern": o.NoMemPattern} {
		if set {
			s.Options[name] = "true"
		}
	}
	if o.Spinning != nil {
		s.Options["spinning"] = fmt.Sprint(*o.Spinning)
	}
	if o.InterOp > 1 {
		s.Options["inter_op"] = fmt.Sprint(o.InterOp)
	}
	return s
}

func identify(model []byte) ModelID {
	sum := sha256.Sum256(model)
	return ModelID{SHA256: hex.EncodeToString(sum[:])}
}

// describe writes input shapes for the fingerprint.
func describe(infos []ort.Info, shapes [][]int64) string {
	parts := make([]string, len(infos))
	for i, info := range infos {
		dims := make([]string, len(shapes[i]))
		for d, n := range shapes[i] {
			dims[d] = fmt.Sprint(n)
		}
		parts[i] = fmt.Sprintf("%s %s %s", info.Name, info.Type, strings.Join(dims, "x"))
	}
	return strings.Join(parts, ", ")
}
